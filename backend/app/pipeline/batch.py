"""A bulk call is stored whole: its content once, and one row for each recipient (REQ-005).

Who belongs to a segment is settled here, in the transaction of the call: users that match later
are not part of the batch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database, driver_of, dumps
from app.errors import IdempotencyConflict, QueueFull, TooManyRecipients
from app.locales import languages_of
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.draft import Content, Words, already_expired, is_expired
from app.pipeline.idempotency import Answer, Attempt, claim, earlier, keep
from app.policy.routing import Request, effective_priority, is_limited
from app.ratelimit.global_limit import GlobalLimit
from app.ratelimit.queue_bound import QueueBound
from app.schemas.notification import Segment
from app.security.redact import Masked

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
        FROM counted WHERE count <= CAST(:room AS int)
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
    """What a batch says to its recipients, as it is stored.

    Args:
        content: for those whose language is not among the others.
        by_language: the words for those who have one of these, by its tag in lower case; fixed
            when the call was made, whatever becomes of its template.
    """

    request: Request
    content: Content
    by_language: Mapping[str, Words] = field(default_factory=dict[str, Words])

    def for_locale(self, tag: str | None) -> Content:
        """What is said to whoever has this language (BCP 47)."""
        if not self.by_language:
            return self.content
        known = next((name for name in languages_of(tag) if name in self.by_language), None)
        return self.content if known is None else self.content.in_words(self.by_language[known])


stored_content = TypeAdapter(BatchContent)


@dataclass(frozen=True, slots=True)
class Batch:
    """A bulk call.

    Args:
        recipients: ids of users, each once, or what the users are like.
        attempt: the call's idempotency key.
        overrides: whether it passes the global limit, and uses up nothing of it.
    """

    id: UUID
    service: str
    content: BatchContent
    recipients: Collection[UUID] | Segment
    created_at: datetime
    attempt: Attempt | None = None
    overrides: bool = False


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as its caller is told of it.

    Args:
        masked: where secrets were masked in its content.
        is_repeated: whether an earlier call with the same key created it.
    """

    id: UUID
    recipient_count: int
    masked: tuple[Masked, ...] = ()
    is_repeated: bool = False


told_batch = TypeAdapter(StoredBatch)


async def store_batch(
    database: Database,
    announcer: Announcer,
    batch: Batch,
    *,
    most: int,
    limit: GlobalLimit,
    bound: QueueBound,
) -> StoredBatch:
    """Commit a batch and its recipients, whom workers then notify.

    Args:
        most: recipients that a batch may have.
        limit: what all batches together may have in a minute.
        bound: knows whether the queue is full.

    Returns:
        What was stored, now or by the first call with the same key.

    Raises:
        TooManyRecipients: it has more than that; nothing was stored.
        IdempotencyConflict: the key was used for another request.
        RateLimited: the global limit has no room for it now; nothing was stored.
        QueueFull: too much waits already, and it is not critical.
        ValidationFailed: it has expired already.
        Unavailable: PostgreSQL is away.
    """
    attempts = [] if batch.attempt is None else [batch.attempt]
    full = is_limited(batch.content.request) and await bound.is_full()
    async with database.as_service() as connection:
        driver = await driver_of(connection)
        first = (await claim(driver, attempts)).get(batch.id)
        if first is not None:
            return _repeated(first)
        if is_expired(batch.content.request, batch.created_at):
            raise already_expired()
        if full:
            raise QueueFull
        # What plainly cannot fit is not written first.
        room = most if batch.overrides else min(most, await limit.room(driver))
        count = await _insert(connection, batch, most, room)
        if count > most:
            raise TooManyRecipients(f"A batch has at most {most} recipients.")
        if count > room:
            raise limit.refusal(count)
        stored = StoredBatch(batch.id, count, tuple(batch.content.content.masked))
        answer = told_batch.dump_python(stored, mode="json")
        await keep(driver, [(attempt, answer) for attempt in attempts])
        # Last, so that others wait for the bucket no longer than the commit takes.
        level = None if batch.overrides else await limit.charge(driver, count)
    limit.note(level)
    if count:
        announcer.announce(Announcement(batch_ids=(batch.id,)))
    return stored


async def earlier_batch(database: Database, attempt: Attempt) -> StoredBatch | None:
    """What a call with this key stored before, None if there was none.

    Raises:
        IdempotencyConflict: the key was used for another request.
        Unavailable: PostgreSQL is away.
    """
    async with database.as_service() as connection:
        found = await earlier(await driver_of(connection), attempt)
    return None if found is None else _repeated(found)


def _repeated(found: Answer | IdempotencyConflict) -> StoredBatch:
    if isinstance(found, IdempotencyConflict):
        raise found
    return replace(told_batch.validate_python(found), is_repeated=True)


async def _insert(connection: AsyncConnection, batch: Batch, most: int, room: int) -> int:
    """Write a batch with at most `room` recipients.

    Returns:
        How many it was to have, counted up to one more than `most`.
    """
    members, parameters = _members(batch.recipients)
    result = await connection.execute(
        text(INSERT_BATCH.format(members=members)),
        {
            "id": batch.id,
            "service": batch.service,
            "content": dumps(stored_content.dump_python(batch.content, mode="json")),
            "urgency": effective_priority(batch.content.request).rank,
            "created_at": batch.created_at,
            "most": most,
            "room": room,
            **parameters,
        },
    )
    return result.scalar_one()


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
