"""Pushes from the create call to the device and back, as the contract has them (REQ-006, REQ-007).

API and worker are the real ones, the devices are the sandbox's, which read with libraries of their
own what they are sent.
"""

import base64
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from app.config import Settings
from app.load_settings import load_settings
from app.sandbox.server import serving_sandbox
from app.worker.main import open_worker, running
from tests.contract.callers import V1, Api, Json, assert_refused, open_api
from tests.http_client import client_of
from tests.integration.test_pipeline import eventually

DAY = 86_400
ACTIONS = [{"label": "Accept", "action": "accept"}, {"label": "Open", "url": "/tasks/7"}]


@dataclass
class World:
    """A program with its worker, and the devices around it."""

    api: Api
    sandbox: httpx.AsyncClient

    @property
    def base_url(self) -> str:
        return self.api.settings.base_url

    async def browser(self, user: UUID) -> Json:
        """A browser that subscribes as the page lets it; with the key it was given."""
        key = await self.api.read(user, "/push/vapid-public-key")
        answer = await self.sandbox.put(
            f"/push/browsers/{uuid4()}", json={"application_server_key": key["public_key"]}
        )
        made = answer.raise_for_status().json()
        subscription = {part: made[part] for part in ("endpoint", "keys", "expirationTime")}
        stored = await self.api.subscribe(user, subscription, key_id=key["key_id"])
        return {**made, "id": stored["id"], "key": key["public_key"]}

    async def phone(self, user: UUID, platform: str = "android") -> Json:
        """A phone whose app subscribes."""
        answer = await self.sandbox.put(f"/fcm/phones/{uuid4()}", json={"platform": platform})
        made = answer.raise_for_status().json()
        stored = await self.api.try_to_subscribe(
            user, fcm_token=made["token"], device_info={"platform": platform}
        )
        assert stored.status_code == 201, stored.text
        return {**made, "id": stored.json()["id"]}

    async def shown(self, browser: Json, number: int = 1) -> list[Json]:
        """What a browser got, oldest first, once it is so much."""
        return await self._arrived("/push/messages", {"device": browser["name"]}, number)

    async def received(self, phone: Json, number: int = 1) -> list[Json]:
        """What a phone's app got, oldest first, once it is so much."""
        messages = await self._arrived("/fcm/messages", {"token": phone["name"]}, number)
        return [message["message"] for message in messages]

    async def acknowledge(self, ack_token: str, event: str = "delivered") -> None:
        body = {"ack_token": ack_token, "event": event}
        answer = await self.api.client.post(f"{V1}/notifications/push/ack", json=body)
        assert answer.status_code == 204, answer.text

    async def status(self, user: UUID, notification_id: str) -> str:
        told = await self.api.read(user, f"/{notification_id}")
        return told["delivery_status"]["push"]

    async def ended(self, notification_id: str) -> list[tuple[str, str]]:
        """States and reasons of its pushes, once all have ended, sorted."""
        rows: Sequence[Any] = ()

        async def over() -> bool:
            nonlocal rows
            rows = await self.api.rows(
                "SELECT status, reason FROM notification_deliveries WHERE channel = 'push'"
                " AND notification_id = CAST(:id AS uuid) ORDER BY status",
                id=notification_id,
            )
            return all(row.status != "pending" for row in rows)

        await eventually(over)
        return [(row.status, row.reason) for row in rows]

    async def events(self, notification_id: str) -> list[str]:
        rows = await self.api.rows(
            "SELECT event FROM notification_events WHERE channel = 'push'"
            " AND notification_id = CAST(:id AS uuid) ORDER BY id",
            id=notification_id,
        )
        return [row.event for row in rows]

    async def _arrived(self, path: str, of: dict[str, str], number: int) -> list[Json]:
        items: list[Json] = []

        async def came() -> bool:
            nonlocal items
            answer = await self.sandbox.get(path, params=of)
            # FCM was asked about the token when the app subscribed.
            items = [item for item in answer.json()["items"] if item["state"] != "validated"]
            return len(items) >= number

        await eventually(came)
        assert len(items) == number
        return items[::-1]


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[httpx.AsyncClient]:
    data = load_settings(_env_file=None, data_dir=tmp_path_factory.mktemp("sandbox"))
    async with serving_sandbox(data) as url, client_of(url) as client:
        yield client


