import base64
import json
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.config import ConfigurationError, Settings
from app.load_settings import PRODUCTION_SECRETS, load_settings
from app.observability.logs import log_warnings

REQUIRED_VARIABLES = [
    "WS_ENABLED", "WS_HOST", "WS_PORT", "WS_HEARTBEAT_INTERVAL", "WS_MAX_CONNECTIONS",
    "VAPID_PUBLIC_KEY", "VAPID_PRIVATE_KEY", "VAPID_SUBJECT", "FCM_SERVER_KEY",
    "FCM_PROJECT_ID", "RESEND_API_KEY", "RESEND_FROM_EMAIL", "RESEND_FROM_NAME", "REDIS_URL",
    "NOTIFICATION_RETENTION_DAYS", "NOTIFICATION_MAX_BATCH_SIZE", "NOTIFICATION_QUEUE_SIZE",
    "RATE_LIMIT_PUSH_PER_HOUR", "RATE_LIMIT_IN_APP_PER_HOUR", "RATE_LIMIT_EMAIL_PER_DAY",
    "RATE_LIMIT_GLOBAL_PER_MINUTE", "DIGEST_DEFAULT_TIME", "DIGEST_DEFAULT_DAY",
    "DIGEST_TIMEZONE", "NOTIFICATION_ENCRYPTION_KEY", "APP_ENV", "DATA_DIR", "DATABASE_URL",
    "API_HOST", "API_PORT", "PUBLIC_URL", "CORS_ORIGINS", "JWT_SECRET", "JWT_JWKS_URL",
    "JWT_AUDIENCE", "JWT_ISSUER", "INTERNAL_SERVICE_KEY", "FCM_SERVICE_ACCOUNT", "FCM_API_URL",
    "RESEND_API_URL", "RESEND_WEBHOOK_SECRET", "SMTP_URL", "PUSH_ALLOW_PRIVATE_ENDPOINTS",
    "PRIVACY_POLICY_URL", "LOG_FORMAT", "LOG_LEVEL", "NOTIFICATION_ARCHIVE",
]  # fmt: skip


SECRETS = {
    "JWT_SECRET": "secret-of-tokens-" + "s" * 32,
    "INTERNAL_SERVICE_KEY": "key-of-services-" + "k" * 16,
    "NOTIFICATION_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


@pytest.mark.parametrize("name", REQUIRED_VARIABLES)
def test_every_variable_of_the_requirements_is_there(name: str) -> None:
    assert name.lower() in Settings.model_fields
    assert Settings.model_fields[name.lower()].description


def test_defaults_are_the_requirements_own() -> None:
    settings = load_settings(_env_file=None)
    assert (settings.ws_port, settings.ws_heartbeat_interval) == (8001, 30)
    assert settings.ws_max_connections == settings.notification_max_batch_size == 10_000
    assert (settings.notification_retention_days, settings.notification_queue_size) == (90, 100_000)
    assert settings.rate_limit_global_per_minute == 10_000
    assert (settings.digest_default_time, settings.digest_default_day) == ("09:00", 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "0"),
        ("API_PORT", "http"),
        ("WS_PORT", "65536"),
        ("WS_HEARTBEAT_INTERVAL", "-1"),
        ("WS_ENABLED", "perhaps"),
        ("APP_ENV", "staging"),
        ("LOG_LEVEL", "loud"),
        ("DIGEST_TIMEZONE", "../etc"),
        ("DIGEST_TIMEZONE", "Mars/Olympus"),
        ("DIGEST_DEFAULT_TIME", "25:00"),
        ("DIGEST_DEFAULT_DAY", "8"),
        ("DATABASE_URL", "mysql://somewhere"),
        ("REDIS_URL", "http://somewhere"),
        ("REDIS_URL", "redis-cluster://somewhere"),
        ("SMTP_URL", "mail.example.com"),
        ("SMTP_URL", "smtp://user:secret@:587"),
        ("SMTP_URL", "smtps://user:secret@mail.example.com:none"),
        ("RESEND_API_URL", "api.resend.com"),
        ("VAPID_SUBJECT", "admin@example.com"),
        ("JWT_JWKS_URL", "issuer.example/jwks"),
        ("FCM_API_URL", "fcm.googleapis.com"),
        ("FCM_API_URL", "https://fcm.googleapis.com/v1/"),
        ("FCM_PROJECT_ID", "../others"),
        ("FCM_SERVICE_ACCOUNT", "no/such/file.json"),
        ("FCM_SERVICE_ACCOUNT", '{"project_id": "ours"'),
        ("FCM_SERVICE_ACCOUNT", '{"project_id": "ours", "private_key": "MIIEvQ"}'),
        ("JWT_SECRET", "short"),
        ("INTERNAL_SERVICE_KEY", "short"),
        ("INTERNAL_SERVICE_KEY", "a" * 20 + "," + "b" * 20 + "," + "c" * 20),
        ("NOTIFICATION_ENCRYPTION_KEY", "not base64!"),
        ("NOTIFICATION_ENCRYPTION_KEY", base64.b64encode(b"too short").decode()),
        ("API_HOST", "0.0.0.0"),
        ("WS_HOST", "192.168.0.1"),
    ],
)
def test_an_invalid_value_stops_the_start_and_is_named_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        load_settings(_env_file=None)
    if "SECRET" in name or "KEY" in name or "ACCOUNT" in name:
        assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DELIVERY_LEASE_SECONDS": "5"}, "PROVIDER_TIMEOUT_SECONDS"),
        ({"VAPID_PUBLIC_KEY": "x"}, "VAPID_PRIVATE_KEY"),
    ],
)
def test_values_that_contradict_each_other_are_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        load_settings(_env_file=None)


