"""Sealed tokens: a few bytes that only this installation can have given out, for one purpose.

Base64url of the payload and a truncated HMAC-SHA256 over it; nothing is stored. A token of one
purpose is none of another (SEC-005).
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

SEAL_BYTES: Final = 16
LONGEST: Final = 256  # characters


class NotSealed(ValueError):
    """The token was not issued here, for another purpose, or altered."""


class Sealer:
    """Issues and reads the tokens of one purpose.

    Args:
        keys: secrets of the installation; the first seals, all open.
        purpose: what the tokens are for.
    """

    def __init__(self, keys: Sequence[bytes], purpose: bytes) -> None:
        self._keys = [hmac.digest(key, purpose, "sha256") for key in keys]

    def seal(self, payload: bytes) -> str:
        """The token of a payload; needs no escaping in an address."""
        return _text(payload + _seal(self._keys[0], payload))

    def open(self, token: str) -> bytes:
        """The payload that the token was issued for.

        Raises:
            NotSealed: nobody was given this token.
        """
        if len(token) > LONGEST:
            raise NotSealed
        try:
            raw = base64.b64decode(f"{token}{'=' * (-len(token) % 4)}", b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise NotSealed from None
        payload, seal = raw[:-SEAL_BYTES], raw[-SEAL_BYTES:]
        matches = [hmac.compare_digest(seal, _seal(key, payload)) for key in self._keys]
        # Base64 may be spelt in several ways, of which one was given out.
        if not any(matches) or _text(raw) != token:
            raise NotSealed
        return payload


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _seal(key: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, payload, "sha256")[:SEAL_BYTES]
