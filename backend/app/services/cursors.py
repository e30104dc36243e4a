"""Cursors of lists: signed, and bound to the user who was given them."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from uuid import UUID

from app.errors import ValidationFailed


class Cursors:
    """Makes cursors out of positions, and positions out of cursors.

    Args:
        keys: secrets of the installation; the first signs, all verify.
        purpose: the list that the cursors continue; those of another are refused.
    """

    def __init__(self, keys: Sequence[bytes], purpose: str) -> None:
        self._keys = [hmac.digest(key, f"cursor:{purpose}".encode(), "sha256") for key in keys]

    def write(self, user_id: UUID, position: int) -> str:
        """A cursor that continues after `position`."""
        payload = position.to_bytes(8, "big")
        sealed = payload + _seal(self._keys[0], user_id, payload)
        return _text(sealed)

    def read(self, user_id: UUID, cursor: str) -> int:
        """The position that `write` put in.

        Raises:
            ValidationFailed: it was altered, or given to somebody else.
        """
        try:
            sealed = base64.b64decode(cursor.encode("ascii"), b"-_", validate=True)
        except (binascii.Error, ValueError):
            sealed = b""
        payload, seal = sealed[:8], sealed[8:]
        seals = [_seal(key, user_id, payload) for key in self._keys]
        matches = [hmac.compare_digest(seal, expected) for expected in seals]
        # Base64 may be spelt in several ways, of which one was given out.
        if not any(matches) or _text(sealed) != cursor:
            raise ValidationFailed(
                details=[
                    {
                        "path": "cursor",
                        "code": "invalid_cursor",
                        "message": "Take the cursor from the page before.",
                    }
                ]
            )
        return int.from_bytes(payload, "big")


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode()


def _seal(key: bytes, user_id: UUID, payload: bytes) -> bytes:
    return hmac.digest(key, user_id.bytes + payload, "sha256")[:16]
