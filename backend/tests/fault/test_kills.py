"""What was answered with 202 reaches its channels although parts are killed (promise 1)."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
import websockets
from redis.exceptions import RedisError

from app.realtime.connection import redis_client
from app.security.jwt import issue_token
from tests.stack import Stack, as_json, running_stack

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("stack")]

# Short leases, so that what a killed worker held is due again within the test.
QUICK = {
    "DELIVERY_LEASE_SECONDS": "4",
    "PROVIDER_TIMEOUT_SECONDS": "3",
    # Far more kills than a delivery meets in production: none of them is its own fault.
    "DELIVERY_MAX_EXPIRED_LEASES": "50",
}
SETTLE_SECONDS = 60


def token(stack: Stack, user: UUID) -> str:
    return issue_token(
        stack.settings,
        subject=str(user),
        role="authenticated",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )


async def post(stack: Stack, user: UUID, title: str) -> str:
    """Post until it is accepted, as a well-behaved caller does; the id of the accepted one."""
    body = {
        "user_id": str(user),
        "type": "task",
        "priority": "high",
        "title": title,
        "body": "Under fire",
        "send_email": True,
    }
    answer = await stack.api.post("/api/v1/internal/notifications/send", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["notification_id"]


async def center(stack: Stack, user: UUID) -> list[str]:
    """Ids in the user's notification center, page by page."""
    headers = {"Authorization": f"Bearer {token(stack, user)}"}
    ids: list[str] = []
    cursor: str | None = None
    while True:
        query: dict[str, str] = {"limit": "100", **({"cursor": cursor} if cursor else {})}
        page = (await stack.api.get("/api/v1/notifications", headers=headers, params=query)).json()
        ids += [item["id"] for item in page["items"]]
        if not (cursor := page["next_cursor"]):
            return ids


async def mails(stack: Stack) -> Counter[str]:
    """How many mails each notification has in the mailbox."""
    items: list[dict[str, Any]] = (
        await stack.sandbox.get("/mails", params={"limit": 10_000})
    ).json()["items"]
    return Counter(
        tag["value"] for mail in items for tag in mail["tags"] if tag["name"] == "notification_id"
    )


async def flush(stack: Stack) -> None:
    """Empty Redis as soon as it answers again."""
    async with asyncio.timeout(30), redis_client(stack.settings) as redis:
        while True:
            try:
                await cast("Any", redis).flushall()
                return
            except (RedisError, OSError):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(
    stack: Stack, user: UUID, port: int, frames: Counter[str]
) -> AsyncGenerator[None]:
    """A session that counts the notifications it is sent, by id."""
    url = f"ws://127.0.0.1:{port}/api/v1/notifications/ws?token={token(stack, user)}"

    async def count() -> None:
        async for raw in socket:
            message = as_json(raw)
            if message["type"] == "notification":
                frames[message["data"]["id"]] += 1

    async with websockets.connect(url) as socket:
        while as_json(await socket.recv())["type"] != "sync_complete":
            pass
        counting = asyncio.create_task(count())
        try:
            yield
        finally:
            counting.cancel()


async def until_equal(read: Any, expected: Counter[str]) -> None:
    """Wait until what is read is what was expected, or fail with the difference."""
    found: Counter[str] = Counter()
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while (found := await read()) != expected:
                await asyncio.sleep(0.2)
    except TimeoutError:
        missing, surplus = expected - found, found - expected
        pytest.fail(f"missing {len(missing)}, more than once {dict(surplus)}")


@pytest.fixture
async def stack(data_dir: Path) -> AsyncGenerator[Stack]:
    async with running_stack(data_dir, QUICK) as running:
        yield running


async def test_a_worker_killed_between_claim_and_answer_loses_and_repeats_nothing(
    stack: Stack,
) -> None:
    user = await stack.add_user()
    frames: Counter[str] = Counter()
    # The worker has claimed and its requests are under way, but the provider has taken none.
    await stack.sandbox.put("/faults", json={"provider": "resend", "kind": "hang", "seconds": 60})
    async with listening(stack, user, stack.settings.api_port, frames):
        posted = [await post(stack, user, f"Number {n}") for n in range(10)]
        async with asyncio.timeout(20):
            while (await stack.sandbox.get("/arrivals")).json()["requests"] < 10:
                await asyncio.sleep(0.05)
        assert await mails(stack) == Counter()
        await stack.kill("notify worker")
        await stack.sandbox.delete("/faults")
        await until_equal(lambda: mails(stack), Counter(posted))
        assert frames == Counter(posted)
    assert sorted(await center(stack, user)) == sorted(posted)


async def test_300_creates_survive_killed_workers_a_killed_valkey_and_a_flush(
    stack: Stack,
) -> None:
    users = [await stack.add_user() for _ in range(20)]
    posted: dict[UUID, list[str]] = defaultdict(list)
    sessions: dict[UUID, Counter[str]] = {user: Counter() for user in users[:4]}

    async def create(start: int) -> None:
        for number in range(start, 300, 10):
            user = users[number % len(users)]
            posted[user].append(await post(stack, user, f"Number {number}"))

    async def attack() -> None:
        await stack.kill("notify worker")
        await stack.kill("valkey")
        await flush(stack)
        await stack.kill("notify worker")

    async with (
        listening(stack, users[0], stack.settings.api_port, sessions[users[0]]),
        listening(stack, users[1], stack.ws_port, sessions[users[1]]),
        listening(stack, users[2], stack.ws_port, sessions[users[2]]),
        listening(stack, users[3], stack.settings.api_port, sessions[users[3]]),
    ):
        await asyncio.gather(attack(), *(create(start) for start in range(10)))
        accepted = Counter(item for ids in posted.values() for item in ids)
        assert len(accepted) == 300
        await until_equal(lambda: mails(stack), accepted)
        for user in users:
            assert sorted(await center(stack, user)) == sorted(posted[user])
        for user, frames in sessions.items():

            async def seen(frames: Counter[str] = frames) -> Counter[str]:
                return Counter(frames)

            await until_equal(seen, Counter(posted[user]))
    for part in ("notify worker", "valkey", "notify api", "notify gateway"):
        assert stack.part(part).is_running()


async def test_a_killed_api_keeps_what_it_accepted(stack: Stack) -> None:
    user = await stack.add_user()
    posted = [await post(stack, user, f"Before {n}") for n in range(5)]
    await stack.kill("notify api")
    async with asyncio.timeout(60):
        while True:
            try:
                if (await stack.api.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    posted.append(await post(stack, user, "After"))
    await until_equal(lambda: mails(stack), Counter(posted))
    assert sorted(await center(stack, user)) == sorted(posted)
