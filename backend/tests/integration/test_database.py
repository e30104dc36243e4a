"""How many connections the changes of users take."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from app.config import Settings
from app.db.database import Database
from app.errors import Unavailable

POOL = 4


@pytest.fixture
async def small(settings: Settings) -> AsyncGenerator[Database]:
    """A pool of four and no more."""
    sizes = {"database_pool_size": POOL, "database_max_overflow": 0, "database_pool_timeout": 0.2}
    database = Database(settings.model_copy(update=sizes))
    yield database
    await database.close()


async def change(database: Database) -> None:
    async with database.change_as_user(uuid4()) as driver:
        await driver.execute("SELECT 1")


async def test_changes_leave_half_of_the_pool_to_others(small: Database) -> None:
    async with AsyncExitStack() as held:
        for _ in range(POOL // 2):
            await held.enter_async_context(small.change_as_user(uuid4()))
        with pytest.raises(Unavailable):
            await change(small)
        for _ in range(POOL // 2):
            await held.enter_async_context(small.as_service())
    await asyncio.gather(*(change(small) for _ in range(10 * POOL)))


async def test_a_change_that_fails_leaves_its_place(small: Database) -> None:
    async def fail() -> None:
        async with small.change_as_user(uuid4()):
            raise ZeroDivisionError

    failed = await asyncio.gather(*(fail() for _ in range(10 * POOL)), return_exceptions=True)
    assert {type(error) for error in failed} == {ZeroDivisionError}
    await change(small)


async def test_who_leaves_while_waiting_takes_no_place(small: Database) -> None:
    async with AsyncExitStack() as held:
        for _ in range(POOL // 2):
            await held.enter_async_context(small.change_as_user(uuid4()))
        waiting = [asyncio.create_task(change(small)) for _ in range(POOL)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    await asyncio.gather(*(change(small) for _ in range(POOL // 2)))
