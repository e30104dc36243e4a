"""The sandbox's Google service account: its key, and the access tokens it may have (RFC 7523)."""

import hashlib
import os
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeGuard

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from app.sandbox.fcm.errors import FcmRefused, OAuthRefused
from app.sandbox.mailbox import Clock

PROJECT = "notify-sandbox"
CLIENT_EMAIL = f"notify@{PROJECT}.iam.gserviceaccount.com"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = frozenset(
    {
        "https://www.googleapis.com/auth/firebase.messaging",
        "https://www.googleapis.com/auth/cloud-platform",
    }
)
TOKEN_LIFETIME = timedelta(hours=1)
MAX_ASSERTION_LIFETIME = timedelta(hours=1)
CLOCK_SKEW = timedelta(minutes=1)

_PREFIX = "ya29."
_AUDIENCE = "fcm"
# The claims are checked below, against the sandbox's own clock and with Google's own words.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(
        ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False
    ),
}


class ServiceAccount:
    """The account whose key senders get.

    Args:
        path: where its private key lies; it is made when it is first needed.
        clock: tells the time assertions and tokens expire by.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def document(self, token_uri: str) -> dict[str, str]:
        """The account as Google lets it be downloaded, with the sandbox's token address."""
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": self._key_id,
            "private_key": self._pem.decode(),
            "client_email": CLIENT_EMAIL,
            "client_id": "100000000000000000000",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": "googleapis.com",
        }

    def exchange(self, grant_type: str, assertion: str, *, token_uri: str) -> str:
        """An access token for an assertion.

        Args:
            grant_type: that of RFC 7523.
            assertion: a JWT the account signed.
            token_uri: what it must be meant for.

        Raises:
            OAuthRefused: it is not valid, or asks for something else than FCM.
        """
        if grant_type != GRANT_TYPE:
            raise OAuthRefused("unsupported_grant_type", f"Invalid grant_type: {grant_type}")
        claims = self._asserted(assertion)
        now = self._clock()
        if claims.get("iss") != CLIENT_EMAIL:
            raise OAuthRefused("invalid_grant", "Invalid grant: account not found")
        if claims.get("aud") != token_uri:
            raise OAuthRefused("invalid_grant", f"Invalid JWT: aud must be {token_uri}.")
        _check_times(claims.get("iat"), claims.get("exp"), now)
        if not SCOPES.intersection(str(claims.get("scope", "")).split()):
            raise OAuthRefused(
                "invalid_scope", "Invalid OAuth scope or ID token audience provided."
            )
        claims = {"aud": _AUDIENCE, "exp": now + TOKEN_LIFETIME, "jti": token_hex(8)}
        return _PREFIX + jwt.encode(claims, self._token_secret, algorithm="HS256")

    def check(self, authorization: str | None) -> None:
        """Let a request in that carries an access token of ours.

        Raises:
            FcmRefused: 401, it carries none, or one that has expired.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            message = "Request is missing required authentication credential."
            raise FcmRefused(401, "CREDENTIALS_MISSING", message)
        invalid = "Request had invalid authentication credentials."
        try:
            claims: dict[str, Any] = jwt.decode(
                token.removeprefix(_PREFIX),
                self._token_secret,
                algorithms=["HS256"],
                options=_SIGNATURE_ONLY,
            )
        except jwt.InvalidTokenError:
            raise FcmRefused(401, "ACCESS_TOKEN_TYPE_UNSUPPORTED", invalid) from None
        if claims["exp"] <= self._clock().timestamp():
            raise FcmRefused(401, "ACCESS_TOKEN_EXPIRED", invalid)

    def _asserted(self, assertion: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                assertion, self._key.public_key(), algorithms=["RS256"], options=_SIGNATURE_ONLY
            )
        except jwt.InvalidSignatureError:
            raise OAuthRefused("invalid_grant", "Invalid JWT Signature.") from None
        except jwt.InvalidTokenError as error:
            raise OAuthRefused("invalid_grant", f"Invalid JWT: {error}.") from None

    @cached_property
    def _pem(self) -> bytes:
        if self._path.exists():
            return self._path.read_bytes()
        key = generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        draft = self._path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 -- with its mode from the start
            file.write(pem)
        draft.replace(self._path)
        return pem

    @cached_property
    def _key(self) -> RSAPrivateKey:
        key = load_pem_private_key(self._pem, None)
        assert isinstance(key, RSAPrivateKey)  # noqa: S101 -- we made it
        return key

    @cached_property
    def _key_id(self) -> str:
        return hashlib.sha1(self._pem, usedforsecurity=False).hexdigest()

    @cached_property
    def _token_secret(self) -> bytes:
        return hashlib.sha256(b"access tokens" + self._pem).digest()


def _check_times(issued: object, expiry: object, now: datetime) -> None:
    span = (
        "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    )
    if not _is_number(issued) or not _is_number(expiry):
        raise OAuthRefused("invalid_grant", span)
    lifetime = expiry - issued
    if lifetime > MAX_ASSERTION_LIFETIME.total_seconds() or expiry <= now.timestamp():
        raise OAuthRefused("invalid_grant", span)
    if issued > (now + CLOCK_SKEW).timestamp():
        raise OAuthRefused("invalid_grant", span)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
