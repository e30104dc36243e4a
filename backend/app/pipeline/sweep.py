"""The sweeper: delivers what is due whether or not a doorbell rang.

It sleeps until the earliest due row, at most the configured interval, and finds what was rung for
while Redis was away, what is retried, scheduled, or was leased by a worker that died.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from app.channels.base import Claim
from app.pipeline.deliver import Clock, Deliverer
from app.pipeline.expand import Expander

log = structlog.get_logger()

SHORTEST_SLEEP = 0.05  # seconds
RECOVERY_DELAY = 0.5  # seconds between tries while PostgreSQL is away


class Sweeper:
    """Runs for as long as the worker does.

    Args:
        interval: longest sleep, in seconds.
        batches: batches in flight at once, so that a provider that hangs blocks no other row.
    """

    def __init__(
        self,
        deliverer: Deliverer,
        expander: Expander,
        clock: Clock,
        *,
        interval: float,
        batches: int = 4,
    ) -> None:
        self._deliverer = deliverer
        self._expander = expander
        self._clock = clock
        self._interval = interval
        self._slots = asyncio.Semaphore(batches)

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set, then finish the batches in flight."""
        async with asyncio.TaskGroup() as in_flight:

            async def deliver() -> float:
                return await self._deliver(in_flight)

            in_flight.create_task(_repeat(deliver, stopping))
            in_flight.create_task(_repeat(self._expand, stopping))

    async def _deliver(self, in_flight: asyncio.TaskGroup) -> float:
        """Start one batch of what is due; returns the seconds until the next look."""
        await self._slots.acquire()
        claims: list[Claim] = []
        try:
            claims = await self._deliverer.claim()
        finally:
            if claims:
                in_flight.create_task(self._dispatch(claims))
            else:
                self._slots.release()
        if claims:
            return 0.0
        return self._until(await self._deliverer.next_due())

    async def _expand(self) -> float:
        """Expand the batches that are open; returns the seconds until the next look."""
        for batch_id in await self._expander.open_batches():
            try:
                await self._expander.expand(batch_id)
            except Exception as error:
                # It stays open and is tried again; others must not wait for it.
                log.warning("batch_not_expanded", error=type(error).__name__)
        return self._interval

    async def _dispatch(self, claims: list[Claim]) -> None:
        try:
            await self._deliverer.dispatch(claims)
        except Exception as error:
            # The leases end by themselves.
            log.warning("batch_failed", error=type(error).__name__)
        finally:
            self._slots.release()

    def _until(self, due: datetime | None) -> float:
        if due is None:
            return self._interval
        # A due row that was not claimed is in another worker's hands: no spinning on it.
        return min(self._interval, max(SHORTEST_SLEEP, (due - self._clock()).total_seconds()))


async def _repeat(look: Callable[[], Awaitable[float]], stopping: asyncio.Event) -> None:
    """Look again after as many seconds as each look says, through every fault."""
    while not stopping.is_set():
        try:
            delay = await look()
        except Exception as error:
            log.warning("sweep_failed", error=type(error).__name__)
            delay = RECOVERY_DELAY
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), timeout=delay)
