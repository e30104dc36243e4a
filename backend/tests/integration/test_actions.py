"""Actions of notifications (REQ-013): run once, posted to services, and never lost."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from app.config import Settings
from app.pipeline.callbacks import callback_queue, callback_sweeper
from app.pipeline.leased import LeaseSweeper
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from tests.contract.callers import V1, Api, Json, open_api
from tests.integration.receiver import Call, Receiver, Reply, receiving

PATIENCE = 20.0
ACTIONS = [
    {"label": "View", "url": "/tasks/128"},
    {"label": "Accept", "action": "accept"},
    {"label": "Later", "action": "later"},
]


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
    """An API with a hand-set clock, a worker's queue of calls, and a service that is called."""

    api: Api
    clock: Hand
    receiver: Receiver
    sweeper: LeaseSweeper[Any]
    name: str  # of an action that belongs to this test alone
    user: UUID

    async def register(self, url: str | None = None) -> Json:
        """Let clicks on the test's own action be posted."""
        return await self.api.register_callback(self.name, url or self.receiver.url())

    async def notify(self, **data: Any) -> UUID:
        """A notification that can be accepted, under the test's own name."""
        actions = [*ACTIONS, {"label": "Do it", "action": self.name}]
        created = await self.api.create(self.user, data={"actions": actions, **data})
        return UUID(created["id"])

    async def click(self, notification: UUID, action: str, api: Api | None = None) -> Json:
        answer = await self.try_to_click(notification, action, api)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def try_to_click(
        self, notification: UUID, action: str, api: Api | None = None
    ) -> httpx.Response:
        used = api or self.api
        path = f"{V1}/notifications/{notification}/actions/{action}"
        return await used.client.post(path, headers=used.user(self.user))

    async def sweep(self) -> None:
        """Post what is due, and wait until the outcomes are recorded."""
        await self.sweeper.look()
        async with asyncio.timeout(PATIENCE):
            await self.sweeper.settle()

    async def run(self, notification: UUID, action: str | None = None) -> Any:
        (row,) = await self.api.rows(
            "SELECT * FROM notification_actions"
            " WHERE notification_id = CAST(:id AS uuid) AND action = :action",
            id=notification,
            action=action or self.name,
        )
        return row

    async def events(self, notification: UUID) -> list[tuple[str, str | None]]:
        """Events of clicks, with the reasons, in order."""
        rows = await self.api.rows(
            "SELECT event, reason, detail FROM notification_events"
            " WHERE notification_id = CAST(:id AS uuid) AND detail ? 'action' ORDER BY id",
            id=notification,
        )
        return [(row.event, row.reason) for row in rows]

    async def is_read(self, notification: UUID) -> bool:
        (row,) = await self.api.rows(
            "SELECT read_at FROM notifications WHERE id = CAST(:id AS uuid)", id=notification
        )
        return row.read_at is not None


def allowing(settings: Settings) -> Settings:
    return settings.model_copy(update={"push_allow_private_endpoints": True})


@asynccontextmanager
async def sweeping(
    settings: Settings, api: Api, clock: Hand, outbound: Outbound
) -> AsyncGenerator[LeaseSweeper[Any]]:
    queue = callback_queue(settings, api.database, outbound, clock)
    yield callback_sweeper(queue, clock, interval=1.0)


@pytest.fixture
async def scene(fresh_settings: Settings) -> AsyncGenerator[Scene]:
    settings, clock = allowing(fresh_settings), Hand()
    rules = AddressRules.from_settings(settings)
    async with (
        open_api(settings, clock) as api,
        receiving() as receiver,
        Outbound(rules) as outbound,
        sweeping(settings, api, clock, outbound) as sweeper,
    ):
        user = await api.new_user()
        yield Scene(api, clock, receiver, sweeper, f"do-{uuid4().hex[:8]}", user)


