"""Every table × role × operation, tried in SQL (SEC-002, SEC-004)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.models import Base

OWN_COLUMN = {"users": "id"}
TABLES = sorted(Base.metadata.tables)
SERVICE_ONLY = {
    "action_callbacks",
    "vapid_keys",
    "rate_buckets",
    "cache_versions",
    "email_requests",
    "email_request_letters",
    "email_links",
    "webhook_receipts",
    "notification_batches",
    "notification_batch_recipients",
    "notification_templates",
    "notification_analytics",
    "idempotency_keys",
}
# Whose it is, the address says.
ADDRESSED = "email_suppressions"
OWNED = [table for table in TABLES if table not in {*SERVICE_ONLY, ADDRESSED}]
USER_ROLES = ["anon", "authenticated", "notify_user"]
# What users choose is about no notification.
CHOSEN_BY_USERS = {"notification_preferences", "notification_recipients"}
# All that users change through the API, which acts as `notify_user`, by column.
CHANGED_BY_USERS = {
    "inbox_state": {"UPDATE": {"seq", "unread", "choices_version"}},
    "notification_preferences": {
        "INSERT": {
            "user_id", "notification_type", "push_enabled", "email_enabled", "digest_frequency",
            "digest_time", "digest_day", "quiet_hours_start", "quiet_hours_end",
            "quiet_hours_days", "updated_at",
        },
        "UPDATE": {
            "push_enabled", "email_enabled", "digest_frequency", "digest_time", "digest_day",
            "quiet_hours_start", "quiet_hours_end", "quiet_hours_days", "updated_at",
        },
    },
    "notification_recipients": {
        "INSERT": {"user_id", "timezone", "locale", "quiet_hours", "pause_until", "updated_at"},
        "UPDATE": {"timezone", "locale", "quiet_hours", "pause_until", "updated_at"},
    },
    "notifications": {"UPDATE": {"read_at", "deleted_at", "expired_at", "seq"}},
    "notification_deliveries": {
        "UPDATE": {"status", "reason", "next_attempt_at", "digest_slot"}
    },
    "notification_events": {
        "INSERT": {
            "notification_id", "user_id", "channel", "event", "reason", "device_id", "detail", "at",
        }
    },
    "notification_actions": {
        "INSERT": {
            "notification_id", "user_id", "action", "label", "status", "result", "attempts",
            "next_attempt_at", "lease_token", "created_at", "finished_at",
        }
    },
    "push_closings": {
        "INSERT": {"device_id", "notification_id", "user_id", "next_attempt_at", "created_at"}
    },
}  # fmt: skip
CHANGED_COLUMNS = sorted(
    (table, column)
    for table, rights in CHANGED_BY_USERS.items()
    for column in rights.get("UPDATE", ())
)

Connection = Any  # asyncpg has no types
Pool = Any
create_pool: Any = asyncpg.create_pool  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


@dataclass(frozen=True)
class Seeded:
    """A database in which every table has a row of Ada and one of Eve."""

    app: Pool
    owner: Pool
    ada: UUID
    eve: UUID
    eves_notification: UUID


def seed_statements(user: UUID, notification: UUID) -> list[str]:
    batch, device = uuid4(), uuid4()
    return [
        f"INSERT INTO users VALUES ('{user}')",
        f"INSERT INTO notification_recipients (user_id, email)"
        f" VALUES ('{user}', 'X{user}@example.com')",
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
        f"INSERT INTO action_callbacks (name, url, secret) VALUES ('{user}', 'https://x', '')",
        "INSERT INTO notification_actions (notification_id, user_id, action, status)"
        f" VALUES ('{notification}', '{user}', 'accept', 'completed')",
        f"INSERT INTO rate_buckets VALUES ('{user}', 1, now())",
        f"INSERT INTO cache_versions VALUES ('{user}', 1)",
        f"INSERT INTO email_requests (id, provider, payload) VALUES ('{user}', 'resend', '')",
        f"INSERT INTO email_request_letters VALUES ('{user}', '{user}', 0)",
        f"INSERT INTO email_links VALUES ('{user}', '{user}', '{{https://x}}')",
        f"INSERT INTO webhook_receipts VALUES ('{user}')",
        "INSERT INTO email_suppressions (address_digest, reason) VALUES"
        f" (sha256(convert_to('x{user}@example.com', 'UTF8')), 'bounced')",
        f"INSERT INTO vapid_keys (id, public_key, private_key) VALUES ('{user}', '', '')",
        "INSERT INTO push_closings (device_id, notification_id, user_id)"
        f" VALUES ('{device}', '{notification}', '{user}')",
        "INSERT INTO idempotency_keys (service, key, fingerprint, owner_id)"
        f" VALUES ('s', '{user}', '', '{notification}')",
    ]


def one_connection(url: SecretStr | None) -> Pool:
    assert url is not None
    return create_pool(url.get_secret_value(), min_size=1, max_size=1)


@pytest.fixture(scope="module")
async def seeded(settings: Settings) -> AsyncGenerator[Seeded]:
    async with (
        one_connection(settings.database_url) as app,
        one_connection(settings.database_owner_url) as owner,
    ):
        found = Seeded(app, owner, uuid4(), uuid4(), uuid4())
        async with session(app, "service_role") as connection:
            for user, notification in ((found.ada, uuid4()), (found.eve, found.eves_notification)):
                for statement in seed_statements(user, notification):
                    await connection.execute(statement)
        yield found


@asynccontextmanager
async def session(
    pool: Pool, role: str | None = None, claims: str | None = None
) -> AsyncGenerator[Connection]:
    """A transaction as the role, with the claims, as the API and PostgREST open one: on a
    connection that others used before."""
    async with pool.acquire() as connection, connection.transaction():
        if claims is not None:
            await connection.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        if role is not None:
            await connection.execute("SELECT set_config('role', $1, true)", role)
        yield connection


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
    # The last column that is for no user: it is never an identity, which nobody may write.
    column = [
        column.name
        for column in Base.metadata.tables[table].columns
        if (table, column.name) not in CHANGED_COLUMNS
    ][-1]
    return {
        "insert": f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {table} RETURNING 1",
        "update": f"UPDATE {table} SET {column} = {column} RETURNING 1",
        "delete": f"DELETE FROM {table} RETURNING 1",
        "truncate": f"TRUNCATE {table} CASCADE",
    }


async def test_every_table_is_covered_and_forces_row_security(seeded: Seeded) -> None:
    async with session(seeded.owner) as connection:
        rows = await connection.fetch(
            "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
    found = {row["relname"]: (row["relrowsecurity"], row["relforcerowsecurity"]) for row in rows}
    found.pop("alembic_version")
    assert found == dict.fromkeys(TABLES, (True, True))


@pytest.mark.parametrize("table", TABLES)
async def test_the_login_role_by_itself_may_do_nothing(seeded: Seeded, table: str) -> None:
    async with session(seeded.app, claims=claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == "denied"
        for operation, statement in changes(table).items():
            assert await attempt(connection, statement) == "denied", operation


@pytest.mark.parametrize("table", TABLES)
async def test_the_owner_sees_and_changes_no_row(seeded: Seeded, table: str) -> None:
    async with session(seeded.owner, claims=claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == []
        assert await attempt(connection, changes(table)["update"]) == []
        assert await attempt(connection, changes(table)["delete"]) == []


@pytest.mark.parametrize("table", TABLES)
async def test_the_service_sees_all(seeded: Seeded, table: str) -> None:
    async with session(seeded.app, "service_role") as connection:
        rows: Any = await attempt(connection, f"SELECT * FROM {table}")
    told = {str(value) for row in rows for value in row.values()}
    assert len(rows) >= 2
    # Batches name nobody; their recipients do.
    assert (
        table in {"notification_batches", ADDRESSED} or {str(seeded.ada), str(seeded.eve)} <= told
    )


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", OWNED)
async def test_a_user_sees_the_rows_that_are_their_own(
    seeded: Seeded, table: str, role: str
) -> None:
    column = OWN_COLUMN.get(table, "user_id")
    async with session(seeded.app, role, claims_of(seeded.ada)) as connection:
        rows: Any = await attempt(connection, f"SELECT {column} AS owner FROM {table}")
        assert [row["owner"] for row in rows] == [seeded.ada]
        others = f"SELECT * FROM {table} WHERE {column} = '{seeded.eve}'"
        assert await attempt(connection, others) == []


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
async def test_a_user_sees_whether_their_own_address_takes_no_mail(
    seeded: Seeded, role: str
) -> None:
    look = f"SELECT address_digest FROM {ADDRESSED}"
    digests: list[Any] = []
    for user in (seeded.ada, seeded.eve, uuid4()):
        async with session(seeded.app, role, claims_of(user)) as connection:
            digests += await attempt(connection, look)
    own = [f"x{user}@example.com".encode() for user in (seeded.ada, seeded.eve)]
    assert [row["address_digest"] for row in digests] == [sha256(item).digest() for item in own]


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", sorted(SERVICE_ONLY))
async def test_what_is_for_services_is_for_no_user(seeded: Seeded, table: str, role: str) -> None:
    async with session(seeded.app, role, claims_of(seeded.ada)) as connection:
        assert await attempt(connection, f"SELECT * FROM {table}") == "denied"


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
@pytest.mark.parametrize("table", TABLES)
async def test_no_user_writes_a_table_as_a_whole(seeded: Seeded, table: str, role: str) -> None:
    async with session(seeded.app, role, claims_of(seeded.ada)) as connection:
        for operation, statement in changes(table).items():
            assert await attempt(connection, statement) == "denied", operation


@pytest.mark.parametrize("role", USER_ROLES)
async def test_users_have_no_right_to_write_but_the_columns_they_change(
    seeded: Seeded, role: str
) -> None:
    async with session(seeded.owner) as connection:
        rights = await connection.fetch(
            "SELECT t, p FROM unnest($1::text[]) t, unnest($2::text[]) p"
            " WHERE has_table_privilege($3, t, p)",
            TABLES,
            ["INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"],
            role,
        )
        of_columns: Any = await connection.fetch(
            "SELECT c.relname AS t, a.attname AS c, p FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
            " CROSS JOIN unnest($2::text[]) p"
            " WHERE c.relname = ANY($1) AND c.relnamespace = 'public'::regnamespace"
            " AND has_column_privilege($3, c.oid, a.attnum, p)",
            TABLES,
            ["INSERT", "UPDATE", "REFERENCES"],
            role,
        )
    granted = {(row["t"], row["p"], row["c"]) for row in of_columns}
    expected = {
        (table, right, column)
        for table, of_right in CHANGED_BY_USERS.items()
        for right, columns in of_right.items()
        for column in columns
    }
    assert rights == []
    assert granted == (expected if role == "notify_user" else set())


@pytest.mark.parametrize(("table", "column"), CHANGED_COLUMNS)
async def test_users_change_their_own_rows_and_no_others(
    seeded: Seeded, table: str, column: str
) -> None:
    column_of_user = OWN_COLUMN.get(table, "user_id")
    update = f"UPDATE {table} SET {column} = {column}"
    async with session(seeded.app, "notify_user", claims_of(seeded.ada)) as connection:
        changed: Any = await attempt(connection, f"{update} RETURNING {column_of_user} AS owner")
        assert [row["owner"] for row in changed] == [seeded.ada]
        others = f"{update} WHERE {column_of_user} = '{seeded.eve}' RETURNING 1"
        assert await attempt(connection, others) == []


INTO_ANOTHERS = (
    "INSERT INTO notification_events (notification_id, user_id, channel, event)"
    " VALUES ('{notification}', '{user}', 'in_app', 'clicked')",
    "INSERT INTO notification_actions (notification_id, user_id, action, status)"
    " VALUES ('{notification}', '{user}', 'theirs', 'completed')",
)


async def test_users_tell_events_of_themselves_alone(seeded: Seeded) -> None:
    add = (
        "INSERT INTO notification_events (notification_id, user_id, channel, event)"
        " SELECT id, '{}', 'in_app', 'clicked' FROM notifications"
    )
    async with session(seeded.app, "notify_user", claims_of(seeded.ada)) as connection:
        assert await attempt(connection, add.format(seeded.ada)) == []
        assert await attempt(connection, add.format(seeded.eve)) == "denied"
        for insert in INTO_ANOTHERS:
            statement = insert.format(notification=seeded.eves_notification, user=seeded.ada)
            assert await attempt(connection, statement) == "denied"
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        told: Any = await connection.fetch("SELECT DISTINCT user_id FROM notification_events")
        assert [row["user_id"] for row in told] == [seeded.ada]
        raise_again = connection.execute("SELECT 1 / 0")
        with pytest.raises(asyncpg.DivisionByZeroError):  # leave no event behind
            await raise_again


@pytest.mark.parametrize("table", TABLES)
async def test_strangers_may_do_nothing(seeded: Seeded, table: str) -> None:
    async with session(seeded.owner, claims=claims_of(seeded.ada)) as connection:
        # The login role cannot become `anon`; its creator may allow itself to, until the rollback.
        await connection.execute("GRANT anon TO CURRENT_USER WITH SET TRUE")
        await connection.execute("SET LOCAL ROLE anon")
        assert await attempt(connection, f"SELECT * FROM {table}") == "denied"
        for operation, statement in changes(table).items():
            assert await attempt(connection, statement) == "denied", operation
        await connection.execute("RESET ROLE")
        await connection.execute("REVOKE anon FROM CURRENT_USER")


@pytest.mark.parametrize("claims", ["", "{}", "null", '"x"', '{"sub": ""}', '{"sub": null}'])
@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
async def test_a_user_without_an_id_sees_nothing(seeded: Seeded, role: str, claims: str) -> None:
    async with session(seeded.app, role, claims) as connection:
        for table in OWNED:
            assert await attempt(connection, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize("role", ["authenticated", "notify_user"])
async def test_a_user_on_a_connection_that_never_had_claims_sees_nothing(
    seeded: Seeded, settings: Settings, role: str
) -> None:
    async with (
        one_connection(settings.database_url) as unused,
        session(unused, role) as connection,
    ):
        claims = await connection.fetchval("SELECT current_setting('request.jwt.claims', true)")
        assert claims is None
        for table in OWNED:
            assert await attempt(connection, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize(
    "claims",
    [
        '{"role": "service_role"}',
        '{"sub": "00000000-0000-0000-0000-000000000000", "role": "service_role"}',
        '[{"sub": "EVE"}]',
        '{"Sub": "EVE"}',
        '{"user": {"sub": "EVE"}}',
    ],
)
async def test_claims_that_name_nobody_show_nothing(seeded: Seeded, claims: str) -> None:
    claims = claims.replace("EVE", str(seeded.eve))
    async with session(seeded.app, "authenticated", claims) as connection:
        for table in OWNED:
            assert await attempt(connection, f"SELECT * FROM {table}") == []


@pytest.mark.parametrize(
    "claims", ["garbage", "{", '{"sub": "x"}', '{"sub": 1}', '{"sub": "\' OR true --"}']
)
async def test_garbage_for_claims_shows_nothing_and_tells_of_itself_alone(
    seeded: Seeded, claims: str
) -> None:
    for table in OWNED:
        async with session(seeded.app, "authenticated", claims) as connection:
            with pytest.raises(asyncpg.DataError) as caught:
                await connection.fetch(f"SELECT * FROM {table}")
        assert str(seeded.ada) not in str(caught.value)
        assert str(seeded.eve) not in str(caught.value)
        assert "example.com" not in str(caught.value)


async def test_claims_do_not_pass_to_the_next_who_uses_a_connection(
    seeded: Seeded, settings: Settings
) -> None:
    look = text(
        "SELECT pg_backend_pid() AS pid, current_user AS role,"
        " current_setting('request.jwt.claims', true) AS claims"
    )
    database = Database(settings)
    try:
        async with database.as_user(seeded.ada) as connection:
            first = (await connection.execute(look)).one()
            assert str(seeded.ada) in first.claims
        with pytest.raises(ZeroDivisionError):
            async with database.as_user(seeded.eve, "notify_user") as connection:
                raise ZeroDivisionError
        async with database.as_service() as connection:
            last = (await connection.execute(look)).one()
    finally:
        await database.close()
    assert first.pid == last.pid
    assert (first.role, last.role) == ("authenticated", "service_role")
    assert last.claims in {None, ""}


async def test_role_and_claims_end_with_the_transaction(seeded: Seeded) -> None:
    async with seeded.app.acquire() as connection:
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


async def test_a_user_cannot_become_the_service(seeded: Seeded) -> None:
    async with session(seeded.owner) as connection:
        for role in ("authenticated", "notify_user", "anon"):
            for target in ("service_role", "notify_owner", "postgres", "notify"):
                member = await connection.fetchval(
                    "SELECT pg_has_role($1, $2, 'SET')", role, target
                )
                assert member is False, (role, target)


async def test_the_login_role_is_neither_owner_nor_privileged(seeded: Seeded) -> None:
    async with session(seeded.owner) as connection:
        row: Any = await connection.fetchrow(
            "SELECT rolsuper, rolinherit, rolbypassrls, rolcreaterole FROM pg_roles"
            " WHERE rolname = 'notify'"
        )
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relowner = 'notify'::regrole"
        )
    assert tuple(row) == (False, False, False, False)
    assert owned == 0


async def test_no_role_of_ours_passes_by_anything_but_a_policy(seeded: Seeded) -> None:
    roles = [*USER_ROLES, "service_role", "notify", "notify_owner"]
    async with session(seeded.owner) as connection:
        passing = await connection.fetch(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY($1) AND (rolsuper OR rolbypassrls)",
            roles,
        )
        owning = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relowner = ANY($1::regrole[])",
            [*USER_ROLES, "service_role", "notify"],
        )
    assert (passing, owning) == ([], [])


async def test_every_policy_is_the_services_or_about_the_users_own(seeded: Seeded) -> None:
    async with session(seeded.owner) as connection:
        policies: Any = await connection.fetch(
            "SELECT tablename, permissive, roles::text[], cmd, qual, with_check FROM pg_policies"
            " WHERE schemaname = 'public'"
        )
    shown: set[str] = set()
    changed: set[tuple[str, str]] = set()
    for policy in policies:
        assert policy["permissive"] == "PERMISSIVE"
        if policy["roles"] == ["service_role"]:
            continue
        table, command = policy["tablename"], policy["cmd"]
        if table == ADDRESSED:
            assert command == "SELECT"
            assert "( SELECT auth.uid() AS uid)" in policy["qual"]
            continue
        own = f"({OWN_COLUMN.get(table, 'user_id')} = ( SELECT auth.uid() AS uid))"
        if command == "SELECT":
            assert set(policy["roles"]) == {"authenticated", "notify_user"}
            assert (policy["qual"], policy["with_check"]) == (own, None)
            shown.add(table)
        else:
            assert policy["roles"] == ["notify_user"]
            assert policy["qual"] == (None if command == "INSERT" else own)
            # Nothing is added to another's notification, whoever it is said to be of.
            added = f"({own} AND (EXISTS ( SELECT FROM notifications n WHERE ("
            told = " ".join(policy["with_check"].split())
            if command == "INSERT" and table not in CHOSEN_BY_USERS:
                assert told.startswith(added)
            else:
                assert told == own
            changed.add((table, command))
    assert shown == set(OWNED)
    assert changed == {
        (table, right) for table, rights in CHANGED_BY_USERS.items() for right in rights
    }


async def test_nothing_leads_around_the_policies(seeded: Seeded) -> None:
    async with session(seeded.owner) as connection:
        views = await connection.fetch(
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND c.relkind IN ('v', 'm', 'f')"
        )
        children = await connection.fetch(
            "SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON oid = inhrelid"
            " WHERE relkind IN ('r', 'p', 'f')"
        )
        definers = await connection.fetch(
            "SELECT oid::regprocedure FROM pg_proc WHERE prosecdef"
            " AND pronamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')"
        )
        rules = await connection.fetch(
            "SELECT tablename, rulename FROM pg_rules"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
    assert (views, children, definers, rules) == ([], [], [], [])
