"""Closes on phones what was read elsewhere (REQ-007, REQ-012).

Whoever reads or deletes a notification leaves a row for each phone that shows it, in the same
transaction (`app.pipeline.change`); these rows are the queue of record. They are leased, gathered
into one data message for each phone, and gone once it is sent. Closing is worth a few tries, not
more: after an hour nobody minds any longer. Browsers never allow an invisible push; an open page
closes there.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy import RowMapping, text

from app.channels.base import Deferred, Device, Failed, Outcome, Retry, Sent
from app.channels.fcm import FcmSender
from app.channels.fcm_message import CLOSED_AT_ONCE
from app.config import Settings
from app.db.database import Database
from app.pipeline.deliver import Clock
from app.pipeline.devices import Seen, settle_devices
from app.pipeline.sweep import SHORTEST_SLEEP, repeat
from app.pipeline.track import retry_policy
from app.policy.kinds import DeviceKind, Reason
from app.policy.retry import RetryPolicy

log = structlog.get_logger()

WORTH_CLOSING: Final = timedelta(hours=1)
MOST_ATTEMPTS: Final = 5
PHONES_AT_ONCE: Final = 20  # so that pushes find room beside them
LEASED_AT_ONCE: Final = 1_000  # notifications of these

DROP_STALE = text("""
    DELETE FROM push_closings c
    USING (
        SELECT s.device_id, s.notification_id FROM push_closings s
        WHERE s.next_attempt_at <= CAST(:now AS timestamptz)
          AND (s.created_at < CAST(:oldest AS timestamptz) OR s.attempts >= :attempts
               OR NOT EXISTS (
                   SELECT FROM push_subscriptions p WHERE p.id = s.device_id AND p.is_active
               ))
        ORDER BY s.next_attempt_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) stale
    WHERE c.device_id = stale.device_id AND c.notification_id = stale.notification_id
""")

LEASE_DUE = text("""
    WITH phones AS (
        SELECT device_id FROM push_closings
        WHERE next_attempt_at <= CAST(:now AS timestamptz)
        GROUP BY device_id ORDER BY min(next_attempt_at) LIMIT CAST(:phones AS int)
    ), due AS (
        SELECT c.device_id, c.notification_id FROM push_closings c
        WHERE c.next_attempt_at <= CAST(:now AS timestamptz)
          AND c.device_id IN (SELECT device_id FROM phones)
        ORDER BY c.next_attempt_at LIMIT CAST(:limit AS int)
        FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE push_closings c
        SET attempts = attempts + 1, lease_token = CAST(:token AS uuid),
            next_attempt_at = CAST(:lease_until AS timestamptz)
        FROM due WHERE c.device_id = due.device_id AND c.notification_id = due.notification_id
        RETURNING c.device_id, c.notification_id, c.user_id, c.attempts
    ), gathered AS (
        SELECT device_id, user_id, max(attempts) AS attempts,
               array_agg(notification_id ORDER BY notification_id) AS notification_ids
        FROM leased GROUP BY device_id, user_id
    )
    SELECT g.device_id, g.attempts, g.notification_ids, p.fcm_token,
           p.device_info ->> 'platform' AS platform, coalesce(badge.unread, 0) AS badge
    FROM gathered g
    JOIN push_subscriptions p ON p.id = g.device_id AND p.is_active
    LEFT JOIN LATERAL (
        SELECT sum(CAST(type.unread AS int)) AS unread
        FROM inbox_state i CROSS JOIN LATERAL jsonb_each_text(i.unread) AS type (name, unread)
        WHERE i.user_id = g.user_id
    ) badge ON true
""")

NEXT_DUE = text("SELECT min(next_attempt_at) FROM push_closings")

# The lease's token fences: what another worker has taken over meanwhile is that worker's.
CLOSED = text("""
    DELETE FROM push_closings
    WHERE device_id = :device_id AND notification_id = ANY(CAST(:ids AS uuid[]))
      AND lease_token = :token
""")

AGAIN = text("""
    UPDATE push_closings
    SET lease_token = NULL, next_attempt_at = CAST(:due AS timestamptz),
        attempts = attempts - CAST(:uncounted AS int)
    WHERE device_id = :device_id AND notification_id = ANY(CAST(:ids AS uuid[]))
      AND lease_token = :token
