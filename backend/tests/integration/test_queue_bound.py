"""How often the queue is counted, at what cost, and what that means for who creates (REQ-022)."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.load_settings import load_settings
from app.pipeline.deliver import utc_now
from app.policy.kinds import PRIORITY_RANKS, Channel
from app.ratelimit.queue_bound import COUNT, PAUSE_SECONDS, PUT_OFF, SHARE, QueueBound
from app.sandbox.server import serving_sandbox
from app.worker.main import open_worker, running
from bench.plans import MODES, Mode, Statement, plan_of
from tests.contract.callers import V1, assert_refused, content, open_api
from tests.contract.test_global_limit import behind_a_proxy
from tests.contract.test_queue_bound import ADD_DELIVERIES, DUE, WAITING
from tests.http_client import client_of
from tests.integration.test_pipeline import eventually

MOST = 5


@dataclass
class Seconds:
    """A clock that goes on by itself whenever it is looked at."""

    now: float = 0.0
    step: float = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@dataclass
class Queue:
    database: Database
    seconds: Seconds
    bound: QueueBound

    async def add(self, count: int, values: str = DUE["new"]) -> None:
        async with self.database.as_service() as connection:
            user = uuid4()
            await connection.execute(text("INSERT INTO users (id) VALUES (:id)"), {"id": user})
            rows = {"user": user, "count": count}
            await connection.execute(text(ADD_DELIVERIES.format(values=values)), rows)

    async def empty(self) -> None:
        async with self.database.as_service() as connection:
            await connection.execute(text("UPDATE notification_deliveries SET status = 'sent'"))


@pytest.fixture
async def queue(fresh_settings: Settings) -> AsyncGenerator[Queue]:
    database, seconds = Database(fresh_settings), Seconds()
    async with QueueBound(MOST, database, utc_now, seconds) as bound:
        yield Queue(database, seconds, bound)
    await database.close()


async def test_the_first_call_waits_for_a_count(queue: Queue) -> None:
    await queue.add(MOST + 1)
    assert await queue.bound.is_full()


async def test_it_is_full_only_past_the_bound(queue: Queue) -> None:
    await queue.add(MOST)
    assert not await queue.bound.is_full()
    queue.bound.stored(1)
    assert await queue.bound.is_full()


async def test_a_stale_count_is_repeated_beside_what_goes_on(queue: Queue) -> None:
    assert not await queue.bound.is_full()
    await queue.add(MOST + 1)
    queue.seconds.now += PAUSE_SECONDS - 0.01
    assert not await queue.bound.is_full()
    queue.seconds.now += 0.02
    assert not await queue.bound.is_full()  # which does not wait for what it has started
    await eventually(queue.bound.is_full)


async def test_who_asks_after_a_long_time_waits_for_a_count(queue: Queue) -> None:
    assert not await queue.bound.is_full()
    await queue.add(MOST + 1)
    queue.seconds.now += 2 * PAUSE_SECONDS
    assert await queue.bound.is_full()


async def test_nobody_is_refused_for_a_stale_count(queue: Queue) -> None:
    await queue.add(MOST + 1)
    assert await queue.bound.is_full()
    await queue.empty()
    queue.seconds.now += PAUSE_SECONDS - 0.01
    assert await queue.bound.is_full()
    queue.seconds.now += 0.02
    assert not await queue.bound.is_full()


async def test_what_was_stored_before_a_count_is_counted_once(queue: Queue) -> None:
    assert not await queue.bound.is_full()
    await queue.add(MOST)
    queue.bound.stored(MOST)
    queue.seconds.now += 2 * PAUSE_SECONDS
    assert not await queue.bound.is_full()
    queue.bound.stored(1)
    assert await queue.bound.is_full()


async def test_a_count_that_takes_long_is_repeated_the_less_often(queue: Queue) -> None:
    queue.seconds.step = 0.1  # each look at the clock; a count takes one at least
    assert not await queue.bound.is_full()
    queue.seconds.step = 0.0
    await queue.add(MOST + 1)
    queue.seconds.now += SHARE * 0.1 - 0.2
    assert not await queue.bound.is_full()
    queue.seconds.now += 2 * SHARE * 0.1
    assert await queue.bound.is_full()


async def test_without_postgresql_nothing_is_full(fresh_settings: Settings) -> None:
    seconds = Seconds()
    async with behind_a_proxy(fresh_settings) as (settings, proxy):
        database = Database(settings)
        async with QueueBound(MOST, database, utc_now, seconds) as bound:
            assert not await bound.is_full()
            bound.stored(MOST + 1)
            assert await bound.is_full()
            proxy.refuse()
            assert await bound.is_full()
            seconds.now += PAUSE_SECONDS
            assert not await bound.is_full()
        await database.close()


@pytest.mark.parametrize("mode", MODES)
async def test_a_count_reads_no_more_than_it_has_to(queue: Queue, mode: Mode) -> None:
    """However many are due, or parked."""
    most = 500
    await queue.add(10_000)
    for kind in ("digest", "scheduled", "held"):
        await queue.add(3_000, WAITING[kind])
    values: list[Any] = [
        [channel.value for channel in Channel],
        sorted(PRIORITY_RANKS.values()),
        utc_now() + timedelta(minutes=1),
        PUT_OFF,
        most + 1,
    ]
    async with queue.database.as_service() as connection:
        plan = await plan_of(connection, Statement(COUNT, values, "service_role"), mode)
    assert plan.sequential == [], str(plan)
    read = [node for node in plan.nodes if node.table == "notification_deliveries"]
    assert {node.index for node in read} == {"idx_notification_deliveries_due"}, str(plan)
    assert sum(node.rows + node.dropped for node in read) <= most + 1 + len(Channel) * 4, str(plan)


async def test_a_burst_over_two_processes_while_the_provider_hangs(
    fresh_settings: Settings, tmp_path: Path
) -> None:
    """What was accepted is mailed once when it is well again; what was refused is nowhere."""
    burst, bound, at_once = 800, 200, 100
    async with AsyncExitStack() as stack:
        sandbox = load_settings(_env_file=None, data_dir=tmp_path)
        url = await stack.enter_async_context(serving_sandbox(sandbox))
        provider = await stack.enter_async_context(client_of(url))
        settings = fresh_settings.model_copy(
            update={
                "resend_api_key": SecretStr("re_tests"),
                "resend_api_url": f"{url}/resend",
                "retry_cap_seconds": 1.0,
                "delivery_slots": 20,  # what is tried does not count any more
                "notification_queue_size": bound,
            }
        )
        apis = [await stack.enter_async_context(open_api(settings)) for _ in range(2)]
        worker = await stack.enter_async_context(open_worker(settings))
        await stack.enter_async_context(running(worker))
        hang = [{"provider": "resend", "kind": "hang", "seconds": 60}]
        (await provider.put("/faults", json=hang)).raise_for_status()
        users = [await apis[0].new_user(email=f"{n}@example.com") for n in range(20)]

        room = asyncio.Semaphore(at_once)

        async def create(number: int) -> httpx.Response:
            body = content(user_id=users[number % len(users)], priority="normal", send_email=True)
            api = apis[number % 2]
            async with room:
                return await api.client.post(
                    f"{V1}/notifications", json=body, headers=api.service()
                )

        answers = await asyncio.gather(*map(create, range(burst)))
        accepted = {UUID(item.json()["id"]) for item in answers if item.status_code == 202}
        refused = [item for item in answers if item.status_code != 202]
        for answer in refused:
            assert_refused(answer, 429, "queue_full")
        assert len(accepted) > bound
        assert len(refused) > 100
        rows = await apis[0].rows("SELECT id FROM notifications")
        assert {row.id for row in rows} == accepted

        await provider.delete("/faults")
        pending = "SELECT count(*) AS n FROM notification_deliveries WHERE status = 'pending'"

        async def ended() -> bool:
            return not (await apis[0].rows(pending))[0].n

        await eventually(ended, seconds=90)
        mails = (await provider.get("/mails", params={"limit": 10_000})).json()["items"]
        mailed = Counter(
            UUID(tag["value"])
            for mail in mails
            for tag in mail["tags"]
            if tag["name"] == "notification_id"
        )
        assert mailed == Counter(accepted)
