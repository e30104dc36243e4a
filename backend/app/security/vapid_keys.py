"""Keys of Web Push: ours, which sign (VAPID, RFC 8292), and those of browsers (RFC 8291)."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.config import ConfigurationError, Settings

CURVE: Final = ec.SECP256R1()
POINT_BYTES: Final = 65
UNCOMPRESSED: Final = b"\x04"
SCALAR_BYTES: Final = 32
AUTH_BYTES: Final = 16
KEY_ID_LENGTH: Final = 16
BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")
MAX_ENCODED: Final = 255  # characters; what is meant has at most 88


@dataclass(frozen=True, slots=True)
class VapidKey:
    """A key pair that push services know us by.

    Args:
        id: `key_id_of` the public key.
        public: the uncompressed point, 65 bytes.
        created_at: aware instant since which it is offered to browsers.
    """

    id: str
    public: bytes
    private: ec.EllipticCurvePrivateKey = field(repr=False)
    created_at: datetime

    @property
    def public_text(self) -> str:
        """The public key as browsers take it for `applicationServerKey`."""
        return encoded(self.public)

    @property
    def scalar(self) -> bytes:
        """The private half, 32 bytes; to be encrypted before it is stored."""
        return self.private.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big")


def new_key(now: datetime) -> VapidKey:
    """A key pair that nobody has seen."""
    return _pair(ec.generate_private_key(CURVE), now)


def stored_key(scalar: bytes, created_at: datetime) -> VapidKey:
    """The key pair with this private half.

    Raises:
        ValueError: no key of the curve has it.
    """
    return _pair(ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE), created_at)


def configured_key(settings: Settings, now: datetime) -> VapidKey | None:
    """The pair of `VAPID_PUBLIC_KEY` and `VAPID_PRIVATE_KEY`, None when there is none.

    Both are base64url of the raw key, as tools print them, or PEM.

    Raises:
        ConfigurationError: they are no keys of P-256, or not of one pair.
    """
    if settings.vapid_public_key is None or settings.vapid_private_key is None:
        return None
    try:
        key = _pair(_private(settings.vapid_private_key.get_secret_value()), now)
    except (ValueError, TypeError):
        raise ConfigurationError(
            "VAPID_PRIVATE_KEY: must be base64url of the 32 bytes of a P-256 key, or its PEM"
        ) from None
    try:
        public = _public(settings.vapid_public_key)
    except (ValueError, TypeError):
        raise ConfigurationError(
            "VAPID_PUBLIC_KEY: must be base64url of the 65 bytes of a P-256 point, or its PEM"
        ) from None
    if public != key.public:
        raise ConfigurationError("VAPID_PUBLIC_KEY: does not belong to VAPID_PRIVATE_KEY")
    return key


def key_id_of(public: bytes) -> str:
    """Short public name of a key."""
    return encoded(hashlib.sha256(public).digest())[:KEY_ID_LENGTH]


def private_key_context(key_id: str) -> str:
    """Where the private half lives, for its encryption."""
    return f"vapid_keys/{key_id}/private_key"


def public_point(text: str) -> bytes:
    """A browser's `p256dh`: an uncompressed point on P-256, 65 bytes.

    Raises:
        ValueError: it is none.
    """
    point = decoded(text)
    if len(point) != POINT_BYTES or not point.startswith(UNCOMPRESSED):
        raise ValueError("must be an uncompressed point of 65 bytes")
    ec.EllipticCurvePublicKey.from_encoded_point(CURVE, point)
    return point


def auth_secret(text: str) -> bytes:
    """A browser's `auth`: 16 bytes.

    Raises:
        ValueError: it is not.
    """
    secret = decoded(text)
    if len(secret) != AUTH_BYTES:
        raise ValueError("must be 16 bytes")
    return secret


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Bytes of base64url, with or without padding.

    Raises:
        ValueError: it is something else, or far too long.
    """
    if len(text) > MAX_ENCODED or BASE64URL.fullmatch(text) is None:
        raise ValueError("must be base64url")
    bare = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        raise ValueError("must be base64url") from None


def _pair(private: ec.EllipticCurvePrivateKey, created_at: datetime) -> VapidKey:
    public = _point(private.public_key())
    return VapidKey(key_id_of(public), public, private, created_at)


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def _private(text: str) -> ec.EllipticCurvePrivateKey:
    if "-----BEGIN" not in text:
        scalar = decoded(text.strip())
        if len(scalar) != SCALAR_BYTES:
            raise ValueError("must be 32 bytes")
        return ec.derive_private_key(int.from_bytes(scalar, "big"), CURVE)
    key = serialization.load_pem_private_key(_pem(text), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("must be a key of P-256")
    return key


def _public(text: str) -> bytes:
    if "-----BEGIN" not in text:
        return public_point(text.strip())
    key = serialization.load_pem_public_key(_pem(text))
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("must be a key of P-256")
    return _point(key)


def _pem(text: str) -> bytes:
    # In an environment's file a line break is often written as two characters.
    return text.replace("\\n", "\n").strip().encode()
