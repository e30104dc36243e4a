"""Saving what users choose: preferences and settings (REQ-017 to REQ-019).

A save is one transaction as the user, under the lock of their inbox, like the decisions that it
changes: what is created after it was answered is decided by it. Email that waits for a digest goes
with the one that is wanted now. Pushes that are held for quiet hours become due at once, and are
decided anew when they are claimed; not for a save that has nothing to do with them, since each new
decision is recorded.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from app.db.database import Database, Driver, is_busy
from app.errors import Busy, UnknownUser
from app.pipeline.announce import Announcement
from app.pipeline.choices import count_and_release
from app.pipeline.decide import Defaults
from app.pipeline.deliver import Clock
from app.pipeline.parked import move_parked
from app.realtime.inboxes import lock_inboxes, open_inboxes
from app.services.user_service import make_known

Saved = TypeVar("Saved")

BUSY_MESSAGE = "Your preferences are being changed elsewhere; try again."


class ChoiceChanges:
    """Saves what users choose, so that every process decides by it from then on.

    Args:
        defaults: what holds where nothing is chosen.
        announce: rings for what is due again; never waits or raises.
        clock: the present instant.
    """

    def __init__(
        self,
        database: Database,
        defaults: Defaults,
        announce: Callable[[Announcement], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._announce = announce
        self._clock = clock

    async def save(
        self, user_id: UUID, write: Callable[[Driver], Awaitable[tuple[Saved, bool]]]
    ) -> Saved:
        """Write choices of a user, whose inbox is locked meanwhile, and tell what it answers.

        Args:
            write: is given the user's transaction; answers what to tell, and whether what it
                changed concerns pushes that are held. What it raises undoes the save.

        Raises:
            UnknownUser: users are the platform's own, and it has none with this id.
            Unavailable: PostgreSQL is away.
            Busy: somebody else held the inbox for long.
        """
        try:
            saved = await self._save(user_id, write)
            if saved is None:
                await self._welcome(user_id)
                saved = await self._save(user_id, write)
        except Exception as error:
            if is_busy(error):
                raise Busy(BUSY_MESSAGE) from error
            raise
        if saved is None:
            raise UnknownUser
        answer, due = saved
        if due:
            self._announce(Announcement(delivery_ids=due))
        return answer

    async def _save(
        self, user_id: UUID, write: Callable[[Driver], Awaitable[tuple[Saved, bool]]]
    ) -> tuple[Saved, tuple[UUID, ...]] | None:
        """What was written and which deliveries are due; None if there is no inbox to lock."""
        async with self._database.change_as_user(user_id) as driver:
            if not await lock_inboxes(driver, [user_id]):
                return None
            answer, concerns_held = await write(driver)
            now = self._clock()
            due = await count_and_release(driver, user_id, now, concerns_held=concerns_held)
            await move_parked(driver, [user_id], self._defaults, now)
        return answer, due

    async def _welcome(self, user_id: UUID) -> None:
        """Give an inbox to a user who was never seen before."""
        async with self._database.group_as_service() as driver:
            await make_known(driver, user_id)
            await open_inboxes(driver, [user_id])
