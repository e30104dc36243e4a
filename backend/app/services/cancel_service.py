"""Cancelling a notification: what has not gone out on a channel yet never will.

A delivery that a worker is sending right now cannot be called back, so it is not called cancelled:
it ends as it ends, and where it fails for now it is not tried again (`app.pipeline.track`).
"""

from uuid import UUID

from sqlalchemy import text

from app.db.database import Database
from app.errors import NotFound
from app.pipeline.deliver import Clock
from app.policy.kinds import Channel, DeliveryStatus
from app.schemas.delivery import CancelledNotification

CANCEL_WAITING = text("""
    WITH open AS (
        SELECT id, user_id, channel, reason, next_attempt_at FROM notification_deliveries
        WHERE notification_id = CAST(:id AS uuid) AND status = 'pending' AND lease_token IS NULL
        FOR NO KEY UPDATE
    ), stopped AS (
        UPDATE notification_deliveries d
        SET status = 'cancelled', reason = 'cancelled', next_attempt_at = NULL
        FROM open WHERE d.id = open.id
        RETURNING d.notification_id, d.user_id, d.channel, d.device_id
    ), waiting AS (
        -- Who leaves the line for a limit leaves the room to the next.
        SELECT d.id, l.next_attempt_at AS due
        FROM open l JOIN notification_deliveries d USING (user_id, channel)
        WHERE l.reason = 'user_limit' AND d.status = 'pending' AND d.reason = 'user_limit'
          AND d.lease_token IS NULL AND d.next_attempt_at > l.next_attempt_at
          AND d.notification_id <> CAST(:id AS uuid)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    ), called AS (
        UPDATE notification_deliveries d SET next_attempt_at = w.due
        FROM waiting w WHERE d.id = w.id
    )
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, device_id, detail, at
    )
    SELECT notification_id, user_id, channel, 'cancelled', 'cancelled', device_id,
           jsonb_build_object('by', CAST(:by AS text)), CAST(:now AS timestamptz)
    FROM stopped
""")

# After the deliveries: whoever shows an in-app one locks them in this order too.
MARK = text("""
    UPDATE notifications SET cancelled_at = coalesce(cancelled_at, CAST(:now AS timestamptz))
    WHERE id = CAST(:id AS uuid) RETURNING id
""")

READ_STATES = text("""
    SELECT DISTINCT channel, status FROM notification_deliveries
    WHERE notification_id = CAST(:id AS uuid) AND status IN ('cancelled', 'pending')
""")


class CancelService:
    """Cancels notifications.

    Args:
        clock: the present instant.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def cancel(self, notification_id: UUID, *, by: str) -> CancelledNotification:
        """Cancel what has not gone out; doing it again changes nothing.

        What waits, is held, scheduled or parked for a digest ends `cancelled`. What was delivered
        stays, in the inbox too.

        Args:
            by: who wants it, for the trace.

        Raises:
            NotFound: no notification has this id.
            Unavailable: PostgreSQL is away.
        """
        parameters = {"id": notification_id, "by": by, "now": self._clock()}
        async with self._database.as_service() as connection:
            await connection.execute(CANCEL_WAITING, parameters)
            if (await connection.execute(MARK, parameters)).first() is None:
                raise NotFound
            rows = (await connection.execute(READ_STATES, parameters)).all()
        states = {(row.channel, row.status) for row in rows}
        return CancelledNotification(
            id=notification_id,
            cancelled=[c for c in Channel if (c, DeliveryStatus.CANCELLED) in states],
            sending=[c for c in Channel if (c, DeliveryStatus.PENDING) in states],
        )