def test_production_names_every_secret_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_env_file=None)
    for name in (
        "INTERNAL_SERVICE_KEY",
        "NOTIFICATION_ENCRYPTION_KEY",
        "JWT_SECRET or JWT_JWKS_URL",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("missing", ["JWT_SECRET", *map(str.upper, PRODUCTION_SECRETS)])
def test_production_names_the_one_secret_it_lacks(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    for name, value in SECRETS.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_env_file=None)
    assert [name for name in SECRETS if name in str(caught.value)] == [missing]
    assert not any(value in str(caught.value) for value in SECRETS.values())


def test_production_takes_a_key_set_for_its_tokens_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    for name in map(str.upper, PRODUCTION_SECRETS):
        monkeypatch.setenv(name, SECRETS[name])
    monkeypatch.setenv("JWT_JWKS_URL", "https://issuer.example/jwks/")
    settings = load_settings(_env_file=None)
    assert settings.jwt_secret is None
    # The slash is part of the address, and redirects are not followed.
    assert settings.jwt_jwks_url == "https://issuer.example/jwks/"
    monkeypatch.setenv("JWT_SECRET", SECRETS["JWT_SECRET"])
    assert load_settings(_env_file=None).jwt_secret is not None


def test_production_takes_keys_over_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_JWKS_URL", "http://issuer.example/jwks")
    # Development does without, and generates no secret that nobody asked for.
    assert load_settings(_env_file=None).jwt_secret is None
    monkeypatch.setenv("APP_ENV", "production")
    with pytest.raises(ConfigurationError, match=r"JWT_JWKS_URL: .*https"):
        load_settings(_env_file=None)


def test_production_generates_nothing_and_never_uses_the_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("JWT_SECRET", "s" * 32)
    monkeypatch.setenv("INTERNAL_SERVICE_KEY", "k" * 16)
    monkeypatch.setenv("NOTIFICATION_ENCRYPTION_KEY", base64.b64encode(b"k" * 32).decode())
    settings = load_settings(_env_file=None)
    assert not (tmp_path / "data").exists()
    assert not settings.uses_sandbox_mail
    assert not settings.email_configured
    assert settings.gateway_host == "0.0.0.0"


def test_development_generates_its_secrets_once_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = load_settings(_env_file=None), load_settings(_env_file=None)
    assert first.jwt_secret is not None
    assert first.jwt_secret == second.jwt_secret
    assert first.service_keys == second.service_keys
    assert first.encryption_keys == second.encryption_keys
    path = tmp_path / "data" / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "jwt_secret" in json.loads(path.read_text())
    assert first.jwt_secret.get_secret_value() not in repr(first)


def test_generated_secrets_are_completed_and_none_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secrets.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"jwt_secret": SECRETS["JWT_SECRET"]}))
    settings = load_settings(_env_file=None)
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRETS["JWT_SECRET"]
    assert settings.service_keys
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_given_wins_over_what_was_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    load_settings(_env_file=None)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    assert settings.service_keys == (SECRETS["INTERNAL_SERVICE_KEY"],)
    assert settings.encryption_keys == (b"k" * 32,)


# Asks for the secrets of many installations, one after the other, while others do the same.
ASK_AT_ONCE = """
import sys, time
from pathlib import Path
from app.load_settings import embedded_passwords

print("ready", flush=True)
start = float(input())
while time.time() < start:
    pass
for number in range(100):
    print(embedded_passwords(Path(sys.argv[1], str(number))))
"""


def test_programs_that_start_at_once_agree_on_the_secrets(tmp_path: Path) -> None:
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", ASK_AT_ONCE, str(tmp_path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        start = f"{time.time() + 0.1}\n"
        for program in programs:
            assert program.stdin is not None
            program.stdin.write(start)
            program.stdin.flush()
        told = {program.communicate(timeout=60)[0] for program in programs}
    assert len(told) == 1
    (agreed,) = told
    assert len(set(agreed.splitlines())) == 100
    for directory in tmp_path.iterdir():
        assert not [path.name for path in directory.iterdir() if path.suffix[1:].isdigit()]


