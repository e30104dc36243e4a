"""How many connections the changes of users take."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from app.config import Settings
from app.db.database import Database
from app.errors import Unavailable

POOL = 4

Pool = Callable[[float], Database]


@pytest.fixture
async def pool(settings: Settings) -> AsyncGenerator[Pool]:
    """Makes a pool of four and no more, whose users wait for so many seconds."""
    async with AsyncExitStack() as stack:

        def make(seconds: float) -> Database:
            sizes = {"database_pool_size": POOL, "database_max_overflow": 0}
            patience = {"database_pool_timeout": seconds}
            database = Database(settings.model_copy(update={**sizes, **patience}))
            stack.push_async_callback(database.close)
            return database

        yield make


async def change(database: Database) -> None:
    async with database.change_as_user(uuid4()) as driver:
        await driver.execute("SELECT 1")


async def fail(database: Database) -> None:
    async with database.change_as_user(uuid4()):
        raise ZeroDivisionError


async def hold_all_places(database: Database, held: AsyncExitStack) -> None:
    for _ in range(POOL // 2):
        await held.enter_async_context(database.change_as_user(uuid4()))


async def test_changes_leave_half_of_the_pool_to_others(pool: Pool) -> None:
    database = pool(0.1)
    async with AsyncExitStack() as held:
        await hold_all_places(database, held)
        with pytest.raises(Unavailable):
            await change(database)
        for _ in range(POOL // 2):
            await held.enter_async_context(database.as_service())


async def test_more_changes_than_places_take_turns(pool: Pool) -> None:
    database = pool(60)
    calls = [change(database) if number % 2 else fail(database) for number in range(10 * POOL)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [ZeroDivisionError, type(None)] * (5 * POOL)


async def test_who_leaves_while_waiting_takes_no_place(pool: Pool) -> None:
    database = pool(60)
    async with AsyncExitStack() as held:
        await hold_all_places(database, held)
        waiting = [asyncio.create_task(change(database)) for _ in range(POOL)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    async with AsyncExitStack() as held:
        await hold_all_places(database, held)
