"""Clients of Redis or Valkey: of one server, or of a cluster (section 8.3)."""

import asyncio
import random
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from app.config import ConfigurationError, Settings
from app.redis_address import ClusterAddress, is_cluster

log = structlog.get_logger()

# uvloop answers a write to a connection that was cut a moment ago with a RuntimeError.
REDIS_FAULTS = (RedisError, OSError, TimeoutError, RuntimeError)
"""What a client raises when Redis is away, refuses, or goes in the middle of something."""

SOCKET_TIMEOUT = 2.0  # seconds; a stalled Redis must not stall its callers
CONNECTIONS = 32  # to each server
SLOTS = 16_384
ASK_SECONDS = 0.5  # for one server to tell who has which slot
MAP_SECONDS = 5.0  # after which the slots are asked for again
MAP_PAUSE = 0.1  # seconds between two questions while they are in doubt


def redis_url(settings: Settings) -> str:
    """The configured address.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.redis_url is None:
        raise ConfigurationError("REDIS_URL: required")
    return settings.redis_url.get_secret_value().replace("valkey://", "redis://", 1)


def redis_client(settings: Settings) -> "RedisClient":
    """A client for short commands; whoever opens it closes it."""
    return connect(redis_url(settings))


def connect(
    url: str, *, socket_timeout: float = SOCKET_TIMEOUT, max_connections: int = CONNECTIONS
) -> "RedisClient":
    """A client of what is at an address; it connects once it is used.

    Args:
        url: as `redis_url` gives it.
        socket_timeout: seconds that one answer may take.
        max_connections: to each server; whoever needs more waits.
    """

    def server_at(url: str) -> Redis:
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves **kwargs untyped
            url,
            timeout=socket_timeout,
            socket_timeout=socket_timeout,
            socket_connect_timeout=SOCKET_TIMEOUT,
            max_connections=max_connections,
        )
        return Redis.from_pool(pool)

    if is_cluster(url):
        return Cluster(ClusterAddress.parse(url), server_at)
    return SingleServer(server_at(url))


class RedisClient(ABC):
    """Says which server has what; commands are given to that server."""

    @abstractmethod
    async def shares(self, keys: Iterable[str]) -> dict[Redis, list[str]]:
        """Each server with those of the keys or channels that it has; what nobody has is left out.

        Raises:
            RedisError: nobody knows who has what.
        """

    @abstractmethod
    def doubt(self, server: Redis) -> None:
        """Remember that a server failed or refused, so that it may no longer have what it had."""

    @abstractmethod
    async def ping(self) -> None:
        """Ask every server that has something whether it is there.

        Raises:
            RedisError, OSError, TimeoutError: one of them does not answer.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""

    async def at(self, key: str) -> Redis:
        """The server that has a key.

        Raises:
            RedisError: nobody has it.
        """
        for server in await self.shares((key,)):
            return server
        raise RedisConnectionError("no server of the cluster has the key's slot")

    async def _answer(self, server: Any) -> None:
        try:
            await server.ping()
        except REDIS_FAULTS:
            self.doubt(server)
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


