"""Changing inboxes for their users (REQ-012, requirements 5.1)."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from app.db.database import Database
from app.pipeline.announce import Announcement
from app.pipeline.change import AllRead, InboxEdit, ReadStatus, editing
from app.pipeline.deliver import Clock


class InboxChanges:
    """Each change is one transaction, told to the user's sessions once it is committed.

    Everything raises `Unavailable` while PostgreSQL cannot be reached or the inbox stays locked.

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

    @asynccontextmanager
    async def editing(self, user_id: UUID) -> AsyncGenerator[InboxEdit]:
        """Several changes as one transaction; an error in the context undoes them all."""
        async with editing(self._database, user_id, self._clock()) as edit:
            yield edit
        if edit.changes:
            self._announce(Announcement(changes=tuple(edit.changes)))

    async def mark_read(self, user_id: UUID, notification_id: UUID) -> ReadStatus:
        """Mark as read; what is read already keeps its first `read_at`.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        async with self.editing(user_id) as edit:
            return await edit.read(notification_id)

    async def mark_unread(self, user_id: UUID, notification_id: UUID) -> ReadStatus:
        """Mark as unread again.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        async with self.editing(user_id) as edit:
            return await edit.unread(notification_id)

    async def mark_all_read(
        self, user_id: UUID, *, up_to: int | None = None, notification_type: str | None = None
    ) -> AllRead:
        """Mark as read what became visible at or before `up_to`, of one type or of all."""
        async with self.editing(user_id) as edit:
            return await edit.read_all(up_to, notification_type)

    async def delete(self, user_id: UUID, notification_id: UUID) -> None:
        """Take a notification out of the inbox for good.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        async with self.editing(user_id) as edit:
            await edit.delete(notification_id)

    async def expire(self, user_id: UUID) -> bool:
        """Take out some of what is overdue, should no worker have come to it yet.

        Returns:
            Whether there was any.
        """
        async with self.editing(user_id) as edit:
            return bool(edit.changes)
