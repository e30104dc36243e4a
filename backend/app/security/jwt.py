"""Access tokens (SEC-004, RFC 7519): one algorithm, `exp` and `sub` required."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import jwt

from app.config import ConfigurationError, Settings

LEEWAY_SECONDS = 5
ALGORITHM = "HS256"
USER_ROLES = frozenset({"authenticated", "admin"})
SERVICE_ROLES = frozenset({"service", "service_role"})


class InvalidToken(Exception):
    """The token is malformed, forged, or not one of ours."""


class ExpiredToken(InvalidToken):
    """The token was valid once."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says.

    Args:
        subject: the `sub` claim.
        user_id: the subject as a UUID for users and operators, None for everybody else.
        role: the `role` claim, `authenticated` when absent, `admin` for operators.
        expires_at: the instant the token ends, UTC.
    """

    subject: str
    user_id: UUID | None
    role: str
    expires_at: datetime

    @property
    def is_service(self) -> bool:
        """Whether a service, not a person, holds the token."""
        return self.role in SERVICE_ROLES


class TokenVerifier:
    """Verifies tokens against the configured secret, audience and issuer.

    Raises:
        ConfigurationError: the tokens' keys are configured in a way that is not supported.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.jwt_secret is None:
            raise ConfigurationError("JWT_SECRET: required; JWT_JWKS_URL is not supported yet")
        self._secret = settings.jwt_secret.get_secret_value()
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer

    async def verify(self, token: str) -> Claims:
        """The claims of a valid access token.

        Raises:
            ExpiredToken: its `exp` has passed.
            InvalidToken: anything else is wrong with it.
        """
        try:
            payload = cast(
                "Mapping[str, Any]",
                jwt.decode(  # pyright: ignore[reportUnknownMemberType] -- PyJWT types options loosely
                    token,
                    self._secret,
                    algorithms=[ALGORITHM],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={
                        "require": ["exp", "sub"],
                        "verify_aud": self._audience is not None,
                    },
                ),
            )
            return _claims(payload)
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken("The token has expired.") from error
        except (
            jwt.PyJWTError,
            ValueError,
            TypeError,
            OverflowError,
            OSError,
            RecursionError,
        ) as error:
            raise InvalidToken("The token is not valid.") from error


def _claims(payload: Mapping[str, Any]) -> Claims:
    if payload.get("type", "access") != "access":
        raise InvalidToken("The token is not an access token.")
    subject, role = payload["sub"], payload.get("role", "authenticated")
    if not isinstance(subject, str) or not isinstance(role, str):
        raise InvalidToken("The token's claims have the wrong types.")
    app_metadata = payload.get("app_metadata")
    if (
        role == "authenticated"
        and isinstance(app_metadata, dict)
        and cast("dict[str, Any]", app_metadata).get("role") == "admin"
    ):
        role = "admin"
    return Claims(
        subject=subject,
        user_id=UUID(subject) if role in USER_ROLES else None,
        role=role,
        expires_at=datetime.fromtimestamp(float(payload["exp"]), UTC),
    )


def issue_token(settings: Settings, *, subject: str, role: str, expires_at: datetime) -> str:
    """A signed token, as the command line and the demo sign-in hand out.

    Args:
        subject: a user's id, or a service's name.
        role: `authenticated`, `admin` or `service`.
        expires_at: an aware instant.

    Raises:
        ConfigurationError: there is no secret to sign with.
    """
    if settings.jwt_secret is None:
        raise ConfigurationError("JWT_SECRET: required to issue tokens")
    payload: dict[str, Any] = {
        "sub": subject,
        "role": role,
        "type": "access",
        "iat": datetime.now(UTC),
        "exp": expires_at,
    }
    if settings.jwt_audience is not None:
        payload["aud"] = settings.jwt_audience
    if settings.jwt_issuer is not None:
        payload["iss"] = settings.jwt_issuer
    return jwt.encode(payload, settings.jwt_secret.get_secret_value(), algorithm=ALGORITHM)
