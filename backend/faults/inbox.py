"""Clients that are cut off, come back all at once, or stop reading; and reads while Redis fails."""

import asyncio
import socket
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import psutil
from sqlalchemy import text

from faults.books import Books
from faults.caller import Caller
from faults.lab import WIRED
from faults.proxy import HOST, Proxy
from faults.session import PATH, Session
from faults.trial import Scenario, Trial, told_all

GATEWAY = "notify gateway"
AWAY_SECONDS = 60
MISSED = 30
CROWD = 1_000
STALLED = 40
LARGE_BODY = "x" * 60_000
LARGE_BODIES = 80
CUT_OFF_SECONDS = 60
# Without a bound the users' frames would be 190 MB, and 380 MB when each socket asks for them.
MOST_MIB = 100

ADD_USERS = text("INSERT INTO users (id) SELECT unnest(CAST(:users AS uuid[]))")


async def client_away(trial: Trial) -> None:
    """Two clients lose the network while 30 arrive: to one it comes back, the other comes back."""
    user = trial.users[-1]
    stack = trial.lab.stack
    async with Proxy(stack.ws_port) as silent, Proxy(stack.ws_port) as broken:
        sessions = [Session(line.port, user, stack.user_token(user)) for line in (silent, broken)]
        async with sessions[0].listening(), sessions[1].listening():
            await trial.caller.create(user)
            await told_all(sessions, await trial.books())
            silent.stall()
            broken.refuse()
            for _ in range(MISSED):
                await asyncio.sleep(AWAY_SECONDS / MISSED)
                assert await trial.caller.create(user) is not None, "a call was not accepted"
            assert all(len(session.mirror.items) == 1 for session in sessions), "nobody was away"
            silent.mend()
            broken.mend()
            books = await trial.books()
            await told_all(sessions, books)
    expect_whole(sessions, books)


async def crowd_comes_back(trial: Trial) -> None:
    """The gateway dies twice under 1,000 clients, each of whom has missed something."""
    crowd = [UUID(int=trial.random.getrandbits(128), version=4) for _ in range(CROWD)]
    stack = trial.lab.stack
    async with trial.lab.sql() as connection:
        await connection.execute(ADD_USERS, {"users": crowd})
    sessions = [Session(stack.ws_port, user, stack.user_token(user)) for user in crowd]
    await trial.caller.create_many(20)
    async with AsyncExitStack() as listening:
        # As many at once as a page's visitors, not all in the same instant.
        for some in (sessions[at : at + 50] for at in range(0, CROWD, 50)):
            await asyncio.gather(*(listening.enter_async_context(s.listening()) for s in some))
        caller = await listening.enter_async_context(
            Caller(trial.lab.front.port, stack.create_headers(), crowd, trial.random)
        )
        async with caller.creating(2 * CROWD, seconds=20):
            for _ in range(2):
                await asyncio.sleep(trial.random.uniform(3, 6))
                await stack.kill(GATEWAY)
        books = await books_of(trial, crowd)
        await told_all(sessions, books)
    lost = caller.ledger.accepted.keys() - books.notifications.keys()
    assert not lost, f"{len(lost)} accepted notifications are not stored"
    assert all(session.connections > 1 for session in sessions), "not all have come back"
    expect_whole(sessions, books)


