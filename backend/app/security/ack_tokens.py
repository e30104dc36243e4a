"""Tokens with which service workers and apps acknowledge pushes, without signing in (SEC-005).

A push carries the token of its own delivery. It opens nothing but that delivery's receipts, and
needs no storage: base64url of the delivery's id and a truncated HMAC-SHA256 over it.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.errors import InvalidAckToken

ID_BYTES: Final = 16
SEAL_BYTES: Final = 16
LENGTH: Final = 43  # characters
PURPOSE: Final = b"push acknowledgement"


class AckTokens:
    """Issues and reads tokens.

    Args:
        keys: secrets of the installation; the first signs, all verify.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [hmac.digest(key, PURPOSE, "sha256") for key in keys]

    def issue(self, delivery_id: UUID) -> str:
        """The token of a delivery: 43 characters that need no escaping in an address."""
        return _text(delivery_id.bytes + _seal(self._keys[0], delivery_id.bytes))

    def read(self, token: str) -> UUID:
        """The delivery that the token was issued for.

        Raises:
            InvalidAckToken: it was not issued here, or altered.
        """
        if len(token) != LENGTH:
            raise InvalidAckToken
        try:
            raw = base64.b64decode(f"{token}=".encode("ascii"), b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise InvalidAckToken from None
        payload, seal = raw[:ID_BYTES], raw[ID_BYTES:]
        matches = [hmac.compare_digest(seal, _seal(key, payload)) for key in self._keys]
        # Base64 may be spelt in several ways, of which one was given out.
        if not any(matches) or _text(raw) != token:
            raise InvalidAckToken
        return UUID(bytes=payload)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _seal(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256")[:SEAL_BYTES]