def verified(call: Call, secret: str, clock: Hand) -> Json:
    """The call's content, once its signature holds, computed as Standard Webhooks says."""
    key = base64.b64decode(secret.split("_", 1)[1])
    assert len(key) >= 24
    parts = [call.headers["webhook-id"], call.headers["webhook-timestamp"], call.body.decode()]
    mac = hmac.new(key, ".".join(parts).encode(), hashlib.sha256).digest()
    assert call.headers["webhook-signature"] == f"v1,{base64.b64encode(mac).decode()}"
    assert int(call.headers["webhook-timestamp"]) == int(clock.now.timestamp())
    assert call.headers["content-type"] == "application/json"
    return json.loads(call.body)


class TestWithoutACallback:
    async def test_a_click_is_tracked_and_marks_as_read(self, scene: Scene) -> None:
        notification = await scene.notify()
        told = await scene.click(notification, "accept")
        assert told == {"action": "accept", "status": "completed", "result": None}
        assert await scene.is_read(notification)
        assert await scene.events(notification) == [("clicked", None)]
        assert (await scene.api.read(scene.user))["unread_count"] == 0

    async def test_a_buttons_address_is_answered(self, scene: Scene) -> None:
        notification = await scene.notify()
        told = await scene.click(notification, "0")
        assert told == {"action": "0", "status": "completed", "result": {"url": "/tasks/128"}}
        assert await scene.is_read(notification)

    async def test_read_marks_as_read_and_dismiss_deletes_whatever_is_listed(
        self, scene: Scene
    ) -> None:
        listing = await scene.notify()
        bare = UUID((await scene.api.create(scene.user))["id"])
        for notification in (listing, bare):
            assert (await scene.click(notification, "read"))["status"] == "completed"
            assert await scene.is_read(notification)
            told = await scene.click(notification, "dismiss")
            assert told == {"action": "dismiss", "status": "completed", "result": None}
            assert await scene.click(notification, "dismiss") == told
        assert (await scene.api.read(scene.user))["items"] == []

    async def test_what_was_clicked_is_answered_after_it_was_dismissed(self, scene: Scene) -> None:
        notification = await scene.notify()
        told = await scene.click(notification, "0")
        await scene.click(notification, "dismiss")
        assert await scene.click(notification, "0") == told
        assert (await scene.try_to_click(notification, "accept")).status_code == 404
        assert await scene.events(notification) == [("clicked", None), ("clicked", None)]

    async def test_every_click_marks_as_read_and_the_first_is_tracked(self, scene: Scene) -> None:
        notification = await scene.notify()
        await scene.click(notification, "accept")
        path = f"{V1}/notifications/{notification}/unread"
        await scene.api.client.patch(path, headers=scene.api.user(scene.user))
        assert not await scene.is_read(notification)
        await scene.click(notification, "accept")
        assert await scene.is_read(notification)
        assert await scene.events(notification) == [("clicked", None)]

    async def test_the_clients_are_told_once(self, scene: Scene) -> None:
        notification = await scene.notify()
        before = (await scene.api.read(scene.user))["seq"]
        for _ in range(2):
            await scene.click(notification, "accept")
        assert (await scene.api.read(scene.user))["seq"] == before + 1


