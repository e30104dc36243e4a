"""The schema comes and goes, equals the models, and shares a database with a platform's own."""

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.config import Settings
from app.db.database import Database, asyncpg_url
from app.db.migrate import migrate
from app.models import Base
from app.pipeline.choices import ChoicesCache
from app.pipeline.decide import Defaults
from app.schemas.user import UpsertUser
from app.services.user_service import UserService
from tests.contract.callers import V1, assert_refused, open_api


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


# What Alembic does not compare: checks, predicates of indexes, identities, what a delete does.
CATALOG = (
    """
    SELECT table_name, column_name, data_type, udt_name, character_maximum_length, is_nullable,
           column_default, is_identity, identity_generation
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
    """,
    """
    SELECT conrelid::regclass::text AS owner, conname, pg_get_constraintdef(oid) AS meaning
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
)


async def test_the_models_make_the_same_schema_as_the_migrations(
    settings: Settings, fresh_settings: Settings
) -> None:
    migrated, modelled = settings, fresh_settings
    await asyncio.to_thread(migrate, modelled, "base")
    engine = owner(modelled)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    finally:
        await engine.dispose()
    for query in CATALOG:
        assert await run(modelled, query) == await run(migrated, query)


async def test_a_downgrade_leaves_nothing_and_can_be_undone(fresh_settings: Settings) -> None:
    assert await tables(fresh_settings) == set(Base.metadata.tables)
    await asyncio.to_thread(migrate, fresh_settings, "base")
    assert await tables(fresh_settings) == set()
    await asyncio.to_thread(migrate, fresh_settings)
    assert await tables(fresh_settings) == set(Base.metadata.tables)


async def test_what_was_chosen_before_versions_were_counted_holds(
    fresh_settings: Settings,
) -> None:
    await asyncio.to_thread(migrate, fresh_settings, "0009")
    database = Database(fresh_settings)
    users = UserService(database, Defaults.from_settings(fresh_settings))
    early, late = uuid4(), uuid4()
    async with database.group_as_service() as driver:  # as the programs of that time stored it
        await driver.execute("INSERT INTO users (id) VALUES ($1)", early)
        await driver.execute("INSERT INTO inbox_state (user_id) VALUES ($1)", early)
        await driver.execute(
            "INSERT INTO notification_preferences (user_id, notification_type, push_enabled)"
            " VALUES ($1, 'global', false)",
            early,
        )
    await asyncio.to_thread(migrate, fresh_settings)
    await users.upsert(late, UpsertUser())
    async with database.group_as_service() as driver:
        rows = await driver.fetch("SELECT user_id, choices_version FROM inbox_state")
        versions = {row["user_id"]: row["choices_version"] for row in rows}
        assert versions == {early: 1, late: 0}
        choices = await ChoicesCache().read(driver, versions)
    await database.close()
    assert choices[early].of_all.push_enabled is False


async def test_programs_that_migrate_at_once_do_not_collide(fresh_settings: Settings) -> None:
    await asyncio.to_thread(migrate, fresh_settings, "base")
    await asyncio.gather(*(asyncio.to_thread(migrate, fresh_settings) for _ in range(3)))
    assert await tables(fresh_settings) == set(Base.metadata.tables)


async def test_migrating_again_changes_nothing(fresh_settings: Settings) -> None:
    user = uuid4()
    await run(
        fresh_settings,
        "ALTER TABLE users NO FORCE ROW LEVEL SECURITY",
        f"INSERT INTO users VALUES ('{user}')",
    )
    await asyncio.to_thread(migrate, fresh_settings)
    assert await run(fresh_settings, "SELECT id FROM users") == [(user,)]


@dataclass(frozen=True)
class Platform:
    """A database whose platform has a `users` table of its own, with one user."""

    settings: Settings
    ada: UUID

    async def rights(self) -> list[Any]:
        """What the platform lets whom do with its users."""
        return await run(
            self.settings,
            "SELECT grantee, privilege_type FROM information_schema.role_table_grants"
            " WHERE table_name = 'users' AND grantee IN ('authenticated', 'service_role')"
            " ORDER BY 1, 2",
        )

    async def policies(self) -> list[Any]:
        return await run(
            self.settings, "SELECT policyname, qual FROM pg_policies WHERE tablename = 'users'"
        )


@pytest.fixture
async def platform(fresh_settings: Settings) -> Platform:
    settings, ada = fresh_settings, uuid4()
    await asyncio.to_thread(migrate, settings, "base")
    await run(
        settings,
        "CREATE TABLE users (id uuid PRIMARY KEY, login text NOT NULL, born date NOT NULL)",
        f"INSERT INTO users VALUES ('{ada}', 'ada', '1815-12-10')",
        "GRANT SELECT, UPDATE ON users TO authenticated",
        "GRANT SELECT, INSERT ON users TO service_role",
        "COMMENT ON TABLE users IS 'the platform''s own'",
    )
    return Platform(settings, ada)


async def test_a_platforms_users_are_notified_and_never_made(platform: Platform) -> None:
    await asyncio.to_thread(migrate, platform.settings)
    async with open_api(platform.settings) as api:
        # Nobody has told anything of her; her platform knows her, and that is enough.
        assert (await api.create(platform.ada))["channels"] == ["in_app"]
        assert (await api.read(platform.ada))["unread_count"] == 1
        path, headers = f"{V1}/internal/users", api.internal()
        known = await api.client.put(
            f"{path}/{platform.ada}", json={"email": "ada@example.com"}, headers=headers
        )
        assert known.status_code == 200
        assert (await api.create(platform.ada))["channels"] == ["in_app", "email"]
        unknown = await api.client.put(
            f"{path}/{uuid4()}", json={"email": "eve@example.com"}, headers=headers
        )
        assert_refused(unknown, 422, "unknown_user")
    assert await run(platform.settings, "SELECT login FROM users") == [("ada",)]


async def test_a_platforms_users_choose_and_are_never_made(platform: Platform) -> None:
    await asyncio.to_thread(migrate, platform.settings)
    async with open_api(platform.settings) as api:
        for path, body in (
            ("preferences/task", {"push_enabled": False}),
            ("preferences/global", {"all": "none"}),
            ("settings", {"timezone": "Europe/London"}),
        ):
            address, eve = f"{V1}/notifications/{path}", uuid4()
            known = await api.client.put(address, json=body, headers=api.user(platform.ada))
            assert known.status_code == 200, known.text
            unknown = await api.client.put(address, json=body, headers=api.user(eve))
            assert_refused(unknown, 422, "unknown_user")
            assert await api.read(eve, "/settings") == dict.fromkeys(
                ("timezone", "locale", "quiet_hours", "pause_until")
            )
    assert await run(platform.settings, "SELECT login FROM users") == [("ada",)]


async def test_a_platforms_users_stay_as_they_are_when_we_come_and_go(platform: Platform) -> None:
    rights, policies = await platform.rights(), await platform.policies()
    await asyncio.to_thread(migrate, platform.settings)
    assert set(rights) <= set(await platform.rights())
    await asyncio.to_thread(migrate, platform.settings, "base")
    assert await tables(platform.settings) == {"users"}
    assert await run(platform.settings, "SELECT id, login FROM users") == [(platform.ada, "ada")]
    assert (await platform.rights(), await platform.policies()) == (rights, policies)
    await asyncio.to_thread(migrate, platform.settings)
    assert await tables(platform.settings) == set(Base.metadata.tables)


async def test_a_platform_that_protects_its_users_is_served_too(platform: Platform) -> None:
    await run(
        platform.settings,
        "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON users TO authenticated USING (id = (SELECT auth.uid()))",
        "REVOKE ALL ON users FROM authenticated",
    )
    await asyncio.to_thread(migrate, platform.settings)
    async with open_api(platform.settings) as api:
        assert (await api.create(platform.ada))["channels"] == ["in_app"]
        path, wishes = f"{V1}/notifications/preferences/preview", {"type": "task"}
        seen = await api.client.post(path, json=wishes, headers=api.user(platform.ada))
        assert [item["action"] for item in seen.json()["channels"]] == ["skip", "send", "skip"]


async def test_deleting_a_platforms_user_deletes_what_was_theirs(platform: Platform) -> None:
    await asyncio.to_thread(migrate, platform.settings)
    async with open_api(platform.settings) as api:
        await api.create(platform.ada)
        await run(platform.settings, f"DELETE FROM users WHERE id = '{platform.ada}'")
        for table in ("notifications", "notification_deliveries", "inbox_state"):
            assert await api.rows(f"SELECT * FROM {table}") == []