""")


@dataclass(frozen=True, slots=True)
class Closing:
    """What is to be closed on one phone, leased to this process.

    Args:
        notification_ids: as many as one message holds, at most.
        attempts: attempts made, this one included.
        badge: what the user has not read, absolute.
    """

    device: Device
    notification_ids: tuple[UUID, ...]
    attempts: int
    badge: int
    lease_token: UUID


class ClosingQueue:
    """Leases closings, sends them and records what became of them.

    Args:
        retry: when a message that may work later is sent again.
        clock: the present instant.
        luck: a random number in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        sender: FcmSender,
        retry: RetryPolicy,
        clock: Clock,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._sender = sender
        self._retry = retry
        self._clock = clock
        self._luck = luck
        self._lease = timedelta(seconds=settings.delivery_lease_seconds)

    async def lease_due(self) -> list[Closing]:
        """Lease what is due, the longest due first; what is not worth closing any more is dropped.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        now, token = self._clock(), uuid4()
        stale = {
            "now": now,
            "oldest": now - WORTH_CLOSING,
            "attempts": self._retry.max_attempts,
            "limit": LEASED_AT_ONCE,
        }
        due = {
            "now": now,
            "phones": PHONES_AT_ONCE,
            "limit": LEASED_AT_ONCE,
            "token": token,
            "lease_until": now + self._lease,
        }
        async with self._database.as_service() as connection:
            await connection.execute(DROP_STALE, stale)
            rows = (await connection.execute(LEASE_DUE, due)).mappings().all()
        return [closing for row in rows for closing in _closings(row, token)]

    async def next_due(self) -> datetime | None:
        """When the earliest closing is due, None when none waits."""
        async with self._database.as_service() as connection:
            return (await connection.execute(NEXT_DUE)).scalar()

    async def close(self, closing: Closing) -> None:
        """Send a leased closing once and record the outcome.

        Raises:
            Unavailable: PostgreSQL could not take the outcome; it is due again at the lease's end.
        """
        outcome = await self._send(closing)
        again = self._again(closing, outcome)
        parameters: dict[str, object] = {
            "device_id": closing.device.id,
            "ids": list(closing.notification_ids),
            "token": closing.lease_token,
        }
        if again is not None:
            parameters |= {"due": again, "uncounted": int(isinstance(outcome, Deferred))}
        async with self._database.as_service() as connection:
            await connection.execute(CLOSED if again is None else AGAIN, parameters)
        await self._settle(closing.device, outcome)

    async def _send(self, closing: Closing) -> Outcome:
        try:
            return await self._sender.close(closing.device, closing.notification_ids, closing.badge)
        except Exception as error:
            log.exception("closing_failed", subscription_id=str(closing.device.id))
            return Retry(Reason.INTERNAL_ERROR, type(error).__name__)

    def _again(self, closing: Closing, outcome: Outcome) -> datetime | None:
        """When it is sent again, None when it is done with."""
        match outcome:
            case Retry(_, _, after):
                return self._retry.next_attempt(
                    self._clock(),
                    attempts=closing.attempts,
                    luck=self._luck(),
                    retry_after=after,
                )
            case Deferred(_, _, after):
                return self._clock() + timedelta(seconds=after)
            case _:
                return None

    async def _settle(self, device: Device, outcome: Outcome) -> None:
        """What it showed of the phone, in a transaction of its own as after deliveries."""
        seen = Seen()
        match outcome:
            case Sent():
                seen.add(outcome)
            case Failed(device=fate) if fate is not None:
                seen.add(fate)
            case _:
                return
        async with self._database.as_service() as connection:
            await settle_devices(connection, {device.id: seen}, self._clock())


def closing_queue(
    settings: Settings, database: Database, sender: FcmSender, clock: Clock
) -> ClosingQueue:
    """The queue as the settings want it."""
    retry = replace(retry_policy(settings), max_attempts=MOST_ATTEMPTS)
    return ClosingQueue(settings, database, sender, retry, clock)


class ClosingSweeper:
    """Sends the closings that are due, for as long as the worker runs.

    Args:
        interval: longest sleep, in seconds.
    """

    def __init__(self, queue: ClosingQueue, clock: Clock, *, interval: float) -> None:
        self._queue = queue
        self._clock = clock
        self._interval = interval

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until `stopping` is set and what is being sent has its outcome."""
        await repeat(self.look, stopping)

    async def look(self) -> float:
        """Send what is due; returns the seconds until the next look."""
        due = await self._queue.next_due()
        if due is None:
            return self._interval
        if (left := (due - self._clock()).total_seconds()) > 0:
            return min(self._interval, max(SHORTEST_SLEEP, left))
        closings = await self._queue.lease_due()
        await asyncio.gather(*(self._close(closing) for closing in closings))
        return SHORTEST_SLEEP

    async def _close(self, closing: Closing) -> None:
        try:
            await self._queue.close(closing)
        except Exception as error:
            # The lease ends by itself.
            log.warning("closing_not_recorded", error=type(error).__name__)


def _closings(row: RowMapping, lease_token: UUID) -> list[Closing]:
    """One for each message that a phone's notifications need."""
    device = Device(
        id=row["device_id"],
        kind=DeviceKind.FCM,
        endpoint=None,
        p256dh=None,
        auth=None,
        vapid_key_id=None,
        fcm_token=row["fcm_token"],
        platform=row["platform"],
    )
    ids: list[UUID] = row["notification_ids"]
    return [
        Closing(
            device,
            tuple(ids[start : start + CLOSED_AT_ONCE]),
            row["attempts"],
            row["badge"],
            lease_token,
        )
        for start in range(0, len(ids), CLOSED_AT_ONCE)
    ]
