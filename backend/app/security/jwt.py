"""Access tokens (SEC-004, RFC 7519): `exp` and `sub` required, no algorithm but those configured.

`JWT_SECRET` verifies HS256, the keys of `JWT_JWKS_URL` verify what `app.security.jwks` lists. With
both, a token's `alg` chooses; a secret is never tried as a key, nor a key as a secret (RFC 8725,
3.1).
"""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import jwt

from app.config import ConfigurationError, Settings
from app.security import jwks
from app.security.jwks import KeySet

LEEWAY_SECONDS = 5
ALGORITHM = "HS256"
REMEMBERED_SECONDS = 60.0
REMEMBERED_TOKENS = 2048
REMEMBERED_LENGTH = 4096
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
    """Verifies tokens against the configured secret or keys, audience and issuer.

    What was verified is remembered for a minute, since services use one token for all their calls.

    Raises:
        ConfigurationError: there is nothing to verify tokens with.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.jwt_secret is None and settings.jwt_jwks_url is None:
            raise ConfigurationError("JWT_SECRET or JWT_JWKS_URL: one of them is required")
        secret, url = settings.jwt_secret, settings.jwt_jwks_url
        self._secret = None if secret is None else secret.get_secret_value()
        self._keys = None if url is None else KeySet(url)
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._remembered: dict[str, tuple[Claims, float]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep the keys fresh, if there are any, as long as the context lasts."""
        if self._keys is None:
            yield
            return
        async with self._keys.kept_fresh():
            yield

    async def verify(self, token: str) -> Claims:
        """The claims of a valid access token.

        Raises:
            ExpiredToken: its `exp` has passed.
            InvalidToken: anything else is wrong with it.
            Unavailable: the key that it names cannot be fetched at the moment.
        """
        if remembered := self._remembered.get(token):
            claims, until = remembered
            if time.time() < until:
                return claims
            del self._remembered[token]
        try:
            algorithm, key = await self._key_of(token)
            payload = cast(
                "Mapping[str, Any]",
                jwt.decode(  # pyright: ignore[reportUnknownMemberType] -- PyJWT types options loosely
                    token,
                    key,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=LEEWAY_SECONDS,
                    options={
                        "require": ["exp", "sub"],
                        "verify_aud": self._audience is not None,
                    },
                ),
            )
            claims = _claims(payload)
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
        self._remember(token, claims)
        return claims

    async def _key_of(self, token: str) -> tuple[str, str | jwt.PyJWK]:
        """The one algorithm that this token may have been signed with, and its key."""
        if self._keys is None and self._secret is not None:
            return ALGORITHM, self._secret
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg")
        if algorithm == ALGORITHM and self._secret is not None:
            return ALGORITHM, self._secret
        if self._keys is None or algorithm not in jwks.ALGORITHMS:
            raise InvalidToken("The token is signed in a way that is not accepted.")
        key = await self._keys.find(algorithm, header.get("kid"))
        if key is None:
            raise InvalidToken("The token is signed with a key that is not known.")
        return algorithm, key

    def _remember(self, token: str, claims: Claims) -> None:
        now = time.time()
        until = min(now + REMEMBERED_SECONDS, claims.expires_at.timestamp())
        if until <= now or len(token) > REMEMBERED_LENGTH:
            return
        if len(self._remembered) >= REMEMBERED_TOKENS:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[token] = claims, until


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
        raise ConfigurationError(
            "JWT_SECRET: required to issue tokens; those of JWT_JWKS_URL come from its provider"
        )
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