class TestCalling:
    async def test_a_click_is_posted_and_its_answer_told(self, scene: Scene) -> None:
        secret = (await scene.register())["secret"]
        scene.receiver.replies = [Reply(200, b'{"state": "accepted"}')]
        notification = await scene.notify(task=128)
        told = await scene.click(notification, scene.name)
        wanted = {"action": scene.name, "status": "completed", "result": {"state": "accepted"}}
        assert told == wanted
        (call,) = scene.receiver.calls
        sent = verified(call, secret, scene.clock)
        at = scene.clock.now.isoformat().replace("+00:00", "Z")
        assert sent == {
            "type": "notification.action",
            "timestamp": at,
            "data": {
                "notification_id": str(notification),
                "user_id": str(scene.user),
                "action": scene.name,
                "label": "Do it",
                "clicked_at": at,
                "notification_type": "task",
                "data": sent["data"]["data"],
            },
        }
        assert sent["data"]["data"]["task"] == 128
        assert await scene.events(notification) == [("clicked", None), ("action_completed", None)]

    async def test_a_second_click_calls_nobody(self, scene: Scene) -> None:
        await scene.register()
        notification = await scene.notify()
        first = await scene.click(notification, scene.name)
        scene.receiver.replies = [Reply(200, b'{"other": true}')]
        assert await scene.click(notification, scene.name) == first
        await scene.click(notification, "dismiss")
        assert await scene.click(notification, scene.name) == first
        assert len(scene.receiver.calls) == 1

    async def test_clicks_at_once_in_two_programs_are_one(self, scene: Scene) -> None:
        await scene.register()
        notification = await scene.notify()
        async with open_api(scene.api.settings, scene.clock) as other:
            told = await asyncio.gather(
                *(scene.click(notification, scene.name, api) for api in (scene.api, other) * 5)
            )
        assert len(scene.receiver.calls) == 1
        assert {each["status"] for each in told} <= {"completed", "pending"}
        assert (await scene.click(notification, scene.name))["status"] == "completed"
        assert [event for event, _ in await scene.events(notification)] == [
            "clicked",
            "action_completed",
        ]

    async def test_users_and_notifications_are_kept_apart(self, scene: Scene) -> None:
        await scene.register()
        first, second = await scene.notify(), await scene.notify()
        await scene.click(first, scene.name)
        await scene.click(second, scene.name)
        ids = {call.headers["webhook-id"] for call in scene.receiver.calls}
        assert len(ids) == 2

    @pytest.mark.parametrize(
        ("body", "result"),
        [
            (b'["a", 1, null]', ["a", 1, None]),
            (b'"text"', "text"),
            (b"", None),
            (b"null", None),
            (b"not JSON", None),
            (b'{"a": NaN}', None),
            (b'{"a": "\\u0000"}', None),
            (b'{"a": "\\\\u0000"}', {"a": "\\u0000"}),
            (b'"\xff"', None),
            (b"[" * 200 + b"]" * 200, None),
            (b'"' + b"a" * (16 * 1024 - 2) + b'"', "a" * (16 * 1024 - 2)),
            (b'"' + b"a" * (16 * 1024 - 1) + b'"', None),
        ],
        ids=lambda value: repr(value)[:24],
    )
    async def test_of_an_answer_only_json_is_told(
        self, scene: Scene, body: bytes, result: object
    ) -> None:
        await scene.register()
        scene.receiver.replies = [Reply(201, body)]
        notification = await scene.notify()
        told = await scene.click(notification, scene.name)
        assert told == {"action": scene.name, "status": "completed", "result": result}
        assert await scene.click(notification, scene.name) == told


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 451])
    async def test_what_is_refused_for_good_has_failed(self, scene: Scene, status: int) -> None:
        await scene.register()
        scene.receiver.replies = [Reply(status, b'{"why": "not now"}')]
        notification = await scene.notify()
        told = await scene.click(notification, scene.name)
        assert told == {"action": scene.name, "status": "failed", "result": None}
        scene.clock.pass_by(days=1)
        await scene.sweep()
        assert await scene.click(notification, scene.name) == told
        assert len(scene.receiver.calls) == 1
        assert await scene.events(notification) == [
            ("clicked", None),
            ("action_failed", "provider_rejected"),
        ]
        assert await scene.is_read(notification)

    async def test_an_address_that_may_not_be_called_any_more(self, scene: Scene) -> None:
        """It was registered while loopback was allowed; what calls it does not allow it."""
        await scene.register()
        strict = scene.api.settings.model_copy(update={"push_allow_private_endpoints": False})
        notification = await scene.notify()
        async with open_api(strict, scene.clock) as api:
            told = await scene.click(notification, scene.name, api)
        assert told["status"] == "failed"
        assert (await scene.run(notification)).reason == "address_refused"
        assert scene.receiver.calls == []

    async def test_a_name_that_leads_inside_by_now(self, scene: Scene) -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        name = f"https://hooks.example.com:{scene.receiver.port}/"
        scene.receiver.replies = [Reply(503)]
        await scene.register()
        notification = await scene.notify()
        assert (await scene.click(notification, scene.name))["status"] == "pending"
        await scene.register(name)
        scene.clock.pass_by(hours=1)
        rules = AddressRules(allow_loopback=True)
        settings = scene.api.settings
        async with (
            Outbound(rules, resolve=resolve) as outbound,
            sweeping(settings, scene.api, scene.clock, outbound) as sweeper,
        ):
            await sweeper.look()
            await sweeper.settle()
        assert (await scene.run(notification)).reason == "address_refused"
        assert len(scene.receiver.calls) == 1

    async def test_a_callback_that_was_removed(self, scene: Scene) -> None:
        await scene.register()
        scene.receiver.replies = [Reply(503)]
        notification = await scene.notify()
        assert (await scene.click(notification, scene.name))["status"] == "pending"
        path = f"{V1}/internal/action-callbacks/{scene.name}"
        await scene.api.client.delete(path, headers=scene.api.internal())
        scene.clock.pass_by(hours=1)
        await scene.sweep()
        assert (await scene.click(notification, scene.name))["status"] == "failed"
        assert (await scene.run(notification)).reason == "callback_removed"