@asynccontextmanager
async def open_world(settings: Settings, sandbox: httpx.AsyncClient) -> AsyncGenerator[World]:
    async with (
        open_api(settings) as api,
        open_worker(settings) as worker,
        running(worker),
    ):
        yield World(api, sandbox)


@pytest.fixture(scope="module")
def own_settings(clone_database: Callable[[], Settings]) -> Settings:
    # Other tests' workers would take what is queued.
    return clone_database()


@pytest.fixture(scope="module")
async def world(own_settings: Settings, sandbox: httpx.AsyncClient) -> AsyncGenerator[World]:
    settings = own_settings.model_copy(update={"sandbox_port": sandbox.base_url.port})
    async with open_world(settings, sandbox) as opened:
        yield opened


# --- browsers --------------------------------------------------------------------------------


async def test_a_browser_shows_what_was_created_and_says_so(world: World) -> None:
    user = await world.api.new_user(locale="de")
    browser = await world.browser(user)
    created = await world.api.create(
        user,
        type="workflow",
        priority="high",
        title="Freigabe",
        body="Bitte **prüfen**.",
        data={"action_url": "/tasks/7", "actions": ACTIONS, "topic": "task-7", "ttl": 600},
    )
    assert created["channels"] == ["push", "in_app"]
    (message,) = await world.shown(browser)
    ack_token = message["payload"]["notification"]["data"]["ack_token"]
    assert message["payload"] == {
        "web_push": 8030,
        "mutable": True,
        "app_badge": 1,
        "notification": {
            "title": "Freigabe",
            "body": "Bitte prüfen.",
            "navigate": f"{world.base_url}/tasks/7",
            "tag": created["id"],
            "silent": False,
            "lang": "de",
            "data": {
                "id": created["id"],
                "type": "workflow",
                "priority": "high",
                "ack_token": ack_token,
                "actions": ACTIONS,
            },
            "app_badge": "1",
        },
    }
    assert message["endpoint"] == browser["endpoint"]
    assert message["headers"] == {"TTL": "600", "Urgency": "high", "Topic": "task-7"}
    assert message["size"] <= 4096
    assert message["vapid"]["key"] == browser["key"]
    claims = message["vapid"]["claims"]
    assert claims == {
        "aud": str(world.sandbox.base_url).rstrip("/"),
        "exp": claims["exp"],
        "sub": world.api.settings.vapid_subject,
    }
    assert 0 < claims["exp"] - datetime.now(UTC).timestamp() <= DAY

    assert await world.ended(created["id"]) == [("sent", "sent_now")]
    assert await world.status(user, created["id"]) == "sent"
    await world.acknowledge(ack_token)
    assert await world.status(user, created["id"]) == "delivered"
    await world.acknowledge(ack_token, "clicked")
    await world.acknowledge(ack_token)  # repeated
    assert await world.events(created["id"]) == ["sent", "delivered", "clicked"]
    assert (await world.api.read(user, "/unread-count"))["count"] == 0


@pytest.mark.parametrize(
    ("priority", "urgency"), [("critical", "high"), ("high", "high"), ("normal", "normal")]
)
async def test_urgency_goes_by_priority(world: World, priority: str, urgency: str) -> None:
    user = await world.api.new_user()
    browser = await world.browser(user)
    created = await world.api.create(user, priority=priority)
    (message,) = await world.shown(browser)
    assert message["headers"] == {"TTL": str(DAY), "Urgency": urgency, "Topic": None}
    told = message["payload"]["notification"]
    assert told["navigate"] == f"{world.base_url}/?notification={created['id']}"
    assert told["data"]["actions"] == []
    assert "lang" not in told


# --- phones ----------------------------------------------------------------------------------