def service_account(key: PrivateKeyTypes) -> dict[str, str]:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "project_id": "ours",
        "client_email": "notify@ours.example",
        "private_key": pem.decode(),
    }


def test_a_service_account_is_json_or_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load_settings(_env_file=None).uses_sandbox_fcm
    account = json.dumps(service_account(rsa.generate_private_key(65537, 2048)))
    (tmp_path / "account.json").write_text(account)
    for value in (account, str(tmp_path / "account.json")):
        monkeypatch.setenv("FCM_SERVICE_ACCOUNT", value)
        settings = load_settings(_env_file=None)
        assert settings.fcm_configured
        assert not settings.uses_sandbox_fcm
        assert "PRIVATE KEY" not in repr(settings)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("private_key", None, "private_key"),
        ("private_key", "-----BEGIN PRIVATE KEY-----", "RSA private key"),
        ("project_id", None, "project_id"),
        ("client_email", "", "client_email"),
        ("token_uri", "oauth2.example/token", "token_uri"),
    ],
)
def test_what_a_service_account_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str | None, told: str
) -> None:
    account = service_account(rsa.generate_private_key(65537, 2048))
    changed = {**account, field: value}
    monkeypatch.setenv(
        "FCM_SERVICE_ACCOUNT", json.dumps({k: v for k, v in changed.items() if v is not None})
    )
    with pytest.raises(ConfigurationError, match=f"FCM_SERVICE_ACCOUNT: .*{told}"):
        load_settings(_env_file=None)


def test_a_service_accounts_key_is_for_signing_with_rsa(monkeypatch: pytest.MonkeyPatch) -> None:
    other = service_account(ec.generate_private_key(ec.SECP256R1()))
    monkeypatch.setenv("FCM_SERVICE_ACCOUNT", json.dumps(other))
    with pytest.raises(ConfigurationError, match="RSA private key"):
        load_settings(_env_file=None)


def test_fcms_old_key_is_told_to_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_settings(_env_file=None).warnings == ()
    monkeypatch.setenv("FCM_SERVER_KEY", "AAAA-old-key")
    settings = load_settings(_env_file=None)
    log_warnings(settings)
    told = capsys.readouterr()
    assert "FCM_SERVER_KEY" in told.out + told.err
    assert "FCM_SERVICE_ACCOUNT" in told.out + told.err
    assert "AAAA-old-key" not in told.out + told.err
    account = service_account(rsa.generate_private_key(65537, 2048))
    monkeypatch.setenv("FCM_SERVICE_ACCOUNT", json.dumps(account))
    assert load_settings(_env_file=None).warnings == ()


def test_production_without_an_account_has_no_fcm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(_env_file=None)
    assert not settings.fcm_configured
    assert not settings.uses_sandbox_fcm


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_settings(_env_file=None)
    for name in Settings.model_fields:
        if name != "data_dir":
            monkeypatch.setenv(name.upper(), "")
    assert load_settings(_env_file=None) == expected


NUMBERS = [
    name.upper()
    for name, field in Settings.model_fields.items()
    if isinstance(field.default, int | float) and not isinstance(field.default, bool)
]
SWITCHES = [
    name.upper() for name, field in Settings.model_fields.items() if isinstance(field.default, bool)
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "many", "nan", "1e999", "1,000"])
def test_every_number_is_checked(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        load_settings(_env_file=None)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_is_checked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "perhaps")
    with pytest.raises(ConfigurationError, match=name):
        load_settings(_env_file=None)


def test_all_that_is_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"API_PORT": "x", "LOG_LEVEL": "loud", "JWT_SECRET": "short-secret"}
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_env_file=None)
    assert all(name in str(caught.value) for name in wrong)
    assert "short-secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_development_binds_this_machine_alone(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("API_HOST", host)
    monkeypatch.setenv("WS_HOST", host)
    assert load_settings(_env_file=None).gateway_host == host
    for other in ("0.0.0.0", "::", "10.0.0.1", "notify.example", "localhost.example"):
        monkeypatch.setenv("API_HOST", other)
        with pytest.raises(ConfigurationError, match="API_HOST"):
            load_settings(_env_file=None)


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example.com/, https://b.example.com")
    monkeypatch.setenv("INTERNAL_SERVICE_KEY", "a" * 16 + "," + "b" * 16)
    settings = load_settings(_env_file=None)
    assert settings.cors_origins == ("https://a.example.com", "https://b.example.com")
    assert settings.service_keys == ("a" * 16, "b" * 16)


def test_the_example_file_names_only_variables_that_exist() -> None:
    example = (Path(__file__).parents[3] / ".env.example").read_text()
    names = re.findall(r"^([A-Z_]+)=", example, re.M)
    assert names
    assert [name for name in names if name.lower() not in Settings.model_fields] == []
