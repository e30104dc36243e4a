"""One notification for many users: taking a batch in, and saying how far it is (REQ-005)."""

from typing import Literal
from uuid import UUID

import structlog
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.config import Settings
from app.db.database import Database
from app.errors import NotFound, ValidationFailed
from app.pipeline.announce import Announcer
from app.pipeline.batch import Batch, StoredBatch, earlier_batch, store_batch
from app.pipeline.deliver import Clock
from app.policy.kinds import Priority
from app.policy.routing import Request, effective_priority
from app.ratelimit.global_limit import GlobalLimit
from app.ratelimit.queue_bound import QueueBound
from app.schemas.notification import BatchStatus, CreateBatch
from app.services.notification_service import attempt_of
from app.services.wording import Wording

log = structlog.get_logger()

# A channel is judged by its best device. `waits` is what a worker does now or tries again soon;
# what is held until a time of its own, or parked for a digest, does not.
READ_STATUS = text("""
    WITH channel AS (
        SELECT n.user_id,
               bool_or(d.status IN ('sent', 'delivered')) AS went_out,
               bool_or(d.status IN ('failed', 'bounced')) AS failed,
               bool_or(d.status = 'pending') AS held,
               bool_or(
                   d.status = 'pending' AND d.digest_slot IS NULL AND (
                       d.lease_token IS NOT NULL
                       OR d.next_attempt_at <= CAST(:now AS timestamptz)
                       OR d.reason NOT IN ('scheduled', 'quiet_hours', 'user_limit')
                   )
               ) AS waits
        FROM notifications n JOIN notification_deliveries d ON d.notification_id = n.id
        WHERE n.batch_id = CAST(:batch_id AS uuid)
        GROUP BY n.user_id, d.channel
    ), recipient AS (
        SELECT r.state = 'created' AS created, CASE
            WHEN r.state = 'unknown' OR (r.state = 'pending' AND b.error IS NOT NULL) THEN 'failed'
            WHEN r.state = 'pending' OR bool_or(c.waits) THEN 'in progress'
            WHEN bool_or(c.failed AND NOT c.went_out AND NOT c.held) THEN 'failed'
            WHEN bool_or(c.went_out) THEN 'delivered'
            WHEN bool_or(c.held) THEN 'held'
            ELSE 'skipped'
        END AS verdict
        FROM notification_batches b
        JOIN notification_batch_recipients r ON r.batch_id = b.id
        LEFT JOIN channel c ON c.user_id = r.user_id
        WHERE b.id = CAST(:batch_id AS uuid)
        GROUP BY b.id, r.user_id, r.state
    )
    SELECT b.service, b.recipient_count,
           count(*) FILTER (WHERE r.created) AS created,
           count(*) FILTER (WHERE r.verdict = 'delivered') AS delivered,
           count(*) FILTER (WHERE r.verdict = 'failed') AS failed,
           count(*) FILTER (WHERE r.verdict = 'skipped') AS skipped,
           count(*) FILTER (WHERE r.verdict = 'held') AS held,
           count(*) FILTER (WHERE r.verdict = 'in progress') AS in_progress
    FROM notification_batches b LEFT JOIN recipient r ON true
    WHERE b.id = CAST(:batch_id AS uuid)
    GROUP BY b.id
""")


class BatchService:
    """Takes batches in.

    Args:
        announcer: tells workers of them.
        wording: says what they say.
        limit: what all of them together may have in a minute.
        bound: knows whether the queue is full.
        clock: the present instant.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        announcer: Announcer,
        wording: Wording,
        limit: GlobalLimit,
        bound: QueueBound,
        clock: Clock,
    ) -> None:
        self._max_recipients = settings.notification_max_batch_size
        self._database = database
        self._announcer = announcer
        self._wording = wording
        self._limit = limit
        self._bound = bound
        self._clock = clock

    async def create(
        self, service: str, wanted: CreateBatch, key: str | None = None
    ) -> StoredBatch:
        """Store one notification for many users; workers expand it.

        Args:
            service: name of the caller.
            key: the idempotency key beside the body; the body may hold it too.

        Returns:
            What was stored, now or by the first call with the same key.

        Raises:
            TooManyRecipients: more distinct users than a batch may have; nothing is stored.
            IdempotencyConflict: the key was used for another request.
            RateLimited: the global limit has no room for it now; nothing is stored.
            QueueFull: too much waits already, and it is not critical.
            ValidationFailed: it has expired already, overrides without being critical, or there
                are no words for it.
            Unavailable: PostgreSQL is away, or templates cannot be rendered.
        """
        now = self._clock()
        batch_id = uuid7()
        attempt = attempt_of(service, wanted, key, batch_id, now)
        try:
            content = await self._wording.of_batch(wanted)
            if wanted.override:
                _refuse_unless_critical(content.request)
        except ValidationFailed:
            # Its template may have been another one when the call was made first.
            earlier = None if attempt is None else await earlier_batch(self._database, attempt)
            if earlier is None:
                raise
            return earlier
        batch = Batch(
            id=batch_id,
            service=service,
            content=content,
            recipients=wanted.recipients,
            created_at=now,
            attempt=attempt,
            overrides=wanted.override,
        )
        stored = await store_batch(
            self._database,
            self._announcer,
            batch,
            most=self._max_recipients,
            limit=self._limit,
            bound=self._bound,
        )
        if wanted.override and not stored.is_repeated:
            log.info(
                "batch_override",
                batch_id=str(stored.id),
                service=service,
                recipients=stored.recipient_count,
            )
        return stored

    async def status(self, batch_id: UUID, *, service: str | None) -> BatchStatus:
        """How far a batch is.

        Args:
            service: the caller, who sees its own batches; None sees all.

        Raises:
            NotFound: there is no such batch, or it is another service's.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            parameters = {"batch_id": batch_id, "now": self._clock()}
            row = (await connection.execute(READ_STATUS, parameters)).one_or_none()
        if row is None or (service is not None and row.service != service):
            raise NotFound
        return BatchStatus(
            batch_id=batch_id,
            recipient_count=row.recipient_count,
            created=row.created,
            delivered=row.delivered,
            failed=row.failed,
            skipped=row.skipped,
            pending=row.in_progress + row.held,
            status=_progress(in_progress=row.in_progress, failed=row.failed),
        )


def _refuse_unless_critical(request: Request) -> None:
    if effective_priority(request) is not Priority.CRITICAL:
        raise ValidationFailed(
            details=[
                {
                    "path": "override",
                    "code": "not_critical",
                    "message": "is for notifications of critical priority",
                }
            ]
        )


def _progress(
    *, in_progress: int, failed: int
) -> Literal["processing", "completed", "partially_failed"]:
    if in_progress:
        return "processing"
    return "partially_failed" if failed else "completed"
