"""A gateway under uvicorn in the test's own loop, clients of it, and inboxes that change."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

import orjson
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.api.v1.notifications.websocket import SocketShortcut, router
from app.config import Settings
from app.db.database import Database, dumps
from app.pipeline.announce import Announcement
from app.pipeline.deliver import utc_now
from app.realtime import frames
from app.realtime.backplane import Backplane, Change
from app.realtime.connection import RedisClient, SingleServer
from app.realtime.frames import InboxItem
from app.realtime.gateway import NO_COMMANDS, Command, Gateway
from app.realtime.timing import Timing
from app.security.jwt import TokenVerifier, issue_token
from app.serve import SocketProtocol, build_server
from app.services.inbox_changes import InboxChanges
from app.services.inbox_commands import InboxCommands
from app.services.inbox_service import InboxService

PATIENCE = 20.0
Json = dict[str, Any]


class QuickCutOff(SocketProtocol):
    """Cuts stalled readers off at once, for tests."""

    cut_off_seconds = 0.5


# Comparisons do not interfere unless a test wants them to.
QUICK = Timing(authenticate_within=60, compare_every=600, sweep_every=0.05, drain_within=0.5)


@dataclass
class RunningGateway:
    """A gateway that answers on a port of its own."""

    settings: Settings
    gateway: Gateway
    backplane: Backplane
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/notifications/ws"

    def token(self, user_id: UUID, *, role: str = "authenticated", seconds: float = 3600) -> str:
        expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
        return issue_token(self.settings, subject=str(user_id), role=role, expires_at=expires_at)

    async def publish(self, *changes: Change) -> None:
        """Tell all gateways, however busy the machine is."""
        await self.backplane.publish(changes, timeout=PATIENCE)

    @asynccontextmanager
    async def open(self, query: str = "", **options: Any) -> AsyncGenerator["Client"]:
        """A socket that has not authenticated."""
        url = f"{self.url}?{query}" if query else self.url
        async with connect(url, compression=None, ping_interval=None, **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def enter(self, user_id: UUID, since: int | None = None) -> AsyncGenerator["Client"]:
        """A socket that has authenticated; what it is told first is yet to be received."""
        async with self.open() as client:
            await client.authenticate(self.token(user_id), since)
            yield client

    @asynccontextmanager
    async def live(self, user_id: UUID, since: int | None = None) -> AsyncGenerator["Client"]:
        """A socket that has been told everything."""
        async with self.enter(user_id, since) as client:
            await client.receive_until("sync_complete")
            yield client


@dataclass
class Client:
    """A socket as its client sees it."""

    connection: ClientConnection

    async def send(self, message: Json | str | bytes) -> None:
        plain = isinstance(message, str | bytes)
        await self.connection.send(message if plain else orjson.dumps(message).decode())

    async def authenticate(self, token: str, since: int | None = None) -> None:
        told = {} if since is None else {"since": since}
        await self.send({"type": "authenticate", "token": token, **told})

    async def receive(self, within: float = PATIENCE) -> Json:
        async with asyncio.timeout(within):
            message = await self.connection.recv()
        assert isinstance(message, str)
        return orjson.loads(message)

    async def receive_until(self, kind: str) -> list[Json]:
        """Messages up to and with the first of a type."""
        messages = [await self.receive()]
        while messages[-1]["type"] != kind:
            messages.append(await self.receive())
        return messages

    async def receive_through(self, seq: int) -> list[Json]:
        """Messages up to and with the counts after change `seq`, which close what it tells."""
        messages = await self.receive_until("unread_count")
        while messages[-1]["seq"] < seq:
            messages += await self.receive_until("unread_count")
        return messages

    async def receive_all(self, silence: float = 0.3) -> list[Json]:
        """Messages until none has come for a while."""
        messages: list[Json] = []
        try:
            while True:
                messages.append(await self.receive(silence))
        except TimeoutError:
            return messages

    async def receive_close(self) -> int | None:
        """The code that the server closes with; messages before it are dropped."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed:
                return self.connection.close_code

    async def ping(self) -> Json:
        await self.send({"type": "ping"})
        return (await self.receive_until("pong"))[-1]


