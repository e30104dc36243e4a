"""Real servers for the tests: one PostgreSQL and one Valkey per test process.

Every process migrates a template database once; a test that needs the database for itself gets a
copy of it (`fresh_settings`), all others share one and keep apart by using users of their own.
"""

import asyncio
import os
import shutil
import tempfile
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import hypothesis
import pytest
import structlog
import uvloop
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.engine import make_url

from app.collector import leave_startup_alone, start_undisturbed
from app.config import Settings
from app.db.database import Database
from app.db.migrate import migrate
from app.embedded import running_servers
from app.load_settings import load_settings
from app.realtime.connection import redis_url
from app.sandbox.server import serving_sandbox
from tests.cluster import LocalCluster, running_cluster
from tests.http_client import client_of

start_undisturbed()
# The loop that the program runs on. What pytest-asyncio offers for that leaves out the fixtures of
# tests that are not coroutines.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # pyright: ignore[reportDeprecated]

# How long an example takes says nothing on a machine that does other things beside it.
UNTIMED = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# The same examples each time; `make search` looks for others.
hypothesis.settings.register_profile(
    "fixed", UNTIMED, derandomize=True, database=None, max_examples=25
)
hypothesis.settings.register_profile("searching", UNTIMED, database=None, max_examples=1_000)
hypothesis.settings.load_profile("fixed")

# The default draws tracebacks with all local variables, which is dear where errors are provoked.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

UNSAFE_BUT_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # it would visit each of hundreds of databases
    "plan_cache_mode": "force_generic_plan",  # connections live too short for better ones
}
# In memory where there is such a place: hundreds of databases are many files.
IN_MEMORY = Path("/dev/shm")
ENOUGH = 4 * 1024**3  # bytes
TEMPLATE = "notify_template"
# Limits have tests of their own.
UNLIMITED = {
    "rate_limit_push_per_hour": 1_000_000,
    "rate_limit_in_app_per_hour": 1_000_000,
    "rate_limit_email_per_day": 1_000_000,
    "rate_limit_global_per_minute": 1_000_000,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that may take longest, so that no process is left alone with one."""
    patience: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        patience[item.path] = max(patience.get(item.path, 0), mark.args[0] if mark else 0)
    items.sort(key=lambda item: -patience[item.path])
    leave_startup_alone()


@pytest.fixture
def data_dir() -> Generator[Path]:
    """A directory for servers; pytest's own are closed to the account PostgreSQL runs as."""
    with _directory() as path:
        yield path


@pytest.fixture(scope="session")
def server_settings() -> Generator[Settings]:
    """Settings that point to this process's own servers."""
    with _directory() as path:
        settings = load_settings(_env_file=None, data_dir=path, **UNLIMITED)
        with running_servers(settings, postgres_settings=UNSAFE_BUT_FAST) as running:
            yield running


@pytest.fixture(scope="session")
def as_owner(server_settings: Settings) -> Generator[Callable[[str], None]]:
    """Runs a statement as the servers' owner, outside any test's database."""
    connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- untyped
    assert server_settings.database_owner_url is not None
    with asyncio.Runner() as runner:
        connection = runner.run(connect(server_settings.database_owner_url.get_secret_value()))
        yield lambda statement: runner.run(connection.execute(statement))
        runner.run(connection.close())


@pytest.fixture(scope="session")
def clone_database(
    server_settings: Settings, as_owner: Callable[[str], None]
) -> Callable[[], Settings]:
    """Makes settings with a database of their own, migrated and empty."""
    as_owner(f'CREATE DATABASE "{TEMPLATE}"')
    migrate(_on_database(server_settings, TEMPLATE))

    def clone() -> Settings:
        name = f"test_{uuid4().hex}"
        # Without fsync faster than through the log.
        as_owner(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}" STRATEGY FILE_COPY')
        return _on_database(server_settings, name)

    return clone


@pytest.fixture(scope="session")
def settings(clone_database: Callable[[], Settings]) -> Settings:
    """Settings with the database that tests of one process share."""
    return clone_database()


@pytest.fixture
def fresh_settings(
    clone_database: Callable[[], Settings], as_owner: Callable[[str], None]
) -> Generator[Settings]:
    """Settings with a database that nobody else uses; it goes with the test, for the more there
    are the longer it takes to make one."""
    settings = clone_database()
    yield settings
    assert settings.database_url is not None
    name = make_url(settings.database_url.get_secret_value()).database
    # The owner may not end a connection of the login role that a test has not closed, or not yet.
    with suppress(asyncpg.InsufficientPrivilegeError):
        as_owner(f'DROP DATABASE "{name}" WITH (FORCE)')


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
async def shared_sandbox(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[httpx.AsyncClient]:
    """The sandbox of one test process."""
    data = load_settings(_env_file=None, data_dir=tmp_path_factory.mktemp("sandbox"))
    async with serving_sandbox(data) as url, client_of(url) as client:
        yield client


@pytest.fixture
async def sandbox(shared_sandbox: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a sandbox in which nothing has happened yet."""
    (await shared_sandbox.delete("/state")).raise_for_status()
    return shared_sandbox


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


@contextmanager
def _directory() -> Generator[Path]:
    roomy = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ENOUGH
    place = IN_MEMORY if roomy else None
    with tempfile.TemporaryDirectory(prefix="notify-test-", dir=place) as path:
        yield Path(path)
