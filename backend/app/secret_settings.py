"""The rules of settings that are secret, each a type; what breaks one is not shown."""

import base64
import binascii
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from app.redis_address import check_redis_url
from app.service_account import ServiceAccount

ENCRYPTION_KEY_BYTES = 32
MIN_JWT_SECRET_BYTES = 32
MIN_SERVICE_KEY_LENGTH = 16


def decoded_keys(text: str) -> tuple[bytes, ...]:
    """AES keys of 32 bytes out of base64, separated by commas.

    Raises:
        ValueError: one is not.
    """
    return tuple(_decoded_key(part) for part in text.split(","))


def _decoded_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None
    if len(key) != ENCRYPTION_KEY_BYTES:
        raise ValueError(f"must be base64 of {ENCRYPTION_KEY_BYTES} bytes")
    return key


def _holding(check: Callable[[str], object]) -> AfterValidator:
    def hold(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return AfterValidator(hold)


def _check_jwt_secret(value: str) -> None:
    if len(value.encode()) < MIN_JWT_SECRET_BYTES:
        raise ValueError(f"must have at least {MIN_JWT_SECRET_BYTES} bytes")


def _check_service_keys(value: str) -> None:
    keys = value.split(",")
    if len(keys) > 2:  # noqa: PLR2004 -- the current and the next key
        raise ValueError("must be one key, or two separated by a comma")
    if any(len(key.strip()) < MIN_SERVICE_KEY_LENGTH for key in keys):
        raise ValueError(f"keys must have at least {MIN_SERVICE_KEY_LENGTH} characters")


def _check_postgres_url(value: str) -> None:
    if not value.startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
        raise ValueError("must be a postgresql:// address")


def _check_smtp_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or not value.startswith(("smtp://", "smtps://")):
        raise ValueError("must be an smtp:// or smtps:// address")


def webhook_secrets_of(text: str) -> tuple[str, ...]:
    """Signing secrets out of a list that commas or spaces separate.

    Raises:
        ValueError: one is none.
    """
    secrets = tuple(text.replace(",", " ").split())
    for secret in secrets:
        try:
            is_key = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) > 0
        except binascii.Error:
            is_key = False
        if not is_key:
            raise ValueError("must be `whsec_` and base64, as the provider shows it")
    return secrets


JwtSecret = Annotated[SecretStr, _holding(_check_jwt_secret)]
ServiceKeys = Annotated[SecretStr, _holding(_check_service_keys)]
EncryptionKeys = Annotated[SecretStr, _holding(decoded_keys)]
PostgresUrl = Annotated[SecretStr, _holding(_check_postgres_url)]
RedisUrl = Annotated[SecretStr, _holding(check_redis_url)]
WebhookSecrets = Annotated[SecretStr, _holding(webhook_secrets_of)]
SmtpUrl = Annotated[SecretStr, _holding(_check_smtp_url)]
ServiceAccountKey = Annotated[SecretStr, _holding(ServiceAccount.parse)]
