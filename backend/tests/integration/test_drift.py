"""The inbox that never drifts: what sessions keep from frames alone is what the server says.

Three sessions of a user change the inbox by sockets and by HTTP, at two APIs with a gateway each,
while notifications arrive, become visible later, and expire; connections are cut, and Redis forgets
its subscribers. Then everybody has to agree (promise 2; REQ-010, REQ-011, REQ-012).
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from app.api.v1.notifications.websocket import SOCKET_PATH, SocketShortcut
from app.config import Settings
from app.db.database import Database
from app.main import create_app
from app.policy.kinds import NotificationType
from app.security.jwt import issue_token
from app.serve import build_server
from app.worker.main import open_worker, running
from tests.http_client import client_of
from tests.integration.mirror import Json, Link, Mirror, linked, listed
from tests.integration.sockets import eventually

SESSIONS = 3
OPERATIONS = 70  # of each session
PATIENCE = 60.0
ROOT = "/api/v1/notifications"
GONE = {HTTPStatus.NOT_FOUND}
BUSY_PAUSE = 0.05

UNSETTLED = text("""
    SELECT count(*) FROM notifications n WHERE user_id = :user_id AND (
        (position IS NOT NULL AND deleted_at IS NULL AND expired_at IS NULL
         AND expires_at IS NOT NULL)
        OR EXISTS (SELECT FROM notification_deliveries d WHERE d.notification_id = n.id
                   AND d.channel = 'in_app' AND d.status = 'pending')
    )
""")
RECOUNT = text("""
    SELECT i.seq, i.unread, coalesce((
        SELECT jsonb_object_agg(type, count) FROM (
            SELECT type, count(*) FROM notifications n
            WHERE n.user_id = i.user_id AND position IS NOT NULL AND deleted_at IS NULL
              AND expired_at IS NULL AND read_at IS NULL
            GROUP BY type
        ) counted
    ), '{}') AS recounted
    FROM inbox_state i WHERE user_id = :user_id
""")


@dataclass
class Installation:
    """Two APIs, each with a gateway, and a worker, on servers of their own."""

    settings: Settings
    database: Database
    redis: Redis
    clients: Sequence[httpx.AsyncClient]

    def token(self, user_id: UUID) -> str:
        ends = datetime.now(UTC) + timedelta(hours=1)
        return issue_token(
            self.settings, subject=str(user_id), role="authenticated", expires_at=ends
        )

    async def call(
        self, client: httpx.AsyncClient, user_id: UUID, method: str, path: str, **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(user_id)}"}
        return await patiently(
            lambda: client.request(method, f"{ROOT}{path}", headers=headers, **options)
        )

    async def read(self, client: httpx.AsyncClient, user_id: UUID, path: str, **query: Any) -> Json:
        answer = await self.call(client, user_id, "GET", path, params=query)
        assert answer.status_code == HTTPStatus.OK, answer.text
        return answer.json()

    async def listing(self, client: httpx.AsyncClient, user_id: UUID) -> tuple[Json, list[Json]]:
        """The first page, and the items of all pages."""
        first = page = await self.read(client, user_id, "", limit=7)
        items: list[Json] = page["items"]
        while page["has_more"]:
            page = await self.read(client, user_id, "", limit=7, cursor=page["next_cursor"])
            items += page["items"]
        return first, items

    async def create(self, user_id: UUID, **fields: Any) -> None:
        headers = {
            "X-Internal-Service-Key": self.settings.service_keys[0],
            "X-Service-Name": "tests",
        }
        body = {"user_id": str(user_id), "title": "Hello", "body": "there", **fields}
        answer = await patiently(
            lambda: self.clients[0].post(
                "/api/v1/internal/notifications/send", json=body, headers=headers
            )
        )
        too_late = "in_the_past" in answer.text  # changes nothing, as on a machine that was busy
        assert answer.status_code == HTTPStatus.ACCEPTED or too_late, answer.text

    async def lose_frames(self) -> None:
        """End the subscriptions of all gateways."""
        await self.redis.client_kill_filter(_type="pubsub")  # pyright: ignore[reportUnknownMemberType]


async def patiently(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The answer to a call, made again as long as others hold the inbox."""
    while (answer := await call()).status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        await asyncio.sleep(BUSY_PAUSE)
    return answer