@asynccontextmanager
async def running_gateway(
    settings: Settings,
    database: Database,
    redis: Redis | RedisClient,
    *,
    timing: Timing = QUICK,
    commands: Mapping[str, Command] = NO_COMMANDS,
    served: Callable[[FastAPI], Any] = SocketShortcut,
    **overrides: Any,
) -> AsyncGenerator[RunningGateway]:
    """Serve a gateway until the context ends.

    Args:
        redis: one server, or what `redis_client` makes.
        served: what is made of the application before it is served.
        overrides: settings that differ.
    """
    settings = settings.model_copy(update=overrides)
    tokens = TokenVerifier(settings)
    client = redis if isinstance(redis, RedisClient) else SingleServer(redis)
    backplane = Backplane(client, keepalive=1, longest_pause=0.1)
    publishing: set[asyncio.Task[None]] = set()

    def announce(told: Announcement) -> None:
        task = asyncio.create_task(backplane.publish(told.changes, timeout=PATIENCE))
        publishing.add(task)
        task.add_done_callback(publishing.discard)
        for change in told.changes:
            gateway.hub.apply(change)

    changes = InboxChanges(database, announce, utc_now)
    inbox = InboxService(database, settings, changes.expire)
    own = InboxCommands(changes, at_once=4).by_type()
    gateway = Gateway(settings, tokens, inbox, timing=timing, commands={**own, **commands})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.gateway = gateway
        async with tokens.running(), gateway.running(backplane):
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    server = build_server(served(app), "127.0.0.1", 0, protocol=QuickCutOff)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started and backplane.is_listening)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield RunningGateway(settings, gateway, backplane, port)
    finally:
        await gateway.drain()
        server.should_exit = True
        await task


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@contextmanager
def statements(database: Database) -> Generator[list[str]]:
    """What the database executes as long as the context lasts."""
    executed: list[str] = []
    engine = database._engine.sync_engine  # pyright: ignore[reportPrivateUsage]

    def remember(*arguments: object) -> None:
        executed.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", remember)


ADD = text("""
    INSERT INTO notifications (id, user_id, type, title, body, body_html, data, service, position,
                               seq, expires_at)
    VALUES (:id, :user_id, :type, :title, 'body', '<p>body</p>',
            CAST(CAST(:data AS text) AS jsonb), 'tests', :seq, :seq, :expires_at)
    RETURNING created_at
""")
DELIVER = text("""
    INSERT INTO notification_deliveries (notification_id, user_id, channel, status)
    VALUES (:id, :user_id, :channel, :status)
""")
ADVANCE = text("""
    INSERT INTO inbox_state AS i (user_id, seq, unread)
    VALUES (:user_id, 1, CAST(CAST(:unread AS text) AS jsonb))
    ON CONFLICT (user_id) DO UPDATE SET seq = i.seq + 1
    RETURNING seq
""")
COUNT = text("""
    UPDATE inbox_state SET unread = coalesce((
        SELECT jsonb_object_agg(type, count) FROM (
            SELECT type, count(*) FROM notifications
            WHERE user_id = :user_id AND read_at IS NULL AND deleted_at IS NULL
              AND expired_at IS NULL
            GROUP BY type
        ) counted
    ), '{}') WHERE user_id = :user_id RETURNING unread::text
""")


