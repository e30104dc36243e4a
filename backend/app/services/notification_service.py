"""Creating notifications: one at a time, or one text for many users (REQ-003, REQ-005)."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.config import Settings
from app.db.database import Database
from app.errors import NotFound, TooManyRecipients, ValidationFailed
from app.pipeline.announce import Announcer
from app.pipeline.commit import GroupCommit
from app.pipeline.deliver import Clock
from app.pipeline.draft import Content, Draft
from app.pipeline.expand import Batch, BatchContent, store_batch
from app.pipeline.idempotency import Attempt, fingerprint_of
from app.pipeline.receipt import Receipt
from app.policy.routing import Request
from app.schemas.notification import (
    BatchAccepted,
    BatchStatus,
    CreateBatch,
    CreateNotification,
    NotificationContent,
)
from app.security.sanitize import TooComplex, safe_html

# A recipient is pending while one of their deliveries waits for its first attempt or a retry;
# held deliveries and digests wait for their time and don't count.
BATCH_STATUS = text("""
    WITH recipient AS (
        SELECT r.state, n.id IS NOT NULL AS created,
               coalesce(bool_or(
                   d.status = 'pending' AND d.digest_slot IS NULL
                   AND (d.attempts > 0 OR d.next_attempt_at <= CAST(:now AS timestamptz))
               ), false) AS waits,
               coalesce(bool_or(d.status IN ('failed', 'bounced')), false) AS failed,
               coalesce(bool_or(
                   d.status IN ('sent', 'delivered') OR d.status = 'pending'
               ), false) AS delivered
        FROM notification_batch_recipients r
        LEFT JOIN notifications n ON n.batch_id = r.batch_id AND n.user_id = r.user_id
        LEFT JOIN notification_deliveries d ON d.notification_id = n.id
        WHERE r.batch_id = CAST(:batch_id AS uuid)
        GROUP BY r.user_id, r.state, n.id
    ), judged AS (
        SELECT created, CASE
            WHEN state = 'unknown' THEN 'failed'
            WHEN state = 'pending' OR waits THEN 'pending'
            WHEN failed THEN 'failed'
            WHEN delivered THEN 'delivered'
            ELSE 'skipped'
        END AS verdict
        FROM recipient
    )
    SELECT b.service, b.recipient_count,
           count(*) FILTER (WHERE created) AS created,
           count(*) FILTER (WHERE verdict = 'delivered') AS delivered,
           count(*) FILTER (WHERE verdict = 'failed') AS failed,
           count(*) FILTER (WHERE verdict = 'skipped') AS skipped,
           count(*) FILTER (WHERE verdict = 'pending') AS pending
    FROM notification_batches b, judged
    WHERE b.id = CAST(:batch_id AS uuid)
    GROUP BY b.id
""")


class NotificationService:
    """Takes notifications in.

    Args:
        groups: stores single notifications.
        announcer: tells workers of batches.
        clock: the present instant.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        groups: GroupCommit,
        announcer: Announcer,
        clock: Clock,
    ) -> None:
        self._max_recipients = settings.notification_max_batch_size
        self._database = database
        self._groups = groups
        self._announcer = announcer
        self._clock = clock

    async def create(
        self, service: str, wanted: CreateNotification, key: str | None = None
    ) -> Receipt:
        """Store one notification and everything decided about it.

        Args:
            service: name of the caller.
            key: the idempotency key beside the body; the body may hold it too.

        Returns:
            What was stored, now or by the first call with the same key; it will reach its
            channels, or end with a reason.

        Raises:
            ValidationFailed: it has expired already, or its body is too complex.
            IdempotencyConflict: the key was used for another request.
            UnknownUser: no such user.
            Unavailable: PostgreSQL is away, or the inbox stayed locked.
        """
        now = self._clock()
        _refuse_expired(wanted, now)
        notification_id = uuid7()
        return await self._groups.store(
            Draft(
                id=notification_id,
                user_id=wanted.user_id,
                service=service,
                request=_policy_request(wanted),
                content=_content(wanted),
                created_at=now,
                attempt=_attempt(service, wanted, key, notification_id, now),
            )
        )

    async def create_batch(self, service: str, wanted: CreateBatch) -> BatchAccepted:
        """Store one text for many users; workers expand it.

        Raises:
            TooManyRecipients: more distinct users than a batch may have.
            ValidationFailed: it has expired already, or its body is too complex.
            Unavailable: PostgreSQL is away.
        """
        now = self._clock()
        recipients = set(wanted.user_ids)
        if len(recipients) > self._max_recipients:
            raise TooManyRecipients(f"A batch has at most {self._max_recipients} recipients.")
        _refuse_expired(wanted, now)
        batch = Batch(
            id=uuid7(),
            service=service,
            content=BatchContent(_policy_request(wanted), _content(wanted)),
            user_ids=recipients,
            created_at=now,
        )
        await store_batch(self._database, self._announcer, batch)
        return BatchAccepted(batch_id=batch.id, recipient_count=len(recipients))

    async def batch_status(self, batch_id: UUID, *, service: str | None) -> BatchStatus:
        """How far a batch is.

        Args:
            service: the caller, who sees its own batches; None sees all.

        Raises:
            NotFound: there is no such batch, or it is another service's.
        """
        async with self._database.as_service() as connection:
            parameters = {"batch_id": batch_id, "now": self._clock()}
            row = (await connection.execute(BATCH_STATUS, parameters)).one_or_none()
        if row is None or (service is not None and row.service != service):
            raise NotFound
        return BatchStatus(
            batch_id=batch_id,
            recipient_count=row.recipient_count,
            created=row.created,
            delivered=row.delivered,
            failed=row.failed,
            skipped=row.skipped,
            pending=row.pending,
            status=_progress(pending=row.pending, failed=row.failed),
        )


def _progress(
    *, pending: int, failed: int
) -> Literal["processing", "completed", "partially_failed"]:
    if pending:
        return "processing"
    return "partially_failed" if failed else "completed"


def _refuse_expired(wanted: NotificationContent, now: datetime) -> None:
    if wanted.expires_at is not None and wanted.expires_at <= now:
        raise ValidationFailed(
            details=[
                {"path": "expires_at", "code": "in_the_past", "message": "must be in the future"}
            ]
        )


def _attempt(
    service: str, wanted: CreateNotification, key: str | None, owner_id: UUID, now: datetime
) -> Attempt | None:
    if key is not None and wanted.idempotency_key not in {None, key}:
        raise ValidationFailed(
            details=[
                {
                    "path": "idempotency_key",
                    "code": "differs_from_header",
                    "message": "must be the same as the Idempotency-Key header",
                }
            ]
        )
    key = key or wanted.idempotency_key
    if key is None:
        return None
    return Attempt(service, key, fingerprint_of(wanted), owner_id, now)


def _policy_request(wanted: NotificationContent) -> Request:
    return Request(
        type=wanted.type,
        priority=wanted.priority,
        channels=None if wanted.channels is None else frozenset(wanted.channels),
        send_email=wanted.send_email,
        send_at=wanted.send_at,
        expires_at=wanted.expires_at,
    )


def _content(wanted: NotificationContent) -> Content:
    try:
        html = safe_html(wanted.body)
    except TooComplex as error:
        raise ValidationFailed(
            details=[{"path": "body", "code": "too_complex", "message": str(error)}]
        ) from None
    return Content(
        title=wanted.title,
        body=wanted.body,
        body_html=html,
        data=wanted.data,
        template_id=wanted.template_id,
    )