async def readers_stall(trial: Trial) -> None:
    """Sockets that never read are cut off, and what was meant for them is not kept.

    First while much arrives, then when they come to be told of all that.
    """
    users = [UUID(int=trial.random.getrandbits(128), version=4) for _ in range(STALLED // 2)]
    stack = trial.lab.stack
    await trial.caller.create_many(20)
    async with trial.lab.sql() as connection:
        await connection.execute(ADD_USERS, {"users": users})
    async with (
        Caller(trial.lab.front.port, stack.create_headers(), users, trial.random) as caller,
        stalled(trial, users) as wait,
    ):
        for _ in range(LARGE_BODIES):
            for user in users:
                created = await caller.create(
                    user,
                    body=LARGE_BODY,
                    priority="normal",
                    channels=["in_app"],
                    send_email=False,
                )
                assert created is not None, "a call was not accepted"
        await wait()
    async with stalled(trial, users) as wait:
        await wait()


@asynccontextmanager
async def stalled(
    trial: Trial, users: Sequence[UUID]
) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """Two sockets of each user that never read; judged by what the gateway grew meanwhile.

    What it yields waits until all are cut off.
    """
    gateway = trial.lab.stack.part(GATEWAY)
    before = highest = gateway.memory_info().rss

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, gateway.memory_info().rss)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        async with AsyncExitStack() as lines:
            ports = {
                await lines.enter_async_context(never_reading(trial, user))
                for user in (*users, *users)
            }

            async def wait() -> None:
                async with asyncio.timeout(CUT_OFF_SECONDS):
                    while held(gateway, ports):
                        await asyncio.sleep(0.1)

            yield wait
    finally:
        watching.cancel()
    grown = (highest - before) / 2**20
    assert grown < MOST_MIB, f"the gateway grew by {grown:.0f} MiB"


async def reads_while_flushed(trial: Trial) -> None:
    async with trial.reader.reading(), trial.caller.creating(300, seconds=10):
        for _ in range(20):
            await asyncio.sleep(trial.random.uniform(0.1, 0.5))
            await trial.lab.flush()
    assert trial.reader.answered, "nothing was read"


async def reads_without_redis(trial: Trial) -> None:
    """Redis is away for a while; changes are answered meanwhile, and all sessions hear of them."""
    redis = trial.lab.redis
    assert redis is not None
    async with trial.reader.reading(), trial.caller.creating(200, seconds=15):
        await asyncio.sleep(3)
        redis.refuse()
        before = trial.reader.answered
        await asyncio.sleep(8)
        assert trial.reader.answered > before, "nothing could be read for want of Redis"
        redis.mend()
    assert not trial.reader.refused, "changes were refused for want of Redis"
    assert not trial.reader.unanswered, "changes were not answered for want of Redis"


async def reads_while_killed(trial: Trial) -> None:
    """Whatever was answered is kept, though the API that answered is killed again and again."""
    async with trial.reader.reading(), trial.caller.creating(300, seconds=12):
        for _ in range(2):
            await asyncio.sleep(trial.random.uniform(1, 3))
            await trial.lab.stack.kill("notify api")
    assert trial.reader.answered, "nothing was read"


async def books_of(trial: Trial, users: Sequence[UUID]) -> Books:
    async with trial.lab.sql() as connection:
        return await Books.read(connection, users)


def expect_whole(sessions: Sequence[Session], books: Books) -> None:
    """Each session was shown all of its user's notifications once, and nothing out of order."""
    for session in sessions:
        assert not session.problems, session.problems[0]
        stored = books.ids_of(session.user_id)
        shown = session.shown
        assert shown.keys() == stored, f"{len(shown)} of {len(stored)} were shown"
        assert set(shown.values()) <= {1}, "some were shown again"
        expected = [
            str(item)
            for item in sorted(
                stored, key=lambda item: books.notifications[item]["position"], reverse=True
            )
        ]
        assert session.mirror.ids == expected, "they are not in order"


@asynccontextmanager
async def never_reading(trial: Trial, user: UUID) -> AsyncGenerator[int]:
    """A socket that authenticates, and leaves everything it is sent in the line; its port."""
    loop = asyncio.get_running_loop()
    token = trial.lab.stack.user_token(user)
    lines = (
        f"GET {PATH}?token={token}&since=0 HTTP/1.1",
        f"Host: {HOST}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {b64encode(uuid4().bytes).decode()}",
    )
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.setblocking(False)
        await loop.sock_connect(line, (HOST, trial.lab.stack.ws_port))
        await loop.sock_sendall(line, ("\r\n".join(lines) + "\r\n\r\n").encode())
        yield line.getsockname()[1]


def held(gateway: psutil.Process, ports: Collection[int]) -> list[int]:
    """Those of the clients' ports that the gateway still has a connection to."""
    return [
        connection.raddr.port
        for connection in gateway.net_connections("tcp4")
        if connection.raddr and connection.raddr.port in ports
    ]


SCENARIOS = (
    Scenario("client-away", "clients without network for 60 s while 30 arrive", client_away),
    Scenario("gateway-crowd", "gateway killed -9 twice under 1,000 clients", crowd_comes_back),
    Scenario(
        "readers-stall",
        "40 sockets never read what they are sent, nor what they ask for",
        readers_stall,
    ),
    Scenario(
        "reads-flushed",
        "FLUSHALL twenty times while users read, unread and delete",
        reads_while_flushed,
        may_die=frozenset({"read_elsewhere"}),
    ),
    Scenario(
        "reads-api-killed",
        "API killed -9 twice while users read, unread and delete",
        reads_while_killed,
        may_die=frozenset({"read_elsewhere"}),
    ),
    Scenario(
        "reads-without-redis",
        "Redis is away for 8 s while users read, unread and delete",
        reads_without_redis,
        bed=WIRED,
        may_die=frozenset({"read_elsewhere"}),
    ),
)