class Inboxes:
    """Changes inboxes as the pipeline does, and says what is to be published of it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self) -> UUID:
        user_id = uuid4()
        async with self._database.as_service() as connection:
            await connection.execute(text("INSERT INTO users VALUES (:id)"), {"id": user_id})
        return user_id

    async def add(
        self,
        user_id: UUID,
        title: str = "Hello",
        *,
        kind: str = "task",
        expires_at: datetime | None = None,
        deliveries: tuple[tuple[str, str], ...] = (("in_app", "sent"),),
    ) -> Change:
        """A notification becomes visible."""
        async with self._database.as_service() as connection:
            seq = await _advance(connection, user_id)
            values: Json = {
                "id": uuid4(),
                "user_id": user_id,
                "type": kind,
                "title": title,
                "data": dumps({"n": seq}),
                "seq": seq,
                "expires_at": expires_at,
            }
            created_at = (await connection.execute(ADD, values)).scalar_one()
            for channel, status in deliveries:
                row = {"channel": channel, "status": status}
                await connection.execute(DELIVER, {"id": values["id"], "user_id": user_id, **row})
            unread = await _count(connection, user_id)
        item = InboxItem(
            id=values["id"],
            type=kind,
            priority="normal",
            title=title,
            body="body",
            body_html="<p>body</p>",
            data={"n": seq},
            read_at=None,
            created_at=created_at,
            expires_at=expires_at,
            seq=seq,
            position=seq,
        )
        told = frames.notification(item, seq=seq, unread_count=sum(unread.values()))
        return Change(user_id, seq, (told, frames.unread_count(unread, seq=seq)))

    async def read(self, user_id: UUID, notification_id: UUID, *, again: bool = False) -> Change:
        """A notification is read, or is unread again."""
        read_at = None if again else datetime.now(UTC)
        seq, unread = await self._change(
            user_id, "read_at = :value", "id = :id", id=notification_id, value=read_at
        )
        told = frames.read_status_updated(
            notification_id, read_at=read_at, seq=seq, unread_count=sum(unread.values())
        )
        return Change(user_id, seq, (told, frames.unread_count(unread, seq=seq)))

    async def delete(self, user_id: UUID, notification_id: UUID) -> Change:
        seq, unread = await self._change(
            user_id, "deleted_at = :value", "id = :id", id=notification_id, value=datetime.now(UTC)
        )
        told = frames.notification_deleted(
            notification_id, seq=seq, unread_count=sum(unread.values())
        )
        return Change(user_id, seq, (told, frames.unread_count(unread, seq=seq)))

    async def read_all(self, user_id: UUID) -> Change:
        now = datetime.now(UTC)
        seq, unread = await self._change(
            user_id, "read_at = :value", "read_at IS NULL AND deleted_at IS NULL", value=now
        )
        told = frames.all_read(
            up_to=seq - 1, notification_type=None, read_at=now, seq=seq, unread_count=0
        )
        return Change(user_id, seq, (told, frames.unread_count(unread, seq=seq)))

    async def raise_floor(self, user_id: UUID, floor: int) -> None:
        await self._run("UPDATE inbox_state SET floor_seq = :n WHERE user_id = :id", user_id, floor)

    async def rewind(self, user_id: UUID, seq: int) -> None:
        """As after a restore from a backup."""
        await self._run("UPDATE inbox_state SET seq = :n WHERE user_id = :id", user_id, seq)

    async def in_app_statuses(self, user_id: UUID) -> list[str]:
        """States of the in-app deliveries, by position."""
        query = text("""
            SELECT d.status FROM notification_deliveries d
            JOIN notifications n ON n.id = d.notification_id
            WHERE n.user_id = :id AND d.channel = 'in_app' ORDER BY n.position
        """)
        async with self._database.as_service() as connection:
            return list((await connection.execute(query, {"id": user_id})).scalars())

    async def _run(self, statement: str, user_id: UUID, number: int) -> None:
        async with self._database.as_service() as connection:
            await connection.execute(text(statement), {"id": user_id, "n": number})

    async def _change(
        self, user_id: UUID, change: str, which: str, **values: Any
    ) -> tuple[int, dict[str, int]]:
        async with self._database.as_service() as connection:
            seq = await _advance(connection, user_id)
            statement = f"UPDATE notifications SET {change}, seq = :seq WHERE user_id = :user_id"
            await connection.execute(
                text(f"{statement} AND {which}"), {"seq": seq, "user_id": user_id, **values}
            )
            return seq, await _count(connection, user_id)


async def _advance(connection: AsyncConnection, user_id: UUID) -> int:
    result = await connection.execute(ADVANCE, {"user_id": user_id, "unread": "{}"})
    return result.scalar_one()


async def _count(connection: AsyncConnection, user_id: UUID) -> dict[str, int]:
    result = await connection.execute(COUNT, {"user_id": user_id})
    return orjson.loads(result.scalar_one())


def id_of(change: Change) -> UUID:
    """The notification that a change made visible."""
    return UUID(orjson.loads(change.frames[0])["data"]["id"])


class View:
    """An inbox as a client keeps it, from messages alone."""

    def __init__(self) -> None:
        self.items: dict[str, str | None] = {}
        self.unread_count = 0
        self.seq = 0

    def apply_all(self, messages: Iterable[Json]) -> Self:
        """Take messages in."""
        for message in messages:
            self.apply(message)
        return self

    def apply(self, message: Json) -> Self:
        """Take a message in."""
        kind = message["type"]
        if kind == "notification":
            self.items[message["data"]["id"]] = message["data"]["read_at"]
        elif kind == "notification_deleted":
            self.items.pop(message["notification_id"], None)
        elif kind == "read_status_updated" and message["notification_id"] is None:
            self.items = {key: at or message["read_at"] for key, at in self.items.items()}
        elif kind == "read_status_updated" and message["notification_id"] in self.items:
            self.items[message["notification_id"]] = message["read_at"]
        if kind == "unread_count":
            self.unread_count = message["count"]
        self.unread_count = message.get("unread_count", self.unread_count)
        self.seq = max(self.seq, message.get("seq", 0))
        return self
