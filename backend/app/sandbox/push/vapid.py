"""Who sends: checks of a VAPID header as push services make them (RFC 8292)."""

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

from app.sandbox.push.base64url import decoded
from app.sandbox.push.errors import KEY_MISMATCH, PushRefused

MAX_LIFETIME = timedelta(hours=24)
MAX_HEADER = 4096

_PARAMETER = re.compile(r'\s*([tk])\s*=\s*("?)([A-Za-z0-9._~+/=-]+)\2\s*')
_MAIL = re.compile(r"mailto:[^\s@<>]+@[^\s@<>.]+(\.[^\s@<>.]+)+")
# The claims are checked below, against the sandbox's own clock and with reasons of their own.
_SIGNATURE_ONLY: Any = {
    "verify_signature": True,
    **dict.fromkeys(
        ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub"), False
    ),
}


class Sender(NamedTuple):
    """Who signed: the public key as the header has it, and the token's claims."""

    key: str
    claims: Mapping[str, Any]


def verified_sender(
    authorization: str | None, *, origin: str, application_server_key: bytes | None, now: datetime
) -> Sender:
    """The sender behind an `Authorization` header.

    Args:
        authorization: the header's value; `None` when it is missing.
        origin: what the token must be meant for, such as `http://127.0.0.1:8025`.
        application_server_key: the key the subscription was made for (65 bytes); `None` = any.
        now: what the token's expiry is compared with.

    Raises:
        PushRefused: 401 for a token that is not valid; 403 for another key than the subscription's.
    """
    token, key = _parameters(authorization)
    claims = _signed_claims(token, key)
    _check_expiry(claims.get("exp"), now)
    if claims.get("aud") != origin:
        raise PushRefused(401, "BadJwtAudience", f"The token's aud must be exactly {origin}.")
    _check_contact(claims.get("sub"))
    if application_server_key is not None and decoded(key) != application_server_key:
        raise PushRefused(403, KEY_MISMATCH)
    return Sender(key, claims)


def public_key(point: bytes) -> EllipticCurvePublicKey:
    """The P-256 key behind an uncompressed point.

    Raises:
        ValueError: it is none.
    """
    if len(point) != 65:  # noqa: PLR2004 -- one byte for the form, 32 for each coordinate
        raise ValueError("must be an uncompressed point of 65 bytes")
    return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)


def _parameters(authorization: str | None) -> tuple[str, str]:
    if authorization is None:
        raise PushRefused(401, "MissingAuthorization", "The Authorization header is missing.")
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "vapid" or len(authorization) > MAX_HEADER:
        raise PushRefused(401, "BadAuthorization", "The Authorization scheme must be vapid.")
    found = [_PARAMETER.fullmatch(part) for part in rest.split(",")]
    named = {match[1]: match[3] for match in found if match is not None}
    if len(named) != len(found) or named.keys() != {"t", "k"}:
        raise PushRefused(401, "BadAuthorization", "It must have one t and one k, nothing else.")
    return named["t"], named["k"]


# A sender uses one token for hours.
@lru_cache(maxsize=1024)
def _signed_claims(token: str, key: str) -> Mapping[str, Any]:
    try:
        public = public_key(decoded(key))
    except ValueError:
        raise PushRefused(401, "BadVapidKey", "k must be a P-256 public key.") from None
    try:
        claims = jwt.decode(token, public, algorithms=["ES256"], options=_SIGNATURE_ONLY)
    except jwt.InvalidSignatureError:
        message = "The token was not signed by the private key of k."
        raise PushRefused(401, "BadJwtSignature", message) from None
    except jwt.InvalidTokenError as error:
        raise PushRefused(
            401, "BadJwtToken", f"t is not a JWT signed with ES256: {error}."
        ) from None
    return cast("Mapping[str, Any]", claims)


def _check_expiry(expiry: object, now: datetime) -> None:
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not math.isfinite(expiry):
        raise PushRefused(401, "BadJwtExpiry", "The token's exp must be a number.")
    left = expiry - now.timestamp()
    if left <= 0:
        raise PushRefused(401, "ExpiredJwtToken", "The token has expired.")
    if left > MAX_LIFETIME.total_seconds():
        raise PushRefused(401, "BadJwtExpiry", "The token's exp is more than 24 hours ahead.")


def _check_contact(contact: object) -> None:
    if not isinstance(contact, str) or not (_MAIL.fullmatch(contact) or _is_public_page(contact)):
        message = "The token's sub must be a real mailto: or https: address."
        raise PushRefused(401, "BadJwtSubject", message)


def _is_public_page(contact: str) -> bool:
    try:
        parts = urlsplit(contact)
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme == "https" and "." in host.strip(".") and not host.endswith("localhost")
