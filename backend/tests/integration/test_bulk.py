"""Expanding batches on real servers: in turns, around busy inboxes, through faults (REQ-005)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.config import Settings
from app.db.database import Database
from app.pipeline.announce import Announcer
from app.pipeline.batch import Batch, BatchContent, store_batch
from app.pipeline.deliver import utc_now
from app.pipeline.doorbell import STREAM, StreamBroker, StreamDoorbell
from app.pipeline.draft import Content
from app.policy.kinds import NotificationType, Priority
from app.policy.routing import Request
from app.ratelimit.global_limit import GlobalLimit
from app.ratelimit.queue_bound import QueueBound
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.worker.main import Worker, open_worker, running

MOST = 10_000


@dataclass
class Floor:
    """A worker, and what tests put before it."""

    settings: Settings
    database: Database
    announcer: Announcer
    worker: Worker

    async def rows(self, query: str, **parameters: object) -> list[Any]:
        async with self.database.as_service() as connection:
            return list((await connection.execute(text(query), parameters)).all())

    async def users(self, count: int) -> list[UUID]:
        ids = sorted(uuid4() for _ in range(count))
        await self.rows(
            "INSERT INTO users (id) SELECT unnest(CAST(:ids AS uuid[])) RETURNING id", ids=ids
        )
        return ids

    async def batch(self, users: list[UUID], priority: Priority = Priority.NORMAL) -> UUID:
        content = Content("A title", "body", "<p>body</p>", {"key": "value"})
        request = Request(NotificationType.SYSTEM, priority, send_email=True)
        batch = Batch(uuid7(), "tests", BatchContent(request, content), users, utc_now())
        stored = await store_batch(
            self.database,
            self.announcer,
            batch,
            most=MOST,
            limit=GlobalLimit(self.settings, self.database, utc_now),
            bound=QueueBound(self.settings.notification_queue_size, self.database, utc_now),
        )
        assert (stored.id, stored.recipient_count) == (batch.id, len(users))
        return batch.id

    async def expand(self) -> None:
        while await self.worker.expander.expand_some():
            pass

    async def ids(self, batch_id: UUID) -> list[UUID]:
        """The batch's notifications in the order they were made."""
        rows = await self.rows(
            "SELECT id FROM notifications WHERE batch_id = :id ORDER BY id", id=batch_id
        )
        return [row.id for row in rows]

    async def states(self, batch_id: UUID) -> dict[str, int]:
        rows = await self.rows(
            "SELECT state, count(*) AS n FROM notification_batch_recipients"
            " WHERE batch_id = :id GROUP BY state",
            id=batch_id,
        )
        return {row.state: row.n for row in rows}

    async def is_open(self, batch_id: UUID) -> bool:
        (row,) = await self.rows(
            "SELECT expanded_at FROM notification_batches WHERE id = :id", id=batch_id
        )
        return row.expanded_at is None

    async def until_expanded(self, *batch_ids: UUID) -> None:
        async with asyncio.timeout(60):
            for batch_id in batch_ids:
                while await self.is_open(batch_id):
                    await asyncio.sleep(0.05)

    async def assert_each_user_has_one(self, batch_id: UUID, users: list[UUID]) -> None:
        rows = await self.rows(
            "SELECT n.user_id, n.position, i.seq, i.unread FROM notifications n"
            " JOIN inbox_state i ON i.user_id = n.user_id WHERE n.batch_id = :id",
            id=batch_id,
        )
        assert sorted(row.user_id for row in rows) == sorted(users)
        assert {(row.position, row.seq) for row in rows} == {(1, 1)}
        assert all(row.unread == {"system": 1} for row in rows)


@pytest.fixture
async def floor(fresh_settings: Settings) -> AsyncGenerator[Floor]:
    settings = fresh_settings.model_copy(update={"sweep_interval_seconds": 0.2})
    async with AsyncExitStack() as stack:
        database = Database(settings)
        stack.push_async_callback(database.close)
        redis = redis_client(settings)
        stack.push_async_callback(redis.aclose)
        await (await redis.at(STREAM)).delete(STREAM)
        broker = StreamBroker(redis_url(settings))
        stack.push_async_callback(broker.shutdown)
        announcer = await stack.enter_async_context(
            Announcer(Backplane(redis), StreamDoorbell(broker))
        )
        worker = await stack.enter_async_context(open_worker(settings))
        yield Floor(settings, database, announcer, worker)


async def test_a_batch_is_expanded_once_by_racing_workers(floor: Floor) -> None:
    users, unknown = await floor.users(1220), [uuid4() for _ in range(5)]
    batch = await floor.batch([*users, *unknown])
    await asyncio.gather(*(floor.expand() for _ in range(4)))
    await floor.expand()
    await floor.assert_each_user_has_one(batch, users)
    assert await floor.states(batch) == {"created": 1220, "unknown": 5}
    assert not await floor.is_open(batch)


