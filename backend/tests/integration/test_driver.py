"""Connections that know PostgreSQL's types from others before them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.config import Settings
from app.db.driver import Connection

LISTS = "SELECT $1::uuid[] AS ids, $2::int[] AS numbers, $3::timestamptz[] AS instants"


@asynccontextmanager
async def connected(settings: Settings, **options: object) -> AsyncGenerator[tuple[Any, list[str]]]:
    """A new connection, and the queries that it makes."""
    assert settings.database_owner_url is not None
    connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- untyped
    url = settings.database_owner_url.get_secret_value()
    connection = await connect(url, connection_class=Connection, **options)
    queries: list[str] = []

    def note(record: Any) -> None:
        queries.append(record.query)

    connection.add_query_logger(note)
    try:
        yield connection, queries
    finally:
        await connection.close()


@pytest.mark.parametrize("cached", [100, 0], ids=["prepared", "behind a pooler"])
async def test_a_second_connection_asks_nothing_more(settings: Settings, cached: int) -> None:
    values: tuple[list[object], ...] = ([uuid4(), uuid4()], [1, 2], [])
    for visit in range(2):
        async with connected(settings, statement_cache_size=cached) as (connection, queries):
            for _ in range(2):
                (row,) = await connection.fetch(LISTS, *values)
                assert tuple(row.values()) == values
            if visit:
                assert set(queries) == {LISTS}


async def test_types_of_one_database_are_asked_for_in_each(settings: Settings) -> None:
    name = f"pair_{uuid4().hex}"
    for kind in ("int", "text"):
        async with connected(settings) as (connection, _):
            await connection.execute(f"CREATE TYPE {name} AS (one {kind}, other {kind})")
            row = await connection.fetchrow(f"SELECT ARRAY[(1, 2)::{name}] AS pairs")
            assert [type(value).__name__ for value in row["pairs"][0].values()] == [
                {"text": "str"}.get(kind, kind)
            ] * 2
            await connection.execute(f"DROP TYPE {name}")
