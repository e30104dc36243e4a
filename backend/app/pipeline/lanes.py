"""How much each channel sends at once in one worker, so that none waits for another's provider.

A lane is a channel's own slots. A claim takes no more of a channel than its lane has room for, and
a slot is free again as soon as the outcome of its delivery is known. Some slots of each lane are
kept for critical deliveries, so those find room while ordinary ones hang.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from app.channels.base import Claim
from app.policy.kinds import Channel

KEPT_FOR_CRITICAL = 5  # one slot in so many
REFILL_SECONDS = 0.02  # slots that come free together are filled by one claim


@dataclass(frozen=True, slots=True)
class Room:
    """What a channel may take on.

    Args:
        free: deliveries of any priority.
        ordinary: how many of these may be other than critical.
    """

    channel: Channel
    free: int
    ordinary: int


class Lanes:
    """The slots of all channels.

    Args:
        slots: deliveries of one channel in flight at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._kept = max(slots // KEPT_FOR_CRITICAL, 1 if slots > 1 else 0)
        self._held: dict[Channel, set[tuple[UUID, UUID]]] = {channel: set() for channel in Channel}
        self.bell = asyncio.Event()
        """Set when it is worth claiming again; whoever claims clears it."""

    def room(self) -> list[Room]:
        """The channels that can take on something."""
        rooms = [self._room(channel) for channel in Channel]
        return [room for room in rooms if room.free]

    def occupy(self, claims: Iterable[Claim]) -> None:
        """Give each claim a slot."""
        for claim in claims:
            self._held[claim.channel].add(_key(claim))

    def holds(self, claim: Claim) -> bool:
        """Whether the claim has its slot still: its outcome is not known yet."""
        return _key(claim) in self._held[claim.channel]

    def release(self, claims: Iterable[Claim]) -> None:
        """Take back the slots of those claims that still have one."""
        for claim in claims:
            if not self.holds(claim):
                continue
            was_full = not self._room(claim.channel).ordinary
            self._held[claim.channel].remove(_key(claim))
            if was_full:
                asyncio.get_running_loop().call_later(REFILL_SECONDS, self.bell.set)

    def _room(self, channel: Channel) -> Room:
        free = max(0, self._slots - len(self._held[channel]))
        return Room(channel, free, max(0, free - self._kept))


def _key(claim: Claim) -> tuple[UUID, UUID]:
    return claim.id, claim.lease_token