async def test_an_android_phone_gets_the_contracts_message(world: World) -> None:
    user = await world.api.new_user()
    phone = await world.phone(user, "android")
    created = await world.api.create(
        user,
        priority="critical",
        title="Down",
        body="The **API** is down.",
        data={"action_url": "/status", "actions": ACTIONS, "topic": "api", "ttl": 60, "code": 7},
    )
    (message,) = await world.received(phone)
    data = message["data"]
    assert message["token"] == phone["token"]
    assert message["notification"] == {"title": "Down", "body": "The API is down."}
    assert data == {
        "id": created["id"],
        "type": "task",
        "priority": "critical",
        "ack_token": data["ack_token"],
        "url": f"{world.base_url}/status",
        "action_url": "/status",
        "badge": "1",
        "actions": data["actions"],
        "code": "7",
    }
    assert json.loads(data["actions"]) == ACTIONS
    assert message["android"] == {
        "priority": "HIGH",
        "ttl": "60s",
        "collapse_key": "api",
        "notification": {
            "channel_id": "task",
            "click_action": "OPEN_NOTIFICATION",
            "tag": created["id"],
            "notification_count": 1,
            "sound": "default",
        },
    }
    assert await world.ended(created["id"]) == [("sent", "sent_now")]
    await world.acknowledge(data["ack_token"])
    assert await world.status(user, created["id"]) == "delivered"
    assert await world.events(created["id"]) == ["sent", "delivered"]


async def test_an_iphone_gets_the_contracts_message(world: World) -> None:
    user = await world.api.new_user()
    phone = await world.phone(user, "ios")
    await world.api.create(user)
    data = {"sound": "bell.caf", "category": "INVITE"}
    created = await world.api.create(user, type="system", data=data)
    _, message = await world.received(phone, 2)
    assert message["apns"] == {
        "headers": {
            "apns-push-type": "alert",
            "apns-priority": "5",
            "apns-expiration": message["apns"]["headers"]["apns-expiration"],
            "apns-collapse-id": created["id"],
        },
        "payload": {
            "aps": {
                "badge": 2,
                "sound": "bell.caf",
                "category": "INVITE",
                "thread-id": "system",
                "interruption-level": "active",
                "mutable-content": 1,
            }
        },
    }
    assert message["android"]["notification"]["click_action"] == "INVITE"
    left = int(message["apns"]["headers"]["apns-expiration"]) - datetime.now(UTC).timestamp()
    assert 0 < left <= DAY


async def test_a_silent_push_goes_to_the_app_alone(world: World) -> None:
    user = await world.api.new_user(email="ada@example.com")
    phone, browser = await world.phone(user, "ios"), await world.browser(user)
    created = await world.api.create(user, data={"silent": True, "job": "7"}, send_email=True)
    assert created["channels"] == ["push"]
    assert await world.ended(created["id"]) == [("sent", "sent_now")]  # the phone's
    (message,) = await world.received(phone)
    assert message["data"]["id"] == created["id"]
    assert message["data"]["job"] == "7"
    assert "notification" not in message
    assert "notification" not in message["android"]
    assert message["apns"]["payload"] == {"aps": {"content-available": 1}}
    headers = message["apns"]["headers"]
    assert (headers["apns-push-type"], headers["apns-priority"]) == ("background", "5")
    await world.shown(browser, 0)
    assert (await world.api.read(user))["items"] == []


async def test_a_silent_push_needs_an_app(world: World) -> None:
    user = await world.api.new_user()
    browser = await world.browser(user)
    created = await world.api.create(user, data={"silent": True})
    assert created["channels"] == []
    (row,) = await world.api.rows(
        "SELECT outcomes FROM notification_decisions WHERE notification_id = CAST(:id AS uuid)",
        id=created["id"],
    )
    assert {told["channel"]: (told["action"], told["reason"]) for told in row.outcomes} == {
        "push": ("skip", "silent_needs_fcm"),
        "in_app": ("skip", "silent"),
        "email": ("skip", "silent"),
    }
    await world.shown(browser, 0)