class SingleServer(RedisClient):
    """One server has everything."""

    def __init__(self, server: Redis) -> None:
        self._server = server

    async def shares(self, keys: Iterable[str]) -> dict[Redis, list[str]]:
        """All of it is the server's."""
        return {self._server: list(keys)}

    def doubt(self, server: Redis) -> None:
        """Do nothing: there is no other."""

    async def ping(self) -> None:
        """Ask the server."""
        await self._answer(self._server)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._server.aclose()


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who has which slots.

    Args:
        firsts: the first slot of each range, ascending.
        ranges: last slot and `host:port` of the master, in the same order.
        nodes: `host:port` of all servers, replicas too.
    """

    firsts: tuple[int, ...]
    ranges: tuple[tuple[int, str], ...]
    nodes: frozenset[str]

    @classmethod
    def from_reply(cls, reply: list[list[Any]], asked: str) -> Self:
        """Read the answer to `CLUSTER SLOTS`.

        Args:
            asked: `host:port` of the server that answered; it may leave its own name out.
        """
        nodes = {
            (first, place): _node(entry, asked)
            for first, _, *entries in reply
            for place, entry in enumerate(entries)
        }
        ranges = sorted((first, last, nodes[first, 0]) for first, last, *_ in reply)
        return cls(
            tuple(first for first, _, _ in ranges),
            tuple((last, node) for _, last, node in ranges),
            frozenset(nodes.values()),
        )

    @property
    def masters(self) -> set[str]:
        """Servers that have slots."""
        return {node for _, node in self.ranges}

    @property
    def size(self) -> int:
        """Slots that somebody has."""
        return sum(
            last - first + 1 for first, (last, _) in zip(self.firsts, self.ranges, strict=True)
        )

    def owner(self, key: str) -> str | None:
        """Who has a key; None if nobody has."""
        slot = key_slot(key.encode())
        place = bisect_right(self.firsts, slot) - 1
        if place < 0:
            return None
        last, node = self.ranges[place]
        return node if slot <= last else None


UNKNOWN = SlotMap((), (), frozenset())


class Cluster(RedisClient):
    """Masters have a part of the slots each, and hand them over when one of them dies.

    The map of slots is asked for again when it is in doubt, and every few seconds. One that no
    server renews stays in use.

    Args:
        address: where to begin; later every server that the cluster names is asked too.
        server_at: makes a client of the server at a URL, not yet connected.
    """

    def __init__(self, address: ClusterAddress, server_at: Callable[[str], Redis]) -> None:
        self._address = address
        self._server_at = server_at
        self._servers: dict[str, Redis] = {}
        self._map = UNKNOWN
        self._asked_at = -MAP_SECONDS
        self._in_doubt = True
        self._silent: set[str] = set()
        self._asking = asyncio.Lock()

    async def shares(self, keys: Iterable[str]) -> dict[Redis, list[str]]:
        """Each master with those of the keys or channels that it has.

        Raises:
            RedisError: no server of the cluster has answered yet.
        """
        await self._renew()
        shares: dict[Redis, list[str]] = {}
        for key in keys:
            if (node := self._map.owner(key)) is not None:
                shares.setdefault(self._server(node), []).append(key)
        return shares

    def doubt(self, server: Redis) -> None:
        """Ask for the map before it is used again, and the doubted server last."""
        self._in_doubt = True
        self._silent |= {node for node, known in self._servers.items() if known is server}

    async def ping(self) -> None:
        """Ask every master.

        Raises:
            RedisError, OSError, TimeoutError: one does not answer, or slots have no master.
        """
        await self._renew()
        if self._map.size < SLOTS:
            raise RedisConnectionError("slots of the cluster are not covered")
        await asyncio.gather(*(self._answer(self._server(node)) for node in self._map.masters))

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._asking:
            age = loop.time() - self._asked_at
            if age >= (MAP_PAUSE if self._in_doubt else MAP_SECONDS):
                await self._ask()
                self._asked_at = loop.time()
        if self._map is UNKNOWN:
            raise RedisConnectionError("no server of the cluster answers")

    async def _ask(self) -> None:
        nodes = [*self._map.nodes.union(self._address.nodes)]
        random.shuffle(nodes)
        for node in sorted(nodes, key=self._silent.__contains__):
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    reply = await self._slots(node)
            except REDIS_FAULTS as error:
                if node not in self._silent:
                    log.warning("cluster_node_silent", node=node, error=str(error))
                self._silent.add(node)
                continue
            # A server that was reset, or never joined, knows of no slots.
            if reply:
                await self._take(SlotMap.from_reply(reply, node))
                self._silent.discard(node)
                self._in_doubt = False
                return

    async def _slots(self, node: str) -> list[list[Any]]:
        server: Any = self._server(node)
        return cast("list[list[Any]]", await server.execute_command("CLUSTER SLOTS"))

    async def _take(self, found: SlotMap) -> None:
        if found.masters != self._map.masters:
            log.info("cluster_masters", nodes=sorted(found.masters))
        self._map = found
        gone = self._servers.keys() - found.nodes.union(self._address.nodes)
        self._silent -= gone
        for server in [self._servers.pop(node) for node in gone]:
            await server.aclose()

    def _server(self, node: str) -> Redis:
        if node not in self._servers:
            self._servers[node] = self._server_at(self._address.server_url(node))
        return self._servers[node]


def _node(entry: list[Any], asked: str) -> str:
    """`host:port` of an entry, whose host may be unknown to the one that answered: then its own."""
    host: str = (entry[0] or b"").decode() if not isinstance(entry[0], str) else entry[0]
    if host in {"", "?"}:
        host = asked.rpartition(":")[0]
    elif ":" in host:
        host = f"[{host}]"
    return f"{host}:{entry[1]}"
