"""Asks Redis who may send one more push or email to a user now (REQ-022).

Redis settles who is first among workers that ask at the same moment. It may forget everything at
any time: each call brings what PostgreSQL knows.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from app.policy.kinds import Channel
from app.policy.limits import Limit
from app.ratelimit.lines import Line, UserChannel
from app.realtime.connection import REDIS_FAULTS, RedisClient

log = structlog.get_logger()

PATIENCE = 0.25  # seconds for all that is asked at once
PAUSE = 1.0  # seconds in which a server that failed is not asked again
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCRIPT = Path(__file__).with_name("admit.lua").read_text()
# By this name a server knows a script that it has run before.
SCRIPT_NAME = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

Turns = dict[UUID, datetime | None]
Reply = list[bytes] | None


class RedisLines:
    """Sliding windows in sorted sets, one for each user and channel.

    Args:
        limits: how much of each channel a user gets.
        patience: seconds after which a call goes on without those that have not answered.
        pause: seconds in which a server that failed is not asked again.
    """

    def __init__(
        self,
        redis: RedisClient,
        limits: Mapping[Channel, Limit],
        *,
        patience: float = PATIENCE,
        pause: float = PAUSE,
    ) -> None:
        self._redis = redis
        self._limits = limits
        self._patience = patience
        self._pause = pause
        self._away_until: dict[Redis | None, float] = {}  # in the event loop's time; None: all

    async def admit(
        self,
        asked: Mapping[UserChannel, Sequence[UUID]],
        lines: Mapping[UserChannel, Line],
        now: datetime,
    ) -> dict[UserChannel, Turns]:
        """Count those that there is room for, in one round trip to each server.

        Args:
            asked: ids of notifications, ascending.
            lines: what PostgreSQL knows of each line.
            now: an aware instant.

        Returns:
            For each notification None if it was counted, else when it is its turn. Lines whose
            server is away are left out.
        """
        calls = {
            key_of(line): self._arguments(line, ids, lines[line], now)
            for line, ids in asked.items()
        }
        replies = await self._call(calls)
        return {
            line: self._turns(line, ids, lines[line], replies[key_of(line)], now)
            for line, ids in asked.items()
            if key_of(line) in replies
        }

    def _arguments(
        self, line: UserChannel, ids: Sequence[UUID], known: Line, now: datetime
    ) -> list[str | int]:
        limit = self._limits[line[1]]
        asked = set(ids)
        last = max(asked)
        earlier = {id_ for id_ in known.waiting if id_ < last}
        return [
            _microseconds(now),
            _microseconds(now - limit.window),
            limit.most,
            int(limit.window / timedelta(milliseconds=1)),
            len(known.counted),
            *(
                part
                for id_, instant in known.counted.items()
                for part in (_microseconds(instant), str(id_))
            ),
            *(part for id_ in sorted(asked | earlier) for part in (str(id_), int(id_ in asked))),
        ]

    def _turns(
        self, line: UserChannel, ids: Sequence[UUID], known: Line, reply: Reply, now: datetime
    ) -> Turns:
        """What the script decided, by the formula that it follows."""
        if reply is None:
            return dict.fromkeys(ids)
        counted = {
            UUID(id_.decode()): EPOCH + timedelta(microseconds=int(float(score)))
            for id_, score in zip(reply[::2], reply[1::2], strict=True)
        }
        found = Line(counted, set(known.waiting))
        return {id_: found.admit(id_, self._limits[line[1]], now) for id_ in ids}

    async def _call(self, calls: Mapping[str, Sequence[str | int]]) -> dict[str, Reply]:
        deadline = asyncio.get_running_loop().time() + self._patience
        if self._is_away(None):
            return {}
        try:
            async with asyncio.timeout_at(deadline):
                shares = await self._redis.shares(calls)
        except REDIS_FAULTS as error:
            self._leave(None, error)
            return {}
        answers = await asyncio.gather(
            *(
                self._call_one(server, {key: calls[key] for key in share}, deadline)
                for server, share in shares.items()
            )
        )
        return {key: reply for answer in answers for key, reply in answer.items()}

    async def _call_one(
        self, server: Redis, calls: Mapping[str, Sequence[str | int]], deadline: float
    ) -> dict[str, Reply]:
        """Ask a server, or who has what it had; who is asked twice counts once."""
        if self._is_away(server):
            return {}
        try:
            async with asyncio.timeout_at(deadline):
                return await _evaluated(server, calls)
        except REDIS_FAULTS as error:
            self._redis.doubt(server)
            fault = error
        try:
            async with asyncio.timeout_at(deadline):
                shares = await self._redis.shares(calls)
                heirs = {heir: share for heir, share in shares.items() if heir is not server}
                replies = [
                    await _evaluated(heir, {key: calls[key] for key in share})
                    for heir, share in heirs.items()
                ]
        except REDIS_FAULTS as error:
            replies, fault = [], error
        if not replies:
            self._leave(server, fault)
        return {key: reply for answer in replies for key, reply in answer.items()}

    def _is_away(self, server: Redis | None) -> bool:
        return asyncio.get_running_loop().time() < self._away_until.get(server, 0.0)

    def _leave(self, server: Redis | None, fault: BaseException) -> None:
        now = asyncio.get_running_loop().time()
        self._away_until = {key: until for key, until in self._away_until.items() if until > now}
        if server not in self._away_until:
            log.warning("limits_without_redis", error=type(fault).__name__)
        self._away_until[server] = now + self._pause


def key_of(line: UserChannel) -> str:
    """Where Redis keeps a line."""
    user_id, channel = line
    return f"rl:{user_id}:{channel.value}"


def _microseconds(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


async def _evaluated(server: Redis, calls: Mapping[str, Sequence[str | int]]) -> dict[str, Reply]:
    replies = await _execute(server, "EVALSHA", SCRIPT_NAME, calls)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        # It was started anew. Who was counted by the first of the calls counts already.
        replies = await _execute(server, "EVAL", SCRIPT, calls)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return dict(zip(calls, replies, strict=True))


async def _execute(
    server: Redis, command: str, script: str, calls: Mapping[str, Sequence[str | int]]
) -> Sequence[Any]:
    pipeline: Any  # redis-py leaves its commands untyped
    async with server.pipeline(transaction=False) as pipeline:
        for key, arguments in calls.items():
            pipeline.execute_command(command, script, 1, key, *arguments)
        return await pipeline.execute(raise_on_error=False)
