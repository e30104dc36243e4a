"""A cluster of six Valkey servers on loopback, three masters and their replicas, to be broken."""

import asyncio
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from app.embedded.binaries import VALKEY
from app.embedded.program import Program, spawn, start_failure, stop
from tests.ports import free_ports

MASTERS = 3
SLOTS = 16_384
PASSWORD = "cluster-password"
SECONDS = 60
START_ATTEMPTS = 5
STOP = ((signal.SIGKILL, 10),)  # there is nothing to keep

# Deaths are noticed soon; a replica takes over whatever it missed, and none changes its master.
CONFIG = f"""
bind 127.0.0.1
requirepass {PASSWORD}
primaryauth {PASSWORD}
cluster-enabled yes
cluster-node-timeout 2000
cluster-replica-validity-factor 0
cluster-allow-replica-migration no
cluster-require-full-coverage no
repl-diskless-sync-delay 0
save ""
appendonly no
daemonize no
"""


@dataclass
class Node:
    """One server; it keeps its ports, its directory and its part in the cluster."""

    directory: Path
    port: int = 0
    bus_port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    is_frozen: bool = False

    @property
    def program(self) -> Program:
        """How it runs."""
        ports = ("--port", str(self.port), "--cluster-port", str(self.bus_port))
        return Program(
            name="valkey",
            argv=(str(VALKEY), str(self.directory / "valkey.conf"), *ports),
            cwd=self.directory,
            log=self.directory / "valkey.log",
            stop_sequence=STOP,
        )

    async def start(self) -> None:
        """Start it, on ports of its own from the first time on."""
        for _ in range(START_ATTEMPTS):
            if not self.process:
                self.port, self.bus_port = free_ports(2)
                (self.directory / "valkey.conf").write_text(CONFIG)
            self.process = spawn(self.program)
            if await self._answers():
                return
            if not (self.directory / "joined").exists():
                self.process = None
        raise start_failure(self.program, "does not start")

    async def ask(self, *command: str | int) -> Any:
        """What it answers to a command, in a connection of its own."""
        async with self._connected() as client:
            return await client.execute_command(*command)

    async def info(self) -> dict[str, str]:
        """What it says of itself, its replication and the cluster."""
        async with self._connected() as client:
            told: dict[str, Any] = await client.info() | await client.cluster("INFO")
        return {name: str(value) for name, value in told.items()}

    @property
    def is_running(self) -> bool:
        """Whether its process lives, frozen or not."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it with -9."""
        if self.process is not None:
            stop(self.process, self.program)

    @contextmanager
    def frozen(self) -> Generator[None]:
        """Stop it without ending it while the context lasts."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.is_frozen = True
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            self.is_frozen = False

    def _connected(self) -> Any:
        return Redis(
            port=self.port,
            password=PASSWORD,
            decode_responses=True,
            single_connection_client=True,
            socket_timeout=SECONDS / 2,
        )

    async def _answers(self) -> bool:
        while self.is_running:
            with suppress(RedisError, OSError):
                # On a port that was taken meanwhile another answers, and this one ends.
                if (await self.info())["process_id"] == str(self.process and self.process.pid):
                    return True
            await asyncio.sleep(0.02)
        return False


class LocalCluster:
    """Six servers; open it with `running_cluster`."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [Node(directory / str(number)) for number in range(2 * MASTERS)]

    @property
    def url(self) -> str:
        """`REDIS_URL` that names two of the servers, of which either may be dead."""
        first, second, *_ = self.nodes
        return f"redis-cluster://:{PASSWORD}@127.0.0.1:{first.port},127.0.0.1:{second.port}"

    async def form(self) -> None:
        """Start all servers and make them a cluster."""
        for node in self.nodes:
            node.directory.mkdir()
        await asyncio.gather(*(node.start() for node in self.nodes))
        bounds = [SLOTS * number // MASTERS for number in range(MASTERS + 1)]
        for number, node in enumerate(self.nodes):
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < MASTERS:
                last = bounds[number + 1] - 1
                await node.ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], last)
            for other in self.nodes[:number]:
                await node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        await until(self._all_met)
        for number, node in enumerate(self.nodes[MASTERS:]):
            await node.ask("CLUSTER", "REPLICATE", await self.nodes[number].ask("CLUSTER", "MYID"))
        await self.whole()
        for node in self.nodes:
            (node.directory / "joined").touch()

    async def whole(self) -> None:
        """Wait until every server runs, and every master has its replica in step."""
        for node in self.nodes:
            if not node.is_running:
                await node.start()
        await until(self._is_whole)

    async def owner(self, key: str) -> Node:
        """The master that has a key or channel."""
        return (await self.shard(key))[0]

    async def shard(self, key: str) -> list[Node]:
        """The master that has a key or channel, then its replica if that is alive.

        Any server may say so but a frozen one.
        """
        alive = next(node for node in self.nodes if node.is_running and not node.is_frozen)
        return await self._shard(key_slot(key.encode()), alive)

    async def _shard(self, slot: int, asked: Node) -> list[Node]:
        nodes = {node.port: node for node in self.nodes}
        for first, last, *members in await asked.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return [nodes[port] for _, port, *_ in members]
        raise LookupError(slot)

    async def move(self, key: str, target: Node) -> None:
        """Hand the slot of a key, which must be empty, over to another master."""
        slot, source = key_slot(key.encode()), await self.owner(key)
        if source is target:
            return
        new_owner, old_owner = [await node.ask("CLUSTER", "MYID") for node in (target, source)]
        # Only what is being imported is taken over under a new epoch, which all the others believe.
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old_owner)
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new_owner)
        await target.ask("CLUSTER", "SETSLOT", slot, "NODE", new_owner)
        await source.ask("CLUSTER", "SETSLOT", slot, "NODE", new_owner)

        async def is_known() -> bool:
            told = [await self._shard(slot, node) for node in self.nodes]
            return all(members[0] is target for members in told)

        await until(is_known)

    async def _all_met(self) -> bool:
        known = [(await node.info())["cluster_known_nodes"] for node in self.nodes]
        return set(known) == {str(len(self.nodes))}

    async def _is_whole(self) -> bool:
        masters = 0
        for node in self.nodes:
            info = await node.info()
            is_master = info["role"] == "master"
            masters += is_master
            if (
                info["cluster_state"] != "ok"
                or info.get("master_link_status", "up") != "up"
                or int(info["connected_slaves"]) != is_master
            ):
                return False
        return masters == MASTERS and await self._agree()

    async def _agree(self) -> bool:
        """Whether all tell the same of who has which slots."""
        told = {
            tuple(sorted((first, last, port) for first, last, (_, port, *_), *_ in slots))
            for slots in [await node.ask("CLUSTER", "SLOTS") for node in self.nodes]
        }
        return len(told) == 1


@asynccontextmanager
async def running_cluster() -> AsyncGenerator[LocalCluster]:
    """Run a cluster while the context lasts; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="notify-cluster-") as path:
        cluster = LocalCluster(Path(path))
        try:
            await cluster.form()
            yield cluster
        finally:
            for node in cluster.nodes:
                node.kill()


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Wait until it holds, whatever servers say meanwhile."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(RedisError, OSError):
                if await holds():
                    return
            await asyncio.sleep(0.1)
