"""What is told after a commit: frames to live sessions, a doorbell to the workers.

Both go through Redis and both may be lost: gateways compare positions with PostgreSQL, workers
sweep. So nobody waits for an announcement, and one that takes longer than its time is given up.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self
from uuid import UUID

import structlog

from app.pipeline.coalescing import Coalescer
from app.realtime.backplane import Backplane, Change
from app.realtime.connection import REDIS_FAULTS

log = structlog.get_logger()

ANNOUNCEMENTS_AT_ONCE = 512
BACKLOG_LIMIT = 20_000
DOORBELL_TIMEOUT = 0.05  # seconds, as the design settles it
PUBLISH_TIMEOUT = 1.0  # seconds; a group's frames are one pipeline


class Doorbell(Protocol):
    """Wakes workers; a ring says what may be due, the rows say what is."""

    async def ring(self, delivery_ids: Sequence[UUID], batch_ids: Sequence[UUID]) -> None:
        """Send one message naming deliveries and batches that are due."""
        ...


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one committed group has to tell."""

    changes: tuple[Change, ...] = ()
    delivery_ids: tuple[UUID, ...] = ()
    batch_ids: tuple[UUID, ...] = ()


class Announcer:
    """Publishes and rings in the background, in the order of commits.

    Args:
        backplane: carries changes to the gateways.
        doorbell: wakes the workers.
    """

    def __init__(self, backplane: Backplane, doorbell: Doorbell) -> None:
        self._backplane = backplane
        self._doorbell = doorbell
        self._queue: Coalescer[Announcement, None] = Coalescer(
            self._announce, limit=ANNOUNCEMENTS_AT_ONCE
        )

    async def __aenter__(self) -> Self:
        await self._queue.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._queue.__aexit__(kind, error, trace)

    def announce(self, announcement: Announcement) -> None:
        """Tell soon, or not at all if Redis has fallen far behind; never waits or raises."""
        if self._queue.waiting < BACKLOG_LIMIT:
            self._queue.submit_nowait(announcement)

    async def _announce(self, announcements: list[Announcement]) -> Sequence[None]:
        changes = [change for told in announcements for change in told.changes]
        deliveries = [item for told in announcements for item in told.delivery_ids]
        batches = [item for told in announcements for item in told.batch_ids]
        # Apart, since the one may be on a server that is away when the other's is there.
        await asyncio.gather(self._publish(changes), self._ring(deliveries, batches))
        return [None] * len(announcements)

    async def _publish(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        try:
            await self._backplane.publish(changes, timeout=PUBLISH_TIMEOUT)
        except REDIS_FAULTS as error:
            log.warning("changes_lost", changes=len(changes), error=type(error).__name__)

    async def _ring(self, deliveries: Sequence[UUID], batches: Sequence[UUID]) -> None:
        if not deliveries and not batches:
            return
        try:
            async with asyncio.timeout(DOORBELL_TIMEOUT):
                await self._doorbell.ring(deliveries, batches)
        except REDIS_FAULTS as error:
            log.warning("ring_lost", deliveries=len(deliveries), error=type(error).__name__)
