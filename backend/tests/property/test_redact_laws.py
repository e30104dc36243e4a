"""Laws of masking: complete, repeatable, bounded, and it leaves ids and links alone (SEC-001)."""

from uuid import UUID

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.security.redact import JsonObject, mask_text, redact
from tests.unit.test_redact import JWT, LETTERS, TOKENS

same_every_time = settings(derandomize=True, database=None, max_examples=100, deadline=None)

ALL_TOKENS = [token for tokens in TOKENS.values() for token in tokens]
PIECES = [
    *ALL_TOKENS, "password", "secret", "token", "api_key", "=", ":", " is ", "=>", '"', "'", "`",
    " ", "\n", ",", ";", "&", "a", "hunter2", "please", "https://", "postgres://", "/x?y=", "#",
    "ada", "@", "example.com", "(", ")", "[masked]", "<b>", "</b>", "\\", "**", "Bearer ",
    "Basic ", "eyJ", ".", "-", "4111", "](", "]: ", "<", ">", "?", "href=", "a://", "*is*", "${",
    "İ", "ſecret", "\u2028",
]  # fmt: skip
pieces = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=14)
texts = pieces.map("".join)
# Tokens that touch each other make no tokens: what one leaves behind may look like another.
words = pieces.map(" ".join)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
contents = st.dictionaries(
    words,
    st.recursive(
        words | scalars | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
# What may stand around a token without being taken for a part of it, or of a link.
between = st.text(alphabet=" \n,;:!()<>'\"`äß", min_size=1, max_size=6)


@same_every_time
@given(contents)
def test_masking_again_finds_nothing(content: JsonObject) -> None:
    cleaned, _ = redact(content)
    assert redact(cleaned) == (cleaned, [])


@same_every_time
@given(texts, between, st.sampled_from(ALL_TOKENS), between, st.text(max_size=20))
def test_no_token_survives(before: str, left: str, token: str, right: str, after: str) -> None:
    assume("://" not in right + after)  # which would make it a scheme
    # Behind an empty line nothing that came before takes it for a part of a link.
    text = f"{before}\n\n{left}{token}{right}{after}"
    cleaned, masked = redact({"body": text})
    assert str(cleaned["body"]).count(token) < text.count(token)
    assert masked


@same_every_time
@given(texts, st.uuids(), texts)
def test_no_uuid_is_altered(before: str, uuid: UUID, after: str) -> None:
    assert str(uuid) in mask_text(f"{before} {uuid} {after}")
    content: JsonObject = {"api_key": str(uuid), "list": [str(uuid), {"token": str(uuid)}]}
    assert redact(content) == (content, [])


@same_every_time
@given(
    texts,
    st.text(alphabet=f"{LETTERS}-_.~!*'()=&?#%/+,@:", max_size=40),
    st.sampled_from(["", "?token=", "?password=", "/secret=", "#access_token="]),
    st.sampled_from(ALL_TOKENS),
    texts,
)
def test_no_link_is_altered(before: str, path: str, name: str, token: str, after: str) -> None:
    token = token.partition("\n")[0].replace(" ", "")
    link = f"https://example.com/{path}{name}{token}"
    text = f"{before}\n{link} {after}"
    assert f"\n{link} " in mask_text(text)


@same_every_time
@given(texts)
def test_a_text_without_finds_is_the_same(text: str) -> None:
    cleaned, masked = redact({"body": text})
    assert (cleaned["body"] == text) == (masked == [])


SHORT_PIECES = [*(piece for piece in PIECES if len(piece) <= 12), "://", "eyJaaaaaaaaaa.", JWT]


@settings(derandomize=True, database=None, max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(SHORT_PIECES), min_size=1, max_size=5).map("".join),
    st.sampled_from(["", " ", "\n", "!", "@", "="]),
)
def test_no_repetition_takes_forever(unit: str, end: str) -> None:
    # A pattern that backtracks would be caught by the time limit of the test run.
    text = (unit * (64 * 1024 // len(unit) + 1))[: 64 * 1024] + end
    cleaned, _ = redact({"body": text, "data": {"a": text[: 32 * 1024]}})
    assert set(cleaned) == {"body", "data"}