class TestRetries:
    @pytest.mark.parametrize("status", [301, 408, 409, 425, 429, 500, 502, 503])
    async def test_what_may_pass_is_tried_again_by_a_worker(
        self, scene: Scene, status: int
    ) -> None:
        secret = (await scene.register())["secret"]
        scene.receiver.replies = [Reply(status), Reply(200, b'{"done": true}')]
        notification = await scene.notify()
        told = await scene.click(notification, scene.name)
        assert told == {"action": scene.name, "status": "pending", "result": None}
        assert await scene.click(notification, scene.name) == told
        scene.clock.pass_by(hours=1)
        await scene.sweep()
        done = await scene.click(notification, scene.name)
        assert done == {"action": scene.name, "status": "completed", "result": {"done": True}}
        first, second = scene.receiver.calls
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        verified(second, secret, scene.clock)
        assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
        assert [event for event, _ in await scene.events(notification)] == [
            "clicked",
            "action_retry",
            "action_completed",
        ]

    async def test_who_does_not_listen_is_tried_again(self, scene: Scene) -> None:
        async with receiving() as gone:
            await scene.register(gone.url())
        notification = await scene.notify()
        assert (await scene.click(notification, scene.name))["status"] == "pending"
        await scene.register()
        scene.clock.pass_by(hours=1)
        await scene.sweep()
        assert (await scene.click(notification, scene.name))["status"] == "completed"

    @pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_obeyed(self, scene: Scene, status: int, as_date: bool) -> None:
        await scene.register()
        asked = format_datetime(scene.clock.now + timedelta(seconds=601), usegmt=True)
        headers = {"Retry-After": asked if as_date else "600"}
        scene.receiver.replies = [Reply(status, headers=headers), Reply()]
        notification = await scene.notify()
        assert (await scene.click(notification, scene.name))["status"] == "pending"
        scene.clock.pass_by(seconds=599)
        await scene.sweep()
        assert len(scene.receiver.calls) == 1
        scene.clock.pass_by(seconds=2)
        await scene.sweep()
        assert len(scene.receiver.calls) == 2

    async def test_attempts_are_used_up(self, scene: Scene) -> None:
        await scene.register()
        scene.receiver.replies = [Reply(500)]
        notification = await scene.notify()
        most = scene.api.settings.delivery_max_attempts
        await scene.click(notification, scene.name)
        for _ in range(most + 2):
            scene.clock.pass_by(hours=2)
            await scene.sweep()
        assert len(scene.receiver.calls) == most
        assert (await scene.click(notification, scene.name))["status"] == "failed"
        row = await scene.run(notification)
        assert (row.reason, row.error_message) == (
            "attempts_exhausted",
            "provider_unavailable: 500",
        )
        assert row.finished_at == scene.clock.now - timedelta(hours=2 * 3)


