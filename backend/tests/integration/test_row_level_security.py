"""Every table × role × operation, tried in SQL (SEC-002, SEC-004)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.config import Settings
from app.models import Base

OWN_COLUMN = {"users": "id"}
TABLES = sorted(Base.metadata.tables)
SERVICE_ONLY = {
    "notification_batches",
    "notification_batch_recipients",
    "notification_templates",
    "notification_analytics",
}
OWNED = [table for table in TABLES if table not in SERVICE_ONLY]

Connection = Any  # asyncpg has no types
connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@dataclass(frozen=True)
class Seeded:
    """A database in which every table has a row of Ada and one of Eve."""

    app_url: str
    owner_url: str
    ada: UUID
    eve: UUID


def seed_statements(user: UUID) -> list[str]:
    notification, batch, device = uuid4(), uuid4(), uuid4()
    return [
        f"INSERT INTO users VALUES ('{user}')",
        f"INSERT INTO notification_recipients (user_id, email) VALUES ('{user}', 'x@example.com')",
        f"INSERT INTO inbox_state (user_id, seq) VALUES ('{user}', 1)",
        "INSERT INTO notification_batches (id, service, content, recipient_count)"
        f" VALUES ('{batch}', 's', '{{}}', 1)",
        f"INSERT INTO notification_batch_recipients VALUES ('{batch}', '{user}')",
        "INSERT INTO notifications (id, user_id, type, title, body, body_html, service)"
        f" VALUES ('{notification}', '{user}', 'task', 't', 'b', 'b', 's')",
        "INSERT INTO push_subscriptions (id, user_id, kind, endpoint, p256dh_key, auth_key)"
        f" VALUES ('{device}', '{user}', 'web', 'https://push.example/{device}', 'k', 'a')",
        "INSERT INTO notification_deliveries (notification_id, user_id, channel, device_id)"
        f" VALUES ('{notification}', '{user}', 'push', '{device}')",
        "INSERT INTO notification_decisions (notification_id, user_id, stage, inputs, outcomes)"
        f" VALUES ('{notification}', '{user}', 'create', '{{}}', '[]')",
        "INSERT INTO notification_events (notification_id, user_id, channel, event)"
        f" VALUES ('{notification}', '{user}', 'push', 'sent')",
        "INSERT INTO notification_preferences (user_id, notification_type)"
        f" VALUES ('{user}', 'task')",
        "INSERT INTO notification_templates (name, type, title_template, body_template)"
        f" VALUES ('{user}', 'task', 't', 'b')",
        "INSERT INTO email_digests (user_id, frequency, scheduled_for)"
        f" VALUES ('{user}', 'daily', now())",
        "INSERT INTO notification_analytics (notification_id, notification_type, channel, event,"
        f" user_id) VALUES ('{notification}', 'task', 'push', 'sent', '{user}')",
    ]


@pytest.fixture(scope="module")
async def seeded(settings: Settings) -> Seeded:
    assert settings.database_url is not None
    assert settings.database_owner_url is not None
    found = Seeded(
        settings.database_url.get_secret_value(),
        settings.database_owner_url.get_secret_value(),
        uuid4(),
        uuid4(),
    )
    async with session(found.app_url, "service_role") as connection:
        for user in (found.ada, found.eve):
            for statement in seed_statements(user):
                await connection.execute(statement)
    return found


@asynccontextmanager
async def session(
    url: str, role: str | None = None, claims: str | None = None
) -> AsyncGenerator[Connection]:
    """A transaction as the role, with the claims, as the API and PostgREST open one."""
    connection: Connection = await connect(url)
    try:
        async with connection.transaction():
            if claims is not None:
                await connection.execute(
                    "SELECT set_config('request.jwt.claims', $1, true)", claims
                )
            if role is not None:
                await connection.execute("SELECT set_config('role', $1, true)", role)
            yield connection
    finally:
        await connection.close()


def claims_of(user: UUID) -> str:
    return f'{{"sub": "{user}", "role": "authenticated"}}'


async def attempt(connection: Connection, statement: str) -> Any:
    """The rows, or `denied`; the transaction goes on either way."""
    try:
        async with connection.transaction():
            return await connection.fetch(statement)
    except asyncpg.InsufficientPrivilegeError:
        return "denied"


def changes(table: str) -> dict[str, str]:
    """Statements that would write the table, valid but for the rights."""
    # The last column: it is never an identity, which nobody may write.
    column = list(Base.metadata.tables[table].columns)[-1].name
    return {
        "insert": f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {table} RETURNING 1",
        "update": f"UPDATE {table} SET {column} = {column} RETURNING 1",
        "delete": f"DELETE FROM {table} RETURNING 1",
        "truncate": f"TRUNCATE {table} CASCADE",
    }


async def test_every_table_is_covered_and_forces_row_security(seeded: Seeded) -> None:
    async with session(seeded.owner_url) as connection:
        rows = await connection.fetch(
            "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
    found = {row["relname"]: (row["relrowsecurity"], row["relforcerowsecurity"]) for row in rows}
    found.pop("alembic_version")
    assert found == dict.fromkeys(TABLES, (True, True))


@pytest.mark.parametrize("table", TABLES)
async def test_the_login_role_by_itself_may_do_nothing(seeded: Seeded, table: str) -> None:
    async with session(seeded.app_url, claims=claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == "denied"
        for operation, statement in changes(table).items():
            assert await attempt(connection, statement) == "denied", operation


@pytest.mark.parametrize("table", TABLES)
async def test_the_owner_sees_no_row(seeded: Seeded, table: str) -> None:
    async with session(seeded.owner_url, claims=claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize("table", TABLES)
async def test_the_service_sees_all(seeded: Seeded, table: str) -> None:
    async with session(seeded.app_url, "service_role") as connection:
        rows = await attempt(connection, f"SELECT * FROM {table}")
    assert rows != "denied"
    assert len(rows) >= 2


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", OWNED)
async def test_a_user_sees_the_rows_that_are_their_own(
    seeded: Seeded, table: str, role: str
) -> None:
    column = OWN_COLUMN.get(table, "user_id")
    async with session(seeded.app_url, role, claims_of(seeded.ada)) as connection:
        rows: Any = await attempt(connection, f"SELECT {column} AS owner FROM {table}")
        assert [row["owner"] for row in rows] == [seeded.ada]
        others = f"SELECT * FROM {table} WHERE {column} = '{seeded.eve}'"
        assert await attempt(connection, others) == []


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", sorted(SERVICE_ONLY))
async def test_what_is_for_services_is_for_no_user(seeded: Seeded, table: str, role: str) -> None:
    async with session(seeded.app_url, role, claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == "denied"


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", TABLES)
async def test_no_user_writes_any_table(seeded: Seeded, table: str, role: str) -> None:
    async with session(seeded.app_url, role, claims_of(seeded.ada)) as connection:
        for operation, statement in changes(table).items():
            assert await attempt(connection, statement) == "denied", operation


@pytest.mark.parametrize("table", TABLES)
async def test_strangers_see_nothing(seeded: Seeded, table: str) -> None:
    async with session(seeded.owner_url) as connection:
        allowed = await connection.fetchval(
            "SELECT has_table_privilege('anon', $1, 'SELECT')", table
        )
    assert allowed is False


@pytest.mark.parametrize("claims", [None, "", "{}", '{"sub": ""}', '{"role": "service_role"}'])
@pytest.mark.parametrize("table", OWNED)
async def test_a_user_without_an_id_sees_nothing(
    seeded: Seeded, table: str, claims: str | None
) -> None:
    async with session(seeded.app_url, "authenticated", claims) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == []


async def test_role_and_claims_end_with_the_transaction(seeded: Seeded) -> None:
    connection: Connection = await connect(seeded.app_url)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT set_config('role', 'authenticated', true),"
                " set_config('request.jwt.claims', $1, true)",
                claims_of(seeded.ada),
            )
            assert len(await connection.fetch("SELECT * FROM notifications")) == 1
        assert await connection.fetchval("SELECT current_user") == "notify"
        async with connection.transaction():
            await connection.execute("SELECT set_config('role', 'authenticated', true)")
            assert await connection.fetch("SELECT * FROM notifications") == []
    finally:
        await connection.close()


async def test_a_user_cannot_become_the_service(seeded: Seeded) -> None:
    async with session(seeded.owner_url) as connection:
        for role in ("authenticated", "notify_user", "anon"):
            for target in ("service_role", "notify_owner", "postgres", "notify"):
                member = await connection.fetchval(
                    "SELECT pg_has_role($1, $2, 'SET')", role, target
                )
                assert member is False, (role, target)


async def test_the_login_role_is_neither_owner_nor_privileged(seeded: Seeded) -> None:
    async with session(seeded.owner_url) as connection:
        row: Any = await connection.fetchrow(
            "SELECT rolsuper, rolinherit, rolbypassrls, rolcreaterole FROM pg_roles"
            " WHERE rolname = 'notify'"
        )
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relowner = 'notify'::regrole"
        )
    assert tuple(row) == (False, False, False, False)
    assert owned == 0


async def test_nothing_leads_around_the_policies(seeded: Seeded) -> None:
    async with session(seeded.owner_url) as connection:
        views = await connection.fetch(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('public', 'auth') AND c.relkind IN ('v', 'm', 'f')"
        )
        partitions = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relispartition"
            " AND relnamespace = 'public'::regnamespace"
        )
        definers = await connection.fetch(
            "SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
            " WHERE n.nspname IN ('public', 'auth') AND p.prosecdef"
        )
    assert (views, partitions, definers) == ([], [], [])
