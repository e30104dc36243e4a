"""What is read in one place is closed on the user's phones (REQ-007, REQ-012)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from app.channels.base import fcm_token_context
from app.channels.breaker import Breakers
from app.channels.fcm import AT_ONCE, FcmSender, fcm_client
from app.channels.fcm_message import CLOSED_AT_ONCE
from app.config import Settings
from app.db.database import Database
from app.pipeline.announce import Announcement
from app.pipeline.closings import MOST_ATTEMPTS, ClosingQueue, ClosingSweeper, closing_queue
from app.sandbox.server import serving_sandbox
from app.security.encryption import Cipher
from app.services.inbox_changes import InboxChanges
from tests.http_client import client_of
from tests.integration.sockets import Inboxes, eventually

ADD_PHONE = """
    INSERT INTO push_subscriptions (id, user_id, kind, fcm_token, fcm_token_hash)
    VALUES (:id, :user_id, 'fcm', :sealed, :hash)
"""
ADD_BROWSER = """
    INSERT INTO push_subscriptions (id, user_id, kind, endpoint, p256dh_key, auth_key)
    VALUES (:id, :user_id, 'web', :endpoint, 'key', 'auth')
"""
ADD_PUSH = """
    INSERT INTO notification_deliveries (
        notification_id, user_id, channel, status, device_id, attempts, lease_token, next_attempt_at
    )
    VALUES (
        :notification_id, :user_id, 'push', :status, :device_id, 1,
        CASE WHEN CAST(:leased_until AS timestamptz) IS NOT NULL THEN uuidv7() END,
        CAST(:leased_until AS timestamptz)
    )
"""


@dataclass
class Hand:
    """A clock that is set by hand."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Scene:
    """A user's inbox and phones, and a worker that closes."""

    database: Database
    inboxes: Inboxes
    changes: InboxChanges
    queue: ClosingQueue
    sweeper: ClosingSweeper
    clock: Hand
    sandbox: httpx.AsyncClient
    cipher: Cipher
    user: UUID
    names: dict[UUID, str] = field(default_factory=dict[UUID, str])

    async def rows(self, query: str, **parameters: object) -> list[Any]:
        async with self.database.as_service() as connection:
            result = await connection.execute(text(query), parameters)
            return list(result.all()) if result.returns_rows else []

    async def phone(self, user: UUID | None = None) -> UUID:
        """A phone of the sandbox that is subscribed."""
        device, name = uuid4(), f"phone-{uuid4().hex[:8]}"
        answer = await self.sandbox.put(f"/fcm/phones/{name}", json={"platform": "ios"})
        token: str = answer.raise_for_status().json()["token"]
        await self.rows(
            ADD_PHONE,
            id=device,
            user_id=user or self.user,
            sealed=self.cipher.encrypt(token.encode(), context=fcm_token_context(device)),
            hash=device.bytes,
        )
        self.names[device] = name
        return device

    async def browser(self) -> UUID:
        device = uuid4()
        endpoint = f"https://push.example/{device}"
        await self.rows(ADD_BROWSER, id=device, user_id=self.user, endpoint=endpoint)
        return device

    async def pushed(
        self,
        *devices: UUID,
        status: str = "sent",
        leased_until: datetime | None = None,
        user: UUID | None = None,
    ) -> UUID:
        """A notification that was pushed to the devices."""
        owner = user or self.user
        change = await self.inboxes.add(owner)
        (row,) = await self.rows(
            "SELECT id FROM notifications WHERE user_id = :user AND position = :seq",
            user=owner,
            seq=change.seq,
        )
        for device in devices:
            await self.rows(
                ADD_PUSH,
                notification_id=row.id,
                user_id=owner,
                status=status,
                device_id=device,
                leased_until=leased_until,
            )
        return row.id

    async def waiting(self) -> list[tuple[UUID, UUID]]:
        found = await self.rows("SELECT device_id, notification_id FROM push_closings")
        return [(row.device_id, row.notification_id) for row in found]

    async def sweep(self) -> None:
        """Close what is due."""
        await self.sweeper.look()

    async def closed(self, device: UUID) -> list[tuple[set[UUID], int]]:
        """What the phone was told to close, and the badges beside it, oldest first."""
        name = self.names[device]
        answer = await self.sandbox.get("/fcm/messages", params={"token": name, "limit": 1_000})
        messages = [item["message"] for item in reversed(answer.json()["items"])]
        assert all("notification" not in message for message in messages)
        assert all(message["data"]["type"] == "close" for message in messages)
        return [
            (
                {UUID(item) for item in message["data"]["ids"].split(",")},
                message["apns"]["payload"]["aps"]["badge"],
            )
            for message in messages
        ]

    async def fault(self, **rule: Any) -> None:
        await self.sandbox.put("/faults", json={"provider": "fcm", "kind": "status", **rule})


