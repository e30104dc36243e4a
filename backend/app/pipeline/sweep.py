"""The sweeper: delivers what is due, at once when a doorbell rings and soon when none does.

It sleeps until the earliest due row, at most the configured interval, and finds what was rung for
while Redis was away, what is retried, scheduled, or was leased by a worker that died. It waits for
no sender: each channel is claimed for its own free slots.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from app.channels.base import Claim
from app.pipeline.deliver import Clock, Deliverer
from app.pipeline.expand import Expander
from app.pipeline.expire import Expirer

log = structlog.get_logger()

SHORTEST_SLEEP = 0.05  # seconds
EXPANSIONS_AT_ONCE = 2  # while one waits for PostgreSQL, the other decides
RECOVERY_DELAY = 0.5  # seconds between tries while PostgreSQL is away
DRAIN_SECONDS = 10.0  # less than the supervisor's patience with a part that is to stop


class Sweeper:
    """Runs for as long as the worker does.

    Args:
        interval: longest sleep, in seconds.
        drain: seconds that senders have to finish once the worker is to stop.
    """

    def __init__(
        self,
        deliverer: Deliverer,
        expander: Expander,
        expirer: Expirer,
        clock: Clock,
        *,
        interval: float,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        self._deliverer = deliverer
        self._expander = expander
        self._expirer = expirer
        self._clock = clock
        self._interval = interval
        self._drain = drain
        self._in_flight: set[asyncio.Task[None]] = set()
        self._rung_for_batches = asyncio.Event()

    def wake(self) -> None:
        """Look for deliveries now: something may be due."""
        self._deliverer.lanes.bell.set()

    def wake_for_batches(self) -> None:
        """Look for bulk batches now instead of at the end of the interval."""
        self._rung_for_batches.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set, then finish what is in flight or give it back."""
        async with asyncio.TaskGroup() as group:

            async def look() -> float:
                return await self._look(group)

            async def look_at_suspects() -> float:
                return await self._look_at_suspects(group)

            group.create_task(repeat(look_at_suspects, stopping))
            group.create_task(repeat(self._expire, stopping))
            looking = group.create_task(repeat(look, stopping, self._deliverer.lanes.bell))
            for _ in range(EXPANSIONS_AT_ONCE):
                group.create_task(repeat(self._expand, stopping, self._rung_for_batches))
            await stopping.wait()
            await looking
            if self._in_flight:
                _, late = await asyncio.wait(self._in_flight, timeout=self._drain)
                for task in late:
                    task.cancel()

    async def _look(self, group: asyncio.TaskGroup) -> float:
        """Start sending what is due and has room; returns the seconds until the next look."""
        self._deliverer.lanes.bell.clear()
        claims = await self._deliverer.claim()
        if not claims:
            return self._until(await self._deliverer.next_due())
        self._start(group, claims)
        return SHORTEST_SLEEP

    async def _look_at_suspects(self, group: asyncio.TaskGroup) -> float:
        """Send one suspect, beside no other; returns the seconds until the next look."""
        claims = await self._deliverer.claim_suspect()
        if not claims:
            return self._interval
        await asyncio.wait([self._start(group, claims)])
        return 0.0

    def _start(self, group: asyncio.TaskGroup, claims: list[Claim]) -> asyncio.Task[None]:
        task = group.create_task(self._dispatch(claims))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        return task

    async def _expand(self) -> float:
        """Expand some recipients of an open batch; returns the seconds until the next look."""
        self._rung_for_batches.clear()
        return 0.0 if await self._expander.expand_some() else self._interval

    async def _expire(self) -> float:
        """Let expire what has to; returns the seconds until the next look."""
        due = await self._expirer.next_due()
        if due is not None and due <= self._clock():
            await self._expirer.expire_some()
            return SHORTEST_SLEEP
        return self._until(due)

    async def _dispatch(self, claims: list[Claim]) -> None:
        try:
            await self._deliverer.dispatch(claims)
        except Exception as error:
            # The leases end by themselves.
            log.warning("batch_failed", error=type(error).__name__)

    def _until(self, due: datetime | None) -> float:
        if due is None:
            return self._interval
        # A due row that was not claimed is in another worker's hands: no spinning on it.
        return min(self._interval, max(SHORTEST_SLEEP, (due - self._clock()).total_seconds()))


async def repeat(
    look: Callable[[], Awaitable[float]], stopping: asyncio.Event, rung: asyncio.Event | None = None
) -> None:
    """Look again after as many seconds as each look says, or when rung for, through every fault."""
    while not stopping.is_set():
        try:
            delay = await look()
        except Exception as error:
            log.warning("sweep_failed", error=type(error).__name__)
            delay = RECOVERY_DELAY
        if delay:
            await _first_of(stopping, rung, seconds=delay)


async def _first_of(*events: asyncio.Event | None, seconds: float) -> None:
    """Wait until one of the events is set, or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events if event is not None]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
