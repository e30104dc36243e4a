"""Cancelling a notification: what has not gone out on a channel yet never will.

A delivery that a worker is sending right now cannot be called back, so it is not called cancelled:
it ends as it ends, and where it fails for now it is not tried again (`app.pipeline.track`).
"""

from uuid import UUID

from sqlalchemy import text

from app.db.database import Database
from app.errors import NotFound
from app.pipeline.deliver import Clock
from app.pipeline.leaving import FOLLOWS
from app.policy.kinds import Channel, DeliveryStatus
from app.schemas.delivery import CancelledNotification

CANCEL_WAITING = text(f"""
    WITH leaving AS (
        SELECT id, notification_id, user_id, channel, device_id, reason, summarises,
               next_attempt_at AS due, CAST(:now AS timestamptz) AS ended_at
        FROM notification_deliveries
        WHERE notification_id = CAST(:id AS uuid) AND status = 'pending' AND lease_token IS NULL
        FOR NO KEY UPDATE
    ), stopped AS (
        UPDATE notification_deliveries d
        SET status = 'cancelled', reason = 'cancelled', next_attempt_at = NULL
        FROM leaving l WHERE d.id = l.id
        RETURNING d.notification_id, d.user_id, d.channel, d.device_id
    ), {FOLLOWS}
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, device_id, detail, at
    )
    SELECT notification_id, user_id, channel, 'cancelled', 'cancelled', device_id,
           jsonb_build_object('by', CAST(:by AS text)), CAST(:now AS timestamptz)
    FROM stopped
""")  # noqa: S608 -- composed of constants

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
