"""The queue of clicks that are posted to services (REQ-013); its rows are the queue of record.

A click is leased before it is posted, the first time by the process that stored it. When that
dies, the click is due again at the lease's end, for any worker; only the holder of the lease's
token may record an outcome.
"""

# ruff: noqa: S608 -- composed of nothing but the constants below

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import JsonValue
from sqlalchemy import RowMapping, text

from app.channels.base import Failed, Retry
from app.channels.callback import Call, CallbackSender, Completed, Verdict
from app.config import Settings
from app.db.database import Database, dumps
from app.pipeline.deliver import Clock
from app.pipeline.leased import LeaseSweeper
from app.pipeline.track import retry_policy
from app.policy.kinds import Reason
from app.policy.retry import RetryPolicy
from app.security.encryption import Cipher
from app.security.outbound import Outbound

log = structlog.get_logger()

CALLS_AT_ONCE = 50

CALLS = """
    SELECT l.notification_id, l.user_id, l.action, l.label, l.created_at AS clicked_at, l.attempts,
           l.lease_token, n.type AS notification_type, n.data, c.url, c.secret
    FROM leased l
    JOIN notifications n ON n.id = l.notification_id
    LEFT JOIN action_callbacks c ON c.name = l.action
"""

LEASE_DUE = text(f"""
    WITH due AS (
        SELECT notification_id, action FROM notification_actions
        WHERE status = 'pending' AND next_attempt_at <= CAST(:now AS timestamptz)
        ORDER BY next_attempt_at LIMIT CAST(:limit AS int)
        FOR UPDATE SKIP LOCKED
    ), leased AS (
        UPDATE notification_actions a
        SET attempts = attempts + 1, lease_token = CAST(:token AS uuid),
            next_attempt_at = CAST(:lease_until AS timestamptz)
        FROM due WHERE a.notification_id = due.notification_id AND a.action = due.action
        RETURNING a.*
    )
    {CALLS}
""")

READ_LEASED = text(f"""
    WITH leased AS (
        SELECT * FROM notification_actions
        WHERE notification_id = CAST(:id AS uuid) AND action = :action
          AND lease_token = CAST(:token AS uuid) AND status = 'pending'
    )
    {CALLS}
""")

NEXT_DUE = text("SELECT min(next_attempt_at) FROM notification_actions WHERE status = 'pending'")

RECORD = text("""
    WITH recorded AS (
        UPDATE notification_actions
        SET status = CAST(:status AS text), result = CAST(CAST(:result AS text) AS jsonb),
            reason = CAST(:reason AS text), error_message = CAST(:detail AS text),
            lease_token = NULL, next_attempt_at = CAST(:due AS timestamptz),
            finished_at = CASE
                WHEN CAST(:status AS text) <> 'pending' THEN CAST(:now AS timestamptz)
            END
        WHERE notification_id = CAST(:id AS uuid) AND action = CAST(:action AS text)
          AND lease_token = CAST(:token AS uuid) AND status = 'pending'
        RETURNING notification_id, user_id
    )
    INSERT INTO notification_events (notification_id, user_id, channel, event, reason, detail, at)
    SELECT notification_id, user_id, 'in_app', CAST(:event AS text), CAST(:reason AS text),
           jsonb_strip_nulls(jsonb_build_object(
               'action', CAST(:action AS text), 'attempt', CAST(:attempts AS int),
               'detail', CAST(:detail AS text), 'next_attempt_at', CAST(:due AS timestamptz)
           )),
           CAST(:now AS timestamptz)
    FROM recorded
""")


@dataclass(frozen=True, slots=True)
class _Entry:
    """The row that a verdict becomes."""

    status: str
    event: str
    result: JsonValue = None
    reason: Reason | None = None
    detail: str | None = None
    due: datetime | None = None


