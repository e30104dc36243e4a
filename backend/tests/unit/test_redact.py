"""What is masked in content, and what never is (SEC-001)."""

import re
from base64 import b64encode

import pytest
from pydantic import JsonValue

from app.security import secret_patterns
from app.security.redact import MAX_PATH, MAX_TOLD, JsonObject, Masked, mask_text, redact

UUID = "0197a000-0000-7000-8000-00000000abcd"
COMMIT = "9fceb02d0ae598e95dc970b74767f19372d61af8"
NUMERIC_UUID = "41111111-1111-4111-8111-411111111111"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"
LETTERS = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ5kL7nP9rS1tV3xZ5"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{LETTERS}\n{LETTERS}\n-----END RSA PRIVATE KEY-----"

TOKENS = {
    "aws_access_key": ["AKIAIOSFODNN7EXAMPLE", "ASIAABCDEFGHIJKLMNOP"],
    "github_token": [f"ghp_{LETTERS[:36]}", f"gho_{'a' * 36}", f"github_pat_{LETTERS}_{LETTERS}"],
    "gitlab_token": [f"glpat-{LETTERS[:20]}", f"glrt-{LETTERS[:20]}"],
    "slack_token": [f"xoxb-1234567890-{LETTERS[:24]}", f"xapp-1-A012-{LETTERS}"],
    "stripe_key": [f"sk_live_{LETTERS[:24]}", f"rk_test_{'a' * 24}", f"whsec_{LETTERS[:32]}"],
    "anthropic_key": [f"sk-ant-api03-{LETTERS}AA"],
    "openai_key": [f"sk-{LETTERS[:48]}", f"sk-proj-{LETTERS}", f"sk-{'a' * 48}"],
    "google_key": [f"AIza{LETTERS[:35]}", f"GOCSPX-{LETTERS[:28]}", f"ya29.{LETTERS}"],
    "npm_token": [f"npm_{LETTERS[:36]}"],
    "pypi_token": [f"pypi-AgEIcHlwaS5vcmc{LETTERS}"],
    "sendgrid_key": [f"SG.{LETTERS[:22]}.{LETTERS[:43]}"],
    "resend_key": [f"re_{LETTERS[:8]}_{LETTERS[:24]}"],
    "huggingface_token": [f"hf_{LETTERS[:34]}"],
    "docker_token": [f"dckr_pat_{LETTERS[:27]}"],
    "vault_token": [f"hvs.{LETTERS[:24]}"],
    "digitalocean_token": [f"dop_v1_{'0a' * 32}"],
    "shopify_token": [f"shpat_{'0a' * 16}"],
    "jwt": [JWT, f"{JWT}.a.b"],
    "private_key": [PEM, PEM.replace("RSA ", ""), PEM.replace("RSA", "OPENSSH")],
    "card_number": ["4111111111111111", "5555 5555 5555 4444", "3782-822463-10005"],
}


