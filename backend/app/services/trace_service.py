"""Why a notification is where it is: what was decided about it, and what happened (REQ-002).

Nothing is written for the trace alone. Beside the recorded decisions and events it reads what the
rows say of themselves: when a notification was created, shown, listed, read, deleted, and so on.
"""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from app.db.database import Database
from app.errors import NotFound
from app.schemas.explain import Trace, TracedDecision, TracedEvent

READ_DECISIONS = text("""
    SELECT stage, inputs, outcomes, decided_at FROM notification_decisions
    WHERE notification_id = CAST(:id AS uuid) ORDER BY decided_at, id
""")

# What happens at the same instant is told in the order of cause and effect: what the rows say
# first, since reading or cancelling a notification is what ends its deliveries.
READ_EVENTS = text("""
    WITH told AS (
        SELECT id, at, channel, event, reason, device_id, detail FROM notification_events
        WHERE notification_id = CAST(:id AS uuid)
    ), of_itself AS (
        SELECT v.*
        FROM notifications n CROSS JOIN LATERAL (VALUES
            (0, n.created_at, NULL, 'created', NULL, jsonb_build_object('service', n.service)),
            (4, n.read_at, 'in_app', 'read', NULL, '{}'),
            (5, n.deleted_at, 'in_app', 'deleted', NULL, '{}'),
            (6, n.expired_at, 'in_app', 'expired', 'expired', '{}'),
            (7, n.cancelled_at, NULL, 'cancelled', 'cancelled', '{}')
        ) AS v (rank, at, channel, event, reason, detail)
        WHERE n.id = CAST(:id AS uuid)
    ), parked AS (
        SELECT d.decided_at AS at, o.said, o.said ->> 'action' = 'hold' AS is_held
        FROM notification_decisions d CROSS JOIN LATERAL jsonb_array_elements(d.outcomes) o (said)
        WHERE d.notification_id = CAST(:id AS uuid) AND d.stage = 'create'
          AND o.said ->> 'action' IN ('hold', 'digest')
    ), in_app AS (
        SELECT v.*
        FROM notification_deliveries d CROSS JOIN LATERAL (VALUES
            (2, d.sent_at, 'sent', 'sent_now'), (3, d.delivered_at, 'delivered', NULL)
        ) AS v (rank, at, event, reason)
        WHERE d.notification_id = CAST(:id AS uuid) AND d.channel = 'in_app'
          AND NOT EXISTS (
              SELECT FROM told WHERE told.channel = 'in_app' AND told.event = v.event
          )
    ), happened AS (
        SELECT rank, 0 AS id, at, channel, event, reason, NULL::uuid AS device_id, detail
        FROM of_itself
        UNION ALL
        SELECT 1, 0, at, said ->> 'channel', CASE WHEN is_held THEN 'held' ELSE 'digested' END,
               said ->> 'reason', NULL,
               jsonb_build_object(
                   CASE WHEN is_held THEN 'next_attempt_at' ELSE 'digest_slot' END, said -> 'until'
               )
        FROM parked
        UNION ALL
        SELECT rank, 0, at, 'in_app', event, reason, NULL, '{}' FROM in_app
        UNION ALL
        SELECT 8, id, at, channel, event, reason, device_id, detail FROM told
    )
    SELECT at, channel, event, reason, device_id, detail FROM happened
    WHERE at IS NOT NULL ORDER BY at, rank, id
""")


class TraceService:
    """Tells what became of notifications."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def trace(self, notification_id: UUID, *, seen_by: UUID | None) -> Trace:
        """All that was decided about a notification and has happened to it, in order.

        Args:
            seen_by: the user who asks, with no more rights than theirs; None for an operator, who
                sees every user's.

        Raises:
            NotFound: no notification has this id, or it is another user's.
            Unavailable: PostgreSQL is away.
        """
        parameters = {"id": notification_id}
        database = self._database
        role = database.as_service() if seen_by is None else database.as_user(seen_by)
        async with role as connection:
            decisions = (await connection.execute(READ_DECISIONS, parameters)).all()
            events = (await connection.execute(READ_EVENTS, parameters)).all()
        if not events:  # each that is there was created
            raise NotFound
        return Trace(
            id=notification_id,
            decisions=[decision for row in decisions for decision in _decisions(row)],
            events=[
                TracedEvent(
                    at=row.at,
                    channel=row.channel,
                    event=row.event,
                    reason=row.reason,
                    device_id=row.device_id,
                    detail=row.detail,
                )
                for row in events
            ],
        )


def _decisions(row: Row[Any]) -> Iterable[TracedDecision]:
    """One run of the policy, channel by channel."""
    run = {"inputs": row.inputs, "at": row.decided_at, "stage": row.stage}
    return (TracedDecision.model_validate({**outcome, **run}) for outcome in row.outcomes)
