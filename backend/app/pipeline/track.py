"""Stage 5: outcomes become states, and every attempt an event of the trace."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.channels.base import (
    Cancelled,
    Claim,
    Deferred,
    Digested,
    Failed,
    Held,
    Outcome,
    Recorded,
    Retry,
    Sent,
    Skipped,
)
from app.config import Settings
from app.db.database import Database, dumps
from app.errors import Unavailable
from app.pipeline.coalescing import Coalescer
from app.pipeline.devices import seen_devices, settle_devices
from app.pipeline.leaving import FOLLOWS
from app.pipeline.reconsider import Reconsidered
from app.policy.kinds import TRIED_IN_VAIN, DeliveryStatus, Reason
from app.policy.retry import RetryPolicy
from app.security.redact import mask_text

log = structlog.get_logger()

OUTCOMES_AT_ONCE = 500

# The lease's token fences: a worker that wakes up late changes nothing. What was cancelled while it
# was being sent is not tried again. What became of it meanwhile, its device's or its provider's
# word, counts more than how the attempt ended: of such a row nothing but the lease is settled.
RECORD = text(f"""
    WITH told AS (
        SELECT t.id, t.token, t.provider_id, t.attempts, t.detail, t.uncounted, t.device_id,
               p.reason AS reason_before,
               CASE WHEN stopped THEN 'cancelled' ELSE t.status END AS status,
               CASE WHEN stopped THEN 'cancelled' ELSE t.event END AS event,
               CASE WHEN stopped THEN 'cancelled' ELSE t.reason END AS reason,
               CASE
                   WHEN stopped THEN NULL
                   WHEN t.choices_version IS NULL OR t.choices_version = chosen.version THEN t.due
                   -- Whoever chose otherwise meanwhile found it in a worker's hands.
                   WHEN chosen.version IS NOT NULL THEN CAST(:now AS timestamptz)
                   -- Somebody may be choosing just now; no other outcome waits for that.
                   ELSE least(t.due, CAST(:now AS timestamptz) + interval '1 second')
               END AS due,
               CASE WHEN NOT stopped THEN t.slot END AS slot, t.counted_at
        FROM unnest(
            CAST(:ids AS uuid[]), CAST(:tokens AS uuid[]), CAST(:notification_ids AS uuid[]),
            CAST(:statuses AS text[]), CAST(:reasons AS text[]), CAST(:details AS text[]),
            CAST(:due AS timestamptz[]), CAST(:provider_ids AS text[]), CAST(:events AS text[]),
            CAST(:attempts AS int[]), CAST(:uncounted AS int[]), CAST(:device_ids AS uuid[]),
            CAST(:slots AS timestamptz[]), CAST(:counted AS timestamptz[]),
            CAST(:versions AS bigint[])
        ) AS t (
            id, token, notification_id, status, reason, detail, due, provider_id, event, attempts,
            uncounted, device_id, slot, counted_at, choices_version
        )
        JOIN notifications n ON n.id = t.notification_id
        JOIN notification_deliveries p ON p.id = t.id
        CROSS JOIN LATERAL (
            SELECT t.status = 'pending' AND n.cancelled_at IS NOT NULL
        ) AS judged (stopped)
        LEFT JOIN LATERAL (
            SELECT i.choices_version AS version FROM inbox_state i
            WHERE i.user_id = n.user_id AND t.choices_version IS NOT NULL
            FOR SHARE SKIP LOCKED
        ) AS chosen ON true
    ), recorded AS (
        UPDATE notification_deliveries d
        SET status = CASE WHEN d.status = 'pending' THEN t.status ELSE d.status END,
            reason = CASE WHEN d.status = 'pending' THEN t.reason ELSE d.reason END,
            error_message = CASE WHEN d.status = 'pending' THEN t.detail ELSE d.error_message END,
            lease_token = NULL,
            next_attempt_at = CASE WHEN d.status = 'pending' THEN t.due END,
            digest_slot = CASE WHEN d.status = 'pending' THEN t.slot END,
            counted_at = coalesce(t.counted_at, d.counted_at),
            attempts = d.attempts - t.uncounted,
            -- Who lives to record an outcome was not killed by it: no suspect any more.
            urgency = mod(d.urgency, 4),
            provider_id = coalesce(t.provider_id, d.provider_id),
            sent_at = CASE
                WHEN d.status IN ('delivered', 'bounced')
                    THEN coalesce(d.sent_at, CAST(:now AS timestamptz))
                WHEN t.status = 'sent' THEN CAST(:now AS timestamptz)
            END,
            failed_at = CASE
                WHEN d.status <> 'pending' THEN d.failed_at
                WHEN t.status = 'failed' THEN CAST(:now AS timestamptz)
            END
        FROM told t
        WHERE d.id = t.id AND d.lease_token = t.token
          AND d.status IN ('pending', 'delivered', 'bounced', 'failed')
        -- The device may have been removed since.
        RETURNING d.notification_id, d.user_id, d.channel,
                  coalesce(t.device_id, d.device_id) AS device_id, t.event, t.reason,
                  t.attempts, t.detail, t.provider_id, t.due, t.slot, t.reason_before,
                  t.counted_at, d.id, d.status, d.summarises
    ), leaving AS (
        SELECT id, notification_id, user_id, channel, device_id, reason_before AS reason,
               CAST(:now AS timestamptz) AS due, CAST(:now AS timestamptz) AS ended_at,
               CASE WHEN status IN ('skipped', 'cancelled') THEN summarises END AS summarises
        FROM recorded WHERE reason <> 'user_limit' AND counted_at IS NULL
    ), {FOLLOWS}
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, device_id, detail, at
    )
    SELECT notification_id, user_id, channel, event, reason, device_id,
           jsonb_strip_nulls(jsonb_build_object(
               'attempt', attempts, 'detail', detail, 'provider_id', provider_id,
               'next_attempt_at', due, 'digest_slot', slot
           )),
           CAST(:now AS timestamptz)
    FROM recorded
    -- However often it is put off for the same reason, that is one event.
    WHERE NOT (event = 'deferred' AND reason IS NOT DISTINCT FROM reason_before)
