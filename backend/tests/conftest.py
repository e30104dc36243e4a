"""Real servers for the tests: one PostgreSQL and one Valkey per test process.

Every process migrates a template database once; a test that needs the database for itself gets a
copy of it (`fresh_settings`), all others share one and keep apart by using users of their own.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from uuid import uuid4

import hypothesis
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.config import Settings
from app.db.database import Database, asyncpg_url
from app.db.migrate import migrate
from app.embedded import running_servers
from app.load_settings import load_settings
from app.realtime.connection import redis_url
from tests.cluster import LocalCluster, running_cluster

# How long an example takes says nothing on a machine that does other things beside it.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
TEMPLATE = "notify_template"
# Limits have tests of their own.
UNLIMITED = {
    "rate_limit_push_per_hour": 1_000_000,
    "rate_limit_in_app_per_hour": 1_000_000,
    "rate_limit_email_per_day": 1_000_000,
    "rate_limit_global_per_minute": 1_000_000,
}


@pytest.fixture
def data_dir() -> Generator[Path]:
    """A directory for servers; pytest's own are closed to the account PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="notify-test-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def server_settings() -> Generator[Settings]:
    """Settings that point to this process's own servers."""
    with tempfile.TemporaryDirectory(prefix="notify-test-") as path:
        settings = load_settings(_env_file=None, data_dir=Path(path), **UNLIMITED)
        with running_servers(settings, postgres_settings=UNSAFE_BUT_FAST) as running:
            yield running


@pytest.fixture(scope="session")
def clone_database(server_settings: Settings) -> Callable[[], Settings]:
    """Makes settings with a database of their own, migrated and empty."""
    _run_sql(server_settings, f'CREATE DATABASE "{TEMPLATE}"')
    template = _on_database(server_settings, TEMPLATE)
    migrate(template)

    def clone() -> Settings:
        name = f"test_{uuid4().hex}"
        copy = f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}" STRATEGY FILE_COPY'
        _run_sql(server_settings, copy)  # without fsync faster than through the log
        return _on_database(server_settings, name)

    return clone


@pytest.fixture(scope="session")
def settings(clone_database: Callable[[], Settings]) -> Settings:
    """Settings with the database that tests of one process share."""
    return clone_database()


@pytest.fixture
def fresh_settings(clone_database: Callable[[], Settings]) -> Settings:
    """Settings with a database that nobody else uses."""
    return clone_database()


@pytest.fixture(scope="session")
async def database(settings: Settings) -> AsyncGenerator[Database]:
    """The shared database."""
    database = Database(settings)
    yield database
    await database.close()


@pytest.fixture
async def redis_client(settings: Settings) -> AsyncGenerator[Redis]:
    """A client of the shared Valkey."""
    async with Redis.from_url(redis_url(settings)) as client:  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves **kwargs untyped
        yield client


@pytest.fixture(scope="session")
async def shared_cluster() -> AsyncGenerator[LocalCluster]:
    """The cluster of one test process."""
    async with running_cluster() as running:
        yield running


@pytest.fixture
async def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """A whole cluster, which a test may break."""
    await shared_cluster.whole()
    return shared_cluster


def _on_database(settings: Settings, name: str) -> Settings:
    assert settings.database_url is not None
    assert settings.database_owner_url is not None
    return settings.model_copy(
        update={
            "database_url": _with_database(settings.database_url, name),
            "database_owner_url": _with_database(settings.database_owner_url, name),
        }
    )


def _with_database(url: SecretStr, name: str) -> SecretStr:
    parsed = make_url(url.get_secret_value()).set(database=name)
    return SecretStr(parsed.render_as_string(hide_password=False))


def _run_sql(settings: Settings, statement: str) -> None:
    assert settings.database_owner_url is not None
    url = asyncpg_url(settings.database_owner_url.get_secret_value())

    async def run() -> None:
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()

    asyncio.run(run())
