"""Tokens with which service workers and apps acknowledge pushes, without signing in (SEC-005).

A push carries the token of its own delivery. It opens nothing but that delivery's receipts.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from app.errors import InvalidAckToken
from app.security.sealed import NotSealed, Sealer

PURPOSE: Final = b"push acknowledgement"
ID_BYTES: Final = 16


class AckTokens:
    """Issues and reads tokens.

    Args:
        keys: secrets of the installation; the first signs, all verify.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._sealer = Sealer(keys, PURPOSE)

    def issue(self, delivery_id: UUID) -> str:
        """The token of a delivery: 43 characters that need no escaping in an address."""
        return self._sealer.seal(delivery_id.bytes)

    def read(self, token: str) -> UUID:
        """The delivery that the token was issued for.

        Raises:
            InvalidAckToken: it was not issued here, or altered.
        """
        try:
            payload = self._sealer.open(token)
        except NotSealed:
            raise InvalidAckToken from None
        if len(payload) != ID_BYTES:
            raise InvalidAckToken
        return UUID(bytes=payload)
