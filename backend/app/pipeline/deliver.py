"""Stage 4: claim what is due, hand it to its channel, record the outcome.

PostgreSQL is asked, never Redis: a doorbell only says where to look first. A claim is a lease;
when its worker dies, the row is due again at the lease's end, and the next claim counts one
expired lease more instead of an attempt. Only the holder of the lease's token may record an
outcome. Each channel is claimed for its own free slots (`app.pipeline.lanes`).

A worker's death does not say which of the deliveries in its hands was the cause. So one that two
workers died with is a suspect, whose urgency is 4 more, and goes alone: only what kills dies of it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog
from sqlalchemy import RowMapping, TextClause, text

from app.channels.base import (
    Cancelled,
    ChannelSender,
    Claim,
    Device,
    Failed,
    Outcome,
    Recorded,
    Retry,
    Skipped,
)
from app.channels.texts import ChannelTexts
from app.config import Settings
from app.db.database import Database
from app.errors import Unavailable
from app.pipeline.decide import request_of
from app.pipeline.lanes import Lanes
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.track import Recorder
from app.policy.kinds import PRIORITY_RANKS, Channel, DeviceKind, Reason

log = structlog.get_logger()

UNDECIDED_FOR = timedelta(seconds=1)

Clock = Callable[[], datetime]
URGENCIES = sorted(PRIORITY_RANKS.values())  # critical first

# Each channel and urgency is read on its own, so that the index serves both the order and the due
# time, however many rows of others are due, or wait for a later time.
CLAIM = """
    WITH due AS (
        SELECT d.id
        FROM unnest(
            CAST(:channels AS text[]), CAST(:free AS int[]), CAST(:ordinary AS int[])
        ) AS lane (channel, free, ordinary)
        CROSS JOIN LATERAL (
            SELECT r.id
            FROM (VALUES {parts}) AS part (first, last, room)
            CROSS JOIN LATERAL (
                SELECT q.id FROM generate_series(part.first, part.last) AS u (urgency)
                CROSS JOIN LATERAL (
                    SELECT id FROM notification_deliveries
                    WHERE status = 'pending' AND digest_slot IS NULL
                      AND channel = lane.channel AND urgency = u.urgency
                      AND next_attempt_at <= CAST(:now AS timestamptz)
                    ORDER BY next_attempt_at LIMIT part.room
                    FOR UPDATE SKIP LOCKED
                ) q
                LIMIT part.room
            ) r
            LIMIT lane.free
        ) d
        LIMIT CAST(:limit AS int)
    ), claimed AS (
        UPDATE notification_deliveries d
        SET attempts = attempts + (lease_token IS NULL)::int,
            expired_leases = expired_leases + (lease_token IS NOT NULL)::int,
            -- If this lease expires too, it is the second one.
            urgency = mod(urgency, 4)
                + 4 * (expired_leases + (lease_token IS NOT NULL)::int > 0)::int,
            lease_token = CAST(:token AS uuid),
            next_attempt_at = CAST(:lease_until AS timestamptz)
        WHERE d.id = ANY(ARRAY(SELECT id FROM due))
        RETURNING d.*
    )
    SELECT c.id, c.lease_token, c.notification_id, c.user_id, c.channel, c.attempts,
           c.expired_leases, n.type, n.priority, n.title, n.body, n.body_html, n.data,
           n.created_at, n.send_at, n.expires_at, n.cancelled_at, n.channels, n.send_email,
           coalesce(n.read_at, n.deleted_at) IS NOT NULL AS has_read, c.reason, c.summarises,
           r.email, r.full_name, r.locale, coalesce(r.email_epoch, 0) AS email_epoch,
           c.provider_id IS NOT NULL AS was_taken, n.texts, n.language,
           c.device_id, p.id IS NOT NULL AS is_visible, p.is_active,
           p.kind, p.endpoint, p.p256dh_key, p.auth_key, p.vapid_key_id,
           p.fcm_token, p.device_info ->> 'platform' AS platform,
           coalesce(badge.unread, 0) AS unread_count
    FROM claimed c
    JOIN notifications n ON n.id = c.notification_id
    LEFT JOIN notification_recipients r ON r.user_id = c.user_id
    LEFT JOIN push_subscriptions p ON p.id = c.device_id
    LEFT JOIN LATERAL (
        SELECT sum(CAST(type.unread AS int)) AS unread
        FROM inbox_state i CROSS JOIN LATERAL jsonb_each_text(i.unread) AS type (name, unread)
        WHERE i.user_id = c.user_id AND p.id IS NOT NULL
    ) badge ON true
    ORDER BY c.urgency, n.created_at
