"""Batches become notifications: some recipients at a time, the batches in turns (REQ-005).

Each transaction takes a few recipients in the order of their ids, skipping those another worker
holds, and marks them in the same commit that creates their notifications. So a worker that dies
loses nothing and creates nothing twice. Inboxes that somebody else is changing are skipped too and
come later: an expansion never waits while it holds the inboxes of others, and never holds them
for long.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from app.db.database import Database, driver_of
from app.errors import Unavailable
from app.pipeline.announce import Announcer
from app.pipeline.batch import BatchContent, stored_content
from app.pipeline.decide import Audience
from app.pipeline.deliver import Clock
from app.pipeline.draft import Draft
from app.pipeline.enqueue import announcement_of, store
from app.realtime.inboxes import open_inboxes

log = structlog.get_logger()

# A create call for one of the recipients waits for the transaction that holds their inbox, so as
# many are taken at once as can be stored in this time.
HOLD_SECONDS = 0.04
FIRST_CHUNK, SMALLEST_CHUNK, LARGEST_CHUNK = 100, 25, 500
SET_ASIDE_SECONDS = 2.0

# Critical batches go first; all others take turns, so that a large one does not keep a small one
# waiting.
NEXT_BATCH = text("""
    SELECT id, service, content FROM notification_batches
    WHERE expanded_at IS NULL AND id <> ALL(CAST(:set_aside AS uuid[]))
    ORDER BY urgency > 0, id <= CAST(:last AS uuid), id LIMIT 1
""")

TAKE_RECIPIENTS = text("""
    SELECT user_id FROM notification_batch_recipients
    WHERE batch_id = CAST(:batch_id AS uuid) AND state = 'pending'
    ORDER BY user_id LIMIT :limit
    FOR UPDATE SKIP LOCKED
""")

# Users without an inbox are those that do not exist.
NOT_BUSY = text("""
    WITH free AS (
        SELECT user_id FROM inbox_state WHERE user_id = ANY(CAST(:user_ids AS uuid[]))
        FOR UPDATE SKIP LOCKED
    )
    SELECT u.id FROM unnest(CAST(:user_ids AS uuid[])) AS u (id)
    WHERE u.id IN (SELECT user_id FROM free)
       OR NOT EXISTS (SELECT FROM inbox_state i WHERE i.user_id = u.id)
""")

READ_LOCALES = text("""
    SELECT user_id, locale FROM notification_recipients
    WHERE user_id = ANY(CAST(:user_ids AS uuid[])) AND locale IS NOT NULL
""")

MARK_RECIPIENTS = text("""
    UPDATE notification_batch_recipients
    SET state = CASE
        WHEN user_id = ANY(CAST(:created AS uuid[])) THEN 'created' ELSE 'unknown'
    END
    WHERE batch_id = CAST(:batch_id AS uuid) AND user_id = ANY(CAST(:taken AS uuid[]))
""")

CLOSE_BATCH = text("""
    UPDATE notification_batches b SET expanded_at = CAST(:now AS timestamptz)
    WHERE id = CAST(:batch_id AS uuid) AND expanded_at IS NULL AND NOT EXISTS (
        SELECT FROM notification_batch_recipients r
        WHERE r.batch_id = b.id AND r.state = 'pending'
    )
""")

FAIL_BATCH = text("""
    UPDATE notification_batches
    SET expanded_at = CAST(:now AS timestamptz), error = CAST(:error AS text)
    WHERE id = CAST(:batch_id AS uuid) AND expanded_at IS NULL
