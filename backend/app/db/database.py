"""Connections to PostgreSQL, each transaction under exactly one role (SEC-004).

The login role owns nothing and inherits nothing: a query outside `as_service` or `as_user` sees
no row.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.config import ConfigurationError, Settings
from app.errors import Unavailable

UserRole = Literal["authenticated", "notify_user"]

SET_SERVICE_ROLE = text("SELECT set_config('role', 'service_role', true)")
SET_USER_ROLE = text(
    "SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"
)


def asyncpg_url(url: str) -> URL:
    """The same address for SQLAlchemy's asyncpg dialect, from any spelling of `postgresql://`."""
    parsed = make_url(url.replace("postgres://", "postgresql://", 1))
    return parsed.set(drivername="postgresql+asyncpg")


def dumps(value: Any) -> str:
    """JSON text of a value bound for a `jsonb` column."""
    return orjson.dumps(value).decode()


class Database:
    """A pool of connections to one PostgreSQL.

    Args:
        settings: `database_url` and the sizes of the pool.

    Raises:
        ConfigurationError: no database is configured.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ConfigurationError("DATABASE_URL: required")
        pooler = settings.database_transaction_pooler
        connect_args: dict[str, Any] = {"timeout": 5, "command_timeout": 60}
        if pooler:
            # Behind a transaction pooler a prepared statement may meet a connection without it.
            connect_args |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: "",
            }
        else:
            connect_args["prepared_statement_cache_size"] = 256
            connect_args["server_settings"] = {"application_name": "notify", "jit": "off"}
        self._engine = create_async_engine(
            asyncpg_url(settings.database_url.get_secret_value()),
            pool_size=settings.database_pool_size,
            max_overflow=settings.database_max_overflow,
            pool_timeout=settings.database_pool_timeout,
            pool_use_lifo=True,
            # Errors are logged, and parameters hold personal data.
            hide_parameters=True,
            connect_args=connect_args,
            json_serializer=dumps,
            json_deserializer=orjson.loads,
        )

    @asynccontextmanager
    async def as_service(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction as `service_role`: all rows, by policy.

        Raises:
            Unavailable: PostgreSQL cannot be reached.
        """
        async with self._transaction() as connection:
            await connection.execute(SET_SERVICE_ROLE)
            yield connection

    @asynccontextmanager
    async def as_user(
        self, user_id: UUID, role: UserRole = "authenticated"
    ) -> AsyncGenerator[AsyncConnection]:
        """A transaction that sees the rows of one user only.

        Args:
            user_id: the `sub` the policies compare with.
            role: `notify_user` where the request writes.

        Raises:
            Unavailable: PostgreSQL cannot be reached.
        """
        claims = dumps({"sub": str(user_id), "role": "authenticated"})
        async with self._transaction() as connection:
            await connection.execute(SET_USER_ROLE, {"role": role, "claims": claims})
            yield connection

    async def is_reachable(self) -> bool:
        """Whether a query is answered."""
        try:
            async with self._transaction() as connection:
                await connection.execute(text("SELECT 1"))
        except Unavailable:
            return False
        return True

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OSError, TimeoutError, InterfaceError) as error:
            raise Unavailable from error
        except (OperationalError, DBAPIError) as error:
            if error.connection_invalidated or is_connection_loss(error):
                raise Unavailable from error
            raise


# Class 08 and 57P: connection failure and server shutdown; 53: out of connections, memory or disk.
LOSS_STATES = ("08", "57P", "53")


def is_connection_loss(error: DBAPIError) -> bool:
    """Whether the server went away or is out of resources, rather than refusing the statement."""
    state = getattr(error.orig, "sqlstate", None)
    return state is not None and str(state).startswith(LOSS_STATES)
