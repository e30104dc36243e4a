"""Tokens in the links of emails: unsubscribing, opening, clicking; each for its purpose alone.

An unsubscribe token names a user and the epoch of their address: once the address has changed,
links in emails to the earlier one are void. The others name a letter: a delivery's or a digest's
id.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID

from app.policy.kinds import NotificationType
from app.security.sealed import NotSealed, Sealer

EVERYTHING: Final = 0
TYPES: Final[tuple[NotificationType, ...]] = tuple(
    NotificationType
)  # their order is part of tokens that are out

UNSUBSCRIPTION: Final = struct.Struct(">16sIB")
LINK: Final = struct.Struct(">16sH")
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Unsubscription:
    """What an unsubscribe link is about.

    Args:
        epoch: of the user's address when the email was written.
        type: of the notification in the email, None for a digest.
    """

    user_id: UUID
    epoch: int
    type: NotificationType | None


class EmailTokens:
    """Issues and reads the tokens; every `read_…` raises `NotSealed` for what was not issued here.

    Args:
        keys: secrets of the installation; the first seals, all open.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._unsubscribe = Sealer(keys, b"email unsubscribe")
        self._open = Sealer(keys, b"email open")
        self._click = Sealer(keys, b"email click")

    def unsubscribe(self, about: Unsubscription) -> str:
        """The token of an unsubscribe link."""
        code = EVERYTHING if about.type is None else TYPES.index(about.type) + 1
        return self._unsubscribe.seal(UNSUBSCRIPTION.pack(about.user_id.bytes, about.epoch, code))

    def read_unsubscribe(self, token: str) -> Unsubscription:
        """What an unsubscribe link is about."""
        try:
            fields = UNSUBSCRIPTION.unpack(self._unsubscribe.open(token))
        except struct.error:
            raise NotSealed from None
        user_id, epoch, code = cast("tuple[bytes, int, int]", fields)
        return Unsubscription(
            UUID(bytes=user_id), epoch, None if code == EVERYTHING else TYPES[code - 1]
        )

    def opened(self, letter_id: UUID) -> str:
        """The token of a letter's pixel."""
        return self._open.seal(letter_id.bytes)

    def read_opened(self, token: str) -> UUID:
        """The letter whose pixel it is."""
        payload = self._open.open(token)
        if len(payload) != ID_BYTES:
            raise NotSealed
        return UUID(bytes=payload)

    def clicked(self, letter_id: UUID, place: int) -> str:
        """The token of a letter's link.

        Args:
            place: of its target among the letter's, from 0.
        """
        return self._click.seal(LINK.pack(letter_id.bytes, place))

    def read_clicked(self, token: str) -> tuple[UUID, int]:
        """The letter, and the place of the link's target among its own."""
        try:
            letter_id, place = LINK.unpack(self._click.open(token))
        except struct.error:
            raise NotSealed from None
        return UUID(bytes=letter_id), place