""")


class OpenBatch(NamedTuple):
    """A batch with recipients to expand, and its content as it was stored."""

    id: UUID
    service: str
    content: Any


class Expander:
    """Turns batches into notifications.

    Args:
        clock: the present instant, at which recipients are decided.
    """

    def __init__(
        self, database: Database, announcer: Announcer, audience: Audience, clock: Clock
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._audience = audience
        self._clock = clock
        self._chunk = FIRST_CHUNK
        self._last = UUID(int=0)
        self._set_aside: dict[UUID, float] = {}  # until when, in the event loop's time

    async def expand_some(self) -> bool:
        """Expand some recipients of the batch whose turn it is.

        Returns:
            Whether there may be more to do now. What other workers hold, and batches that just
            failed, are left for a later call.

        Raises:
            Unavailable: PostgreSQL is away; what is open stays open.
        """
        batch = await self._next_batch()
        if batch is None:
            self._set_aside.clear()
            return False
        self._last = batch.id
        try:
            progressed = await self._expand(batch)
        except Unavailable:
            raise
        except Exception as error:
            # Others must not wait for it; it stays open and is tried again.
            log.warning("batch_not_expanded", batch_id=str(batch.id), error=type(error).__name__)
            progressed = False
        if not progressed:
            self._set_aside[batch.id] = asyncio.get_running_loop().time() + SET_ASIDE_SECONDS
        return True

    async def _next_batch(self) -> OpenBatch | None:
        now = asyncio.get_running_loop().time()
        self._set_aside = {key: until for key, until in self._set_aside.items() if until > now}
        parameters = {"set_aside": list(self._set_aside), "last": self._last}
        async with self._database.as_service() as connection:
            row = (await connection.execute(NEXT_BATCH, parameters)).one_or_none()
        return None if row is None else OpenBatch(*row)

    async def _expand(self, batch: OpenBatch) -> bool:
        """Expand some of a batch; returns whether that brought it forward."""
        try:
            stored = stored_content.validate_python(batch.content)
        except ValidationError as error:
            await self._fail(batch, error)
            return True
        limit = self._chunk
        began = asyncio.get_running_loop().time()
        async with self._database.as_service() as connection:
            taken = await _take(connection, batch.id, limit)
            locales = await _locales(connection, taken) if stored.by_language else {}
            drafts = self._drafts(batch, stored, taken, locales)
            prepared = await store(await driver_of(connection), drafts, self._audience)
            if taken:
                created = [item.draft.user_id for item in prepared]
                await connection.execute(
                    MARK_RECIPIENTS, {"batch_id": batch.id, "taken": taken, "created": created}
                )
            if len(taken) < limit:
                await connection.execute(CLOSE_BATCH, {"batch_id": batch.id, "now": self._clock()})
        if len(taken) == limit:
            self._chunk = _next_chunk(limit, asyncio.get_running_loop().time() - began)
        self._announcer.announce(announcement_of(prepared))
        return bool(taken)

    def _drafts(
        self,
        batch: OpenBatch,
        stored: BatchContent,
        user_ids: Sequence[UUID],
        locales: Mapping[UUID, str],
    ) -> list[Draft]:
        now = self._clock()
        return [
            Draft(
                id=uuid7(),
                user_id=user_id,
                service=batch.service,
                request=stored.request,
                content=stored.for_locale(locales.get(user_id)),
                created_at=now,
                batch_id=batch.id,
            )
            for user_id in user_ids
        ]

    async def _fail(self, batch: OpenBatch, cause: ValidationError) -> None:
        """Close a batch whose content cannot be used; its recipients count as failed."""
        faults = cause.errors(include_url=False, include_context=False, include_input=False)
        error = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['type']}" for item in faults)
        log.error("batch_failed", batch_id=str(batch.id), error=error)
        async with self._database.as_service() as connection:
            await connection.execute(
                FAIL_BATCH, {"batch_id": batch.id, "error": error, "now": self._clock()}
            )


def _next_chunk(size: int, seconds: float) -> int:
    """How many recipients to take next, when `size` of them took so long."""
    fitting = size * min(2.0, max(0.5, HOLD_SECONDS / seconds))
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, int(fitting)))


async def _take(connection: AsyncConnection, batch_id: UUID, limit: int) -> Sequence[UUID]:
    """Lock some recipients, and the inboxes of those that exist."""
    parameters = {"batch_id": batch_id, "limit": limit}
    taken = (await connection.execute(TAKE_RECIPIENTS, parameters)).scalars().all()
    if not taken:
        return taken
    await open_inboxes(await driver_of(connection), taken)
    return (await connection.execute(NOT_BUSY, {"user_ids": taken})).scalars().all()


async def _locales(connection: AsyncConnection, user_ids: Sequence[UUID]) -> dict[UUID, str]:
    rows = await connection.execute(READ_LOCALES, {"user_ids": user_ids})
    return {row.user_id: row.locale for row in rows}
