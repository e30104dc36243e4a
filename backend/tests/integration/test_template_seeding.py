"""`notify migrate` puts the shipped templates in, and leaves alone what is an operator's."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.db.migrate import migrate
from app.shipped_templates import shipped_templates

SHIPPED = len(shipped_templates())


@pytest.fixture
async def database(fresh_settings: Settings) -> AsyncGenerator[Database]:
    """A database of one's own, migrated."""
    database = Database(fresh_settings)
    yield database
    await database.close()


async def run(database: Database, statement: str) -> list[Any]:
    async with database.as_service() as connection:
        result = await connection.execute(text(statement))
        return list(result.all()) if result.returns_rows else []


async def changes(database: Database) -> int:
    (row,) = await run(database, "SELECT version FROM cache_versions WHERE name = 'templates'")
    return row.version


async def versions(database: Database, name: str, language: str) -> list[tuple[int, bool, bool]]:
    rows = await run(
        database,
        "SELECT version, is_active, is_shipped FROM notification_templates"
        f" WHERE name = '{name}' AND language = '{language}' ORDER BY version",
    )
    return [tuple(row) for row in rows]


async def test_a_new_database_has_all_of_them(database: Database) -> None:
    rows = await run(database, "SELECT * FROM notification_templates")
    assert len(rows) == SHIPPED
    assert all(row.is_shipped and row.is_active and row.version == 1 for row in rows)
    assert all(row.default_channels is None for row in rows)
    stored = {(row.name, row.language): row for row in rows}
    for item in shipped_templates():
        row = stored[item.name, item.language]
        assert (row.type, row.default_priority) == (item.type, item.priority)
        assert row.variables == item.variables
        assert all(getattr(row, f"{field}_template") == said for field, said in item.texts.items())


async def test_migrating_again_changes_nothing(
    database: Database, fresh_settings: Settings
) -> None:
    before = await run(database, "SELECT * FROM notification_templates ORDER BY id")
    count = await changes(database)
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh_settings) for _ in range(3)))
    assert await run(database, "SELECT * FROM notification_templates ORDER BY id") == before
    assert await changes(database) == count


async def test_what_reads_otherwise_is_a_new_version(
    database: Database, fresh_settings: Settings
) -> None:
    # As an older program had shipped them.
    await run(
        database,
        "UPDATE notification_templates SET title_template = 'Old' WHERE name = 'mention'"
        " AND language = 'de'",
    )
    await run(
        database,
        "UPDATE notification_templates SET default_priority = 'low', variables = '{}'"
        " WHERE name = 'reply' AND language = 'ar'",
    )
    count = await changes(database)
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh_settings) for _ in range(3)))
    for name, language in (("mention", "de"), ("reply", "ar")):
        assert await versions(database, name, language) == [(1, False, True), (2, True, True)]
    assert await versions(database, "mention", "en") == [(1, True, True)]
    assert await changes(database) == count + 1


async def test_an_operators_version_and_deletion_stay(
    database: Database, fresh_settings: Settings
) -> None:
    await run(
        database,
        "UPDATE notification_templates SET is_active = false, title_template = 'Old'"
        " WHERE name IN ('like', 'follow') AND language = 'en'",
    )
    await run(
        database,
        "INSERT INTO notification_templates (name, type, title_template, body_template, version)"
        " VALUES ('like', 'user', 'Ours', 'Ours', 2)",
    )
    count = await changes(database)
    await asyncio.to_thread(migrate, fresh_settings)
    assert await versions(database, "like", "en") == [(1, False, True), (2, True, False)]
    assert await versions(database, "follow", "en") == [(1, False, True)]
    assert await changes(database) == count


async def test_a_template_that_is_new_is_added_beside_the_others(
    database: Database, fresh_settings: Settings
) -> None:
    await run(database, "DELETE FROM notification_templates WHERE name = 'invoice'")
    count = await changes(database)
    await asyncio.to_thread(migrate, fresh_settings)
    for language in ("en", "de", "ar"):
        assert await versions(database, "invoice", language) == [(1, True, True)]
    assert await changes(database) == count + 1
