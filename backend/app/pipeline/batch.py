"""A bulk call is stored whole: its content once, and one row for each recipient (REQ-005).

Who belongs to a segment is settled here, in the transaction of the call: users that match later
are not part of the batch.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import text

from app.db.database import Database, dumps
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.draft import Content
from app.policy.routing import Request, effective_priority
from app.schemas.notification import Segment

# One member more than a batch may have is enough to know that there are too many.
INSERT_BATCH = """
    WITH members AS MATERIALIZED (
        SELECT user_id FROM ({members}) AS m (user_id) LIMIT CAST(:most AS int) + 1
    ), counted AS (
        SELECT CAST(count(*) AS int) AS count FROM members
    ), batch AS (
        INSERT INTO notification_batches (
            id, service, content, urgency, recipient_count, created_at, expanded_at
        )
        SELECT CAST(:id AS uuid), CAST(:service AS text), CAST(CAST(:content AS text) AS jsonb),
               CAST(:urgency AS smallint), count, CAST(:created_at AS timestamptz),
               CASE WHEN count = 0 THEN CAST(:created_at AS timestamptz) END
        FROM counted WHERE count <= CAST(:most AS int)
        RETURNING id
    ), added AS (
        INSERT INTO notification_batch_recipients (batch_id, user_id)
        SELECT batch.id, members.user_id FROM batch, members
    )
    SELECT count FROM counted
"""

LISTED = "SELECT unnest(CAST(:user_ids AS uuid[]))"
EVERYBODY = "SELECT id FROM users"
MATCHING = "SELECT user_id FROM notification_recipients WHERE "
WITH_ATTRIBUTES = "attributes @> CAST(CAST(:attributes AS text) AS jsonb)"
# A language matches its regions too (RFC 4647, section 3.3.1).
WITH_LOCALE = "lower(locale) || '-' LIKE lower(CAST(:locale AS text)) || '-%'"


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
        recipients: ids of users, each once, or what the users are like.
    """

    id: UUID
    service: str
    content: BatchContent
    recipients: Collection[UUID] | Segment
    created_at: datetime


async def store_batch(database: Database, announcer: Announcer, batch: Batch, *, most: int) -> int:
    """Commit a batch and its recipients, whom workers then notify.

    Args:
        most: recipients that a batch may have.

    Returns:
        How many recipients it has; when they are more than `most`, nothing was stored.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    members, parameters = _members(batch.recipients)
    async with database.as_service() as connection:
        result = await connection.execute(
            text(INSERT_BATCH.format(members=members)),
            {
                "id": batch.id,
                "service": batch.service,
                "content": dumps(stored_content.dump_python(batch.content, mode="json")),
                "urgency": effective_priority(batch.content.request).rank,
                "created_at": batch.created_at,
                "most": most,
                **parameters,
            },
        )
        count: int = result.scalar_one()
    if 0 < count <= most:
        announcer.announce(Announcement(batch_ids=(batch.id,)))
    return count


def _members(recipients: Collection[UUID] | Segment) -> tuple[str, dict[str, Any]]:
    """The query that names the recipients' ids, and its parameters."""
    if not isinstance(recipients, Segment):
        return LISTED, {"user_ids": sorted(recipients)}
    if recipients.all:
        return EVERYBODY, {}
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    if recipients.attributes is not None:
        conditions.append(WITH_ATTRIBUTES)
        parameters["attributes"] = dumps(recipients.attributes)
    if recipients.locale is not None:
        conditions.append(WITH_LOCALE)
        parameters["locale"] = recipients.locale
    return MATCHING + " AND ".join(conditions), parameters