""")  # noqa: S608 -- composed of constants


def retry_policy(settings: Settings) -> RetryPolicy:
    """When what may work later is tried again, as the settings want it."""
    return RetryPolicy(
        base=settings.retry_base_seconds,
        cap=settings.retry_cap_seconds,
        max_attempts=settings.delivery_max_attempts,
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """The row that an outcome becomes."""

    claim: Claim
    outcome: Outcome
    status: DeliveryStatus
    event: str
    reason: Reason | None = None
    detail: str | None = None
    due: datetime | None = None
    provider_id: str | None = None
    slot: datetime | None = None


NOTE = """
    INSERT INTO notification_decisions (
        notification_id, user_id, stage, inputs, outcomes, decided_at
    )
    SELECT n.id, n.user_id, 'claim', v.inputs::jsonb, v.outcomes::jsonb, v.decided_at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
        AS v (notification_id, inputs, outcomes, decided_at)
    JOIN notifications n ON n.id = v.notification_id
"""


@dataclass(frozen=True, slots=True)
class Note:
    """A run of the policy over a claim, for the trace."""

    notification_id: UUID
    inputs: str
    outcomes: str
    decided_at: datetime


class Recorder:
    """Writes outcomes and decisions, those that arrive together in one statement.

    Args:
        retry: when a delivery that may work later is tried again.
        clock: the present instant.
        luck: a random number in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        database: Database,
        retry: RetryPolicy,
        clock: Callable[[], datetime],
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._retry = retry
        self._clock = clock
        self._luck = luck
        self._writes: Coalescer[Entry, None] = Coalescer(self._write, limit=OUTCOMES_AT_ONCE)
        self._notes: Coalescer[Note, None] = Coalescer(self._write_notes, limit=OUTCOMES_AT_ONCE)
        self._pending: dict[tuple[UUID, UUID], asyncio.Future[None]] = {}  # by delivery and lease
        self._noted: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Self:
        await self._writes.__aenter__()
        await self._notes.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._notes.__aexit__(kind, error, trace)
        await self._writes.__aexit__(kind, error, trace)

    def note(self, found: Sequence[Reconsidered], now: datetime) -> None:
        """Record what the policy said of claims, soon; devices that share it are one record.

        That what was to be sent and is tried again is still to be sent is nothing new. Of what was
        settled otherwise there is an event, or the policy will be asked again.
        """
        notes = {
            (item.claim.notification_id, item.claim.channel, item.outcome): Note(
                item.claim.notification_id,
                dumps(item.run.inputs()),
                dumps(item.run.outcomes()),
                now,
            )
            for item in found
            if item.settled is None
            and (item.outcome is not None or item.claim.reason not in TRIED_IN_VAIN)
        }
        for note in notes.values():
            written = self._notes.submit_nowait(note)
            self._noted.add(written)
            written.add_done_callback(self._noted.discard)

    def report(self, claim: Claim, outcome: Outcome) -> None:
        """Record what became of a claim, soon; `settle` waits for it."""
        self._pending[_key(claim)] = self._writes.submit_nowait(self._entry(claim, outcome))

    async def record(
        self, connection: AsyncConnection, outcomes: Sequence[tuple[Claim, Outcome]]
    ) -> None:
        """Record outcomes in the caller's own transaction, as part of the work it does."""
        entries = [self._entry(claim, outcome) for claim, outcome in outcomes]
        await _record(connection, entries, self._clock())

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Wait until everything reported and noted of these claims is written.

        What PostgreSQL could not take is left to the lease: the rows are due again at its end.
        """
        keys = [_key(claim) for claim in claims]
        writes = [self._pending.pop(key) for key in keys if key in self._pending]
        results = await asyncio.gather(*writes, *self._noted, return_exceptions=True)
        errors = [result for result in results if isinstance(result, BaseException)]
        if lost := sum(isinstance(error, Unavailable) for error in errors):
            log.warning("outcomes_not_recorded", count=lost)
        for error in errors:
            if not isinstance(error, Unavailable):
                raise error

    def _entry(self, claim: Claim, outcome: Outcome) -> Entry:
        match outcome:
            case Sent(provider_id, _):
                return Entry(
                    claim,
                    outcome,
                    DeliveryStatus.SENT,
                    "sent",
                    Reason.SENT_NOW,
                    provider_id=provider_id,
                )
            case Skipped(reason):
                return Entry(claim, outcome, DeliveryStatus.SKIPPED, "skipped", reason)
            case Cancelled(reason):
                return Entry(claim, outcome, DeliveryStatus.CANCELLED, "cancelled", reason)
            case Failed(reason, detail, _):
                return Entry(claim, outcome, DeliveryStatus.FAILED, "failed", reason, detail)
            case Retry():
                return self._retried(claim, outcome)
            case Deferred(reason, detail, after):
                due = self._clock() + timedelta(seconds=after)
                return Entry(
                    claim, outcome, DeliveryStatus.PENDING, "deferred", reason, detail, due
                )
            case Held(reason, until, _):
                return Entry(claim, outcome, DeliveryStatus.PENDING, "held", reason, due=until)
            case Digested(reason, slot):
                return Entry(claim, outcome, DeliveryStatus.PENDING, "digested", reason, slot=slot)
            case Recorded():
                raise ValueError("What is recorded already has no row to become.")

    def _retried(self, claim: Claim, outcome: Retry) -> Entry:
        due = self._retry.next_attempt(
            self._clock(),
            attempts=claim.attempts,
            luck=self._luck(),
            retry_after=outcome.after,
        )
        if due is None:
            last = f"{outcome.reason.value}: {outcome.detail}"
            return Entry(
                claim, outcome, DeliveryStatus.FAILED, "failed", Reason.ATTEMPTS_EXHAUSTED, last
            )
        return Entry(
            claim, outcome, DeliveryStatus.PENDING, "retry", outcome.reason, outcome.detail, due
        )

    async def _write(self, entries: list[Entry]) -> Sequence[Exception | None]:
        try:
            async with self._database.as_service() as connection:
                await _record(connection, entries, self._clock())
        except Unavailable:
            raise
        except Exception as error:
            if len(entries) == 1:
                return [error]
            # One row that cannot be written costs no other its outcome.
            return [result for entry in entries for result in await self._write([entry])]
        await self._settle_devices(entries)
        return [None] * len(entries)

    async def _write_notes(self, notes: list[Note]) -> Sequence[None]:
        try:
            async with self._database.group_as_service() as driver:
                await driver.execute(
                    NOTE,
                    [note.notification_id for note in notes],
                    [note.inputs for note in notes],
                    [note.outcomes for note in notes],
                    [note.decided_at for note in notes],
                )
        except Exception as error:
            # What was decided is done all the same.
            log.warning("decisions_not_recorded", count=len(notes), error=type(error).__name__)
        return [None] * len(notes)

    async def _settle_devices(self, entries: Sequence[Entry]) -> None:
        devices = seen_devices((entry.claim, entry.outcome) for entry in entries)
        if not devices:
            return
        try:
            # After the outcomes: removing a device touches the deliveries of others.
            async with self._database.as_service() as connection:
                await settle_devices(connection, devices, self._clock())
        except Exception as error:
            # The outcomes stand, and the next push to the device shows the same of it.
            log.warning("devices_not_settled", count=len(devices), error=type(error).__name__)


def _key(claim: Claim) -> tuple[UUID, UUID]:
    return claim.id, claim.lease_token


async def _record(connection: AsyncConnection, entries: Sequence[Entry], now: datetime) -> None:
    entries = sorted(entries, key=lambda entry: entry.claim.user_id)  # as inboxes are locked
    await connection.execute(
        RECORD,
        {
            "now": now,
            "ids": [entry.claim.id for entry in entries],
            "tokens": [entry.claim.lease_token for entry in entries],
            "notification_ids": [entry.claim.notification_id for entry in entries],
            "statuses": [entry.status.value for entry in entries],
            "reasons": [None if entry.reason is None else entry.reason.value for entry in entries],
            "details": [entry.detail and mask_text(entry.detail) for entry in entries],
            "due": [entry.due for entry in entries],
            "provider_ids": [entry.provider_id for entry in entries],
            "events": [entry.event for entry in entries],
            "attempts": [  # what is held was not attempted
                None if isinstance(entry.outcome, Held | Digested) else entry.claim.attempts
                for entry in entries
            ],
            "device_ids": [entry.claim.device and entry.claim.device.id for entry in entries],
            "uncounted": [
                int(isinstance(entry.outcome, Deferred | Held | Digested)) for entry in entries
            ],
            "slots": [entry.slot for entry in entries],
            "counted": [entry.claim.counted_at for entry in entries],
            "versions": [
                entry.outcome.choices_version if isinstance(entry.outcome, Held) else None
                for entry in entries
            ],
        },
    )
