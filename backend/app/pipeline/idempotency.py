"""Idempotency keys: a call that is repeated within a day is answered as the first time (5.1).

Keys are claimed in the transaction that stores what the call creates, before any inbox is locked
and in sorted order, so a key exists exactly when its notification does, and calls that race for
one key wait for each other instead of deadlocking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from app.db.database import Driver, dumps
from app.errors import IdempotencyConflict

LIFETIME = timedelta(hours=24)
EXPIRED_AT_ONCE = 10_000

# A key whose day is over is free again.
CLAIM = """
    INSERT INTO idempotency_keys AS k (service, key, fingerprint, owner_id, created_at)
    SELECT service, key, fingerprint, owner_id, created_at
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[], $5::timestamptz[])
        AS c (service, key, fingerprint, owner_id, created_at)
    ORDER BY service COLLATE "C", key COLLATE "C"
    ON CONFLICT (service, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, owner_id = excluded.owner_id, answer = NULL,
        created_at = excluded.created_at
    WHERE k.created_at <= excluded.created_at - $6::interval
    RETURNING owner_id
"""

FIND = """
    SELECT c.owner_id, k.fingerprint, k.answer, k.created_at
    FROM unnest($1::text[], $2::text[], $3::uuid[]) AS c (service, key, owner_id)
    JOIN idempotency_keys k USING (service, key)
"""

KEEP = """
    UPDATE idempotency_keys k SET answer = c.answer::jsonb
    FROM unnest($1::text[], $2::text[], $3::text[]) AS c (service, key, answer)
    WHERE k.service = c.service AND k.key = c.key
"""

RELEASE = """
    DELETE FROM idempotency_keys k USING unnest($1::text[], $2::text[]) AS c (service, key)
    WHERE k.service = c.service AND k.key = c.key
"""

FORGET = """
    DELETE FROM idempotency_keys WHERE (service, key) IN (
        SELECT service, key FROM idempotency_keys
        WHERE created_at < $1::timestamptz - $2::interval
        LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    RETURNING owner_id
"""

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that carries a key.

    Args:
        service: name of the caller; keys of two services have nothing to do with each other.
        fingerprint: digest of all that the call asks for.
        owner_id: id of what the call would create.
        made_at: aware instant of the call.
    """

    service: str
    key: str
    fingerprint: bytes
    owner_id: UUID
    made_at: datetime


def fingerprint_of(wanted: BaseModel) -> bytes:
    """A digest that is equal for calls that ask for the same, whatever the order of their fields.

    The digest stays with the key; the call's content can't be read from it.
    """
    # Without defaults: a version that takes one field more has the same digest for the same call.
    asked = wanted.model_dump(mode="json", exclude={"idempotency_key"}, exclude_defaults=True)
    named = {"": type(wanted).__name__, **asked}
    return sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).digest()


async def claim(
    driver: Driver, attempts: Sequence[Attempt]
) -> Mapping[UUID, Answer | IdempotencyConflict]:
    """Claim the keys of calls, each key once; waits for a transaction that holds one of them.

    Returns:
        By `owner_id`, for each call whose key was used before: the first answer, or the error.
        The others hold their keys now, and are to `keep` an answer or `release` the key.
    """
    if not attempts:
        return {}
    rows = await driver.fetch(
        CLAIM,
        [attempt.service for attempt in attempts],
        [attempt.key for attempt in attempts],
        [attempt.fingerprint for attempt in attempts],
        [attempt.owner_id for attempt in attempts],
        [attempt.made_at for attempt in attempts],
        LIFETIME,
    )
    claimed = {row["owner_id"] for row in rows}
    repeated = {
        attempt.owner_id: attempt for attempt in attempts if attempt.owner_id not in claimed
    }
    if not repeated:
        return {}
    found = await driver.fetch(
        FIND,
        [attempt.service for attempt in repeated.values()],
        [attempt.key for attempt in repeated.values()],
        list(repeated),
    )
    return {
        row["owner_id"]: row["answer"]
        if row["fingerprint"] == repeated[row["owner_id"]].fingerprint
        else IdempotencyConflict()
        for row in found
    }


async def earlier(driver: Driver, attempt: Attempt) -> Answer | IdempotencyConflict | None:
    """What a call with this key was answered before, or the error; None if there was none.

    Nothing is claimed, and a call that is being answered just now is not waited for.
    """
    rows = await driver.fetch(FIND, [attempt.service], [attempt.key], [attempt.owner_id])
    valid = [row for row in rows if row["created_at"] > attempt.made_at - LIFETIME]
    if not valid:
        return None
    return (
        valid[0]["answer"]
        if valid[0]["fingerprint"] == attempt.fingerprint
        else IdempotencyConflict()
    )


async def keep(driver: Driver, answers: Sequence[tuple[Attempt, Answer]]) -> None:
    """Keep what the calls are answered, for those that repeat them."""
    if answers:
        await driver.execute(
            KEEP,
            [attempt.service for attempt, _ in answers],
            [attempt.key for attempt, _ in answers],
            [dumps(answer) for _, answer in answers],
        )


async def release(driver: Driver, attempts: Sequence[Attempt]) -> None:
    """Free the keys of calls that created nothing."""
    if attempts:
        await driver.execute(
            RELEASE,
            [attempt.service for attempt in attempts],
            [attempt.key for attempt in attempts],
        )


async def forget_expired(driver: Driver, now: datetime) -> int:
    """Delete keys whose day is over, a bounded number at once; returns how many."""
    return len(await driver.fetch(FORGET, now, LIFETIME, EXPIRED_AT_ONCE))