@pytest.mark.parametrize(
    ("kind", "token"), [(kind, token) for kind, tokens in TOKENS.items() for token in tokens]
)
@pytest.mark.parametrize(
    "sentence",
    ["{}", "Use {}, please.", "`{}`", "a=({})", '{{"k": "{}"}}', "first\n{}\nlast", "<b>{}</b>"],
)
def test_a_token_is_masked_wherever_it_stands(kind: str, token: str, sentence: str) -> None:
    body = sentence.format(token)
    cleaned, masked = redact({"body": body})
    assert cleaned == {"body": sentence.format("[masked]")}
    assert masked == [Masked("body", kind)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2", "password=[masked]"),
        ("password = hunter2;", "password = [masked];"),
        ("Password: letmein", "Password: [masked]"),
        ("Password: hunter2.", "Password: [masked]."),
        ("**Password:** hunter2", "**Password:** [masked]"),
        ("**Password**: `hunter2`", "**Password**: `[masked]`"),
        ("<b>Password:</b> hunter2<br>", "<b>Password:</b> [masked]<br>"),
        ("password: 'correct horse battery'", "password: '[masked]'"),
        ('{"password": "it\'s, & so"}', '{"password": "[masked]"}'),
        ('{\\"password\\": \\"hunter2\\"}', '{\\"password\\": \\"[masked]\\"}'),
        ("Your password is Xy7!kd92, Ada", "Your password is [masked], Ada"),
        ("passphrase=it's<3&so", "passphrase=[masked]"),
        ("DB_PASSWORD=p@ss", "DB_PASSWORD=[masked]"),
        ("dbPassword=p@ss", "dbPassword=[masked]"),
        ("user=ada&password=a,b&next=1", "user=ada&password=[masked]&next=1"),
        ("api_key=abc123, then", "api_key=[masked], then"),
        ("API key: abc123", "API key: [masked]"),
        ("X-Api-Key: abc123", "X-Api-Key: [masked]"),
        ("client_secret => abc", "client_secret => [masked]"),
        ("secret: x7f9", "secret: [masked]"),
        ("secret: password: x7f9", "secret: password: [masked]"),
        ("access_token=abc123", "access_token=[masked]"),
        ("token: abc123", "token: [masked]"),
        ("token=482913", "token=[masked]"),
        (f"API key: {COMMIT}", "API key: [masked]"),
        ("const token = 'await abc1';", "const token = '[masked]';"),
        ("{'url':'https://a.example','password':'hunter2'}",
         "{'url':'https://a.example','password':'[masked]'}"),
        ("[x](/a?token=abc1) password=hunter2", "[x](/a?token=abc1) password=[masked]"),
        ("[INFO]: password=hunter2", "[INFO]: password=[masked]"),
        (
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = [masked]",
        ),
        ("Server=db;SharedAccessKey=abc=;Pool=1", "Server=db;SharedAccessKey=[masked];Pool=1"),
        ("Endpoint=sb://a.example/;SharedAccessKey=abc=;Pool=1",
         "Endpoint=sb://a.example/;SharedAccessKey=[masked];Pool=1"),
        ("jdbc:sqlserver://db:1433;password=hunter2", "jdbc:sqlserver://db:1433;password=[masked]"),
        ("Authorization: Bearer abcdef1234", "Authorization: Bearer [masked]"),
        ("curl -H 'authorization: bearer abcdef1234'", "curl -H 'authorization: bearer [masked]'"),
        (
            f"Authorization: Basic {b64encode(b'ada:pass').decode()}",
            "Authorization: Basic [masked]",
        ),
    ],
)  # fmt: skip
def test_a_value_behind_its_name_is_masked(text: str, expected: str) -> None:
    assert mask_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ada:pass@example.com/x", "https://example.com/x"),
        ("https://ada:p@ss@example.com/x?token=abc1", "https://example.com/x?token=abc1"),
        ("[x](https://ada:pass@example.com)", "[x](https://example.com)"),
        ("postgres://ada:pass@db:5432/prod", "postgres://db:5432/prod"),
        ("redis://:pass@cache/0", "redis://cache/0"),
        (f"git clone https://ghp_{'a' * 36}@example.com/x", "git clone https://example.com/x"),
        ("password=https://ada:pass@example.com/x", "password=https://example.com/x"),
    ],
)
def test_credentials_are_taken_out_of_an_address(text: str, expected: str) -> None:
    cleaned, masked = redact({"body": text})
    assert cleaned == {"body": expected}
    assert masked == [Masked("body", "url_credentials")]


