"""Email that waits for a digest goes with the one its user wants now (REQ-016, REQ-018).

Whoever changes a user's preferences or timezone moves it in the same transaction. What a digest is
due for already stays: it goes out now.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from app.db.database import Driver
from app.pipeline.choices import NO_CHOICES, read_choices
from app.pipeline.decide import Defaults, request_of, timezone_of
from app.policy.routing import is_gathered, slot_for

READ_PARKED = """
    SELECT d.id, d.user_id, d.digest_slot, n.type, n.priority, n.channels, n.send_email, n.send_at,
           n.expires_at, '{}'::jsonb AS data, r.timezone
    FROM notification_deliveries d
    JOIN notifications n ON n.id = d.notification_id
    LEFT JOIN notification_recipients r ON r.user_id = d.user_id
    WHERE d.user_id = ANY($1::uuid[]) AND d.status = 'pending' AND d.digest_slot IS NOT NULL
      AND d.lease_token IS NULL AND (d.digest_slot <= $2) = $3
    ORDER BY d.id
"""

MOVE = """
    WITH moved AS (
        UPDATE notification_deliveries d SET digest_slot = v.slot
        FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS v (id, slot, former)
        WHERE d.id = v.id AND d.status = 'pending' AND d.lease_token IS NULL
          AND d.digest_slot = v.former
        RETURNING d.notification_id, d.user_id, d.digest_slot
    )
    INSERT INTO notification_events (notification_id, user_id, channel, event, reason, detail, at)
    SELECT notification_id, user_id, 'email', 'digested', 'digest',
           jsonb_build_object('digest_slot', digest_slot), $4
    FROM moved
"""


async def move_parked(
    driver: Driver, user_ids: Collection[UUID], defaults: Defaults, now: datetime
) -> None:
    """Let what users have parked go with the digests that they want now.

    What somebody gets no digests for any more keeps its slot: who chose to get all at once gets it
    then, and who chose to get none finds it left out then, unless they choose otherwise before.

    Args:
        driver: the transaction that changed the choices, with the users' inboxes locked.
    """
    await _move(driver, user_ids, defaults, now, are_late=False)


async def move_late(
    driver: Driver, user_ids: Collection[UUID], defaults: Defaults, now: datetime
) -> None:
    """Let what was parked for a digest that has gone out already go with the next.

    Args:
        driver: a transaction as the service role, with the users' inboxes locked.
    """
    await _move(driver, user_ids, defaults, now, are_late=True)


async def _move(
    driver: Driver, user_ids: Collection[UUID], defaults: Defaults, now: datetime, *, are_late: bool
) -> None:
    rows = await driver.fetch(READ_PARKED, sorted(user_ids), now, are_late)
    if not rows:
        return
    choices = await read_choices(driver, sorted({row["user_id"] for row in rows}))
    moves: list[tuple[UUID, datetime, datetime]] = []
    for row in rows:
        request, former = request_of(row), row["digest_slot"]
        chosen = choices.get(row["user_id"], NO_CHOICES)
        preferences = chosen.preferences(request.type, defaults.preferences)
        if are_late or is_gathered(request, preferences):
            timezone = timezone_of(row["timezone"], defaults.timezone)
            slot = slot_for(request, preferences, timezone, now)
            if slot != former:
                moves.append((row["id"], slot, former))
    if moves:
        await driver.execute(MOVE, *map(list, zip(*moves, strict=True)), now)