async def test_two_workers_that_a_doorbell_wakes_share_the_work(floor: Floor) -> None:
    users = await floor.users(1000)
    async with open_worker(floor.settings) as other, running(floor.worker), running(other):
        batches = [await floor.batch(users[:500]), await floor.batch(users[500:])]
        await floor.until_expanded(*batches)
    await floor.assert_each_user_has_one(batches[0], users[:500])
    await floor.assert_each_user_has_one(batches[1], users[500:])


async def test_batches_are_found_without_a_doorbell(floor: Floor) -> None:
    batch = await floor.batch(await floor.users(3))
    async with redis_client(floor.settings) as client:
        redis = await client.at(STREAM)
        await redis.flushall()  # pyright: ignore[reportUnknownMemberType] -- untyped **kwargs
    stopping = asyncio.Event()
    sweeping = asyncio.create_task(floor.worker.sweeper.run(stopping))
    await floor.until_expanded(batch)
    stopping.set()
    await sweeping


async def test_a_small_batch_does_not_wait_for_a_large_one(floor: Floor) -> None:
    users = await floor.users(1500)
    large, small = await floor.batch(users), await floor.batch(users[:3])
    await floor.expand()
    before_small = [item for item in await floor.ids(large) if item < max(await floor.ids(small))]
    assert 0 < len(before_small) < 1000


async def test_critical_batches_go_first(floor: Floor) -> None:
    users = await floor.users(1000)
    normal = await floor.batch(users)
    critical = await floor.batch(users, Priority.CRITICAL)
    await floor.expand()
    assert max(await floor.ids(critical)) < min(await floor.ids(normal))


async def test_a_busy_inbox_is_left_for_later_and_delays_nobody(floor: Floor) -> None:
    users = await floor.users(300)
    await floor.rows(
        "INSERT INTO inbox_state (user_id) SELECT id FROM users RETURNING user_id",
    )
    batch = await floor.batch(users)
    async with floor.database.as_service() as connection:
        await connection.execute(
            text("SELECT * FROM inbox_state WHERE user_id = :id FOR UPDATE"), {"id": users[7]}
        )
        await floor.expand()
        assert await floor.states(batch) == {"created": 299, "pending": 1}
        assert await floor.is_open(batch)
    await floor.expand()
    await floor.assert_each_user_has_one(batch, users)
    assert not await floor.is_open(batch)


async def test_content_that_cannot_be_read_fails_its_batch_alone(floor: Floor) -> None:
    users = await floor.users(3)
    broken, sound = await floor.batch(users), await floor.batch(users)
    await floor.rows(
        "UPDATE notification_batches SET content = content #- '{content,body}' WHERE id = :id"
        " RETURNING id",
        id=broken,
    )
    await floor.expand()
    await floor.assert_each_user_has_one(sound, users)
    (row,) = await floor.rows(
        "SELECT expanded_at, error FROM notification_batches WHERE id = :id", id=broken
    )
    assert row.expanded_at is not None
    assert row.error == "content.body: missing"
    assert await floor.ids(broken) == []


async def test_a_batch_that_fails_for_a_while_delays_no_other_and_ends(floor: Floor) -> None:
    users = await floor.users(3)
    stuck, sound = await floor.batch(users[:1]), await floor.batch(users[1:])
    await floor.rows(
        "UPDATE notification_batches SET content = jsonb_set(content, '{content,title}', :long)"
        " WHERE id = :id RETURNING id",
        id=stuck,
        long='"' + "x" * 300 + '"',  # more than the column takes
    )
    await floor.expand()
    assert await floor.is_open(stuck)
    await floor.assert_each_user_has_one(sound, users[1:])
    await floor.rows(
        "UPDATE notification_batches SET content = jsonb_set(content, '{content,title}', '\"T\"')"
        " WHERE id = :id RETURNING id",
        id=stuck,
    )
    await floor.expand()
    await floor.assert_each_user_has_one(stuck, users[:1])


async def test_an_expansion_survives_a_database_that_ends_its_connections(floor: Floor) -> None:
    users = await floor.users(1500)
    end = """
        SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
    """
    assassin = Database(floor.settings)
    async with running(floor.worker):
        batch = await floor.batch(users)
        for _ in range(5):
            async with asyncio.timeout(60):
                before = (await floor.states(batch)).get("created", 0)
                while (await floor.states(batch)).get("created", 0) == before < len(users):
                    await asyncio.sleep(0.01)
            async with assassin.as_service() as connection:
                await connection.execute(text("SET LOCAL ROLE NONE"))
                assert (await connection.execute(text(end))).scalar_one() > 0
            await floor.database.close()
        await floor.until_expanded(batch)
    await assassin.close()
    await floor.assert_each_user_has_one(batch, users)