UNTOUCHED = [
    "You have been assigned a new task: 'Review PR #123'",
    "Your password was changed. If that was not you, reset your password.",
    "Password: changed",
    "Password: expired yesterday",
    "Password: please choose a new one",
    "password is required",
    "Your password is too short: 8 characters at least",
    "The secret: practice every day",
    "Secretary: Ada; secrets: 3 found",
    "API key: rotated",
    "The API key 'production' was revoked",
    "max_tokens=4096, tokens: 4096, next_page_token=abc123, csrf-token: abc123",
    "Bearer authentication is required; a bearer instrument",
    "Basic authentication",
    "Login from 203.0.113.7 in Berlin, code 493817",
    "ada@example.com wrote to ada+tag@example.co.uk",
    "commit 5f3c2b1a9d8e7f60514233445566778899aabbcc, #ff8800, 9a3f21c",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    f"task {UUID} of {NUMERIC_UUID}",
    f"api_key={UUID}",
    "order 4111111111111112, 1732320000000, 1180000000000000000, +49 30 1234 5678 9012",
    "4.111111111111111",
    "class sk-loading-spinner-container re_export_something_or_other desk-1",
    "pk_live_abcdefghijklmnop",
    f"https://example.com/login?token={JWT}&password=x#access_token=abc123",
    f"[reset](/reset?token={JWT}) and [x](?api_key=abc123)",
    f'<a href="/reset?token={JWT}">x</a>',
    f"[x]\n\n[x]: /reset?token={JWT}",
    f"https://example.com/{'4111111111111111'}/{TOKENS['github_token'][0]}",
    "https://bucket.example.com/k?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260101",
    "https://ada@example.com/repo.git",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    "password=[masked]",
    # Addresses that stand close to others have no credentials.
    '{"url":"https://a.example","email":"bob@b.example"}',
    '<a href="https://a.example">Mail:bob@b.example</a>',
    "[a](https://a.example):bob@b.example",
    "1,https://a.example,bob:bob@b.example",
    "Contact(https://example.com|tel:123|me@x.org)",
    # Links as they are written in Markdown, HTML and prose.
    "Reset here: <https://a.example/?token=abcdef1234>",
    "[x](<https://a.example/?token=abcdef1234>)",
    "[x]\n\n[x]: <https://a.example/?token=abcdef1234>",
    "<a href=https://a.example/?token=abcdef1234>x</a>",
    "<a href=/reset?token=abcdef1234>x</a>",
    '<a href="https://a.example/?x=1&amp;token=abcdef1234">x</a>',
    "[x]( /reset?token=abcdef1234)",
    "[x](</reset?token=abcdef1234>)",
    "[x](reset?token=abcdef1234)",
    "[x](/a(b)?token=abcdef1234)",
    "[x]\n\n[x]:  /reset?token=abcdef1234",
    "see https://a.example/it's?token=abcdef1234 today",
    "see https://a.example/a;session_token=abcdef1234 today",
    "see https://a.example/?q='x'&token=abcdef1234 today",
    "see myapp://reset?token=abcdef1234 today",
    "see wss://a.example/?token=abcdef1234 today",
    # One-time codes, hashes and people.
    "Your security token is 482913",
    "One-time password: 482913",
    "Your login token: `482913`",
    f"token: {COMMIT}",
    "password: alice@example.com was reset",
    # Code.
    "const token = await getToken();",
    "login(user=user, password=password)",
    "password=os.environ['X']",
    "token = request.token",
    "secret=${SECRET}, secret: ${{ secrets.A }}, password=$PASSWORD, api_key={key}",
    'password: "${SECRET}"',
    "password: string;",
]  # fmt: skip


@pytest.mark.parametrize("text", UNTOUCHED)
def test_prose_ids_and_links_stay(text: str) -> None:
    content: JsonObject = {"title": text, "body": text, "data": {"a": text, "b": [text]}}
    cleaned, masked = redact(content)
    assert cleaned == content
    assert masked == []


