"""Bulk: a batch is stored whole, and workers expand it into notifications (REQ-005).

Each transaction takes a few hundred recipients in the order of their ids, skipping those another
worker holds, and marks them in the same commit that creates their notifications. So a worker that
dies loses nothing and creates nothing twice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.db.database import Database, driver_of, dumps
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.decide import Defaults
from app.pipeline.deliver import Clock
from app.pipeline.draft import Content, Draft
from app.pipeline.enqueue import announcement_of, store
from app.policy.routing import Request
from app.realtime.inboxes import open_inboxes

RECIPIENTS_AT_ONCE = 500

INSERT_BATCH = text("""
    WITH batch AS (
        INSERT INTO notification_batches (id, service, content, recipient_count, created_at)
        VALUES (
            CAST(:id AS uuid), :service, CAST(CAST(:content AS text) AS jsonb), :count,
            CAST(:created_at AS timestamptz)
        )
        RETURNING id
    )
    INSERT INTO notification_batch_recipients (batch_id, user_id)
    SELECT batch.id, user_id FROM batch, unnest(CAST(:user_ids AS uuid[])) AS user_id
""")

OPEN_BATCHES = text("""
    SELECT id FROM notification_batches WHERE expanded_at IS NULL ORDER BY created_at LIMIT 100
""")

TAKE_RECIPIENTS = text("""
    SELECT r.user_id, b.service, b.content
    FROM notification_batch_recipients r JOIN notification_batches b ON b.id = r.batch_id
    WHERE r.batch_id = CAST(:batch_id AS uuid) AND r.state = 'pending'
    ORDER BY r.user_id LIMIT :limit
    FOR UPDATE OF r SKIP LOCKED
""")

MARK_RECIPIENTS = text("""
    UPDATE notification_batch_recipients
    SET state = CASE
        WHEN user_id = ANY(CAST(:created AS uuid[])) THEN 'created' ELSE 'unknown'
    END
    WHERE batch_id = CAST(:batch_id AS uuid) AND user_id = ANY(CAST(:taken AS uuid[]))
""")

CLOSE_BATCH = text("""
    UPDATE notification_batches b SET expanded_at = now()
    WHERE id = CAST(:batch_id AS uuid) AND expanded_at IS NULL AND NOT EXISTS (
        SELECT FROM notification_batch_recipients r
        WHERE r.batch_id = b.id AND r.state = 'pending'
    )
""")


@dataclass(frozen=True, slots=True)
class BatchContent:
    """What a batch says to each of its recipients, as it is stored."""

    request: Request
    content: Content


stored_content = TypeAdapter(BatchContent)


@dataclass(frozen=True, slots=True)
class Batch:
    """A bulk call.

    Args:
        user_ids: its recipients, each once.
    """

    id: UUID
    service: str
    content: BatchContent
    user_ids: Collection[UUID]
    created_at: datetime


async def store_batch(database: Database, announcer: Announcer, batch: Batch) -> None:
    """Commit a batch and its recipients; workers do the rest.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    async with database.as_service() as connection:
        await connection.execute(
            INSERT_BATCH,
            {
                "id": batch.id,
                "service": batch.service,
                "content": dumps(stored_content.dump_python(batch.content, mode="json")),
                "count": len(batch.user_ids),
                "created_at": batch.created_at,
                "user_ids": sorted(batch.user_ids),
            },
        )
    announcer.announce(Announcement(batch_ids=(batch.id,)))


class Expander:
    """Turns batches into notifications, some recipients at a time."""

    def __init__(
        self, database: Database, announcer: Announcer, defaults: Defaults, clock: Clock
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._defaults = defaults
        self._clock = clock

    async def open_batches(self) -> Sequence[UUID]:
        """Batches that still have recipients to expand, oldest first."""
        async with self._database.as_service() as connection:
            return (await connection.execute(OPEN_BATCHES)).scalars().all()

    async def expand(self, batch_id: UUID) -> None:
        """Expand what no other worker holds of a batch.

        Raises:
            Unavailable: PostgreSQL is away; the rest of the batch stays for later.
        """
        while await self._expand_some(batch_id):
            pass

    async def _expand_some(self, batch_id: UUID) -> int:
        async with self._database.as_service() as connection:
            taken = (
                await connection.execute(
                    TAKE_RECIPIENTS, {"batch_id": batch_id, "limit": RECIPIENTS_AT_ONCE}
                )
            ).all()
            if not taken:
                await connection.execute(CLOSE_BATCH, {"batch_id": batch_id})
                return 0
            stored = stored_content.validate_python(taken[0].content)
            now = self._clock()
            drafts = [
                Draft(
                    id=uuid7(),
                    user_id=row.user_id,
                    service=row.service,
                    request=stored.request,
                    content=stored.content,
                    created_at=now,
                    batch_id=batch_id,
                )
                for row in taken
            ]
            driver = await driver_of(connection)
            await open_inboxes(driver, {draft.user_id for draft in drafts})
            prepared = await store(driver, drafts, self._defaults)
            await connection.execute(
                MARK_RECIPIENTS,
                {
                    "batch_id": batch_id,
                    "taken": [row.user_id for row in taken],
                    "created": [item.draft.user_id for item in prepared],
                },
            )
        self._announcer.announce(announcement_of(prepared))
        return len(taken)
