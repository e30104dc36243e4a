"""Expiry as a change of the inbox: what has expired leaves it, and live sessions are told."""

# ruff: noqa: S608 -- composed of nothing but the constants below

from collections.abc import Callable
from datetime import datetime

from app.db.conditions import EXPIRING
from app.db.database import Database
from app.pipeline.announce import Announcement
from app.pipeline.change import OVERDUE_AT_ONCE, count_anew, expire_overdue
from app.pipeline.deliver import Clock
from app.realtime.backplane import Change
from app.realtime.inboxes import WrongCount, lock_free_inboxes, save_inboxes

OVERDUE_USERS = f"""
    SELECT DISTINCT user_id FROM (
        SELECT user_id FROM notifications WHERE expires_at <= $1 AND {EXPIRING}
        ORDER BY expires_at LIMIT $2
    ) overdue
"""
NEXT = f"SELECT min(expires_at) AS due FROM notifications WHERE {EXPIRING}"


class Expirer:
    """Lets notifications expire when their time has come.

    Args:
        announce: takes what is to be told; never waits or raises.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, announce: Callable[[Announcement], None], clock: Clock
    ) -> None:
        self._database = database
        self._announce = announce
        self._clock = clock

    async def expire_some(self) -> int:
        """Let some of what is overdue expire; returns how many did.

        Inboxes that somebody else is changing are left to them, or to the next time.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        try:
            changes = await self._expire()
        except WrongCount as error:
            await count_anew(self._database, error)
            changes = await self._expire()
        if changes:
            self._announce(Announcement(changes=tuple(changes)))
        return len(changes)

    async def next_due(self) -> datetime | None:
        """When the next notification expires, None when none does.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        async with self._database.group_as_service() as driver:
            (row,) = await driver.fetch(NEXT)
        return row["due"]

    async def _expire(self) -> list[Change]:
        now = self._clock()
        async with self._database.group_as_service() as driver:
            rows = await driver.fetch(OVERDUE_USERS, now, OVERDUE_AT_ONCE)
            inboxes = await lock_free_inboxes(driver, [row["user_id"] for row in rows])
            changes = await expire_overdue(driver, inboxes, now)
            if changes:
                await save_inboxes(driver, inboxes.values())
        return changes
