"""What devices say of the pushes they got: shown, clicked, closed (REQ-020, section 5.2).

The device's word counts more than the provider's: what it acknowledges was delivered, though the
attempt is still being recorded or was given up. Each receipt is an event, once.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database
from app.errors import NotFound
from app.pipeline.deliver import Clock
from app.security.ack_tokens import AckTokens
from app.services.inbox_changes import InboxChanges


class PushEvent(StrEnum):
    """What became of a push on its device."""

    DELIVERED = "delivered"
    CLICKED = "clicked"
    CLOSED = "closed"


FIND: Final = """
    SELECT d.user_id, d.notification_id, EXISTS (
        SELECT FROM notification_events e
        WHERE e.notification_id = d.notification_id AND e.channel = 'push'
          AND e.event = :event AND e.detail ->> 'delivery_id' = d.id::text
    ) AS is_known
    FROM notification_deliveries d
    WHERE d.id = CAST(:id AS uuid) AND d.channel = 'push'
"""
READ: Final = text(FIND)
# Receipts of one delivery take turns; what the former wrote is seen by the next statement.
LOCK: Final = text(f"{FIND} FOR NO KEY UPDATE OF d")
# The lease stays: whoever is recording the attempt finds the row delivered, and leaves it so.
DELIVER: Final = text("""
    UPDATE notification_deliveries
    SET status = 'delivered', reason = 'sent_now', error_message = NULL, next_attempt_at = NULL,
        sent_at = coalesce(sent_at, CAST(:now AS timestamptz)),
        delivered_at = coalesce(delivered_at, CAST(:now AS timestamptz)), failed_at = NULL
    WHERE id = CAST(:id AS uuid) AND status IN ('pending', 'sent', 'failed')
""")
ADD_EVENTS: Final = text("""
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, device_id, detail, at
    )
    SELECT d.notification_id, d.user_id, d.channel, told.event, d.device_id,
           jsonb_build_object('delivery_id', d.id), CAST(:now AS timestamptz)
    FROM notification_deliveries d
    CROSS JOIN unnest(CAST(:events AS text[])) WITH ORDINALITY AS told (event, place)
    WHERE d.id = CAST(:id AS uuid) AND NOT EXISTS (
        SELECT FROM notification_events e
        WHERE e.notification_id = d.notification_id AND e.channel = 'push'
          AND e.event = told.event AND e.detail ->> 'delivery_id' = d.id::text
    )
    ORDER BY told.place
""")


@dataclass(frozen=True, slots=True)
class Push:
    """The delivery that a receipt is of.

    Args:
        is_known: whether the same was said of it before.
    """

    user_id: UUID
    notification_id: UUID
    is_known: bool


class ReceiptService:
    """Takes receipts in; one that is repeated has no effect.

    Args:
        tokens: say which delivery a receipt is of.
        changes: marks what was clicked as read.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, tokens: AckTokens, changes: InboxChanges, clock: Clock
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._changes = changes
        self._clock = clock

    async def acknowledge(self, token: str, event: PushEvent) -> None:
        """Record what became of a push; of one that has been erased since, nothing.

        Raises:
            InvalidAckToken: nobody was given this token.
            Unavailable: PostgreSQL is away, or the inbox stayed locked.
        """
        delivery_id = self._tokens.read(token)
        if event is PushEvent.CLICKED:
            await self._mark_read(delivery_id)
        async with self._database.as_service() as connection:
            if await _find(connection, delivery_id, event, lock=True) is not None:
                await _record(connection, delivery_id, event, self._clock())

    async def _mark_read(self, delivery_id: UUID) -> None:
        """Mark the notification read before the click is recorded, so that neither is lost."""
        async with self._database.as_service() as connection:
            push = await _find(connection, delivery_id, PushEvent.CLICKED)
        # Who made it unread after the first click is not contradicted by its repetition.
        if push is None or push.is_known:
            return
        try:
            await self._changes.mark_read(push.user_id, push.notification_id)
        except NotFound:
            return  # it has been deleted, or has expired


async def _find(
    connection: AsyncConnection, delivery_id: UUID, event: PushEvent, *, lock: bool = False
) -> Push | None:
    parameters = {"id": delivery_id, "event": event.value}
    row = (await connection.execute(LOCK if lock else READ, parameters)).one_or_none()
    return None if row is None else Push(row.user_id, row.notification_id, row.is_known)


async def _record(
    connection: AsyncConnection, delivery_id: UUID, event: PushEvent, now: datetime
) -> None:
    # What was clicked or closed was shown.
    events = list(dict.fromkeys([PushEvent.DELIVERED.value, event.value]))
    parameters = {"id": delivery_id, "now": now}
    await connection.execute(DELIVER, parameters)
    await connection.execute(ADD_EVENTS, {**parameters, "events": events})
