"""The bound of the queue: past it, creates are refused instead of waiting for hours (REQ-022).

Each process that takes creates counts what is due and was never attempted, at most every half
second and only while creates come, and adds what it has stored itself since. No row is counted up
and down, so the bound costs creates nothing; several processes may together pass it by what they
store within one pause.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from app.db.database import Database
from app.policy.kinds import PRIORITY_RANKS, TRIED_IN_VAIN, Channel

log = structlog.get_logger()

PAUSE_SECONDS = 0.5
SHARE = 20  # a count takes at most one part in so many of a PostgreSQL core
LONGEST_SECONDS = 5.0

# What a provider put off was attempted, though that is not counted against it.
PUT_OFF = sorted(reason.value for reason in TRIED_IN_VAIN)
# By channel and urgency, as the index of what is due is ordered.
COUNT = """
    SELECT count(*) AS due
    FROM (
        SELECT FROM unnest($1::text[]) AS lane (channel)
        CROSS JOIN unnest($2::int[]) AS part (urgency)
        CROSS JOIN LATERAL (
            SELECT FROM notification_deliveries
            WHERE status = 'pending' AND digest_slot IS NULL
              AND channel = lane.channel AND urgency = part.urgency
              AND next_attempt_at <= $3::timestamptz
              AND attempts = 0 AND coalesce(reason, '') <> ALL ($4::text[])
            LIMIT $5
        ) AS waiting
        LIMIT $5
    ) AS counted
"""


class QueueBound:
    """Knows whether the queue is full; use it as an asynchronous context manager.

    Args:
        most: deliveries that may be due and never attempted.
        clock: the present instant.
        seconds: a clock that only goes forward, for the pauses.
    """

    def __init__(
        self,
        most: int,
        database: Database,
        clock: Callable[[], datetime],
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        self._most = most
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._counted = 0
        self._stored = 0  # by this process since the count began
        self._counting: asyncio.Task[None] | None = None
        self._stale_at = self._outdated_at = float("-inf")  # never counted

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def is_full(self) -> bool:
        """Whether what is not critical is to be refused.

        A count that has become stale is repeated beside what goes on; it is waited for only if
        the queue seems full, or nobody has asked for long. Without PostgreSQL nothing is full.
        """
        if self._counting is None and self._seconds() >= self._stale_at:
            self._counting = asyncio.create_task(self._count())
        if self._counting is not None and (
            self._seems_full or self._seconds() >= self._outdated_at
        ):
            await asyncio.wait([self._counting])
        return self._seems_full

    def stored(self, due: int) -> None:
        """So many deliveries more are due."""
        self._stored += due

    @property
    def _seems_full(self) -> bool:
        return self._counted + self._stored > self._most

    async def _count(self) -> None:
        before, was_full, began = self._stored, self._counted > self._most, self._seconds()
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                self._counted = await self._waiting()
            self._stored -= before
        except Exception as error:
            log.warning("queue_not_counted", error=type(error).__name__)
            self._counted = self._stored = 0
        now = self._seconds()
        pause = max(PAUSE_SECONDS, SHARE * (now - began))
        self._stale_at, self._outdated_at = now + pause, now + 2 * pause
        self._counting = None
        if self._counted > self._most and not was_full:
            log.warning("queue_full", most=self._most)

    async def _waiting(self) -> int:
        """Deliveries that are due and were never attempted, at most one more than there may be."""
        async with self._database.group_as_service() as driver:
            (row,) = await driver.fetch(
                COUNT,
                [channel.value for channel in Channel],
                sorted(PRIORITY_RANKS.values()),
                self._clock(),
                PUT_OFF,
                self._most + 1,
            )
        return row["due"]