"""
CLAIM_OTHERS = text(CLAIM.format(parts="(0, 0, lane.free), (1, 3, lane.ordinary)"))
CLAIM_SUSPECT = text(CLAIM.format(parts="(4, 7, lane.free)"))

NEXT_DUE = text("""
    SELECT min(due)
    FROM unnest(CAST(:channels AS text[]), CAST(:urgencies AS int[])) AS lane (channel, urgency)
    CROSS JOIN LATERAL (
        SELECT next_attempt_at AS due FROM notification_deliveries
        WHERE status = 'pending' AND digest_slot IS NULL
          AND channel = lane.channel AND urgency = lane.urgency
        ORDER BY next_attempt_at LIMIT 1
    ) d
""")

# What had no outcome was no attempt, and its lease did not expire.
GIVE_BACK = text("""
    UPDATE notification_deliveries d
    SET attempts = attempts - 1, lease_token = NULL, next_attempt_at = CAST(:due AS timestamptz)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS held (id, token)
    WHERE d.id = held.id AND d.lease_token = held.token AND d.status = 'pending'
""")


def utc_now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)


class Deliverer:
    """Claims deliveries and sends them through their channels.

    Args:
        channels: what can be sent; deliveries of other channels are skipped with a reason.
        reconsiderer: decides pushes and emails once more.
        recorder: writes outcomes.
        clock: the present instant; injected so that time can be driven.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        channels: Iterable[ChannelSender],
        reconsiderer: Reconsiderer,
        recorder: Recorder,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._channels = {sender.channel: sender for sender in channels}
        self._reconsiderer = reconsiderer
        self._recorder = recorder
        self._clock = clock
        self._lease = timedelta(seconds=settings.delivery_lease_seconds)
        self._max_expired_leases = settings.delivery_max_expired_leases
        self._claiming = asyncio.Lock()
        self.lanes = Lanes(settings.delivery_slots)

    async def deliver(self) -> int:
        """Claim once, send it and record the outcomes; returns how many were claimed.

        Suspects have their turn when nothing else is due.
        """
        claims = await self.claim() or await self.claim_suspect()
        await self.dispatch(claims)
        return len(claims)

    async def dispatch(self, claims: Sequence[Claim]) -> None:
        """Send claims through their channels and wait until their outcomes are recorded.

        When it is cancelled, what has no outcome yet is due again at once, for any worker; soon,
        when PostgreSQL was away while it was decided. Nobody died of it.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        try:
            by_channel = await self._to_send(claims)
            await asyncio.gather(
                *(self._send(channel, batch) for channel, batch in by_channel.items())
            )
            await self._recorder.settle(claims)
        except asyncio.CancelledError:
            await self._give_back([claim for claim in claims if self.lanes.holds(claim)])
            raise
        except Unavailable:
            undecided = [claim for claim in claims if self.lanes.holds(claim)]
            await self._give_back(undecided, after=UNDECIDED_FOR)
            raise
        finally:
            self.lanes.release(claims)

    async def _to_send(self, claims: Sequence[Claim]) -> dict[Channel, list[Claim]]:
        """What is to be sent now; what becomes of all others is reported."""
        by_channel: dict[Channel, list[Claim]] = defaultdict(list)
        open_claims: list[Claim] = []
        for claim in claims:
            verdict = self._verdict(claim)
            if verdict is not None:
                self._report(claim, verdict)
            elif claim.channel is Channel.IN_APP:
                by_channel[claim.channel].append(claim)
            else:
                open_claims.append(claim)
        now = self._clock()
        found = await self._reconsiderer.reconsider(open_claims, now)
        self._recorder.note(found, now)
        for item in found:
            outcome = item.outcome
            if outcome is None:
                by_channel[item.claim.channel].append(item.claim)
            else:
                self._report(item.claim, outcome)
        return by_channel

    async def next_due(self) -> datetime | None:
        """When the earliest delivery that there is room for is due, None when none waits."""
        wanted = [
            (room.channel.value, urgency)
            for room in self.lanes.room()
            for urgency in (URGENCIES if room.ordinary else URGENCIES[:1])
        ]
        if not wanted:
            return None
        parameters = {
            "channels": [channel for channel, _ in wanted],
            "urgencies": [urgency for _, urgency in wanted],
        }
        async with self._database.as_service() as connection:
            return (await connection.execute(NEXT_DUE, parameters)).scalar()

    async def claim(self) -> list[Claim]:
        """Lease what is due, critical first, of each channel what its lane has room for.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return await self._lease_due(CLAIM_OTHERS, limit=None)

    async def claim_suspect(self) -> list[Claim]:
        """Lease one suspect that is due, if there is one; send it before claiming the next.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return await self._lease_due(CLAIM_SUSPECT, limit=1)

    async def _lease_due(self, query: TextClause, *, limit: int | None) -> list[Claim]:
        async with self._claiming:
            rooms = self.lanes.room()
            if not rooms:
                return []
            now = self._clock()
            parameters = {
                "channels": [room.channel.value for room in rooms],
                "free": [room.free for room in rooms],
                "ordinary": [room.ordinary for room in rooms],
                "limit": limit,
                "now": now,
                "token": uuid4(),
                "lease_until": now + self._lease,
            }
            async with self._database.as_service() as connection:
                rows = (await connection.execute(query, parameters)).mappings().all()
            claims = [_claim(row) for row in rows]
            # A device that succeeded another while this was read is seen the next time.
            unseen = [claim for row, claim in zip(rows, claims, strict=True) if _is_unseen(row)]
            await self._give_back(unseen)
            claims = [claim for claim in claims if claim not in unseen]
            self.lanes.occupy(claims)
            return claims

    def _verdict(self, claim: Claim) -> Outcome | None:
        """What no policy is needed for, None when the claim may be sent."""
        if claim.cancelled_at is not None:
            return Cancelled(Reason.CANCELLED)
        if claim.expired_leases >= self._max_expired_leases:
            deaths = f"Workers died while sending it, {claim.expired_leases} times."
            return Failed(Reason.POISON, deaths)
        if claim.channel not in self._channels:
            return Skipped(Reason.CHANNEL_NOT_CONFIGURED)
        is_expired = claim.expires_at is not None and claim.expires_at <= self._clock()
        if claim.channel is Channel.IN_APP and is_expired:
            return Skipped(Reason.EXPIRED)
        return None

    def _report(self, claim: Claim, outcome: Outcome) -> None:
        self.lanes.release([claim])
        if not isinstance(outcome, Recorded):
            self._recorder.report(claim, outcome)

    async def _send(self, channel: Channel, claims: list[Claim]) -> None:
        try:
            await self._channels[channel].send(claims, self._report)
        except Exception as error:
            log.exception("channel_failed", channel=channel.value, claims=len(claims))
            for claim in claims:
                if self.lanes.holds(claim):
                    self._report(claim, Retry(Reason.INTERNAL_ERROR, type(error).__name__))

    async def _give_back(self, claims: Sequence[Claim], after: timedelta = timedelta()) -> None:
        if not claims:
            return
        try:
            async with self._database.as_service() as connection:
                await connection.execute(
                    GIVE_BACK,
                    {
                        "due": self._clock() + after,
                        "ids": [claim.id for claim in claims],
                        "tokens": [claim.lease_token for claim in claims],
                    },
                )
        except Unavailable:
            log.warning("claims_not_given_back", count=len(claims))  # the leases end by themselves


def _claim(row: RowMapping) -> Claim:
    return Claim(
        id=row["id"],
        lease_token=row["lease_token"],
        notification_id=row["notification_id"],
        user_id=row["user_id"],
        channel=Channel(row["channel"]),
        attempts=row["attempts"],
        expired_leases=row["expired_leases"],
        type=row["type"],
        priority=row["priority"],
        title=row["title"],
        body=row["body"],
        body_html=row["body_html"],
        data=row["data"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        cancelled_at=row["cancelled_at"],
        email=row["email"],
        full_name=row["full_name"],
        request=request_of(row),
        locale=row["locale"],
        language=row["language"],
        texts=ChannelTexts.of(row["texts"]),
        email_epoch=row["email_epoch"],
        was_taken=row["was_taken"],
        send_at=row["send_at"],
        device=_device(row) if row["is_active"] else None,
        unread_count=row["unread_count"],
        has_read=row["has_read"],
        reason=None if row["reason"] is None else Reason(row["reason"]),
        summarises=row["summarises"],
    )


def _is_unseen(row: RowMapping) -> bool:
    return row["device_id"] is not None and not row["is_visible"]


def _device(row: RowMapping) -> Device:
    return Device(
        id=row["device_id"],
        kind=DeviceKind(row["kind"]),
        endpoint=row["endpoint"],
        p256dh=row["p256dh_key"],
        auth=row["auth_key"],
        vapid_key_id=row["vapid_key_id"],
        fcm_token=row["fcm_token"],
        platform=row["platform"],
    )