class CallbackQueue:
    """Leases clicks, posts them and records what became of them.

    Args:
        retry: when a call that may work later is made again.
        clock: the present instant.
        luck: a random number in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        sender: CallbackSender,
        retry: RetryPolicy,
        clock: Clock,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._sender = sender
        self._retry = retry
        self._clock = clock
        self._luck = luck
        self.lease = timedelta(seconds=settings.delivery_lease_seconds)

    async def post_leased(self, notification_id: UUID, action: str, token: UUID) -> None:
        """Post a click that was stored with a lease of this process.

        Raises:
            Unavailable: PostgreSQL is away; a worker goes on at the lease's end.
        """
        parameters = {"id": notification_id, "action": action, "token": token}
        for call in await self._read(READ_LEASED, parameters):
            await self.post(call)

    async def lease_due(self, limit: int) -> list[Call]:
        """Lease calls that are due, the longest due first.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        now = self._clock()
        parameters = {
            "now": now,
            "limit": limit,
            "token": uuid4(),
            "lease_until": now + self.lease,
        }
        return await self._read(LEASE_DUE, parameters)

    async def next_due(self) -> datetime | None:
        """When the earliest call is due, None when none waits."""
        async with self._database.as_service() as connection:
            return (await connection.execute(NEXT_DUE)).scalar()

    async def post(self, call: Call) -> None:
        """Post a leased call once and record the outcome.

        Raises:
            Unavailable: PostgreSQL could not take the outcome; the call is due again at the
                lease's end.
        """
        if call.attempts > self._retry.max_attempts:
            # Whoever had the last attempt died of it, or with it.
            entry = _Entry("failed", "action_failed", reason=Reason.ATTEMPTS_EXHAUSTED)
        else:
            entry = self._entry(call, await self._verdict(call))
        async with self._database.as_service() as connection:
            await connection.execute(
                RECORD,
                {
                    "id": call.notification_id,
                    "action": call.action,
                    "token": call.lease_token,
                    "attempts": call.attempts,
                    "status": entry.status,
                    "event": entry.event,
                    "result": None if entry.result is None else dumps(entry.result),
                    "reason": None if entry.reason is None else entry.reason.value,
                    "detail": entry.detail,
                    "due": entry.due,
                    "now": self._clock(),
                },
            )

    async def _verdict(self, call: Call) -> Verdict:
        try:
            return await self._sender.send(call, self._clock())
        except Exception as error:
            log.exception("callback_failed", action=call.action)
            return Retry(Reason.INTERNAL_ERROR, type(error).__name__)

    def _entry(self, call: Call, verdict: Verdict) -> _Entry:
        match verdict:
            case Completed(result):
                return _Entry("completed", "action_completed", result=result)
            case Failed(reason, detail):
                return _Entry("failed", "action_failed", reason=reason, detail=detail)
            case Retry(reason, detail, after):
                due = self._retry.next_attempt(
                    self._clock(), attempts=call.attempts, luck=self._luck(), retry_after=after
                )
        if due is None:
            last = f"{reason.value}: {detail}"
            return _Entry("failed", "action_failed", reason=Reason.ATTEMPTS_EXHAUSTED, detail=last)
        return _Entry("pending", "action_retry", reason=reason, detail=detail, due=due)

    async def _read(self, query: Any, parameters: Mapping[str, object]) -> list[Call]:
        async with self._database.as_service() as connection:
            rows: Sequence[RowMapping] = (
                (await connection.execute(query, parameters)).mappings().all()
            )
        return [Call(**row) for row in rows]


def callback_queue(
    settings: Settings, database: Database, outbound: Outbound, clock: Clock
) -> CallbackQueue:
    """The queue as the settings want it, which posts with a shared client."""
    sender = CallbackSender(settings, outbound, Cipher(settings.encryption_keys))
    return CallbackQueue(settings, database, sender, retry_policy(settings), clock)


def callback_sweeper(queue: CallbackQueue, clock: Clock, *, interval: float) -> LeaseSweeper[Call]:
    """Posts the calls that are due, for as long as the worker runs.

    Args:
        interval: longest sleep, in seconds.
    """
    return LeaseSweeper(queue, queue.post, clock, at_once=CALLS_AT_ONCE, interval=interval)
