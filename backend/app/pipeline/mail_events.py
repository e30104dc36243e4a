"""What is reported of letters after they were sent (REQ-014, REQ-015).

A letter is a delivery's or a digest's. Reports come late, twice and in any order: a state moves
forward only, whoever reports first, and each report is an event of every notification in the
letter, once. A worker that is still recording its attempt leaves alone what was reported meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.db.database import Driver, dumps
from app.policy.kinds import DeliveryStatus, Reason


class MailEvent(StrEnum):
    """What may be reported of a letter, as the trace names it."""

    SENT = "sent"
    DELAYED = "delayed"
    FAILED = "failed"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    OPENED = "opened"
    CLICKED = "clicked"


STATES: Final = {
    MailEvent.SENT: DeliveryStatus.SENT,
    MailEvent.FAILED: DeliveryStatus.FAILED,
    MailEvent.DELIVERED: DeliveryStatus.DELIVERED,
    MailEvent.BOUNCED: DeliveryStatus.BOUNCED,
}
# These are events as often as they move the state, which workers move too; all others are once.
OF_THE_STATE: Final = (MailEvent.SENT, MailEvent.FAILED)

# The provider's id is surer than the tags: a letter that was sent again has the same tags.
FIND: Final = """
    SELECT id, user_id, is_digest, notification_ids, sent_at FROM (
        SELECT 1 AS rank, id, user_id, true AS is_digest, notification_ids, sent_at
        FROM email_digests WHERE provider_id = $1::text
        UNION ALL
        SELECT 2, id, user_id, false, ARRAY[notification_id], sent_at
        FROM notification_deliveries WHERE channel = 'email' AND provider_id = $1::text
        UNION ALL
        SELECT 3, id, user_id, true, notification_ids, sent_at
        FROM email_digests WHERE id = $3::uuid OR id = $4::uuid
        UNION ALL
        SELECT 4, id, user_id, false, ARRAY[notification_id], sent_at
        FROM notification_deliveries
        WHERE channel = 'email' AND (notification_id = $2::uuid OR id = $4::uuid)
    ) found ORDER BY rank LIMIT 1
"""
# Reports of one letter take turns; what the former wrote is seen by the next statement.
LOCK_DIGEST: Final = "SELECT FROM email_digests WHERE id = $1 FOR NO KEY UPDATE"
LOCK_DELIVERIES: Final = """
    SELECT id FROM notification_deliveries
    WHERE channel = 'email' AND notification_id = ANY($1::uuid[])
    ORDER BY id FOR NO KEY UPDATE
"""
RANKS: Final = "ARRAY['pending', 'sent', 'failed', 'delivered', 'bounced']"
# A worker says itself that it sent what is in its hands; of all else the report is believed.
SETTLE: Final = """
    WITH settled AS (
        UPDATE {table} d
        SET status = CASE WHEN moves THEN $1::text ELSE d.status END,
            reason = CASE WHEN moves THEN $2::text ELSE d.reason END,
            error_message = CASE WHEN moves THEN $3::text ELSE d.error_message END,
            next_attempt_at = CASE WHEN NOT moves THEN d.next_attempt_at END,
            sent_at = CASE WHEN moves OR d.sent_at IS NOT NULL
                           THEN least(d.sent_at, $4::timestamptz) END,
            delivered_at = CASE WHEN $1::text = 'delivered'
                                THEN least(d.delivered_at, $4::timestamptz)
                                ELSE d.delivered_at END,
            failed_at = CASE WHEN NOT moves THEN d.failed_at
                             WHEN $1::text IN ('failed', 'bounced') THEN $4::timestamptz END,
            provider_id = coalesce(d.provider_id, $5::text)
        FROM (
            SELECT id, array_position({ranks}, status::text) < array_position({ranks}, $1::text)
                       AND ($1::text <> 'sent' OR lease_token IS NULL) AS moves
            FROM {table}
            WHERE {chosen} AND array_position({ranks}, status::text) IS NOT NULL
        ) judged
        WHERE d.id = judged.id
        RETURNING moves
    )
    SELECT coalesce(bool_or(moves), false) AS moved FROM settled
