"""An installation to break: `notify up`, its servers, and proxies between the parts."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import psutil
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app.db.database import asyncpg_url
from app.embedded import running_servers
from app.embedded.postgres import EmbeddedPostgres
from app.load_settings import embedded_passwords, load_settings
from faults.proxy import Proxy
from tests.ports import free_ports
from tests.stack import NOTIFY, Stack, running_stack

# No limit that would hold back what is counted; the sandbox's push
# service under a second name is another one's origin.
UNLIMITED = {
    "RATE_LIMIT_PUSH_PER_HOUR": "1000000",
    "RATE_LIMIT_IN_APP_PER_HOUR": "1000000",
    "RATE_LIMIT_EMAIL_PER_DAY": "1000000",
    "RATE_LIMIT_GLOBAL_PER_MINUTE": "1000000",
    # A worker's word is looked at, so the provider reports nothing before it.
    "SANDBOX_WEBHOOKS": "false",
    "NOTIFICATION_QUEUE_SIZE": "1000000",
    "PUSH_ALLOW_PRIVATE_ENDPOINTS": "true",
}
# Short leases, so that what a killed worker held is due again within the trial.
QUICK = {
    "DELIVERY_LEASE_SECONDS": "4",
    "PROVIDER_TIMEOUT_SECONDS": "2",
    "RETRY_CAP_SECONDS": "2",
    "DELIVERY_MAX_ATTEMPTS": "40",
}
READY_SECONDS = 60
PARTS = ("notify api", "notify gateway", "notify worker", "notify scheduler", "notify sandbox")
TERMINATE_BACKENDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename='notify'"
# Unlike pg_stat_activity, this is not a transaction's first look for as long as that lasts.
BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted"


class CannotTry(Exception):
    """This machine does not allow the fault; the message says why."""


@dataclass(frozen=True, slots=True)
class Bed:
    """How an installation is set up for the faults that need it so.

    Args:
        wired: proxies stand between the program and its servers, which nobody restarts.
        without_redis: nothing ever listens where `REDIS_URL` points.
        disk_mib: the data directory is on a file system of this size; 0: on the machine's own.
        unhurried: timeouts, leases and attempts are the program's own, not `QUICK`.
        queue: deliveries that may wait before creates are refused; 0: any number.
    """

    name: str
    wired: bool = False
    without_redis: bool = False
    disk_mib: int = 0
    unhurried: bool = False
    queue: int = 0


WHOLE = Bed("whole")
WIRED = Bed("wired", wired=True)
UNWIRED = Bed("without Redis", without_redis=True)
SMALL_DISK = Bed("small disk", disk_mib=320)
UNHURRIED = Bed("unhurried", unhurried=True)
SHORT_QUEUE = Bed("short queue", unhurried=True, queue=2_000)


class Lab:
    """A running installation and the means to break it; open it with `opened`.

    Args:
        directory: of its data.
        front: between callers and the API.
        provider: between workers and the mail provider.
    """

    def __init__(self, bed: Bed, directory: Path, log_dir: Path) -> None:
        self.bed = bed
        self.directory = directory
        self._log_dir = log_dir
        self._ports = free_ports(4)
        self._running = AsyncExitStack()
        self._environment = UNLIMITED | ({} if bed.unhurried else QUICK)
        if bed.queue:
            self._environment["NOTIFICATION_QUEUE_SIZE"] = str(bed.queue)
        self._stack: Stack | None = None
        self.front = Proxy(self._ports[0])
        self.provider = Proxy(self._ports[2])
        self.database: Proxy | None = None
        self.redis: Proxy | None = None
        self._database_port = 0
        self._redis_url = ""

    @classmethod
    @asynccontextmanager
    async def opened(cls, bed: Bed) -> AsyncGenerator["Lab"]:
        """Start an installation; it and its data are gone afterwards.

        Raises:
            CannotTry: the machine does not let us.
        """
        with tempfile.TemporaryDirectory(prefix="notify-fault-") as name:
            directory = Path(name) / "data"
            directory.mkdir()
            with _mounted(directory, bed.disk_mib):
                lab = cls(bed, directory, Path(name))
                async with lab.front, lab.provider, AsyncExitStack() as servers:
                    await lab._wire(servers)
                    await lab.start()
                    try:
                        yield lab
                    finally:
                        await lab.stop()

    @property
    def stack(self) -> Stack:
        """The running program."""
        assert self._stack is not None
        return self._stack

    async def start(self) -> None:
        """Start the program, on the data that are there."""
        self._stack = await self._running.enter_async_context(
            running_stack(
                self.directory, self._environment, ports=self._ports, log_dir=self._log_dir
            )
        )
        if not self.bed.wired:
            settings = self.stack.settings
            assert settings.database_url is not None
            assert settings.redis_url is not None
            self._database_port = _port(settings.database_url)
            self._redis_url = settings.redis_url.get_secret_value()

    async def stop(self) -> None:
        """End the program as an operator does."""
        await self._running.aclose()

    async def kill_everything(self) -> None:
        """Kill every process with -9 at once, as a power cut does; `stop` and `start` follow."""
        root = psutil.Process(self.stack.process.pid)
        family = [root, *root.children(recursive=True)]
        for process in family:
            process.suspend()
        for process in family:
            process.kill()
        await asyncio.to_thread(self.stack.process.wait)

    async def ready(self, *, degraded: bool = False) -> None:
        """Wait until every part runs and the API is ready, degraded or not."""
        async with asyncio.timeout(READY_SECONDS):
            while not (self._complete() and await self._readiness() == degraded):
                await asyncio.sleep(0.1)

    async def connected(self, number: int) -> None:
        """Wait until callers hold so many connections to the API."""
        async with asyncio.timeout(READY_SECONDS):
            while self.front.connections < number:
                await asyncio.sleep(0.01)

    async def mend(self) -> None:
        """Take every fault away that is not a process's death."""
        for proxy in (self.front, self.provider, self.database, self.redis):
            if proxy is not None:
                proxy.mend()
        await self.stack.sandbox.delete("/faults")

    async def fail_provider(self, *rules: Mapping[str, object]) -> None:
        """Let the mail provider, or the one a rule names, fail as the sandbox's rules say."""
        told = [{"provider": "resend", **rule} for rule in rules]
        (await self.stack.sandbox.put("/faults", json=told)).raise_for_status()

    async def hits(self) -> list[int]:
        """How many requests each of the provider's rules has hit."""
        answer = (await self.stack.sandbox.get("/faults")).raise_for_status()
        return [rule["hits"] for rule in answer.json()["items"]]

    async def requests(self) -> dict[str, tuple[int, int]]:
        """Requests and mails of each idempotency key that the provider has seen."""
        items = (await self.stack.sandbox.get("/arrivals")).json()["items"]
        return {
            item["idempotency_key"]: (item["requests"], item["mails"])
            for item in items
            if item["idempotency_key"] is not None
        }

    async def mails(self) -> list[dict[str, Any]]:
        """Every mail that the provider accepted."""
        answer = await self.stack.sandbox.get("/mails", params={"limit": 10_000})
        return answer.json()["items"]

    @asynccontextmanager
    async def sql(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction as PostgreSQL's superuser, past every proxy."""
        secret, _ = embedded_passwords(self.directory)
        server = EmbeddedPostgres(self.directory, self._database_port, secret, {})
        url = make_url(asyncpg_url(server.superuser_url)).set(database="notify")
        engine = create_async_engine(url, poolclass=NullPool)
        try:
            async with engine.begin() as connection:
                yield connection
        finally:
            await engine.dispose()

    async def end_backends(self) -> None:
        """End every connection of the program, from PostgreSQL's side."""
        try:
            async with self.sql() as connection:
                await connection.execute(text(TERMINATE_BACKENDS))
        except (OSError, DBAPIError):
            pass

    @asynccontextmanager
    async def holding(self, table: str, users: Collection[UUID]) -> AsyncGenerator[None]:
        """Keep the users' rows of a table locked, so that whoever writes them waits."""
        query = text(f"SELECT FROM {table} WHERE user_id = ANY(CAST(:users AS uuid[])) FOR UPDATE")
        async with self.sql() as connection:
            await connection.execute(query, {"users": list(users)})
            yield

    async def blocked(self) -> None:
        """Wait until a transaction of the program waits for a lock."""
        async with asyncio.timeout(READY_SECONDS), self.sql() as connection:
            while not (await connection.execute(text(BLOCKED))).scalar_one():
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def valkey(self) -> AsyncGenerator[Any]:
        """A client of Valkey, past every proxy; untyped, as redis-py leaves it."""
        client = Redis.from_url(self._redis_url, socket_timeout=5)  # pyright: ignore[reportUnknownMemberType] -- untyped **kwargs
        try:
            yield client
        finally:
            await client.aclose()

    async def flush(self) -> None:
        """Empty Valkey as soon as it answers."""
        async with asyncio.timeout(READY_SECONDS), self.valkey() as client:
            while True:
                try:
                    return await client.flushall()
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)

    @asynccontextmanager
    async def second_worker(self) -> AsyncGenerator[None]:
        """A worker beside the supervised one."""
        async with self._second("worker"):
            yield

    @asynccontextmanager
    async def second_api(self) -> AsyncGenerator[int]:
        """An API beside the supervised one; its port."""
        (port,) = free_ports(1)
        async with self._second("api", API_PORT=str(port)):
            async with asyncio.timeout(READY_SECONDS):
                while not await _answers(f"http://127.0.0.1:{port}/readyz"):
                    await asyncio.sleep(0.1)
            yield port

    @asynccontextmanager
    async def _second(self, part: str, **variables: str) -> AsyncGenerator[None]:
        with (self._log_dir / "up.log").open("ab") as log:
            process = subprocess.Popen(
                [NOTIFY, part],
                env={**os.environ, **self.stack.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        try:
            yield
        finally:
            ended = process.poll()
            process.terminate()
            await asyncio.to_thread(process.wait, READY_SECONDS)
        assert ended is None, f"the second {part} ended"

    def backends(self) -> list[psutil.Process]:
        """PostgreSQL's processes that serve the program's connections."""
        server = self.stack.part("postgres -D")
        return [child for child in server.children() if "notify notify" in child.cmdline()[0]]

    @asynccontextmanager
    async def frozen(self, processes: Sequence[psutil.Process]) -> AsyncGenerator[None]:
        """Stop processes without ending them while the context lasts."""
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def log(self) -> list[str]:
        """Lines the program wrote, beside those that only inform."""
        lines = (self._log_dir / "up.log").read_text(errors="replace").splitlines()
        return [line for line in lines if "[info" not in line]

    def _complete(self) -> bool:
        running = self.stack.command_lines().values()
        return all(any(name in line for line in running) for name in PARTS)

    async def _readiness(self) -> bool | None:
        """Whether the API is degraded; None while it is not ready."""
        try:
            answer = await self.stack.api.get("/readyz")
        except httpx.TransportError:
            return None
        return answer.json()["degraded"] if answer.is_success else None

    async def _wire(self, servers: AsyncExitStack) -> None:
        self._environment["RESEND_API_KEY"] = "re_faults"
        self._environment["RESEND_API_URL"] = f"http://127.0.0.1:{self.provider.port}/resend"
        if self.bed.without_redis:
            (port,) = free_ports(1)
            self._environment["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
        if not self.bed.wired:
            return
        direct = servers.enter_context(
            running_servers(load_settings(_env_file=None, data_dir=self.directory))
        )
        assert direct.database_url is not None
        assert direct.database_owner_url is not None
        assert direct.redis_url is not None
        self._database_port = _port(direct.database_url)
        self._redis_url = direct.redis_url.get_secret_value()
        self.database = await servers.enter_async_context(Proxy(self._database_port))
        self.redis = await servers.enter_async_context(Proxy(_port(direct.redis_url)))
        self._environment |= {
            "DATABASE_URL": _through(direct.database_url, self.database),
            "DATABASE_OWNER_URL": direct.database_owner_url.get_secret_value(),
            "REDIS_URL": _through(direct.redis_url, self.redis),
        }


async def _answers(address: str) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(address)).is_success
        except httpx.TransportError:
            return False


def _port(url: SecretStr) -> int:
    port = urlsplit(url.get_secret_value()).port
    assert port is not None
    return port


def _through(url: SecretStr, proxy: Proxy) -> str:
    parts = urlsplit(url.get_secret_value())
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))


@contextmanager
def _mounted(directory: Path, mib: int) -> Generator[None]:
    """Put a small file system under a directory while the context lasts.

    Raises:
        CannotTry: only root may mount, and a container may forbid even that.
    """
    if not mib:
        yield
        return
    options = f"size={mib}m,mode=0755"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    try:
        result = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotTry(f"no small file system: {error.strerror}") from None
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["mount failed"])[-1]
        raise CannotTry(f"no small file system: {reason}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
