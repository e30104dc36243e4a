"""The schema comes and goes, equals the models, and shares a database with a platform's own."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.config import Settings
from app.db.database import Database, asyncpg_url
from app.db.migrate import migrate
from app.errors import UnknownUser
from app.models import Base
from app.schemas.user import UpsertUser
from app.services.user_service import UserService


def owner(settings: Settings) -> AsyncEngine:
    assert settings.database_owner_url is not None
    return create_async_engine(asyncpg_url(settings.database_owner_url.get_secret_value()))


async def run(settings: Settings, *statements: str) -> list[Any]:
    engine = owner(settings)
    try:
        async with engine.begin() as connection:
            for statement in statements[:-1]:
                await connection.execute(text(statement))
            result = await connection.execute(text(statements[-1]))
            return list(result.all()) if result.returns_rows else []
    finally:
        await engine.dispose()


async def tables(settings: Settings) -> set[str]:
    rows = await run(settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {row.tablename for row in rows} - {"alembic_version"}


async def test_the_schema_equals_the_models(fresh_settings: Settings) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "compare_server_default": True},
        )
        return compare_metadata(context, Base.metadata)

    engine = owner(fresh_settings)
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(differences)
    finally:
        await engine.dispose()
    # The comment tells our `users` table from a platform's own.
    assert [item for item in found if item[0] != "remove_table_comment"] == []


async def test_a_downgrade_leaves_nothing_and_can_be_undone(fresh_settings: Settings) -> None:
    assert await tables(fresh_settings) == set(Base.metadata.tables)
    await asyncio.to_thread(migrate, fresh_settings, "base")
    assert await tables(fresh_settings) == set()
    await asyncio.to_thread(migrate, fresh_settings)
    assert await tables(fresh_settings) == set(Base.metadata.tables)


async def test_programs_that_migrate_at_once_do_not_collide(fresh_settings: Settings) -> None:
    await asyncio.to_thread(migrate, fresh_settings, "base")
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh_settings) for _ in range(3)))
    assert await tables(fresh_settings) == set(Base.metadata.tables)


@pytest.fixture
async def platform(fresh_settings: Settings) -> Settings:
    """A database whose platform has a `users` table of its own, with one user."""
    settings = fresh_settings
    await asyncio.to_thread(migrate, settings, "base")
    await run(
        settings,
        "CREATE TABLE users (id uuid PRIMARY KEY, login text NOT NULL)",
        f"INSERT INTO users VALUES ('{uuid4()}', 'ada') RETURNING id",
    )
    await asyncio.to_thread(migrate, settings)
    return settings


async def test_a_platform_s_users_are_used_and_never_made_or_dropped(platform: Settings) -> None:
    ((user_id,),) = await run(platform, "SELECT id FROM users")
    database = Database(platform)
    try:
        stored = await UserService(database).upsert(user_id, UpsertUser(email="ada@example.com"))
        assert stored.email == "ada@example.com"
        with pytest.raises(UnknownUser):
            await UserService(database).upsert(uuid4(), UpsertUser(email="eve@example.com"))
    finally:
        await database.close()
    await asyncio.to_thread(migrate, platform, "base")
    assert await tables(platform) == {"users"}
    assert await run(platform, "SELECT login FROM users") == [("ada",)]
