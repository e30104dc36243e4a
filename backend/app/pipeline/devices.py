"""What pushes showed of the devices they were for: used, refused, or gone (REQ-006, REQ-009)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.channels.base import Claim, DeviceFate, Failed, Outcome, Sent

log = structlog.get_logger()

FAILURES_ALLOWED = 3  # in a row; the third one removes

# Who is storing a push for one of them just now is waited for, so that what is stored is seen.
LOCK_GONE = text("""
    SELECT id FROM push_subscriptions WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
""")

# What a device was used for a moment ago need not be written again. Locked in the order of ids.
SETTLE = text("""
    WITH seen AS (
        SELECT p.id, t.used, t.disable, t.key_id,
               t.failures + CASE WHEN t.used THEN 0 ELSE p.failure_count END AS failures,
               t.gone
        FROM push_subscriptions p
        JOIN unnest(
            CAST(:ids AS uuid[]), CAST(:used AS bool[]), CAST(:failures AS int[]),
            CAST(:gone AS bool[]), CAST(:disable AS bool[]), CAST(:key_ids AS text[])
        ) AS t (id, used, failures, gone, disable, key_id) ON t.id = p.id
        WHERE NOT t.used OR t.failures > 0 OR t.gone OR t.disable OR p.failure_count > 0
           OR t.key_id <> coalesce(p.vapid_key_id, '')
           OR coalesce(p.last_used_at, '-infinity')
               < CAST(:now AS timestamptz) - interval '1 minute'
        ORDER BY p.id FOR UPDATE OF p
    ), removed AS (
        DELETE FROM push_subscriptions p USING seen
        WHERE p.id = seen.id AND (seen.gone OR seen.failures >= CAST(:allowed AS int))
        RETURNING p.id, p.user_id, p.kind, seen.gone
    ), ended AS (
        -- Told of the device that is gone, they find its successor (`app.pipeline.succession`).
        UPDATE notification_deliveries d
        SET status = 'failed', reason = 'device_gone', error_message = NULL,
            next_attempt_at = NULL, failed_at = CAST(:now AS timestamptz)
        FROM removed
        WHERE d.device_id = removed.id AND removed.gone
          AND d.status = 'pending' AND d.lease_token IS NULL
        RETURNING d.notification_id, d.user_id, d.channel, removed.id AS device_id
    ), told AS (
        INSERT INTO notification_events (
            notification_id, user_id, channel, event, reason, device_id, at
        )
        SELECT notification_id, user_id, channel, 'failed', 'device_gone', device_id,
               CAST(:now AS timestamptz)
        FROM ended
    ), changed AS (
        UPDATE push_subscriptions p
        SET failure_count = seen.failures,
            last_used_at = CASE
                WHEN seen.used THEN CAST(:now AS timestamptz) ELSE p.last_used_at
            END,
            vapid_key_id = coalesce(seen.key_id, p.vapid_key_id),
            is_active = p.is_active AND NOT seen.disable
        FROM seen
        WHERE p.id = seen.id AND NOT (seen.gone OR seen.failures >= CAST(:allowed AS int))
    )
    SELECT id, user_id, kind, gone FROM removed
""")


@dataclass(slots=True)
class Seen:
    """What some pushes showed of one device, one after the other.

    Args:
        used: whether its push service took one.
        failures: refusals since then.
        key_id: the VAPID key that was taken instead of the stored one.
    """

    used: bool = False
    failures: int = 0
    gone: bool = False
    disable: bool = False
    key_id: str | None = None

    def add(self, outcome: Sent | DeviceFate) -> None:
        """Take in one more outcome."""
        match outcome:
            case Sent(_, key_id):
                self.used, self.failures = True, 0
                self.key_id = key_id or self.key_id
            case DeviceFate.REMOVE:
                self.gone = True
            case DeviceFate.DISABLE:
                self.disable = True
            case DeviceFate.COUNT:
                self.failures += 1


def seen_devices(outcomes: Iterable[tuple[Claim, Outcome]]) -> dict[UUID, Seen]:
    """What outcomes say of devices; those that say nothing of one are left out."""
    found: dict[UUID, Seen] = {}
    for claim, outcome in outcomes:
        if claim.device is None:
            continue
        match outcome:
            case Sent():
                found.setdefault(claim.device.id, Seen()).add(outcome)
            case Failed(_, _, DeviceFate() as fate):
                found.setdefault(claim.device.id, Seen()).add(fate)
            case _:
                pass
    return found


async def settle_devices(
    connection: AsyncConnection, devices: dict[UUID, Seen], now: datetime
) -> None:
    """Write it: removes devices that are gone, and those that refused three times in a row.

    Deliveries of a removed device stay, without it; those that wait are skipped when claimed.
    """
    seen = [devices[key] for key in devices]
    parameters: dict[str, Any] = {
        "ids": list(devices),
        "used": [item.used for item in seen],
        "failures": [item.failures for item in seen],
        "gone": [item.gone for item in seen],
        "disable": [item.disable for item in seen],
        "key_ids": [item.key_id for item in seen],
        "now": now,
        "allowed": FAILURES_ALLOWED,
    }
    if gone := [key for key, item in devices.items() if item.gone]:
        await connection.execute(LOCK_GONE, {"ids": gone})
    for row in await connection.execute(SETTLE, parameters):
        log.info(
            "push_subscription_removed",
            subscription_id=str(row.id),
            user_id=str(row.user_id),
            kind=row.kind,
            cause="gone" if row.gone else "refused",
        )
    for device_id, item in devices.items():
        if item.disable:
            log.error("push_subscription_disabled", subscription_id=str(device_id))
