"""Cursors of lists: signed, and bound to the user, or the filter, that they were given for."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from uuid import UUID

from app.errors import ValidationFailed

SEAL_BYTES = 16


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
        return self.seal(user_id.bytes, position.to_bytes(8, "big"))

    def read(self, user_id: UUID, cursor: str) -> int:
        """The position that `write` put in.

        Raises:
            ValidationFailed: it was altered, or given to somebody else.
        """
        return int.from_bytes(self.open(user_id.bytes, cursor), "big")

    def seal(self, scope: bytes, payload: bytes) -> str:
        """A cursor that carries `payload`, for whoever names the same scope.

        Args:
            scope: what the list is limited to, such as its user or its filter.
            payload: of one length for all cursors of a purpose.
        """
        return _text(payload + _seal(self._keys[0], scope, payload))

    def open(self, scope: bytes, cursor: str) -> bytes:
        """The payload that `seal` put in.

        Raises:
            ValidationFailed: it was altered, or given for another scope.
        """
        try:
            sealed = base64.b64decode(cursor.encode("ascii"), b"-_", validate=True)
        except (binascii.Error, ValueError):
            sealed = b""
        payload, seal = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
        seals = [_seal(key, scope, payload) for key in self._keys]
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
        return payload


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode()


def _seal(key: bytes, scope: bytes, payload: bytes) -> bytes:
    return hmac.digest(key, scope + payload, "sha256")[:SEAL_BYTES]