class TestLeases:
    async def leave_behind(self, scene: Scene) -> UUID:
        """A click whose process died before it had posted it."""
        notification = await scene.notify()
        await scene.register()
        scene.receiver.replies = [Reply(hangs=True)]
        async with open_api(scene.api.settings, scene.clock) as dying:
            click = asyncio.create_task(scene.try_to_click(notification, scene.name, dying))
            await scene.receiver.until(1)
            click.cancel()
        scene.receiver.replies = [Reply(200, b'"late"')]
        return notification

    async def test_what_a_dead_process_held_is_taken_over_at_the_leases_end(
        self, scene: Scene
    ) -> None:
        notification = await self.leave_behind(scene)
        assert (await scene.click(notification, scene.name))["status"] == "pending"
        await scene.sweep()
        assert len(scene.receiver.calls) == 1  # it is still leased
        scene.clock.pass_by(seconds=scene.api.settings.delivery_lease_seconds)
        await scene.sweep()
        done = await scene.click(notification, scene.name)
        assert (done["status"], done["result"]) == ("completed", "late")
        first, second = scene.receiver.calls
        assert first.headers["webhook-id"] == second.headers["webhook-id"]

    async def test_who_wakes_up_late_records_nothing(self, scene: Scene) -> None:
        notification = await self.leave_behind(scene)
        settings = scene.api.settings
        scene.clock.pass_by(seconds=settings.delivery_lease_seconds)
        async with Outbound(AddressRules.from_settings(settings)) as outbound:
            queue = callback_queue(settings, scene.api.database, outbound, scene.clock)
            (held,) = await queue.lease_due(10)
            assert await queue.lease_due(10) == []
            scene.clock.pass_by(seconds=settings.delivery_lease_seconds)
            await scene.sweep()
            done = await scene.click(notification, scene.name)
            scene.receiver.replies = [Reply(410)]
            await queue.post(held)
        assert await scene.click(notification, scene.name) == done
        assert done["status"] == "completed"

    async def test_what_kills_every_process_is_given_up(self, scene: Scene) -> None:
        notification = await self.leave_behind(scene)
        settings = scene.api.settings
        async with Outbound(AddressRules.from_settings(settings)) as outbound:
            queue = callback_queue(settings, scene.api.database, outbound, scene.clock)
            for _ in range(settings.delivery_max_attempts - 1):
                scene.clock.pass_by(seconds=settings.delivery_lease_seconds)
                assert len(await queue.lease_due(10)) == 1
        scene.clock.pass_by(seconds=settings.delivery_lease_seconds)
        await scene.sweep()
        assert (await scene.run(notification)).reason == "attempts_exhausted"
        assert len(scene.receiver.calls) == 1

    async def test_two_workers_share_what_is_due(self, scene: Scene) -> None:
        await scene.register()
        scene.receiver.replies = [Reply(503)]
        for _ in range(4):
            await scene.click(await scene.notify(), scene.name)
        scene.clock.pass_by(hours=1)
        settings, database = scene.api.settings, scene.api.database
        async with Outbound(AddressRules.from_settings(settings)) as outbound:
            queue = callback_queue(settings, database, outbound, scene.clock)
            async with asyncio.timeout(PATIENCE), database.as_service() as other:
                await other.execute(
                    text("SELECT FROM notification_actions ORDER BY created_at LIMIT 1 FOR UPDATE")
                )
                assert len(await queue.lease_due(10)) == 3  # what the other holds is not waited for
            assert len(await queue.lease_due(10)) == 1
            assert await queue.lease_due(10) == []


async def test_a_slow_service_keeps_no_click_waiting(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The click is answered while the call goes on, and the call's outcome is not lost."""
    monkeypatch.setattr(scene.api.app.state.context.actions, "_patience", 0.05)
    await scene.register()
    scene.receiver.replies = [Reply(hangs=True)]
    notification = await scene.notify()
    assert (await scene.click(notification, scene.name))["status"] == "pending"
    (call,) = await scene.receiver.until(1)
    assert call.path == "/hook"
    assert (await scene.run(notification)).lease_token is not None


async def test_the_worker_calls_by_itself(scene: Scene) -> None:
    """From the sweeper's own loop, woken by nobody."""
    await scene.register()
    scene.receiver.replies = [Reply(503)]
    notification = await scene.notify()
    await scene.click(notification, scene.name)
    scene.receiver.replies = [Reply()]
    scene.clock.pass_by(hours=1)
    stopping = asyncio.Event()
    running = asyncio.create_task(scene.sweeper.run(stopping))
    await scene.receiver.until(2)
    stopping.set()
    async with asyncio.timeout(PATIENCE):
        await running
    assert (await scene.click(notification, scene.name))["status"] == "completed"