"""
SETTLE_DELIVERIES: Final = SETTLE.format(
    table="notification_deliveries",
    chosen="channel = 'email' AND notification_id = ANY($6::uuid[])",
    ranks=RANKS,
)
SETTLE_DIGEST: Final = SETTLE.format(
    table="email_digests", chosen="id = ANY($6::uuid[])", ranks=RANKS
)
ADD_EVENTS: Final = """
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, detail, at
    )
    SELECT n.id, n.user_id, 'email', $2::text, $3::text, told.detail, $5::timestamptz
    FROM notifications n, CAST($4::text AS jsonb) AS told (detail)
    WHERE n.id = ANY($1::uuid[]) AND ($6::boolean OR NOT EXISTS (
        SELECT FROM notification_events e
        WHERE e.notification_id = n.id AND e.channel = 'email' AND e.event = $2::text
          AND e.detail -> 'link' IS NOT DISTINCT FROM told.detail -> 'link'
          AND e.detail -> 'machine' IS NOT DISTINCT FROM told.detail -> 'machine'
    ))
    ORDER BY n.id
"""


@dataclass(frozen=True, slots=True)
class SentLetter:
    """A letter as reports find it.

    Args:
        id: of its delivery, or its digest.
        is_digest: which of the two.
        notification_ids: of what stands in it.
        sent_at: when a provider took it, as far as that is known.
    """

    id: UUID
    user_id: UUID
    is_digest: bool
    notification_ids: tuple[UUID, ...]
    sent_at: datetime | None

    def about(self, notification_ids: Sequence[UUID]) -> "SentLetter":
        """The letter, as far as it is about these of its notifications."""
        chosen = tuple(id_ for id_ in self.notification_ids if id_ in notification_ids)
        return replace(self, notification_ids=chosen)


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a letter.

    Args:
        at: when it happened, by the reporter's clock.
        reason: why, where it did not arrive.
        detail: for the trace; names no person.
        explanation: a sentence for operators, where it did not arrive.
        provider_id: the provider's name for the letter.
    """

    event: MailEvent
    at: datetime
    reason: Reason | None = None
    detail: Mapping[str, str | bool] = field(default_factory=dict[str, str | bool])
    explanation: str | None = None
    provider_id: str | None = None


async def find_letter(
    driver: Driver,
    *,
    provider_id: str | None = None,
    notification_id: UUID | None = None,
    digest_id: UUID | None = None,
    letter_id: UUID | None = None,
) -> SentLetter | None:
    """The letter that one of these names, locked as long as the transaction lasts; None for none.

    Args:
        driver: a transaction as the service role.
        provider_id: what a provider calls it; it is asked for before the others.
    """
    rows = await driver.fetch(FIND, provider_id, notification_id, digest_id, letter_id)
    if not rows:
        return None
    (row,) = rows
    letter = SentLetter(
        row["id"], row["user_id"], row["is_digest"], tuple(row["notification_ids"]), row["sent_at"]
    )
    if letter.is_digest:
        await driver.execute(LOCK_DIGEST, letter.id)
    await driver.execute(LOCK_DELIVERIES, letter.notification_ids)
    return letter


async def record(driver: Driver, letter: SentLetter, report: Report) -> None:
    """Write what was reported of a letter.

    Args:
        driver: the transaction that found it.
    """
    moved = False
    if (state := STATES.get(report.event)) is not None:
        went = Reason.DIGEST if letter.is_digest else Reason.SENT_NOW
        reason = report.reason or went
        facts = (state.value, reason.value, report.explanation, report.at)
        # What the provider calls a digest is no name of the deliveries in it.
        name = None if letter.is_digest else report.provider_id
        (row,) = await driver.fetch(SETTLE_DELIVERIES, *facts, name, letter.notification_ids)
        moved = row["moved"]
        if letter.is_digest:
            await driver.execute(SETTLE_DIGEST, *facts, report.provider_id, [letter.id])
    if report.event in OF_THE_STATE and not moved:
        return
    detail = {**report.detail, **({"digest_id": str(letter.id)} if letter.is_digest else {})}
    await driver.execute(
        ADD_EVENTS,
        letter.notification_ids,
        report.event.value,
        report.reason,
        dumps(detail),
        report.at,
        report.event in OF_THE_STATE,
    )
