"""Group commit: create calls that arrive together share one transaction and one doorbell.

Locks are taken in one order (inboxes by user id), so groups of several processes do not
deadlock. A group that fails is retried one by one, so no caller fails for another's sake.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db.database import Database
from app.errors import Unavailable, UnknownUser
from app.pipeline.announce import Announcer
from app.pipeline.coalescing import Coalescer
from app.pipeline.decide import Defaults
from app.pipeline.draft import Draft
from app.pipeline.enqueue import Prepared, announcement_of, store

GROUP_LIMIT = 64
# One at a time: groups grow while it commits, and fewer, larger groups cost the least.
WRITERS = 1
BUSY_MESSAGE = "The user's inbox is busy; try again."
LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', '500ms', true)")


class GroupCommit:
    """Stores drafts durably; use it as an asynchronous context manager.

    Args:
        database: where notifications are stored.
        announcer: tells gateways and workers after the commit.
        defaults: what holds for users who chose nothing.
    """

    def __init__(self, database: Database, announcer: Announcer, defaults: Defaults) -> None:
        self._database = database
        self._announcer = announcer
        self._defaults = defaults
        self._groups: Coalescer[Draft, Prepared] = Coalescer(
            self._commit_group, limit=GROUP_LIMIT, workers=WRITERS
        )

    async def __aenter__(self) -> Self:
        await self._groups.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._groups.__aexit__(kind, error, trace)

    async def store(self, draft: Draft) -> Prepared:
        """Commit a draft; on return it is in the inbox and in the queue of record.

        Raises:
            UnknownUser: no user has the draft's `user_id`.
            Unavailable: PostgreSQL is away, or the user's inbox stayed locked.
        """
        return await self._groups.submit(draft)

    async def _commit_group(self, drafts: list[Draft]) -> Sequence[Prepared | Exception]:
        try:
            return await self._commit(drafts)
        except Unavailable:
            raise
        except Exception as error:
            if len(drafts) == 1:
                raise _as_refusal(error) from error
        busy: set[UUID] = set()
        return [await self._commit_alone(draft, busy) for draft in drafts]

    async def _commit_alone(self, draft: Draft, busy: set[UUID]) -> Prepared | Exception:
        """Commit one draft of a group that failed; users found busy are not waited for again."""
        if draft.user_id in busy:
            return Unavailable(BUSY_MESSAGE)
        try:
            (result,) = await self._commit([draft])
        except Exception as error:
            refusal = _as_refusal(error)
            if isinstance(refusal, Unavailable):
                busy.add(draft.user_id)
            return refusal
        return result

    async def _commit(self, drafts: list[Draft]) -> Sequence[Prepared | Exception]:
        async with self._database.as_service() as connection:
            await connection.execute(LOCK_TIMEOUT)
            prepared = await store(connection, drafts, self._defaults)
        self._announcer.announce(announcement_of(prepared))
        stored = {item.draft.id: item for item in prepared}
        return [stored.get(draft.id) or UnknownUser() for draft in drafts]


# Lock timeout, deadlock, serialization failure: another try may succeed.
BUSY_STATES = ("55P03", "40P01", "40001")


def _as_refusal(error: Exception) -> Exception:
    """What the caller of a draft that cannot be stored is told; bugs stay what they are."""
    if not isinstance(error, DBAPIError):
        return error
    if getattr(error.orig, "sqlstate", None) not in BUSY_STATES:
        return error
    refusal = Unavailable(BUSY_MESSAGE)
    refusal.__cause__ = error
    return refusal