async def test_a_phone_without_the_app_is_forgotten(world: World) -> None:
    user = await world.api.new_user()
    gone, other = await world.phone(user), await world.phone(user)
    (await world.sandbox.delete(f"/fcm/phones/{gone['name']}")).raise_for_status()
    created = await world.api.create(user)
    assert await world.ended(created["id"]) == [("failed", "device_gone"), ("sent", "sent_now")]
    assert await world.status(user, created["id"]) == "sent"  # its best device

    async def forgotten() -> bool:
        items = (await world.api.read(user, "/push/subscriptions"))["items"]
        return [item["id"] for item in items] == [other["id"]]

    await eventually(forgotten)
    again = await world.api.create(user)
    assert await world.ended(again["id"]) == [("sent", "sent_now")]


async def test_what_is_read_on_the_page_is_closed_on_the_phone(world: World) -> None:
    user = await world.api.new_user()
    phone = await world.phone(user)
    first, second = await world.api.create(user), await world.api.create(user)
    await world.received(phone, 2)
    assert await world.ended(first["id"]) == [("sent", "sent_now")]
    path = f"{V1}/notifications/{first['id']}/read"
    answer = await world.api.client.patch(path, headers=world.api.user(user))
    answer.raise_for_status()
    *shown, closing = await world.received(phone, 3)
    assert {message["data"]["id"] for message in shown} == {first["id"], second["id"]}
    assert closing["data"] == {"type": "close", "ids": first["id"], "badge": "1"}
    assert "notification" not in closing
    assert closing["apns"]["payload"] == {"aps": {"content-available": 1, "badge": 1}}


async def test_a_token_is_in_no_log_and_no_table(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    user = await world.api.new_user()
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        gone, phone = await world.phone(user), await world.phone(user, "ios")
        (await world.sandbox.delete(f"/fcm/phones/{gone['name']}")).raise_for_status()
        created = await world.api.create(user)
        await world.ended(created["id"])
        refused = await world.api.try_to_subscribe(user, fcm_token=gone["token"])
        assert_refused(refused, 422, "validation_error")
        assert gone["token"] not in refused.text
    assert {"push_subscribed", "push_subscription_removed"} <= {line["event"] for line in logs}
    tables = await world.api.rows(
        "SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind = 'r' AND has_table_privilege('service_role', c.oid, 'SELECT')"
    )
    stored = [
        row[0]
        for table in tables
        for row in await world.api.rows(f'SELECT CAST(t AS text) FROM "{table.name}" t')
    ]
    assert any(phone["id"] in row for row in stored)
    for text in (*stored, *map(str, logs), caplog.text):
        for device in (gone, phone):
            assert not [form for form in forms_of(device["token"]) if form in text]


def forms_of(token: str) -> tuple[str, ...]:
    """What a token could be read from, as text."""
    raw = token.encode()
    encoded = base64.b64encode(raw).decode().rstrip("=")
    return token, raw.hex(), encoded, hashlib.sha256(raw).hexdigest()


# --- without an account ----------------------------------------------------------------------


async def test_without_an_account_phones_are_skipped_and_browsers_are_not(
    fresh_settings: Settings, sandbox: httpx.AsyncClient
) -> None:
    settings = fresh_settings.model_copy(update={"sandbox_port": sandbox.base_url.port})
    async with open_api(settings) as api:
        user = await api.new_user()
        known = await World(api, sandbox).phone(user)
    without = settings.model_copy(
        update={"app_env": "production", "push_allow_private_endpoints": True}
    )
    assert not without.fcm_configured
    async with open_world(without, sandbox) as world:
        browser = await world.browser(user)
        answer = await world.api.try_to_subscribe(user, fcm_token="another:APA91b")
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == ("fcm_token", "fcm_not_configured")
        created = await world.api.create(user)
        assert await world.ended(created["id"]) == [
            ("sent", "sent_now"),
            ("skipped", "channel_not_configured"),
        ]
        await world.shown(browser)
        await world.received(known, 0)
