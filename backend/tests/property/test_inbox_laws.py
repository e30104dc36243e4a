"""Laws of an inbox: whatever sessions do to it at the same time, its numbers stay in order.

Every change takes one number, which is told once; counts equal a recount; places are unique.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from app.config import Settings
from app.policy.kinds import NotificationType
from app.realtime.backplane import Backplane, Change
from app.realtime.connection import redis_client as connect_redis
from tests.contract.callers import V1, Api, Headers, content, open_api
from tests.integration.listening import Listener, listening
from tests.integration.sockets import eventually

ROOT = f"{V1}/notifications"
EXISTING = 4


@dataclass(frozen=True)
class Step:
    """One change; `which` picks one of the notifications that were there at the start."""

    kind: str
    which: int
    type: NotificationType | None
    up_to: int | None


steps = st.builds(
    Step,
    st.sampled_from(["create", "read", "read", "unread", "delete", "read_all"]),
    st.integers(0, EXISTING - 1),
    st.one_of(st.none(), st.sampled_from(NotificationType)),
    st.one_of(st.none(), st.integers(0, 2 * EXISTING)),
)
# What each of some sessions does, one after the other, beside the others.
scripts = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=2, max_size=4)

ROWS = """
    SELECT id, type, position, seq, read_at, deleted_at FROM notifications
    WHERE user_id = :user_id
"""
STATE = "SELECT seq, unread FROM inbox_state WHERE user_id = :user_id"


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncGenerator[Api]:
    async with open_api(settings) as running:
        yield running


@pytest.fixture(scope="module")
async def told(settings: Settings) -> AsyncGenerator[Listener]:
    """What is published of all inboxes."""
    async with connect_redis(settings) as redis, listening(Backplane(redis)) as listener:
        yield listener


async def play(api: Api, user_id: UUID, ids: Sequence[str], script: Sequence[Step]) -> None:
    user = api.user(user_id)
    for step in script:
        item = f"{ROOT}/{ids[step.which]}"
        match step.kind:
            case "create":
                kind = step.type or NotificationType.TASK
                body = content(user_id=user_id, type=kind.value)
                await change(api, api.service(), "POST", ROOT, json=body)
            case "delete":
                await change(api, user, "DELETE", item)
            case "read_all":
                body = {"type": step.type, "up_to": step.up_to}
                told = {name: value for name, value in body.items() if value is not None}
                await change(api, user, "POST", f"{ROOT}/read-all", json=told)
            case kind:
                await change(api, user, "PATCH", f"{item}/{kind}")


async def change(api: Api, caller: Headers, method: str, path: str, **options: Any) -> None:
    """Make a change, again as long as others hold the inbox."""
    while True:
        answer = await api.client.request(method, path, headers=caller, **options)
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.05)
    assert answer.is_success or answer.status_code == 404, answer.text


@bounded(
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(scripts=scripts)
async def test_concurrent_changes_leave_an_inbox_in_order(
    api: Api, told: Listener, scripts: list[list[Step]]
) -> None:
    user_id = await api.new_user()
    types = list(NotificationType)
    ids = [
        (await api.create(user_id, type=types[number % len(types)].value))["id"]
        for number in range(EXISTING)
    ]
    await asyncio.gather(*(play(api, user_id, ids, script) for script in scripts))
    (inbox,) = await api.rows(STATE, user_id=user_id)
    rows = await api.rows(ROWS, user_id=user_id)
    unread = Counter(row.type for row in rows if row.read_at is None and row.deleted_at is None)
    assert inbox.unread == unread
    positions = [row.position for row in rows]
    assert len(set(positions)) == len(rows)
    assert all(0 < row.position <= row.seq <= inbox.seq for row in rows)

    def changes() -> list[Change]:
        return [change for change in told.changes if change.user_id == user_id]

    await eventually(lambda: len(changes()) >= inbox.seq)
    assert sorted(change.seq for change in changes()) == list(range(1, inbox.seq + 1))
    last = max(changes(), key=lambda change: change.seq)
    frames = [orjson.loads(frame) for frame in last.frames]
    assert {frame["seq"] for frame in frames} == {inbox.seq}
    assert frames[-1]["by_type"] == inbox.unread
    assert frames[0]["unread_count"] == frames[-1]["count"] == unread.total()
