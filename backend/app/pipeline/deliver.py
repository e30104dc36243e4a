"""Stage 4: claim what is due, hand it to its channel, record the outcome.

PostgreSQL is asked, never Redis: a doorbell only says where to look first. A claim is a lease;
when its worker dies, the row is due again at the lease's end, and the next claim counts one
expired lease more. Only the holder of the lease's token may record an outcome.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import RowMapping, text

from app.channels.base import ChannelSender, Claim, Failed, Outcome, Retry, Skipped
from app.config import Settings
from app.db.database import Database
from app.pipeline.track import Recorder
from app.policy.kinds import Channel, Reason

log = structlog.get_logger()

Clock = Callable[[], datetime]

# Each urgency is read on its own, so that the index serves both the order and the due time.
CLAIM = """
    WITH due AS (
        SELECT d.id FROM generate_series(0, 3) AS u (urgency)
        CROSS JOIN LATERAL (
            SELECT id FROM notification_deliveries
            WHERE status = 'pending' AND digest_slot IS NULL AND urgency = u.urgency
              AND next_attempt_at <= CAST(:now AS timestamptz) {only}
            ORDER BY next_attempt_at LIMIT :limit
            FOR UPDATE SKIP LOCKED
        ) d
        LIMIT :limit
    ), claimed AS (
        UPDATE notification_deliveries d
        SET attempts = attempts + 1,
            expired_leases = expired_leases + (lease_token IS NOT NULL)::int,
            lease_token = CAST(:token AS uuid),
            next_attempt_at = CAST(:lease_until AS timestamptz)
        FROM due WHERE d.id = due.id
        RETURNING d.*
    )
    SELECT c.id, c.lease_token, c.notification_id, c.user_id, c.channel, c.attempts,
           c.expired_leases, n.type, n.priority, n.title, n.body, n.body_html, n.data,
           n.created_at, n.expires_at, r.email, r.full_name
    FROM claimed c
    JOIN notifications n ON n.id = c.notification_id
    LEFT JOIN notification_recipients r ON r.user_id = c.user_id
    ORDER BY c.urgency, n.created_at
"""
CLAIM_ANY = text(CLAIM.format(only=""))
CLAIM_THESE = text(CLAIM.format(only="AND id = ANY(CAST(:ids AS uuid[]))"))

NEXT_DUE = text("""
    SELECT min(due) FROM generate_series(0, 3) AS u (urgency)
    CROSS JOIN LATERAL (
        SELECT next_attempt_at AS due FROM notification_deliveries
        WHERE status = 'pending' AND digest_slot IS NULL AND urgency = u.urgency
        ORDER BY next_attempt_at LIMIT 1
    ) d
""")


def utc_now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)


class Deliverer:
    """Claims deliveries and sends them through their channels.

    Args:
        channels: what can be sent; deliveries of other channels are skipped with a reason.
        recorder: writes outcomes.
        clock: the present instant; injected so that time can be driven.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        channels: Iterable[ChannelSender],
        recorder: Recorder,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._channels = {sender.channel: sender for sender in channels}
        self._recorder = recorder
        self._clock = clock
        self._lease = timedelta(seconds=settings.delivery_lease_seconds)
        self._limit = settings.delivery_batch_size
        self._max_expired_leases = settings.delivery_max_expired_leases

    async def deliver(self, delivery_ids: Sequence[UUID] | None = None) -> int:
        """Claim one batch, send it and record the outcomes; returns how many were claimed."""
        claims = await self.claim(delivery_ids)
        await self.dispatch(claims)
        return len(claims)

    async def dispatch(self, claims: Sequence[Claim]) -> None:
        """Send claims through their channels and wait until their outcomes are recorded."""
        by_channel: dict[Channel, list[Claim]] = defaultdict(list)
        for claim in claims:
            verdict = self._verdict(claim)
            if verdict is None:
                by_channel[claim.channel].append(claim)
            else:
                self._recorder.report(claim, verdict)
        await asyncio.gather(*(self._send(channel, batch) for channel, batch in by_channel.items()))
        await self._recorder.settle(claims)

    async def next_due(self) -> datetime | None:
        """When the earliest waiting delivery is due, None when none waits."""
        async with self._database.as_service() as connection:
            return (await connection.execute(NEXT_DUE)).scalar()

    async def claim(self, delivery_ids: Sequence[UUID] | None = None) -> list[Claim]:
        """Lease what is due, critical first, at most one batch.

        Args:
            delivery_ids: look at these only; None looks at all.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        now = self._clock()
        parameters = {
            "now": now,
            "limit": self._limit,
            "token": uuid4(),
            "lease_until": now + self._lease,
        }
        async with self._database.as_service() as connection:
            if delivery_ids is None:
                rows = await connection.execute(CLAIM_ANY, parameters)
            else:
                rows = await connection.execute(
                    CLAIM_THESE, {**parameters, "ids": list(delivery_ids)}
                )
            return [_claim(row) for row in rows.mappings()]

    def _verdict(self, claim: Claim) -> Outcome | None:
        """What is known without sending, None when the claim is to be sent."""
        if claim.expired_leases >= self._max_expired_leases:
            return Failed(Reason.POISON, "Workers died while sending it.")
        if claim.expires_at is not None and claim.expires_at <= self._clock():
            return Skipped(Reason.EXPIRED)
        if claim.channel not in self._channels:
            return Skipped(Reason.CHANNEL_NOT_CONFIGURED)
        return None

    async def _send(self, channel: Channel, claims: list[Claim]) -> None:
        try:
            await self._channels[channel].send(claims, self._recorder.report)
        except Exception as error:
            log.exception("channel_failed", channel=channel.value, claims=len(claims))
            for claim in claims:
                if not self._recorder.is_reported(claim):
                    outcome = Retry(Reason.INTERNAL_ERROR, type(error).__name__)
                    self._recorder.report(claim, outcome)


def _claim(row: RowMapping) -> Claim:
    values: dict[str, Any] = dict(row)
    values["channel"] = Channel(values["channel"])
    return Claim(**values)
