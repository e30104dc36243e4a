"""What the gateway reads of an inbox; `app.services.inbox_service` implements it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from app.realtime import frames
from app.realtime.frames import InboxItem

NO_UNREAD: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class InboxSnapshot:
    """Where a user's inbox stood at one instant; a user who never had anything stands at 0.

    Args:
        seq: number of the last change.
        floor_seq: changes below this number are forgotten.
        by_type: unread notifications by type, zeros left out.
    """

    seq: int = 0
    floor_seq: int = 0
    by_type: Mapping[str, int] = field(default_factory=lambda: NO_UNREAD)

    @property
    def unread_count(self) -> int:
        """Unread notifications of all types."""
        return sum(self.by_type.values())

    def can_resume(self, since: int) -> bool:
        """Whether everything that changed after `since` is still known."""
        return self.floor_seq <= since <= self.seq


@dataclass(frozen=True, slots=True)
class NetChange:
    """What is left to tell of a notification: that it became visible, or its last change.

    A notification that became visible and changed since has both, so that whoever was told all up
    to some number knows everything that became visible by then, wherever the telling was cut off.

    Args:
        seq: the number of the change.
        is_new: whether this is how it became visible.
        item: the notification as it is now, None once it was deleted or has expired.
    """

    id: UUID
    seq: int
    is_new: bool
    item: InboxItem | None

    def frame(self, *, unread_count: int) -> bytes:
        """The message that tells of it."""
        if self.item is None:
            return frames.notification_deleted(self.id, seq=self.seq, unread_count=unread_count)
        if self.is_new:
            return frames.notification(self.item, seq=self.seq, unread_count=unread_count)
        return frames.read_status_updated(
            self.id, read_at=self.item.read_at, seq=self.seq, unread_count=unread_count
        )


@dataclass(frozen=True, slots=True)
class NetChanges:
    """What changed after some position, in the order of `seq`, or the first part of it.

    Args:
        snapshot: the inbox at the same instant.
        reached: the position of a client that was told all of these.
    """

    snapshot: InboxSnapshot
    changes: Sequence[NetChange]
    reached: int

    @property
    def is_last(self) -> bool:
        """Whether these lead to the present."""
        return self.reached >= self.snapshot.seq

    def frames(self, *, since: int) -> Iterator[bytes]:
        """The messages that a client at position `since` has yet to see, in order."""
        unread_count = self.snapshot.unread_count
        for change in self.changes:
            if change.seq > since:
                yield change.frame(unread_count=unread_count)

    def is_gapless(self, *, since: int) -> bool:
        """Whether these messages are numbered like live ones, each one higher than the last."""
        told = [change.seq for change in self.changes if change.seq > since]
        return told == list(range(since + 1, self.reached + 1))


@dataclass(frozen=True, slots=True)
class Backlog:
    """Visible notifications that no session has got yet, oldest first."""

    snapshot: InboxSnapshot
    items: Sequence[InboxItem]


class InboxReader(Protocol):
    """Reads inboxes; every answer describes a single instant.

    All raise `app.errors.Unavailable` while PostgreSQL cannot be reached.
    """

    async def state(self, user_id: UUID) -> InboxSnapshot:
        """Where the user's inbox stands."""
        ...

    async def changes_since(self, user_id: UUID, since: int) -> NetChanges:
        """Net changes after `since`; a part of them if there are many."""
        ...

    async def undelivered(self, user_id: UUID) -> Backlog:
        """Notifications whose in-app delivery nobody has acknowledged."""
        ...

    async def positions(self, user_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """Position of each user's inbox, in one query; users without an inbox are left out."""
        ...

    async def acknowledge(self, reached: Mapping[UUID, int]) -> None:
        """Mark as delivered what each user was shown, up to the position given."""
        ...


async def net_changes(inbox: InboxReader, user_id: UUID, since: int) -> AsyncIterator[NetChanges]:
    """All parts of the net changes after `since`, each read once it is asked for."""
    while True:
        part = await inbox.changes_since(user_id, since)
        yield part
        if part.is_last:
            return
        since = part.reached


class BoundedReader:
    """Reads so many inboxes at once that a storm of reconnects leaves connections to others.

    Whoever finds all places taken waits, rather than fail for want of a connection.

    Args:
        inbox: does the reading.
        at_once: inboxes read at the same time; what concerns many users at once is not counted.
    """

    def __init__(self, inbox: InboxReader, *, at_once: int) -> None:
        self._inbox = inbox
        self._places = asyncio.Semaphore(at_once)
        self.positions = inbox.positions
        self.acknowledge = inbox.acknowledge

    async def state(self, user_id: UUID) -> InboxSnapshot:
        """Where the user's inbox stands."""
        async with self._places:
            return await self._inbox.state(user_id)

    async def changes_since(self, user_id: UUID, since: int) -> NetChanges:
        """Net changes after `since`; a part of them if there are many."""
        async with self._places:
            return await self._inbox.changes_since(user_id, since)

    async def undelivered(self, user_id: UUID) -> Backlog:
        """Notifications whose in-app delivery nobody has acknowledged."""
        async with self._places:
            return await self._inbox.undelivered(user_id)
