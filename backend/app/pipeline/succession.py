"""When a device subscribes anew under another endpoint or token, no push is lost (REQ-006).

A browser does so when it is given another VAPID key, and whenever it pleases
(`pushsubscriptionchange`); until it has told us, pushes fail at the old endpoint.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from app.db.database import Driver

REVIVED_FOR: Final = timedelta(minutes=10)

# Who is storing a push for the old one just now is waited for; the new one only has to stay.
LOCK_OLD = "SELECT id FROM push_subscriptions WHERE id = $1 AND user_id = $2 FOR UPDATE"
HOLD_NEW = "SELECT id FROM push_subscriptions WHERE id = $1 AND user_id = $2 FOR KEY SHARE"

# What was stored for both is sent once. A worker that is sending to the old endpoint just now has
# lost its lease: whatever comes of that, the new device is tried.
MOVE = """
    UPDATE notification_deliveries d
    SET device_id = $3, lease_token = NULL, attempts = 0, expired_leases = 0,
        next_attempt_at = CASE WHEN attempts > 0 THEN $4 ELSE next_attempt_at END
    WHERE user_id = $1 AND device_id = $2 AND status = 'pending' AND NOT EXISTS (
        SELECT FROM notification_deliveries other
        WHERE other.notification_id = d.notification_id AND other.device_id = $3
    )
    RETURNING id
"""

# Rows of devices that are gone name them no more, their events do: one event, one row.
REVIVE = """
    WITH lost AS (
        SELECT DISTINCT e.notification_id
        FROM notification_deliveries d
        JOIN notification_events e ON e.notification_id = d.notification_id
        JOIN notifications n ON n.id = d.notification_id
        WHERE d.user_id = $1 AND d.channel = 'push' AND d.status = 'failed'
          AND d.reason = 'device_gone' AND d.failed_at > $5
          AND e.event = 'failed' AND e.reason = 'device_gone' AND e.device_id = $2::uuid
          AND n.read_at IS NULL AND n.deleted_at IS NULL AND n.cancelled_at IS NULL
          AND NOT EXISTS (
              SELECT FROM notification_events r
              WHERE r.notification_id = d.notification_id AND r.event = 'retried'
                AND r.detail ->> 'replaced_device_id' = $2::uuid::text
          )
          AND NOT EXISTS (
              SELECT FROM notification_deliveries other
              WHERE other.notification_id = d.notification_id AND other.device_id = $3
          )
    ), chosen AS (
        SELECT one.id FROM lost
        CROSS JOIN LATERAL (
            SELECT d.id FROM notification_deliveries d
            WHERE d.notification_id = lost.notification_id AND d.user_id = $1
              AND d.channel = 'push' AND d.status = 'failed'
              AND d.reason = 'device_gone' AND d.failed_at > $5
              AND (d.device_id IS NULL OR d.device_id = $2::uuid)
            ORDER BY d.device_id NULLS LAST, d.id LIMIT 1 FOR UPDATE
        ) AS one
    ), revived AS (
        UPDATE notification_deliveries d
        SET status = 'pending', reason = 'retried', error_message = NULL, attempts = 0,
            expired_leases = 0, lease_token = NULL, failed_at = NULL, next_attempt_at = $4,
            device_id = $3
        FROM chosen WHERE d.id = chosen.id
        RETURNING d.id, d.notification_id, d.user_id, d.channel, d.device_id
    ), traced AS (
        INSERT INTO notification_events (
            notification_id, user_id, channel, event, reason, device_id, detail, at
        )
        SELECT notification_id, user_id, channel, 'retried', 'device_gone', device_id,
               jsonb_build_object(
                   'by', 'subscription', 'delivery_id', id, 'replaced_device_id', $2::uuid::text
               ),
               $4
        FROM revived
    )
    SELECT id FROM revived
"""


DELETE = "DELETE FROM push_subscriptions WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Succession:
    """What became of the older device.

    Args:
        due: deliveries that go to its successor, and may be due now.
        is_removed: whether it was there until now.
    """

    due: tuple[UUID, ...] = ()
    is_removed: bool = False


async def succeed(
    driver: Driver, user_id: UUID, old_id: UUID, new_id: UUID, now: datetime
) -> Succession:
    """Let a device have what waits for an older one, and what failed there just now.

    Args:
        driver: a transaction as the service role; the caller commits it.
        old_id: removed, unless it is gone already, or another user's.
        new_id: stored before; nothing happens when it is gone again.
    """
    is_there = bool(await driver.fetch(LOCK_OLD, old_id, user_id))
    if not await driver.fetch(HOLD_NEW, new_id, user_id):
        return Succession()
    moved = await driver.fetch(MOVE, user_id, old_id, new_id, now)
    revived = await driver.fetch(REVIVE, user_id, old_id, new_id, now, now - REVIVED_FOR)
    if is_there:
        await driver.execute(DELETE, old_id)
    due = tuple(row["id"] for row in (*moved, *revived))
    return Succession(due, is_removed=is_there)
