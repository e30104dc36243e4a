"""Reading the configuration: checked, and in development completed with generated secrets."""

import base64
import fcntl
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.config import ConfigurationError, Settings

PRODUCTION_SECRETS = ("internal_service_key", "notification_encryption_key")
GENERATED_SECRETS = ("jwt_secret", *PRODUCTION_SECRETS, "resend_webhook_secret")


def load_settings(**overrides: Any) -> Settings:
    """Read, complete and check the configuration.

    Args:
        overrides: field values that win over the environment, as tests give them.

    Returns:
        Settings with every secret present.

    Raises:
        ConfigurationError: a value is invalid, or production lacks a secret.
    """
    settings = _validated(overrides)
    missing = [name for name in PRODUCTION_SECRETS if getattr(settings, name) is None]
    if settings.jwt_secret is None and settings.jwt_jwks_url is None:
        missing.append("jwt_secret")
    if settings.is_development:
        generated = _generated_secrets(settings.data_dir)
        if settings.resend_webhook_secret is None:
            missing.append("resend_webhook_secret")
        return _validated({**overrides, **{name: generated[name] for name in missing}})
    if missing:
        names = ", ".join(
            "JWT_SECRET or JWT_JWKS_URL" if name == "jwt_secret" else name.upper()
            for name in missing
        )
        raise ConfigurationError(f"{names}: required when APP_ENV=production")
    return settings


def _validated(overrides: dict[str, Any]) -> Settings:
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            ": ".join(
                part
                for part in (
                    ".".join(str(item) for item in detail["loc"]).upper(),
                    detail["msg"].removeprefix("Value error, "),
                )
                if part
            )
            for detail in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigurationError("\n".join(lines)) from None


def _generated_secrets(data_dir: Path) -> dict[str, str]:
    """Secrets of a development installation, made once and kept in a file only its owner reads."""
    path = data_dir / "secrets.json"
    stored = _read_secrets(path)
    if stored.keys() >= SECRET_MAKERS.keys():
        return stored
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "secrets.lock").open("w") as lock:
        # Of several processes that start at once, one makes the secrets and the others read them.
        fcntl.flock(lock, fcntl.LOCK_EX)
        stored = _read_secrets(path)
        completed = {name: stored.get(name) or make() for name, make in SECRET_MAKERS.items()}
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(completed, indent=2) + "\n")
        draft.replace(path)
    return completed


def _read_secrets(path: Path) -> dict[str, str]:
    return json.loads(path.read_text()) if path.exists() else {}


SECRET_MAKERS: dict[str, Callable[[], str]] = {
    "jwt_secret": lambda: secrets.token_urlsafe(48),
    "internal_service_key": lambda: secrets.token_urlsafe(32),
    "notification_encryption_key": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "resend_webhook_secret": lambda: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode(),
    "database_password": lambda: secrets.token_urlsafe(24),
    "redis_password": lambda: secrets.token_urlsafe(24),
}


def embedded_passwords(data_dir: Path) -> tuple[str, str]:
    """Passwords of the embedded PostgreSQL and Valkey, generated on first use."""
    generated = _generated_secrets(data_dir)
    return generated["database_password"], generated["redis_password"]
