"""Connections to PostgreSQL, each transaction under exactly one role (SEC-004).

The login role owns nothing and inherits nothing: a query outside `as_service` or `as_user` sees
no row.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol, cast
from uuid import UUID

import asyncpg
import orjson
import structlog
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import ConfigurationError, Settings
from app.db.driver import Connection
from app.errors import NotifyError, Unavailable

log = structlog.get_logger()

UserRole = Literal["authenticated", "notify_user"]

SET_SERVICE_ROLE = text("SELECT set_config('role', 'service_role', true)")
SET_USER_ROLE = text(
    "SELECT set_config('role', :role, true), set_config('request.jwt.claims', :claims, true)"
)


# One round trip; who waits for a lock may let others wait with it.
BEGIN_GROUP = """
    BEGIN;
    SELECT set_config('role', 'service_role', true), set_config('lock_timeout', '500ms', true);
"""
BEGIN_CHANGE = """
    BEGIN;
    SELECT set_config('role', 'notify_user', true), set_config('lock_timeout', '2s', true),
        set_config('request.jwt.claims', '{claims}', true);
"""


class Driver(Protocol):
    """What is used of an asyncpg connection, where a statement's overhead in SQLAlchemy counts."""

    async def fetch(self, query: str, *values: object) -> Sequence[Mapping[str, Any]]:
        """The rows a statement answers."""
        ...

    async def execute(self, query: str, *values: object) -> str:
        """Run a statement; without values it may be several."""
        ...

    def is_closed(self) -> bool:
        """Whether the server is known to be gone."""
        ...


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
        connect_args: dict[str, Any] = {
            "timeout": 5,
            "command_timeout": 60,
            "connection_class": Connection,
        }
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
        # A burst of changes would open connection after connection, each slow at first, and leave
        # none to others. A few are faster (ADR 18).
        self._places = asyncio.Semaphore(max(1, settings.database_pool_size // 2))
        self._patience = settings.database_pool_timeout
        event.listen(self._engine.sync_engine, "checkout", _replace_if_closed)

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
    async def group_as_service(self) -> AsyncGenerator[Driver]:
        """A transaction as `service_role` on the bare driver, which waits 500 ms for a lock.

        Raises:
            Unavailable: PostgreSQL cannot be reached.
        """
        async with self._driver_transaction(BEGIN_GROUP) as driver:
            yield driver

    @asynccontextmanager
    async def change_as_user(self, user_id: UUID) -> AsyncGenerator[Driver]:
        """A transaction in which a user changes what is theirs, on the bare driver.

        It waits 2 s for a lock. All of them take at most half of the pool; who finds no place
        waits as for a connection.

        Raises:
            Unavailable: PostgreSQL cannot be reached, or no place became free in time.
        """
        begin = BEGIN_CHANGE.format(claims=_claims(user_id))
        async with self._place(), self._driver_transaction(begin) as driver:
            yield driver

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
        async with self._transaction() as connection:
            await connection.execute(SET_USER_ROLE, {"role": role, "claims": _claims(user_id)})
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
    async def _place(self) -> AsyncGenerator[None]:
        async with _told_apart(), asyncio.timeout(self._patience):
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        async with _told_apart(), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def _driver_transaction(self, begin: str) -> AsyncGenerator[Driver]:
        async with _told_apart(), self._engine.connect() as connection:
            driver = await _begun(connection, begin)
            try:
                yield driver
                await driver.execute("COMMIT")
            except BaseException as error:
                if not await _rolled_back(driver, error):
                    # Cut off in the middle of something: nobody can say what state it is in.
                    await connection.invalidate()
                raise


def _claims(user_id: UUID) -> str:
    return dumps({"sub": str(user_id), "role": "authenticated"})


def _replace_if_closed(_: object, record: ConnectionPoolEntry, __: object) -> None:
    """Let the pool open a new connection for one that the server is known to have ended."""
    driver = cast("Driver | None", record.driver_connection)
    if driver is not None and driver.is_closed():
        raise DisconnectionError


async def driver_of(connection: AsyncConnection) -> Driver:
    """The asyncpg connection below, within the same transaction."""
    return cast("Driver", (await connection.get_raw_connection()).driver_connection)


async def _begun(connection: AsyncConnection, begin: str) -> Driver:
    """Begin on the pool's connection, or on a new one when the server has ended that."""
    driver = await driver_of(connection)
    try:
        await driver.execute(begin)
    except (*LOSSES, asyncpg.PostgresError):
        log.info("connection_replaced")
    except BaseException:
        await connection.invalidate()
        raise
    else:
        return driver
    await connection.invalidate()
    driver = await driver_of(connection)
    await driver.execute(begin)
    return driver


async def _rolled_back(driver: Driver, error: BaseException) -> bool:
    if not isinstance(error, asyncpg.PostgresError | NotifyError):
        return False
    try:
        await driver.execute("ROLLBACK")
    except (*LOSSES, asyncpg.PostgresError):
        return False
    return True


@asynccontextmanager
async def _told_apart() -> AsyncGenerator[None]:
    """Raises `Unavailable` for a server that is away, and lets all other errors be."""
    try:
        yield
    except LOSSES as error:
        raise Unavailable from error
    except DBAPIError as error:
        if error.connection_invalidated or is_connection_loss(error.orig):
            raise Unavailable from error
        raise
    except asyncpg.PostgresError as error:
        if is_connection_loss(error):
            raise Unavailable from error
        raise


# The last is what the driver says of a connection that the server is just ending.
LOSSES = (
    OSError,
    TimeoutError,
    InterfaceError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

# Lock timeout, deadlock, serialization failure: another try may succeed.
BUSY_STATES = ("55P03", "40P01", "40001")


def is_busy(error: BaseException) -> bool:
    """Whether a statement failed for what others were doing at the same time."""
    return getattr(error, "sqlstate", None) in BUSY_STATES


# Class 08 and 57P: connection failure and server shutdown; 53: out of connections, memory or disk.
LOSS_STATES = ("08", "57P", "53")


def is_connection_loss(error: BaseException | None) -> bool:
    """Whether the server went away or is out of resources, rather than refusing the statement."""
    state = getattr(error, "sqlstate", None)
    return state is not None and str(state).startswith(LOSS_STATES)
