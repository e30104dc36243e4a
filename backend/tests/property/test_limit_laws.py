"""The script in Redis and `Line` in Python decide alike, to the microsecond."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config import Settings
from app.policy.kinds import Channel
from app.policy.limits import Limit
from app.ratelimit.lines import Line
from app.ratelimit.redis_lines import EPOCH, RedisLines, Turns, key_of
from app.realtime.connection import connect, redis_url

START = datetime(2026, 7, 1, 12, 0, 0, 123_457, tzinfo=UTC)
WINDOW = timedelta(hours=1)
IDS = [UUID(int=number << 90) for number in range(12)]
INSTANT = timedelta(microseconds=1)

some_ids = st.sets(st.sampled_from(IDS))
# Windows end together, one instant apart, and in between.
pauses = st.sampled_from([timedelta(), INSTANT, WINDOW / 3, WINDOW - INSTANT, WINDOW])


@dataclass(frozen=True)
class Step:
    """One call, and what happened before it.

    Args:
        pause: since the last call.
        asked: what is asked for.
        waiting: what PostgreSQL knows to wait.
        recorded: what of the counted PostgreSQL knows.
        elsewhere: counted without Redis, each so long before the call.
        is_flushed: Redis has forgotten all, its scripts too.
    """

    pause: timedelta
    asked: set[UUID]
    waiting: set[UUID]
    recorded: set[UUID]
    elsewhere: dict[UUID, timedelta]
    is_flushed: bool


steps = st.builds(
    Step,
    pause=pauses,
    asked=st.sets(st.sampled_from(IDS), min_size=1),
    waiting=some_ids,
    recorded=some_ids,
    elsewhere=st.dictionaries(
        st.sampled_from(IDS), st.sampled_from([timedelta(), INSTANT, WINDOW / 2]), max_size=2
    ),
    is_flushed=st.sampled_from([False, False, False, True]),
)


def known(line: dict[UUID, datetime], now: datetime) -> dict[UUID, datetime]:
    return {id_: instant for id_, instant in line.items() if instant > now - WINDOW}


def later(one: dict[UUID, datetime], other: dict[UUID, datetime]) -> dict[UUID, datetime]:
    return {
        id_: max(found[id_] for found in (one, other) if id_ in found)
        for id_ in one.keys() | other.keys()
    }


async def play(settings: Settings, most: int, run: list[Step]) -> None:
    limits = {Channel.PUSH: Limit(most, WINDOW)}
    line = (uuid4(), Channel.PUSH)
    now, counted = START, dict[UUID, datetime]()
    async with connect(redis_url(settings)) as client:
        redis = RedisLines(client, limits, patience=60)
        server = await client.at(key_of(line))
        for step in run:
            now += step.pause
            counted = known(counted, now)
            seeds = {id_: counted[id_] for id_ in step.recorded & counted.keys()}
            seeds = later(seeds, {id_: now - ago for id_, ago in step.elsewhere.items()})
            if step.is_flushed:
                await server.delete(key_of(line))
                await server.script_flush()
                counted = {}
            ids = sorted(step.asked)
            model = Line(later(counted, seeds), set(step.waiting))
            expected: Turns = {id_: model.admit(id_, limits[Channel.PUSH], now) for id_ in ids}
            found = await redis.admit({line: ids}, {line: Line(seeds, set(step.waiting))}, now)
            assert found == {line: expected}
            counted = model.counted
            assert await kept(server, key_of(line)) == counted


async def kept(server: Any, key: str) -> dict[UUID, datetime]:
    """What Redis goes by in the next call."""
    found = await server.zrange(key, 0, -1, withscores=True)
    return {UUID(id_.decode()): EPOCH + int(score) * INSTANT for id_, score in found}


@hypothesis_settings(max_examples=100)
@given(most=st.integers(1, 4), run=st.lists(steps, min_size=1, max_size=8))
def test_the_script_decides_as_python_does(settings: Settings, most: int, run: list[Step]) -> None:
    asyncio.run(play(settings, most, run))
