"""The global limit of bulk calls: one token bucket for all processes, in PostgreSQL (REQ-023).

A batch takes a token for each recipient in the very transaction that stores it: what is not
stored costs nothing, and what is repeated costs nothing again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

import structlog

from app.config import Settings
from app.db.database import Database, Driver
from app.errors import RateLimited
from app.policy.token_bucket import PARTS, Level, TokenBucket

log = structlog.get_logger()

NAME = "bulk"
FRESH_SECONDS = 1.0
LOOK_SECONDS = 0.25  # an answer waits no longer to say how full the bucket is

READ = "SELECT tokens, updated_at FROM rate_buckets WHERE name = $1"
LOCK = f"{READ} FOR UPDATE"
MAKE = """
    INSERT INTO rate_buckets (name, tokens, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
WRITE = "UPDATE rate_buckets SET tokens = $2, updated_at = $3 WHERE name = $1"


@dataclass(frozen=True, slots=True)
class Standing:
    """How the limit stands, as callers are told.

    Args:
        limit: recipients per minute.
        remaining: recipients that there is room for now.
        reset: whole seconds until the bucket is full again.
    """

    limit: int
    remaining: int
    reset: int


class GlobalLimit:
    """What all services together may send in bulk.

    Args:
        settings: how many recipients a minute; a batch of the largest size always fits a full
            bucket.
        clock: the present instant. Clocks of several processes may differ: only the one that is
            ahead fills the bucket.
    """

    def __init__(
        self, settings: Settings, database: Database, clock: Callable[[], datetime]
    ) -> None:
        per_minute = settings.rate_limit_global_per_minute
        self._bucket = TokenBucket(
            per_minute, burst=max(per_minute, settings.notification_max_batch_size)
        )
        self._database = database
        self._clock = clock
        self._known: Level | None = None
        self._known_until = 0.0  # monotonic seconds

    async def room(self, driver: Driver) -> int:
        """Recipients there is room for now; whoever is just taking some is not waited for.

        Args:
            driver: a transaction as the service role.
        """
        level = await self._read(driver, READ)
        if level is None:
            return self._bucket.burst
        self.note(level)
        return self._bucket.refilled(level, self._clock()).tokens

    async def charge(self, driver: Driver, recipients: int) -> Level | None:
        """Take a token for each recipient; others wait until the driver's transaction ends.

        Args:
            driver: a transaction as the service role, which has nothing left to do but commit.

        Returns:
            The level to `note` once that has committed; None if nothing was to be taken.

        Raises:
            RateLimited: there are not as many.
        """
        if not recipients:
            return None
        level = await self._read(driver, LOCK)
        if level is None:
            full = self._bucket.full(self._clock())
            await driver.execute(MAKE, NAME, full.parts / PARTS, full.at)
            level = await self._read(driver, LOCK) or full
        left = self._bucket.taken(level, recipients, self._clock())
        if left is None:
            self.note(level)
            raise self.refusal(recipients)
        await driver.execute(WRITE, NAME, left.parts / PARTS, left.at)
        return left

    def note(self, level: Level | None) -> None:
        """Remember the level that PostgreSQL has; one that was read late is passed over."""
        if level is None:
            return
        known = self._known
        if known is None or (known.at, -known.parts) <= (level.at, -level.parts):
            self._known = level
        self._known_until = monotonic() + FRESH_SECONDS

    def refusal(self, recipients: int) -> RateLimited:
        """What a caller is told whose batch does not fit, by what is known."""
        now = self._clock()
        wait = self._bucket.seconds_until(self._known or self._bucket.full(now), recipients, now)
        return RateLimited(retry_after=max(1, wait))

    async def standing(self) -> Standing:
        """How the limit stands, by what this process knows; it asks at most once a second."""
        if monotonic() >= self._known_until:
            self._known_until = monotonic() + FRESH_SECONDS  # others don't wait for the same
            await self._look()
        now = self._clock()
        level = self._bucket.refilled(self._known or self._bucket.full(now), now)
        return Standing(
            limit=self._bucket.per_minute,
            remaining=level.tokens,
            reset=self._bucket.seconds_until_full(level, now),
        )

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._database.group_as_service() as driver:
                self.note(await self._read(driver, READ))
        except Exception as error:  # which is no reason to answer nothing
            log.info("global_limit_unknown", error=type(error).__name__)

    async def _read(self, driver: Driver, query: str) -> Level | None:
        rows = await driver.fetch(query, NAME)
        return next((_level(row["tokens"], row["updated_at"]) for row in rows), None)


def _level(tokens: float, at: datetime) -> Level:
    return Level(round(tokens * PARTS), at)
