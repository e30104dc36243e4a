"""The queue of digests (REQ-015, REQ-016); its rows are the queue of record.

A digest is the pair of a user and a slot, unique in the database. It is opened when the slot of
something parked has come, leased like a delivery, and gathers its members when it is sent
(`app.pipeline.gather`). While a worker has it in hand its members carry the same lease; so nobody
takes from it what may be going out just now.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Self
from uuid import UUID, uuid4

from app.channels.base import Deferred, Failed, Retry, Sent
from app.channels.email.letter import MailOutcome
from app.config import Settings
from app.db.database import Database, Driver
from app.pipeline.coalescing import Coalescer
from app.pipeline.decide import Defaults
from app.pipeline.deliver import Clock
from app.pipeline.parked import move_late
from app.pipeline.track import retry_policy
from app.policy.digest_schedule import jitter
from app.policy.kinds import DeliveryStatus, Reason
from app.realtime.inboxes import lock_free_inboxes
from app.security.redact import mask_text

OPENED_AT_ONCE: Final = 2_000  # users
GATHERED_AT_ONCE: Final = 50  # so that no inbox is held for long
GROUPS_AT_ONCE: Final = 4  # of so many: what a provider takes in two batches
OUTCOMES_AT_ONCE: Final = 200

# Of what was parked for several slots that have passed, there is one digest: the latest slot's.
# What comes when that is out already goes with the next.
READ_WAITING = """
    WITH waiting AS (
        SELECT p.user_id, max(p.digest_slot) AS slot
        FROM notification_deliveries p
        WHERE p.status = 'pending' AND p.digest_slot <= $1 AND p.lease_token IS NULL
          AND NOT EXISTS (
              SELECT FROM email_digests g WHERE g.user_id = p.user_id AND g.status = 'pending'
          )
        GROUP BY p.user_id ORDER BY slot LIMIT $2
    )
    SELECT w.user_id, w.slot, EXISTS (
        SELECT FROM email_digests g WHERE g.user_id = w.user_id AND g.scheduled_for >= w.slot
    ) AS is_late
    FROM waiting w
"""

# How often the user wants digests is written when it is known what they tell of.
OPEN = """
    INSERT INTO email_digests (user_id, frequency, scheduled_for, next_attempt_at, created_at)
    SELECT v.user_id, 'daily', v.slot, v.due, $4
    FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS v (user_id, slot, due)
    ORDER BY v.user_id
    ON CONFLICT DO NOTHING
"""

# A worker's death does not say which of the digests in its hands was the cause. So one that two
# workers died with is a suspect, and goes alone.
LEASE_DUE = """
    WITH due AS (
        SELECT id FROM email_digests
        WHERE status = 'pending' AND next_attempt_at <= $1 AND (expired_leases > 1) = $2
        ORDER BY next_attempt_at LIMIT $3
        FOR UPDATE SKIP LOCKED
    )
    UPDATE email_digests g
    SET attempts = attempts + (lease_token IS NULL)::int,
        expired_leases = expired_leases + (lease_token IS NOT NULL)::int,
        lease_token = $4, next_attempt_at = $5
    FROM due WHERE g.id = due.id
    RETURNING g.id, g.user_id, g.scheduled_for, g.attempts, g.expired_leases, g.lease_token
"""

NEXT_DUE = "SELECT min(next_attempt_at) AS due FROM email_digests WHERE status = 'pending'"
NEXT_SLOT = """
    SELECT min(digest_slot) AS due FROM notification_deliveries
    WHERE status = 'pending' AND digest_slot > $1
