"""Dead letters: deliveries that failed for good, listed and retried by operators (section 8.4)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.errors import NotFound
from app.pipeline.announce import Announcement
from app.pipeline.deliver import Clock
from app.policy.kinds import Channel, DeliveryStatus, NotificationType, Reason
from app.schemas.delivery import (
    RETRIES_AT_ONCE,
    DeadLetter,
    DeadLetterPage,
    RetriedDeadLetter,
)
from app.services.cursors import Cursors

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEWEST = (datetime(9999, 1, 1, tzinfo=UTC), UUID(int=2**128 - 1))

FILTER = """
    d.status = 'failed'
    AND (CAST(:channel AS text) IS NULL OR d.channel = CAST(:channel AS text))
    AND (CAST(:reason AS text) IS NULL OR d.reason = CAST(:reason AS text))
    AND (CAST(:ids AS uuid[]) IS NULL OR d.id = ANY(CAST(:ids AS uuid[])))
"""

# ruff: noqa: S608 -- composed of nothing but the constant above
READ_PAGE = text(f"""
    SELECT d.id, d.notification_id, d.user_id, d.channel, d.device_id, d.reason, d.error_message,
           d.attempts, d.failed_at, d.created_at, n.type
    FROM notification_deliveries d JOIN notifications n ON n.id = d.notification_id
    WHERE {FILTER}
      AND (d.failed_at, d.id) < (CAST(:before AS timestamptz), CAST(:before_id AS uuid))
    ORDER BY d.failed_at DESC, d.id DESC LIMIT :limit
""")

RETRY = text(f"""
    WITH chosen AS (
        SELECT d.id, d.reason FROM notification_deliveries d
        WHERE {FILTER} AND d.failed_at < CAST(:before AS timestamptz)
        ORDER BY d.failed_at, d.id LIMIT :limit
        FOR UPDATE
    ), revived AS (
        UPDATE notification_deliveries d
        SET status = 'pending', reason = 'retried', error_message = NULL, attempts = 0,
            expired_leases = 0, lease_token = NULL, digest_slot = NULL, failed_at = NULL,
            next_attempt_at = CAST(:now AS timestamptz)
        FROM chosen WHERE d.id = chosen.id
        RETURNING d.id, d.notification_id, d.user_id, d.channel, d.device_id, chosen.reason
    ), anew AS (
        -- The provider took it and reported later that it failed: the same request, made again,
        -- would have the same answer. Of all others nobody knows, so they stay in theirs.
        DELETE FROM email_request_letters l USING revived r
        WHERE l.letter_id = r.id AND r.reason = 'provider_rejected'
    ), traced AS (
        INSERT INTO notification_events (
            notification_id, user_id, channel, event, reason, device_id, detail, at
        )
        SELECT notification_id, user_id, channel, 'retried', reason, device_id,
               jsonb_build_object('by', CAST(:by AS text), 'delivery_id', id),
               CAST(:now AS timestamptz)
        FROM revived
    )
    SELECT id FROM revived
""")

READ_RETRIED = text("""
    SELECT d.status FROM notification_deliveries d
    WHERE d.id = CAST(:id AS uuid) AND d.status <> 'failed' AND EXISTS (
        SELECT FROM notification_events e
        WHERE e.notification_id = d.notification_id AND e.event = 'retried'
          AND e.detail ->> 'delivery_id' = d.id::text
    )
""")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant: those that fit everything that is not None.

    Args:
        before: failed before this aware instant.
    """

    ids: tuple[UUID, ...] | None = None
    channel: Channel | None = None
    reason: Reason | None = None
    before: datetime | None = None

    @property
    def parameters(self) -> dict[str, object]:
        """Values of the statements' filter."""
        return {
            "ids": None if self.ids is None else list(self.ids),
            "channel": self.channel,
            "reason": self.reason,
            "before": self.before or NEWEST[0],
        }


