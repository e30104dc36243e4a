"""How sockets end: slow readers, stalled readers, and the end of the process."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from app.config import Settings
from app.db.database import Database
from app.realtime.backplane import Change
from tests.integration.sockets import Client, RunningGateway, eventually, running_gateway
from tests.ports import free_ports

BIG = b'{"type":"filler","text":"' + b"x" * 60_000 + b'"}'


@pytest.fixture
async def here(
    settings: Settings, database: Database, redis_client: Redis
) -> AsyncGenerator[RunningGateway]:
    async with running_gateway(settings, database, redis_client, ws_send_queue_size=20) as running:
        yield running


@asynccontextmanager
async def stalled(running: RunningGateway, user_id: UUID) -> AsyncGenerator[socket.socket]:
    """A socket that authenticates and then reads nothing."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", running.port))
        key = b64encode(os.urandom(16)).decode()
        path = f"/api/v1/notifications/ws?token={running.token(user_id)}"
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{running.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        await loop.sock_sendall(raw, ("\r\n".join(lines) + "\r\n\r\n").encode())
        hub = running.gateway.hub
        await eventually(lambda: any(s.user_id == user_id and s.is_live for s in hub.sessions))
        yield raw


async def fill(running: RunningGateway, user_id: UUID, frames: int = 400) -> None:
    """Send far more than the operating system's buffers hold, at a pace a reader could keep."""
    for seq in range(1, frames + 1):
        running.gateway.hub.apply(Change(user_id, seq, (BIG,)))
        await asyncio.sleep(0)


async def test_a_reader_that_falls_behind_is_closed_and_told_so(here: RunningGateway) -> None:
    user_id = uuid4()
    async with here.live(user_id) as client:
        await fill(here, user_id)
        # It reads again, in time to learn why.
        assert await client.receive_close() == 3008


async def test_a_stalled_reader_is_cut_off(here: RunningGateway) -> None:
    user_id = uuid4()
    async with stalled(here, user_id):
        await fill(here, user_id)
        await eventually(lambda: not here.gateway.hub.sessions)


async def test_few_large_frames_are_too_many_for_a_stalled_reader(
    settings: Settings, database: Database, redis_client: Redis
) -> None:
    async with running_gateway(
        settings, database, redis_client, ws_send_queue_size=1_000_000
    ) as there:
        user_id = uuid4()
        async with stalled(there, user_id):
            await fill(there, user_id)
            await eventually(lambda: not there.gateway.hub.sessions)


async def test_other_sockets_do_not_wait_for_a_stalled_one(here: RunningGateway) -> None:
    user_id = uuid4()
    async with stalled(here, user_id), here.live(user_id) as client:
        seen = 0
        for seq in range(1, 401):
            here.gateway.hub.apply(Change(user_id, seq, (BIG,)))
            assert (await client.receive())["type"] == "filler"
            seen += 1
        assert seen == 400


async def test_all_sockets_are_told_that_the_process_ends(here: RunningGateway) -> None:
    async with here.live(uuid4()) as one, here.open() as two, here.live(uuid4()) as three:
        await here.gateway.drain()
        for client in (one, two, three):
            assert await client.receive_close() == 3001
        async with here.open() as late:
            assert await late.receive_close() == 3001


async def test_what_waits_is_sent_before_the_close(here: RunningGateway) -> None:
    user_id = uuid4()
    async with here.live(user_id) as client:
        for seq in (1, 2):
            here.gateway.hub.apply(Change(user_id, seq, (b'{"type":"last","seq":%d}' % seq,)))
        await here.gateway.drain()
        assert [(await client.receive())["seq"] for _ in range(2)] == [1, 2]
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3001


async def test_a_slow_reader_gets_what_waits_before_the_close(here: RunningGateway) -> None:
    user_id = uuid4()
    async with here.live(user_id) as client:
        # More than the buffers hold, but not more than may wait.
        for seq in range(1, 200):
            here.gateway.hub.apply(Change(user_id, seq, (BIG,)))
        await asyncio.sleep(0)
        draining = asyncio.create_task(here.gateway.drain())
        assert [(await client.receive())["type"] for _ in range(199)] == ["filler"] * 199
        assert await client.receive_close() == 3001
        await draining


async def test_a_stalled_reader_does_not_keep_the_server_from_ending(
    settings: Settings, database: Database, redis_client: Redis
) -> None:
    user_id = uuid4()
    async with contextlib.AsyncExitStack() as stack:
        running = running_gateway(settings, database, redis_client, ws_send_queue_size=10_000)
        there = await stack.enter_async_context(running)
        async with stalled(there, user_id):
            await fill(there, user_id)
            async with asyncio.timeout(9):
                await stack.aclose()


PROGRAM = """
import sys
from contextlib import asynccontextmanager

from app.collector import start_undisturbed
from app.optional import FOR_TERMINALS, leave_out

start_undisturbed()
leave_out(FOR_TERMINALS)

import uvloop
from fastapi import FastAPI

from app.api.v1.notifications.websocket import router
from app.load_settings import load_settings
from app.db.database import Database
from app.pipeline.deliver import utc_now
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client
from app.realtime.gateway import Gateway
from app.security.jwt import TokenVerifier
from app.serve import serve
from app.services.inbox_changes import InboxChanges
from app.services.inbox_service import InboxService

settings = load_settings(_env_file=None)
database = Database(settings)
changes = InboxChanges(database, lambda told: None, utc_now)
inbox = InboxService(database, settings, changes.expire)
gateway = Gateway(settings, TokenVerifier(settings), inbox)

@asynccontextmanager
async def lifespan(app):
    app.state.gateway = gateway
    async with redis_client(settings) as redis, gateway.running(Backplane(redis)):
        yield
    await database.close()

app = FastAPI(lifespan=lifespan)
app.include_router(router)
uvloop.run(serve(app, "127.0.0.1", int(sys.argv[1]), drain=gateway.drain))
"""


@pytest.fixture
def program(settings: Settings) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """A gateway in a process of its own."""
    (port,) = free_ports(1)
    secrets = {
        name.upper(): value.get_secret_value()
        for name in ("database_url", "redis_url", "jwt_secret")
        if (value := getattr(settings, name)) is not None
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **secrets, "DATA_DIR": str(settings.data_dir)},
    )
    yield process, port
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_closes_sockets_first(
    here: RunningGateway, program: tuple[subprocess.Popen[bytes], int], number: signal.Signals
) -> None:
    process, port = program
    url = f"ws://127.0.0.1:{port}/api/v1/notifications/ws?token={here.token(uuid4())}"
    async with await patiently_connected(url) as connection:
        await Client(connection).receive_until("sync_complete")
        process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3001
    assert await asyncio.to_thread(process.wait, 20) == 0


async def patiently_connected(url: str) -> connect:
    async with asyncio.timeout(60):
        while True:
            try:
                async with connect(url, compression=None):
                    return connect(url, compression=None)
            except OSError:
                await asyncio.sleep(0.1)