"""

# The lease's token fences: a worker that wakes up late changes nothing. As long as a provider may
# have taken the letter, its members stay what they are; else they are gathered anew.
RECORD = """
    WITH told AS (
        SELECT t.*, g.user_id, g.notification_ids, g.reason AS reason_before,
               t.status = 'pending' AND EXISTS (
                   SELECT FROM email_request_letters l WHERE l.letter_id = g.id
               ) AS is_open
        FROM unnest(
            $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::timestamptz[], $9::text[], $10::int[], $11::int[]
        ) AS t (
            id, token, status, event, reason, detail, due, provider_id, attempts, uncounted
        )
        JOIN email_digests g ON g.id = t.id AND g.lease_token = t.token AND g.status = 'pending'
        ORDER BY g.id FOR UPDATE OF g
    ), recorded AS (
        UPDATE email_digests g
        SET status = t.status, reason = t.reason, error_message = t.detail, lease_token = NULL,
            next_attempt_at = t.due, attempts = g.attempts - t.uncounted,
            -- Who lives to record an outcome was not killed by it: no suspect any more.
            expired_leases = CASE WHEN t.status = 'pending' THEN 0 ELSE g.expired_leases END,
            provider_id = coalesce(t.provider_id, g.provider_id),
            notification_ids = CASE
                WHEN t.status = 'pending' AND NOT t.is_open THEN '{}' ELSE g.notification_ids
            END,
            sent_at = CASE WHEN t.status = 'sent' THEN $1::timestamptz END,
            failed_at = CASE WHEN t.status = 'failed' THEN $1::timestamptz END
        FROM told t WHERE g.id = t.id
    ), members AS (
        UPDATE notification_deliveries d
        SET status = t.status, error_message = t.detail,
            reason = CASE WHEN t.status = 'pending' THEN d.reason ELSE t.reason END,
            lease_token = CASE WHEN t.is_open THEN d.lease_token END,
            attempts = CASE WHEN t.status = 'pending' THEN d.attempts ELSE t.attempts END,
            sent_at = CASE WHEN t.status = 'sent' THEN $1::timestamptz END,
            failed_at = CASE WHEN t.status = 'failed' THEN $1::timestamptz END
        FROM told t CROSS JOIN LATERAL unnest(t.notification_ids) AS m (notification_id)
        WHERE d.notification_id = m.notification_id AND d.channel = 'email'
          AND d.status = 'pending' AND d.lease_token IS NOT NULL
        RETURNING d.notification_id, d.user_id, t.id, t.event, t.reason, t.detail, t.due,
                  t.provider_id, t.attempts, t.reason_before
    )
    INSERT INTO notification_events (notification_id, user_id, channel, event, reason, detail, at)
    SELECT notification_id, user_id, 'email', event, reason,
           jsonb_strip_nulls(jsonb_build_object(
               'digest_id', id, 'attempt', attempts, 'detail', detail,
               'provider_id', provider_id, 'next_attempt_at', due
           )), $1
    FROM members
    -- However often it is put off for the same reason, that is one event.
    WHERE NOT (event = 'deferred' AND reason IS NOT DISTINCT FROM reason_before)
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A digest that this worker owns until its lease ends.

    Args:
        slot: the instant that it is for.
        attempts: attempts made, this one included.
        expired_leases: how often a worker took it and never came back.
        until: when the lease ends.
    """

    id: UUID
    user_id: UUID
    slot: datetime
    attempts: int
    expired_leases: int
    token: UUID
    until: datetime


@dataclass(frozen=True, slots=True)
class _Entry:
    """The row that an outcome becomes."""

    lease: Lease
    status: DeliveryStatus
    event: str
    reason: Reason
    detail: str | None = None
    due: datetime | None = None
    provider_id: str | None = None
    is_uncounted: bool = False


class DigestQueue:
    """Opens digests, leases them and records what became of them.

    Args:
        defaults: what holds for users who chose nothing.
        clock: the present instant.
        luck: a random number in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        defaults: Defaults,
        clock: Clock,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._clock = clock
        self._luck = luck
        self._retry = retry_policy(settings)
        self._lease = timedelta(seconds=settings.delivery_lease_seconds)
        self._interval = timedelta(seconds=settings.sweep_interval_seconds)
        self._look_at: datetime | None = None  # when to look for slots that have come
        self._in_hand = 0
        self._writes: Coalescer[_Entry, None] = Coalescer(self._write, limit=OUTCOMES_AT_ONCE)

    async def __aenter__(self) -> Self:
        await self._writes.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._writes.__aexit__(kind, error, trace)

    async def next_due(self) -> datetime | None:
        """When the earliest digest is due, or to be opened; None when nothing is parked.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        now = self._clock()
        if self._look_at is None or not now < self._look_at <= now + self._interval:
            await self.open_due()
        async with self._database.group_as_service() as driver:
            (slot,) = await driver.fetch(NEXT_SLOT, now)
            (row,) = await driver.fetch(NEXT_DUE)
        self._look_at = min(slot["due"] or now + self._interval, now + self._interval)
        return min((due for due in (slot["due"], row["due"]) if due is not None), default=None)

    async def open_due(self) -> int:
        """Open a digest for each user whose slot has come; returns how many.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        total = 0
        while True:
            async with self._database.group_as_service() as driver:
                opened, is_all = await self._open_some(driver, self._clock())
            total += opened
            if is_all:
                return total

    async def _open_some(self, driver: Driver, now: datetime) -> tuple[int, bool]:
        rows = await driver.fetch(READ_WAITING, now, OPENED_AT_ONCE)
        late = [row["user_id"] for row in rows if row["is_late"]]
        free = await lock_free_inboxes(driver, late) if late else {}
        if free:
            await move_late(driver, [*free], self._defaults, now)
        due = [row for row in rows if not row["is_late"]]
        if due:
            await driver.execute(
                OPEN,
                [row["user_id"] for row in due],
                [row["slot"] for row in due],
                [row["slot"] + jitter(row["user_id"]) for row in due],
                now,
            )
        # Those that somebody holds are looked for the next time.
        return len(due), len(rows) < OPENED_AT_ONCE or not (due or free)

    async def lease_due(self, limit: int) -> list[tuple[Lease, ...]]:
        """Lease digests that are due, the longest due first, in groups.

        Args:
            limit: groups.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        leases = await self._lease_some(limit * GATHERED_AT_ONCE, are_suspects=False)
        if not leases and not self._in_hand:
            leases = await self._lease_some(1, are_suspects=True)
        self._in_hand += len(leases)
        return [
            tuple(leases[start : start + GATHERED_AT_ONCE])
            for start in range(0, len(leases), GATHERED_AT_ONCE)
        ]

    async def _lease_some(self, limit: int, *, are_suspects: bool) -> list[Lease]:
        now = self._clock()
        until = now + self._lease
        async with self._database.group_as_service() as driver:
            rows = await driver.fetch(LEASE_DUE, now, are_suspects, limit, uuid4(), until)
        return [
            Lease(
                row["id"],
                row["user_id"],
                row["scheduled_for"],
                row["attempts"],
                row["expired_leases"],
                row["lease_token"],
                until,
            )
            for row in rows
        ]

    def let_go(self, group: Sequence[Lease]) -> None:
        """The group is not in hand any more."""
        self._in_hand -= len(group)

    async def record(self, lease: Lease, outcome: MailOutcome) -> None:
        """Record what became of a digest and of its members, in one transaction.

        Raises:
            Unavailable: PostgreSQL could not take it; the digest is due again at the lease's end.
        """
        await self._writes.submit(self._entry(lease, outcome))

    def _entry(self, lease: Lease, outcome: MailOutcome) -> _Entry:
        match outcome:
            case Sent(provider_id, _):
                return _Entry(
                    lease, DeliveryStatus.SENT, "sent", Reason.DIGEST, provider_id=provider_id
                )
            case Failed(reason, detail, _):
                return _Entry(lease, DeliveryStatus.FAILED, "failed", reason, detail)
            case Deferred(reason, detail, after):
                due = self._clock() + timedelta(seconds=after)
                return _Entry(
                    lease, DeliveryStatus.PENDING, "deferred", reason, detail, due,
                    is_uncounted=True,
                )  # fmt: skip
            case Retry(reason, detail, after):
                due = self._retry.next_attempt(
                    self._clock(), attempts=lease.attempts, luck=self._luck(), retry_after=after
                )
        if due is None:
            last = f"{reason.value}: {detail}"
            return _Entry(lease, DeliveryStatus.FAILED, "failed", Reason.ATTEMPTS_EXHAUSTED, last)
        return _Entry(lease, DeliveryStatus.PENDING, "retry", reason, detail, due)

    async def _write(self, entries: list[_Entry]) -> Sequence[None]:
        async with self._database.group_as_service() as driver:
            await driver.execute(
                RECORD,
                self._clock(),
                [entry.lease.id for entry in entries],
                [entry.lease.token for entry in entries],
                [entry.status.value for entry in entries],
                [entry.event for entry in entries],
                [entry.reason.value for entry in entries],
                [entry.detail and mask_text(entry.detail) for entry in entries],
                [entry.due for entry in entries],
                [entry.provider_id for entry in entries],
                [entry.lease.attempts for entry in entries],
                [int(entry.is_uncounted) for entry in entries],
            )
        return [None] * len(entries)