@asynccontextmanager
async def serving(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """An API that answers on a port of its own, and a client of it."""
    app = create_app(settings)
    server = build_server(SocketShortcut(app), "127.0.0.1", 0)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with client_of(f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
        await app.state.gateway.drain()
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def installation(
    fresh_settings: Settings, redis_client: Redis
) -> AsyncGenerator[Installation]:
    settings = fresh_settings.model_copy(
        update={"rate_limit_in_app_per_hour": 100_000, "sweep_interval_seconds": 0.2}
    )
    async with AsyncExitStack() as stack:
        database = Database(settings)
        stack.push_async_callback(database.close)
        worker = await stack.enter_async_context(open_worker(settings))
        await stack.enter_async_context(running(worker))
        clients = [await stack.enter_async_context(serving(settings)) for _ in range(2)]
        yield Installation(settings, database, redis_client, clients)


@dataclass
class Session:
    """A client that changes the inbox, and is cut off now and then."""

    installation: Installation
    user_id: UUID
    luck: random.Random
    mirror: Mirror = field(default_factory=Mirror)
    link: Link | None = None
    done: int = 0

    async def start(self) -> None:
        """Take the snapshot that all later frames build on."""
        client = self.installation.clients[0]
        first, items = await self.installation.listing(client, self.user_id)
        self.mirror.restart(items, seq=first["seq"], unread_count=first["unread_count"])

    async def run(self, operations: int) -> None:
        """Do so many things, on any number of connections."""
        while self.done < operations:
            frames = self.luck.choice([None, None, self.luck.randint(1, 12)])
            async with self.connected(frames=frames) as link:
                for _ in range(self.luck.randint(3, 25)):
                    await self.act(link)
                    self.done += 1
                if self.luck.random() < 0.5:
                    link.cut()
            await asyncio.sleep(self.luck.choice([0, 0, 0.05, 0.3]))

    @asynccontextmanager
    async def connected(self, *, frames: int | None = None) -> AsyncGenerator[Link]:
        """A socket at either gateway, brought up to date unless it is cut after some frames."""
        client = self.luck.choice(self.installation.clients)
        url = f"ws://127.0.0.1:{client.base_url.port}{SOCKET_PATH}"
        token = self.installation.token(self.user_id)

        def authenticate(since: int) -> Json:
            return {"type": "authenticate", "token": token, "since": since}

        async with linked(url, self.mirror, authenticate, frames=frames) as link:
            yield link

    async def act(self, link: Link) -> None:
        """One thing that happens, or that the user does."""
        kinds = {
            self.arrive: 30,
            self.mark_read: 24,
            self.mark_unread: 12,
            self.mark_all_read: 9,
            self.delete: 12,
            self.lose_frames: 3,
            self.rest: 10,
        }
        (act,) = self.luck.choices(list(kinds), list(kinds.values()))
        await act(link)

    async def arrive(self, _: Link) -> None:
        now = datetime.now(UTC)
        later: dict[str, datetime] = {}
        chance = self.luck.random()
        if chance < 0.25:
            later["expires_at"] = now + timedelta(seconds=self.luck.uniform(0.4, 2))
        if 0.15 < chance < 0.4:
            later["send_at"] = now + timedelta(seconds=self.luck.uniform(0.1, 0.35))
        await self.installation.create(
            self.user_id,
            type=self.luck.choice(list(NotificationType)).value,
            **{name: at.isoformat() for name, at in later.items()},
        )

    async def mark_read(self, link: Link) -> None:
        await self.change(link, "PATCH", "/read", "mark_read")

    async def mark_unread(self, link: Link) -> None:
        await self.change(link, "PATCH", "/unread", "mark_unread")

    async def delete(self, link: Link) -> None:
        await self.change(link, "DELETE", "", None)

    async def change(self, link: Link, method: str, path: str, command: str | None) -> None:
        if not self.mirror.items:
            return
        known = self.luck.choice(self.mirror.ids[:20])
        if command is not None and self.luck.random() < 0.5:
            await link.send(type=command, notification_id=known)
        else:
            await self.request(method, f"/{known}{path}", allowed=GONE)

    async def mark_all_read(self, link: Link) -> None:
        up_to = self.luck.choice([None, self.luck.randint(0, self.mirror.seq)])
        kind = self.luck.choice([None, self.luck.choice(list(NotificationType)).value])
        if self.luck.random() < 0.5:
            told = {"up_to": up_to, "notification_type": kind}
            given = {name: value for name, value in told.items() if value is not None}
            await link.send(type="mark_all_read", **given)
        else:
            told = {"up_to": up_to, "type": kind}
            given = {name: value for name, value in told.items() if value is not None}
            await self.request("POST", "/read-all", json=given)

    async def lose_frames(self, _: Link) -> None:
        await self.installation.lose_frames()

    async def rest(self, _: Link) -> None:
        await asyncio.sleep(self.luck.uniform(0, 0.1))

    async def request(
        self, method: str, path: str, *, allowed: set[HTTPStatus] | None = None, **options: Any
    ) -> None:
        client = self.luck.choice(self.installation.clients)
        answer = await self.installation.call(client, self.user_id, method, path, **options)
        assert answer.is_success or answer.status_code in (allowed or ()), answer.text


async def settled(installation: Installation, user_id: UUID) -> Any:
    """Wait until nothing more happens by itself; where the inbox stands then."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with installation.database.as_service() as connection:
                of = {"user_id": user_id}
                if not (await connection.execute(UNSETTLED, of)).scalar_one():
                    return (await connection.execute(RECOUNT, of)).one()
            await asyncio.sleep(0.1)


async def poll(installation: Installation, user_id: UUID, mirror: Mirror) -> None:
    """Bring a mirror up to date without a socket."""
    while True:
        part = await installation.read(
            installation.clients[1], user_id, "/sync", since=mirror.since
        )
        assert part["recovered"] is True
        for item in part["items"]:
            mirror.take_synced(item)
        mirror.since, mirror.unread_count = part["seq"], part["unread_count"]
        if not part["has_more"]:
            return


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 2])
async def test_three_sessions_of_a_user_end_with_what_the_server_has(
    installation: Installation, seed: int
) -> None:
    user_id = uuid4()
    async with installation.database.as_service() as connection:
        await connection.execute(text("INSERT INTO users (id) VALUES (:id)"), {"id": user_id})
    for kind in NotificationType:
        await installation.create(user_id, type=kind.value)
    sessions = [
        Session(installation, user_id, random.Random(f"{seed} {number}"))
        for number in range(SESSIONS)
    ]
    poller = Session(installation, user_id, random.Random(seed))
    watcher = Session(installation, user_id, random.Random(f"{seed} watcher"))
    for session in (*sessions, watcher, poller):
        await session.start()
    async with watcher.connected() as watching:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(session.run(OPERATIONS) for session in sessions))
        inbox = await settled(installation, user_id)
        async with asyncio.timeout(PATIENCE):
            await watching.reaches(inbox.seq)
    await poll(installation, user_id, poller.mirror)
    assert inbox.unread == inbox.recounted
    for client in installation.clients:
        first, items = await installation.listing(client, user_id)
        counts = await installation.read(client, user_id, "/unread-count")
        assert first["seq"] == inbox.seq
        assert first["unread_count"] == counts["count"] == sum(inbox.unread.values())
        assert counts["by_type"] == inbox.unread
        for session in sessions:
            async with session.connected() as link, asyncio.timeout(PATIENCE):
                await link.reaches(inbox.seq)
        for mirror in (each.mirror for each in (*sessions, watcher, poller)):
            assert not mirror.problems, "\n".join(mirror.problems)
            assert mirror.ids == [item["id"] for item in items]
            assert mirror.items == {item["id"]: listed(item) for item in items}
            assert mirror.unread_count == counts["count"]
            assert mirror.unread_by_type == counts["by_type"]