class TestData:
    @pytest.mark.parametrize(
        "name",
        ["password", "newPassword", "db-password", "api_key", "apiKey", "X-API-Key", "secret",
         "access_token", "refreshToken", "client_secret", "token", "private_key", "id_token",
         "CREDENTIAL", "cvv", "card_number"],
    )  # fmt: skip
    def test_a_secrets_field_is_masked_whole(self, name: str) -> None:
        for value in ("x", "two words", 1234, 1.5):
            cleaned, masked = redact({"data": {name: value}})
            assert cleaned == {"data": {name: "[masked]"}}
            assert masked == [Masked(f"data.{name}", "named_secret")]

    @pytest.mark.parametrize(
        "name",
        ["password_changed_at", "reset_password_url", "secretary", "key", "keys", "task_key",
         "token_count", "next_page_token", "tokens", "passed", "card", "authorized", "author",
         "pass", "paid_tokens"],
    )  # fmt: skip
    def test_other_fields_are_not(self, name: str) -> None:
        content: JsonObject = {"data": {name: "value", "list": [{name: 12}]}}
        assert redact(content) == (content, [])

    @pytest.mark.parametrize("name", ["access_tokens", "passwords", "CREDENTIALS"])
    def test_how_many_there_are_is_no_secret(self, name: str) -> None:
        counted: JsonObject = {name: 15}
        assert redact(counted) == (counted, [])
        assert redact({name: "x"})[0] == {name: "[masked]"}
        assert redact({name: ["x", 15]})[0] == {name: ["[masked]", "[masked]"]}

    def test_what_is_no_secret_stays_in_a_secrets_field(self) -> None:
        kept = {"secret": UUID, "api_key": "https://example.com/k", "password": "",
                "token": None, "has_password": True, "access_token": "[masked]"}  # fmt: skip
        assert redact({"data": dict(kept)}) == ({"data": kept}, [])

    def test_everything_below_a_secrets_field_is_masked(self) -> None:
        content: JsonObject = {"credentials": {"user": "ada", "list": ["a", {"b": 1}], "id": UUID}}
        cleaned, masked = redact(content)
        assert cleaned == {
            "credentials": {
                "user": "[masked]", "list": ["[masked]", {"b": "[masked]"}], "id": UUID
            }
        }  # fmt: skip
        assert [place.path for place in masked] == [
            "credentials.user", "credentials.list.0", "credentials.list.1.b"
        ]  # fmt: skip

    def test_strings_are_found_at_any_depth(self) -> None:
        cleaned, masked = redact(
            {"title": f"t {JWT}", "body": "b", "data": {"a": [{"log": f"x\npassword=abc {JWT}"}]}}
        )
        assert cleaned == {
            "title": "t [masked]",
            "body": "b",
            "data": {"a": [{"log": "x\npassword=[masked] [masked]"}]},
        }
        assert masked == [
            Masked("title", "jwt"),
            Masked("data.a.0.log", "named_secret"),
            Masked("data.a.0.log", "jwt"),
        ]

    def test_a_name_that_is_a_secret_is_masked_and_not_told(self) -> None:
        first, second = TOKENS["github_token"][:2]
        cleaned, masked = redact({"data": {first: 1, second: {"password": "x"}}})
        assert cleaned == {"data": {"[masked]": 1, "[masked]_2": {"password": "[masked]"}}}
        assert masked == [
            Masked("data.*", "github_token"),
            Masked("data.[masked]_2.password", "named_secret"),
        ]

    def test_names_that_become_the_same_are_numbered(self) -> None:
        tokens = [f"ghp_{number:036}" for number in range(700)]
        cleaned, _ = redact({"[masked]_3": 0, **dict.fromkeys(tokens, 0)})
        numbers = [number for number in range(2, 702) if number != 3]
        assert list(cleaned) == ["[masked]_3", "[masked]", *(f"[masked]_{n}" for n in numbers)]

    @pytest.mark.parametrize(
        "address",
        [f"/reset?token={JWT}", "?access_token=abc123", "#/reset?token=abc123",
         "myapp://reset?token=abc123", "wss://a.example/?token=abc123",
         "https://a.example/it's?token=abc123", 'https://a.example/"x"?token=abc123'],
    )  # fmt: skip
    def test_a_string_that_is_an_address_stays(self, address: str) -> None:
        content: JsonObject = {"data": {"action_url": address, "list": [address]}}
        assert redact(content) == (content, [])

    def test_an_address_loses_its_credentials(self) -> None:
        cleaned, _ = redact({"url": "https://ada:pass@a.example/it's?token=abc123"})
        assert cleaned == {"url": "https://a.example/it's?token=abc123"}

    def test_an_address_in_a_secrets_field_stays_only_with_its_host(self) -> None:
        cleaned, _ = redact({"password": "/hunter2", "api_key": "#hunter2"})
        assert cleaned == {"password": "[masked]", "api_key": "[masked]"}

    def test_the_list_of_places_is_bounded(self) -> None:
        cleaned, masked = redact({"a" * 10_000: list[JsonValue](["password=abc"] * 1_000)})
        assert cleaned == {"a" * 10_000: ["password=[masked]"] * 1_000}
        assert len(masked) <= MAX_TOLD
        assert all(len(place.path) <= MAX_PATH for place in masked)


class Counting:
    """A pattern that counts the characters it was looked for in, and matched."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.read = 0

    def search(self, text: str, start: int) -> re.Match[str] | None:
        match = self.pattern.search(text, start)
        self.read += (match.end() if match else len(text)) - start
        return match


@pytest.mark.parametrize(
    "unit", ["password*is*", "password:", "secret: ", "token is ", "password=(", 'secret:"x"']
)
def test_no_text_is_read_again_and_again(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = Counting(secret_patterns.NAMED)
    monkeypatch.setattr(secret_patterns, "NAMED", named)
    text = unit * (64 * 1024 // len(unit))
    mask_text(text)
    assert named.read < 4 * len(text)
