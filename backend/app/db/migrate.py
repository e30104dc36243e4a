"""Brings the schema to its newest revision, lets the login role use it, and puts templates in."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.config import ConfigurationError, Settings
from app.db.database import asyncpg_url
from app.db.shipped import put_shipped_templates

ALEMBIC_INI = Path(__file__).parents[2] / "alembic.ini"
MIGRATION_LOCK = 0x6E6F74696679  # "notify": one program migrates at a time
# Ends with its transaction, since behind a transaction pooler no session is anybody's own; between
# the statements of others it does nothing, for as long as they take.
TAKE_LOCK = text(f"""
    SELECT set_config('idle_in_transaction_session_timeout', '0', true),
           pg_advisory_xact_lock({MIGRATION_LOCK})
""")
ROLES = "authenticated, service_role, notify_user"


def migrate(settings: Settings, revision: str = "head") -> None:
    """Run the migrations up to `revision`; does nothing when the schema is there already.

    At the newest revision, the templates that come with the program are put in.

    Args:
        settings: `database_owner_url`, or else `database_url`, is logged in to.
        revision: a target known to Alembic; a lower one, or `base`, downgrades.

    Raises:
        ConfigurationError: no database is configured.
    """
    owner_url = settings.database_owner_url or settings.database_url
    if owner_url is None or settings.database_url is None:
        raise ConfigurationError("DATABASE_URL: required to migrate")
    login = make_url(settings.database_url.get_secret_value()).username
    asyncio.run(_migrate(owner_url.get_secret_value(), login, revision))


async def _migrate(url: str, login: str | None, revision: str) -> None:
    engine = create_async_engine(
        asyncpg_url(url),
        poolclass=NullPool,
        # Nothing is prepared by name: the next transaction may be another session's.
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        },
    )
    try:
        async with engine.begin() as guard, engine.connect() as connection:
            await guard.execute(TAKE_LOCK)
            await connection.run_sync(_run_alembic, revision)
            await connection.run_sync(_grant_roles, login, revision)
            if revision == "head":
                await connection.run_sync(put_shipped_templates)
            await connection.commit()
    finally:
        await engine.dispose()


def _run_alembic(connection: Connection, revision: str) -> None:
    config = Config(ALEMBIC_INI)
    config.attributes["connection"] = connection
    current = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar()
    connection.commit()
    step = command.upgrade if revision == "head" or current is None else command.downgrade
    step(config, revision)
    connection.commit()


def _grant_roles(connection: Connection, login: str | None, revision: str) -> None:
    is_owner = connection.execute(text("SELECT current_user = :login"), {"login": login}).scalar()
    if revision != "head" or login is None or is_owner:
        return
    quoted = connection.dialect.identifier_preparer.quote(login)
    connection.execute(text(f"GRANT {ROLES} TO {quoted} WITH INHERIT FALSE, SET TRUE"))
