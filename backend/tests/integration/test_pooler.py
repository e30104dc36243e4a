"""Everything behind PgBouncer in transaction mode, with fewer connections than it has clients."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest
import websockets
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db.database import Database
from app.embedded.account import give, make_reachable, own_directory, service_account
from app.embedded.data_dir import write_private
from app.embedded.program import Program, spawn, stop
from app.security.jwt import issue_token
from tests.ports import free_ports
from tests.stack import NOTIFY, Stack, as_json, running_stack

pytestmark = pytest.mark.timeout(240)

POOL_SIZE = 4
"""Connections to PostgreSQL for each login; the programs would open dozens."""

PATIENCE = 60
CROWD, LISTED = 1_000, 100


@dataclass(frozen=True)
class Pooler:
    """A running PgBouncer.

    Args:
        behind: settings that go straight to the servers behind it.
        port: its TCP port.
        log: what it tells.
    """

    behind: Settings
    port: int
    log: Path

    def url(self, direct: SecretStr | None, database: str | None = None) -> SecretStr:
        """The same login, through the pooler."""
        url = url_of(direct).set(port=self.port)
        return SecretStr(plain(url if database is None else url.set(database=database)))

    @property
    def environment(self) -> dict[str, str]:
        """Variables of programs that know the pooler only."""
        return {
            "DATABASE_URL": self.url(self.behind.database_url).get_secret_value(),
            "DATABASE_OWNER_URL": self.url(self.behind.database_owner_url).get_secret_value(),
            "DATABASE_TRANSACTION_POOLER": "true",
        }


def url_of(direct: SecretStr | None) -> URL:
    assert direct is not None
    return make_url(direct.get_secret_value())


def plain(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@contextmanager
def running_pooler(servers: Settings, directory: Path) -> Generator[Pooler]:
    """PgBouncer before the servers' PostgreSQL, as long as the context lasts.

    Its database `single` is the same one over one connection only.
    """
    account = service_account()  # PgBouncer refuses to run as root, too
    make_reachable(directory, account)
    own_directory(directory, account)
    (port,) = free_ports(1)
    app, owner = url_of(servers.database_url), url_of(servers.database_owner_url)
    target = f"host={app.host} port={app.port} dbname={app.database}"
    config = f"""
        [databases]
        {app.database} = {target}
        single = {target} pool_size=1
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = scram-sha-256
        auth_file = {directory / "users.txt"}
        pool_mode = transaction
        default_pool_size = {POOL_SIZE}
        max_client_conn = 500
    """
    lines = [line.strip() for line in config.splitlines()]
    users = [f'"{login.username}" "{login.password}"' for login in (app, owner)]
    for name, content in (("pgbouncer.ini", lines), ("users.txt", users)):
        write_private(directory / name, "\n".join([*content, ""]))
        give(directory / name, account)
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary is not None, "run scripts/install pgbouncer pgbouncer"
    program = Program(
        name="pgbouncer",
        argv=(binary, str(directory / "pgbouncer.ini")),
        cwd=directory,
        account=account,
        log=directory.with_suffix(".log"),
    )
    process = spawn(program)
    try:
        yield Pooler(servers, port, directory.with_suffix(".log"))
    finally:
        stop(process, program)


@asynccontextmanager
async def connected(url: SecretStr | None) -> AsyncGenerator[Any]:
    """A plain connection, once the server listens."""
    connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- untyped
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                connection = await connect(plain(url_of(url)), statement_cache_size=0)
                break
            except OSError:
                await asyncio.sleep(0.05)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def pooler(server_settings: Settings) -> AsyncGenerator[Pooler]:
    """A pooler before a database that nobody else uses, with the schema."""
    with tempfile.TemporaryDirectory(prefix="notify-test-") as path:
        directory = Path(path)
        with running_pooler(server_settings, directory / "pooler") as pooler:
            async with connected(pooler.url(pooler.behind.database_owner_url)):
                pass  # it listens
            # Two programs that migrate at once take turns.
            await asyncio.gather(*(migrate(pooler, directory) for _ in range(2)))
            yield pooler


async def migrate(pooler: Pooler, data_dir: Path) -> None:
    """Run `notify migrate` through the pooler."""
    environment = {**os.environ, **pooler.environment, "DATA_DIR": str(data_dir)}
    process = await asyncio.create_subprocess_exec(
        NOTIFY,
        "migrate",
        env=environment,
        cwd=data_dir,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()


def bearer(stack: Stack, subject: object, role: str = "authenticated") -> dict[str, str]:
    ends = datetime.now(UTC) + timedelta(hours=1)
    token = issue_token(stack.settings, subject=str(subject), role=role, expires_at=ends)
    return {"Authorization": f"Bearer {token}"}


async def listen(stack: Stack, port: int, user: UUID, titles: set[str]) -> None:
    """Hold a socket open until it was sent all of `titles`, each once."""
    token = bearer(stack, user)["Authorization"].removeprefix("Bearer ")
    url = f"ws://127.0.0.1:{port}/api/v1/notifications/ws?token={token}"
    heard: Counter[str] = Counter()
    async with asyncio.timeout(PATIENCE), websockets.connect(url) as socket:
        while set(heard) != titles:
            message = as_json(await socket.recv())
            if message["type"] == "notification":
                heard[message["data"]["title"]] += 1
    assert set(heard.values()) == {1}


async def until(read: Any, expected: object) -> None:
    """Wait until what is read is what was expected."""
    found = None
    try:
        async with asyncio.timeout(PATIENCE):
            while (found := await read()) != expected:
                await asyncio.sleep(0.25)
    except TimeoutError:
        pytest.fail(f"{found} instead of {expected}")


async def test_who_migrates_leaves_no_lock_to_anybodys_session(pooler: Pooler) -> None:
    async with connected(pooler.behind.database_owner_url) as direct:
        assert (
            await direct.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        )


async def test_everything_works_behind_a_transaction_pooler(pooler: Pooler, data_dir: Path) -> None:
    async with running_stack(data_dir, pooler.environment) as stack:
        await drive(stack)
        await check_connections(stack, pooler)
    told = (data_dir / "up.log").read_text() + pooler.log.read_text()
    for trouble in ("prepared statement", "unexpected_error", "Traceback", "unsupported"):
        assert trouble not in told


async def drive(stack: Stack) -> None:
    users = [await stack.add_user() for _ in range(8)]
    crowd = [uuid4() for _ in range(CROWD)]
    database = Database(stack.settings)
    async with database.as_service() as connection:
        await connection.execute(
            text("INSERT INTO users SELECT unnest(CAST(:ids AS uuid[]))"), {"ids": crowd}
        )
    await database.close()
    titles = {user: {f"{user} {number}" for number in range(5)} for user in users}

    async def create(user: UUID) -> list[str]:
        return [
            str(await stack.send(user, title=title, send_email=True))
            for title in sorted(titles[user])
        ]

    async def titles_of(user: UUID) -> set[str]:
        listed = await stack.api.get("/api/v1/notifications", headers=bearer(stack, user))
        assert listed.status_code == 200, listed.text
        return {item["title"] for item in listed.json()["items"]}

    async with asyncio.TaskGroup() as group:
        for number, user in enumerate(users):
            port = (stack.settings.api_port, stack.ws_port)[number % 2]
            group.create_task(listen(stack, port, user, titles[user] | {"To all"}))
        creating = [group.create_task(create(user)) for user in users]
        batch = await send_to_all(stack, [*users, *crowd])
        created = [item for task in creating for item in await task]

        async def mailed() -> Counter[str]:
            mails = await stack.sandbox.get("/mails", params={"limit": 10_000})
            return Counter(
                tag["value"]
                for mail in mails.json()["items"]
                for tag in mail["tags"]
                if tag["name"] == "notification_id"
            )

        async def completed() -> dict[str, Any]:
            answer = await stack.api.get(f"/api/v1/notifications/bulk/{batch}")
            assert answer.status_code == 200, answer.text
            told = answer.json()
            return {name: told[name] for name in ("status", "delivered", "failed", "pending")}

        await until(mailed, Counter(created))
        count = len(users) + len(crowd)
        done = {"status": "completed", "delivered": count, "failed": 0, "pending": 0}
        await until(completed, done)
    # Many users at once over the same few connections, and each sees what is their own.
    listed = await asyncio.gather(*(titles_of(user) for user in [*users, *crowd[:LISTED]]))
    expected = [titles[user] | {"To all"} for user in users]
    assert listed == expected + [{"To all"}] * LISTED


async def send_to_all(stack: Stack, users: list[UUID]) -> str:
    headers = {
        **bearer(stack, "tests", "service"),
        "X-Service-Auth": stack.settings.service_keys[0],
    }
    content = {"type": "system", "title": "To all", "body": "Through a pool"}
    answer = await stack.api.post(
        "/api/v1/notifications/bulk",
        json={**content, "user_ids": [str(user) for user in users], "channels": ["in_app"]},
        headers=headers,
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["batch_id"]


async def check_connections(stack: Stack, pooler: Pooler) -> None:
    """The programs hold more connections to the pooler than it holds to PostgreSQL."""
    owner = pooler.behind.database_owner_url
    async with connected(owner) as direct:
        held = await direct.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE usename = 'notify' AND datname = current_database()"
        )
    server = url_of(owner).port
    family = [psutil.Process(stack.process.pid)]
    family += family[0].children(recursive=True)
    remote = [
        connection.raddr.port
        for process in family
        for connection in process.net_connections("tcp")
        if connection.raddr
    ]
    assert server not in remote, "a program goes past the pooler"
    assert 0 < held <= POOL_SIZE


async def test_a_connection_that_served_a_user_keeps_nothing_of_them(
    pooler: Pooler,
) -> None:
    url = pooler.url(pooler.behind.database_url, "single")
    database = Database(
        pooler.behind.model_copy(update={"database_url": url, "database_transaction_pooler": True})
    )
    user = uuid4()
    backend = text("SELECT pg_backend_pid(), current_user, auth.uid()")
    async with connected(url) as plainly:

        async def look() -> int:
            """What a query without a role sees; its server connection."""
            async with plainly.transaction():
                row = await plainly.fetchrow(
                    "SELECT pg_backend_pid() AS pid, current_user::text AS name,"
                    " current_setting('role') AS role,"
                    " coalesce(current_setting('request.jwt.claims', true), '') AS claims"
                )
            assert (row["name"], row["role"], row["claims"]) == ("notify", "none", "")
            for table in ("notifications", "inbox_state", "users"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await plainly.fetch(f"SELECT * FROM {table}")
            return row["pid"]

        async with database.as_service() as connection:
            await connection.execute(text("INSERT INTO users VALUES (:id)"), {"id": user})
        first = await look()
        for role in ("authenticated", "notify_user"):
            async with database.as_user(user, role) as connection:
                pid, name, subject = (await connection.execute(backend)).one()
                assert (pid, name, subject) == (first, role, user)
            assert await look() == first
            with pytest.raises(DBAPIError):
                async with database.as_user(user, role) as connection:
                    await connection.execute(text("SELECT 1 / 0"))
            assert await look() == first
    await database.close()