@pytest.fixture(scope="module")
async def served(
    server_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[int]:
    """The port of a sandbox that runs."""
    data = {"data_dir": tmp_path_factory.mktemp("data")}
    async with serving_sandbox(server_settings.model_copy(update=data)) as url:
        port = httpx.URL(url).port
        assert port is not None
        yield port


@pytest.fixture
async def scene(
    fresh_settings: Settings, served: int, told: list[Announcement]
) -> AsyncGenerator[Scene]:
    settings = fresh_settings.model_copy(update={"sandbox_port": served})
    database, clock = Database(settings), Hand()
    cipher = Cipher(settings.encryption_keys)
    async with (
        fcm_client(settings) as client,
        client_of(settings.sandbox_url) as sandbox,
    ):
        await sandbox.delete("/state")
        # Hands set the clock, so no circuit opens for a time of its own.
        healthy = Breakers(AT_ONCE, clock=lambda: clock().timestamp())
        sender = FcmSender(settings, client, cipher, str, clock, healthy)
        queue = closing_queue(settings, database, sender, clock)
        inboxes = Inboxes(database)
        yield Scene(
            database,
            inboxes,
            InboxChanges(database, told.append, clock),
            queue,
            ClosingSweeper(queue, clock, interval=0.05),
            clock,
            sandbox,
            cipher,
            await inboxes.user(),
        )
    await database.close()


async def test_what_is_read_is_closed_on_each_phone(scene: Scene) -> None:
    first, second = await scene.phone(), await scene.phone()
    read, unread = await scene.pushed(first, second), await scene.pushed(first)
    await scene.changes.mark_read(scene.user, read)
    await scene.sweep()
    assert await scene.closed(first) == await scene.closed(second) == [({read}, 1)]
    await scene.changes.delete(scene.user, unread)
    await scene.sweep()
    assert await scene.closed(first) == [({read}, 1), ({unread}, 0)]
    assert await scene.waiting() == []


async def test_all_that_is_read_at_once_is_closed_at_once(scene: Scene) -> None:
    phone = await scene.phone()
    ids = {await scene.pushed(phone) for _ in range(CLOSED_AT_ONCE + 10)}
    later = await scene.pushed(phone, status="failed")
    await scene.changes.mark_all_read(scene.user)
    assert later not in {notification for _, notification in await scene.waiting()}
    await scene.sweep()
    first, second = await scene.closed(phone)
    assert {len(first[0]), len(second[0])} == {CLOSED_AT_ONCE, 10}
    assert first[0] | second[0] == ids
    assert first[1] == second[1] == 0


async def test_what_was_not_pushed_to_a_phone_is_not_closed(scene: Scene) -> None:
    phone, browser, disabled = await scene.phone(), await scene.browser(), await scene.phone()
    await scene.rows("UPDATE push_subscriptions SET is_active = false WHERE id = :id", id=disabled)
    for status in ("pending", "failed", "skipped", "cancelled"):
        await scene.changes.mark_read(scene.user, await scene.pushed(phone, status=status))
    await scene.changes.mark_read(scene.user, await scene.pushed(browser, disabled))
    await scene.changes.mark_read(scene.user, await scene.pushed())
    stranger = await scene.inboxes.user()
    theirs = await scene.phone(stranger)
    await scene.changes.mark_read(stranger, await scene.pushed(theirs, user=stranger))
    assert [device for device, _ in await scene.waiting()] == [theirs]


async def test_what_expires_is_not_closed(scene: Scene) -> None:
    phone = await scene.phone()
    notification = await scene.pushed(phone)
    await scene.rows(
        "UPDATE notifications SET expires_at = :at WHERE id = :id",
        at=scene.clock() - timedelta(seconds=1),
        id=notification,
    )
    await scene.changes.mark_all_read(scene.user)
    assert await scene.waiting() == []


async def test_reading_again_closes_once(scene: Scene) -> None:
    phone = await scene.phone()
    notification = await scene.pushed(phone, status="delivered")
    await scene.changes.mark_read(scene.user, notification)
    await scene.changes.mark_unread(scene.user, notification)
    await scene.changes.mark_read(scene.user, notification)
    await scene.sweep()
    assert await scene.closed(phone) == [({notification}, 0)]


async def test_a_push_on_its_way_is_closed_when_it_is_over(scene: Scene) -> None:
    phone = await scene.phone()
    leased_until = scene.clock() + timedelta(seconds=30)
    notification = await scene.pushed(phone, status="pending", leased_until=leased_until)
    await scene.changes.mark_read(scene.user, notification)
    await scene.sweep()
    assert await scene.closed(phone) == []
    scene.clock.pass_by(seconds=30)
    await scene.sweep()
    assert await scene.closed(phone) == [({notification}, 0)]


async def test_it_is_tried_again_and_not_for_ever(scene: Scene) -> None:
    phone, well = await scene.phone(), await scene.phone()
    notification = await scene.pushed(phone, well)
    await scene.fault(status=503, to=scene.names[phone], times=1)
    await scene.changes.mark_read(scene.user, notification)
    await scene.sweep()
    assert await scene.closed(well) == [({notification}, 0)]
    assert await scene.waiting() == [(phone, notification)]
    scene.clock.pass_by(seconds=2)
    await scene.sweep()
    assert await scene.closed(phone) == [({notification}, 0)]

    await scene.fault(status=503, to=scene.names[phone])
    await scene.changes.mark_read(scene.user, await scene.pushed(phone))
    for _ in range(MOST_ATTEMPTS):
        assert len(await scene.waiting()) == 1
        scene.clock.pass_by(minutes=2)
        await scene.sweep()
    assert await scene.waiting() == []


async def test_a_limit_is_obeyed_and_is_no_attempt(scene: Scene) -> None:
    phone = await scene.phone()
    await scene.fault(status=429, retry_after=300, times=1)
    notification = await scene.pushed(phone)
    await scene.changes.mark_read(scene.user, notification)
    await scene.sweep()
    (row,) = await scene.rows("SELECT attempts, next_attempt_at, lease_token FROM push_closings")
    assert (row.attempts, row.lease_token) == (0, None)
    assert row.next_attempt_at == scene.clock() + timedelta(seconds=300)
    scene.clock.pass_by(seconds=300)
    await scene.sweep()
    assert await scene.closed(phone) == [({notification}, 0)]


async def test_after_an_hour_nobody_minds(scene: Scene) -> None:
    phone = await scene.phone()
    await scene.fault(status=429, retry_after=3700)
    await scene.changes.mark_read(scene.user, await scene.pushed(phone))
    await scene.sweep()
    assert len(await scene.waiting()) == 1
    await scene.sandbox.delete("/faults")
    scene.clock.pass_by(seconds=3700)
    await scene.sweep()
    assert await scene.waiting() == []
    assert await scene.closed(phone) == []


async def test_a_phone_without_the_app_is_removed(scene: Scene) -> None:
    gone, well = await scene.phone(), await scene.phone()
    await scene.sandbox.delete(f"/fcm/phones/{scene.names[gone]}")
    await scene.changes.mark_read(scene.user, await scene.pushed(gone, well))
    await scene.sweep()
    assert await scene.waiting() == []
    left = await scene.rows("SELECT id FROM push_subscriptions")
    assert [row.id for row in left] == [well]


async def test_an_inactive_phone_is_left_alone(scene: Scene) -> None:
    phone = await scene.phone()
    await scene.changes.mark_read(scene.user, await scene.pushed(phone))
    await scene.rows("UPDATE push_subscriptions SET is_active = false")
    await scene.sweep()
    assert await scene.waiting() == []
    assert await scene.closed(phone) == []


async def test_what_is_leased_is_another_workers_until_the_lease_ends(scene: Scene) -> None:
    phone = await scene.phone()
    notification = await scene.pushed(phone)
    await scene.changes.mark_read(scene.user, notification)
    (dead,) = await scene.queue.lease_due()
    await scene.sweep()
    assert await scene.closed(phone) == []
    scene.clock.pass_by(seconds=31)
    (living,) = await scene.queue.lease_due()
    # The one that wakes up late takes nothing from the other.
    await scene.fault(status=503, times=1)
    await scene.queue.close(dead)
    (row,) = await scene.rows("SELECT lease_token FROM push_closings")
    assert row.lease_token == living.lease_token
    await scene.queue.close(living)
    assert await scene.waiting() == []


async def test_a_worker_sweeps_until_it_is_told_to_stop(scene: Scene) -> None:
    phone, stopping = await scene.phone(), asyncio.Event()
    running = asyncio.create_task(scene.sweeper.run(stopping))
    notification = await scene.pushed(phone)
    await scene.changes.mark_read(scene.user, notification)
    closed: list[tuple[set[UUID], int]] = []
    async with asyncio.timeout(20):
        while not closed:
            closed = await scene.closed(phone)
            await asyncio.sleep(0.01)
    assert closed == [({notification}, 0)]
    stopping.set()
    await eventually(running.done)
