"""Works off a queue whose rows are leased, for as long as the worker runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Generic, Protocol, TypeVar

import structlog

from app.pipeline.deliver import Clock
from app.pipeline.sweep import DRAIN_SECONDS, SHORTEST_SLEEP, repeat

log = structlog.get_logger()

Item = TypeVar("Item")
Leased_co = TypeVar("Leased_co", covariant=True)


class Queue(Protocol[Leased_co]):
    """A queue in PostgreSQL: what nobody finishes is due again at its lease's end."""

    async def next_due(self) -> datetime | None:
        """When something is due next, None when nothing waits."""
        ...

    async def lease_due(self, limit: int, /) -> Sequence[Leased_co]:
        """Lease what is due, the longest due first."""
        ...


class LeaseSweeper(Generic[Item]):
    """Leases what is due and has room, and works on it; one that takes long delays no other.

    Args:
        work: does all that there is to do with what was leased.
        at_once: how many are worked on at the same time.
        interval: longest sleep, in seconds.
        drain: seconds that work has to finish once the worker is to stop.
    """

    def __init__(
        self,
        queue: Queue[Item],
        work: Callable[[Item], Awaitable[None]],
        clock: Clock,
        *,
        at_once: int,
        interval: float,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        self._queue = queue
        self._work = work
        self._clock = clock
        self._at_once = at_once
        self._interval = interval
        self._drain = drain
        self._in_flight: set[asyncio.Task[None]] = set()
        self._bell = asyncio.Event()

    def wake(self) -> None:
        """Look now: something may be due."""
        self._bell.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set, then finish what is in flight or leave it to its lease."""
        await repeat(self.look, stopping, self._bell)
        try:
            async with asyncio.timeout(self._drain):
                await self.settle()
        except TimeoutError:
            late = list(self._in_flight)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until all that is being worked on is done."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    async def look(self) -> float:
        """Start working on what is due and has room; returns the seconds until the next look."""
        self._bell.clear()
        room = self._at_once - len(self._in_flight)
        if not room:
            return self._interval
        due = await self._queue.next_due()
        if due is None:
            return self._interval
        if (left := (due - self._clock()).total_seconds()) > 0:
            return min(self._interval, max(SHORTEST_SLEEP, left))
        for item in await self._queue.lease_due(room):
            task = asyncio.create_task(self._do(item))
            self._in_flight.add(task)
            task.add_done_callback(self._finished)
        return SHORTEST_SLEEP

    async def _do(self, item: Item) -> None:
        try:
            await self._work(item)
        except Exception as error:
            # The lease ends by itself.
            log.warning("leased_work_lost", of=type(item).__name__, error=type(error).__name__)

    def _finished(self, task: asyncio.Task[None]) -> None:
        was_full = len(self._in_flight) >= self._at_once
        self._in_flight.discard(task)
        if was_full:
            self._bell.set()