class DeadLetterService:
    """Lists and retries; everything raises `Unavailable` while PostgreSQL cannot be reached.

    Args:
        announce: rings for what is due again; never waits or raises.
        clock: the present instant.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        announce: Callable[[Announcement], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._announce = announce
        self._clock = clock
        self._cursors = Cursors(settings.encryption_keys, "dead letters")

    async def page(
        self, wanted: Filter, *, limit: int, cursor: str | None = None
    ) -> DeadLetterPage:
        """A page of dead letters, newest failure first.

        Args:
            limit: dead letters on a page, at least 1.
            cursor: `next_cursor` of the page before, with the same channel and reason.

        Raises:
            ValidationFailed: the cursor was not given for this filter.
        """
        scope = f"{wanted.channel or ''}:{wanted.reason or ''}".encode()
        before, before_id = NEWEST if cursor is None else _place(self._cursors.open(scope, cursor))
        # One more than asked for tells whether another page follows.
        parameters = {
            **wanted.parameters,
            "before": before,
            "before_id": before_id,
            "limit": limit + 1,
        }
        async with self._database.as_service() as connection:
            rows = (await connection.execute(READ_PAGE, parameters)).all()
        items = [
            DeadLetter(
                id=row.id,
                notification_id=row.notification_id,
                user_id=row.user_id,
                type=NotificationType(row.type),
                channel=Channel(row.channel),
                device_id=row.device_id,
                reason=Reason(row.reason),
                detail=row.error_message,
                attempts=row.attempts,
                failed_at=row.failed_at,
                created_at=row.created_at,
            )
            for row in rows[:limit]
        ]
        has_more = len(rows) > limit
        return DeadLetterPage(
            items=items,
            next_cursor=self._cursors.seal(scope, _payload(items[-1])) if has_more else None,
            has_more=has_more,
        )

    async def retry(self, delivery_id: UUID, *, by: str) -> RetriedDeadLetter:
        """Put a dead letter into the queue again; one that was retried already stays as it is.

        Args:
            by: who wants it, for the trace.

        Raises:
            NotFound: no dead letter has this id, and none had that was retried.
        """
        if await self.retry_all(Filter(ids=(delivery_id,)), by=by):
            return RetriedDeadLetter(id=delivery_id, status=DeliveryStatus.PENDING)
        async with self._database.as_service() as connection:
            status = (await connection.execute(READ_RETRIED, {"id": delivery_id})).scalar()
        if status is None:
            raise NotFound
        return RetriedDeadLetter(id=delivery_id, status=DeliveryStatus(status))

    async def retry_all(self, wanted: Filter, *, by: str) -> int:
        """Put dead letters into the queue again, oldest failure first.

        They start anew, with all their attempts. What has expired or was cancelled since is not
        sent: its claim ends it with that reason.

        Returns:
            How many, at most `RETRIES_AT_ONCE`.
        """
        parameters = {
            **wanted.parameters,
            "limit": RETRIES_AT_ONCE,
            "now": self._clock(),
            "by": by,
        }
        async with self._database.as_service() as connection:
            ids = (await connection.execute(RETRY, parameters)).scalars().all()
        if ids:
            self._announce(Announcement(delivery_ids=tuple(ids)))
        return len(ids)

    async def retry_every(self, wanted: Filter, *, by: str) -> int:
        """Put all dead letters that fit into the queue again, however many; returns how many."""
        # What fails once more meanwhile is not retried again.
        wanted = replace(wanted, before=wanted.before or self._clock())
        total = 0
        while count := await self.retry_all(wanted, by=by):
            total += count
        return total


def _payload(item: DeadLetter) -> bytes:
    micros = (item.failed_at - EPOCH) // timedelta(microseconds=1)
    return micros.to_bytes(8, "big") + item.id.bytes


def _place(payload: bytes) -> tuple[datetime, UUID]:
    micros = int.from_bytes(payload[:8], "big")
    return EPOCH + timedelta(microseconds=micros), UUID(bytes=payload[8:])
