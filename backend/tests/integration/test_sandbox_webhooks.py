"""What the sandbox's Resend posts of its mails, as the receiver of webhooks meets it."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.config import Settings
from app.load_settings import load_settings
from app.sandbox.mail_ways import webhooks_to
from app.sandbox.server import serving_sandbox
from tests.http_client import client_of
from tests.integration.receiver import Call, Receiver, Reply, receiving

AUTHORIZED = {"Authorization": "Bearer re_anything"}
MAIL: dict[str, Any] = {
    "from": "OmoiOS <noreply@yourapp.com>",
    "to": "Ada <ada@example.com>",
    "subject": "Hello",
    "html": '<p>Hello</p><a href="https://yourapp.com/t?a=1&amp;b=2">Task</a>',
    "text": "Hello",
    "tags": [{"name": "notification_id", "value": "019a3c1e-7b1d-7c3e-9d2a-1f0c5e6a7b8c"}],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(_env_file=None, data_dir=tmp_path)


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def sandbox(settings: Settings, receiver: Receiver) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving_sandbox(settings, webhooks_to=receiver.url(), webhook_pauses=(0.01, 0.01)) as url,
        client_of(url, headers=AUTHORIZED, timeout=5) as client,
    ):
        yield client


async def send(client: httpx.AsyncClient, **fields: object) -> str:
    return (await client.post("/resend/emails", json={**MAIL, **fields})).json()["id"]


async def sent_quietly(client: httpx.AsyncClient, receiver: Receiver, **fields: object) -> str:
    """A mail of which nothing is posted but what a test asks for."""
    rule = {"provider": "webhook", "kind": "lose"}
    (await client.put("/faults", json=rule)).raise_for_status()
    mail_id = await send(client, **fields)
    (await client.delete("/faults")).raise_for_status()
    assert receiver.calls == []
    return mail_id


async def tell(client: httpx.AsyncClient, mail_id: str, **event: object) -> dict[str, Any]:
    answer = await client.post(f"/mails/{mail_id}/events", json=event)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def ended(client: httpx.AsyncClient, webhook_id: str, posts: int) -> dict[str, Any]:
    """The webhook, once it was posted so often and waits no more."""
    while True:
        webhook = (await client.get(f"/webhooks/{webhook_id}")).json()
        if webhook["state"] != "waiting" and len(webhook["attempts"]) >= posts:
            return webhook


def body(call: Call) -> dict[str, Any]:
    return json.loads(call.body)


def types(calls: list[Call]) -> list[str]:
    return [body(call)["type"] for call in calls]


def is_signed(call: Call, settings: Settings) -> bool:
    """Svix's own check, written down once more."""
    assert settings.resend_webhook_secret is not None
    secret = settings.resend_webhook_secret.get_secret_value()
    content = b".".join(
        (call.headers["svix-id"].encode(), call.headers["svix-timestamp"].encode(), call.body)
    )
    wanted = hmac.new(base64.b64decode(secret[len("whsec_") :]), content, hashlib.sha256)
    given = call.headers["svix-signature"].split(" ")
    return f"v1,{base64.b64encode(wanted.digest()).decode()}" in given


class TestByItself:
    async def test_a_mail_is_sent_then_delivered(
        self, sandbox: httpx.AsyncClient, receiver: Receiver, settings: Settings
    ) -> None:
        mail_id = await send(sandbox)
        calls = await receiver.until(2)
        assert types(calls) == ["email.sent", "email.delivered"]
        assert len({call.headers["svix-id"] for call in calls}) == 2
        for call in calls:
            assert is_signed(call, settings)
            assert abs(int(call.headers["svix-timestamp"]) - time.time()) < 300
            told = body(call)
            assert told["data"].pop("created_at") <= told["created_at"]
            assert told["data"] == {
                "email_id": mail_id,
                "message_id": f"<{mail_id}@sandbox.localhost>",
                "from": MAIL["from"],
                "to": [MAIL["to"]],
                "subject": "Hello",
                "tags": {"notification_id": MAIL["tags"][0]["value"]},
            }
        assert (await sandbox.get(f"/resend/emails/{mail_id}")).json()["last_event"] == "delivered"

    @pytest.mark.parametrize(
        ("address", "events"),
        [
            ("delivered@resend.dev", ["email.delivered", "email.sent"]),
            ("bounced+label@resend.dev", ["email.bounced", "email.sent"]),
            ("Ada <complained@resend.dev>", ["email.complained", "email.delivered", "email.sent"]),
            ("suppressed@resend.dev", ["email.sent", "email.suppressed"]),
        ],
    )
    async def test_resends_test_addresses(
        self, sandbox: httpx.AsyncClient, receiver: Receiver, address: str, events: list[str]
    ) -> None:
        await send(sandbox, to=address)
        assert sorted(types(await receiver.until(len(events)))) == events

    async def test_each_recipient_has_a_fate(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        await send(sandbox, to=["bounced@resend.dev", "ada@example.com"])
        told = {body(call)["type"]: body(call)["data"]["to"] for call in await receiver.until(3)}
        assert told == {
            "email.sent": ["bounced@resend.dev", "ada@example.com"],
            "email.bounced": ["bounced@resend.dev"],
            "email.delivered": ["ada@example.com"],
        }

    async def test_a_repeated_request_tells_nothing_twice(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        for _ in range(3):
            answer = await sandbox.post(
                "/resend/emails", json=MAIL, headers={"Idempotency-Key": "once"}
            )
            assert answer.status_code == 200
        listed = (await sandbox.get("/webhooks")).json()
        assert [item["type"] for item in listed["items"]] == ["delivered", "sent"]
        assert listed["address"] == receiver.url()


class TestOnDemand:
    async def test_bounces_say_how(self, sandbox: httpx.AsyncClient, receiver: Receiver) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        await tell(sandbox, mail_id, type="bounced")
        await receiver.until(1)
        await tell(sandbox, mail_id, type="bounced", bounce="soft")
        hard, soft = (body(call)["data"]["bounce"] for call in await receiver.until(2))
        assert (hard["type"], hard["subType"]) == ("Permanent", "General")
        assert "550" in hard["diagnosticCode"][0]
        assert (soft["type"], soft["subType"]) == ("Transient", "MailboxFull")

    async def test_clicks_say_on_what(self, sandbox: httpx.AsyncClient, receiver: Receiver) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        await tell(sandbox, mail_id, type="clicked", user_agent="curl/8")
        [call] = await receiver.until(1)
        click = body(call)["data"]["click"]
        assert click["link"] == "https://yourapp.com/t?a=1&b=2"
        assert click["userAgent"] == "curl/8"
        assert click["ipAddress"] == "127.0.0.1"

    async def test_a_repeat_is_the_same_to_the_byte(
        self, sandbox: httpx.AsyncClient, receiver: Receiver, settings: Settings
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        webhook = await tell(sandbox, mail_id, type="complained")
        await receiver.until(1)
        assert (await sandbox.post(f"/webhooks/{webhook['id']}/repeat")).status_code == 202
        first, second = await receiver.until(2)
        assert first.headers["svix-id"] == second.headers["svix-id"] == webhook["id"]
        assert first.body == second.body == webhook["body"].encode()
        assert is_signed(second, settings)

    async def test_events_overtake_each_other(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        late = await tell(sandbox, mail_id, type="delivered", delay=0.2)
        early = await tell(sandbox, mail_id, type="opened", at="2026-03-01T12:00:00Z")
        calls = await receiver.until(2)
        assert [call.headers["svix-id"] for call in calls] == [early["id"], late["id"]]
        assert body(calls[0])["created_at"] == "2026-03-01T12:00:00.000Z"

    async def test_signatures_can_be_spoilt(
        self, sandbox: httpx.AsyncClient, receiver: Receiver, settings: Settings
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        await tell(sandbox, mail_id, type="opened", signature="wrong")
        [wrong] = await receiver.until(1)
        assert not is_signed(wrong, settings)
        await tell(sandbox, mail_id, type="opened", signature="missing")
        assert "svix-signature" not in (await receiver.until(2))[1].headers
        await tell(sandbox, mail_id, type="opened", timestamp_offset=-301)
        old = (await receiver.until(3))[2]
        assert is_signed(old, settings)
        assert int(old.headers["svix-timestamp"]) <= time.time() - 301

    async def test_an_id_can_be_used_again(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        first = await tell(sandbox, mail_id, type="opened")
        await tell(sandbox, mail_id, type="bounced", id=first["id"])
        calls = await receiver.until(2)
        assert sorted(types(calls)) == ["email.bounced", "email.opened"]
        assert {call.headers["svix-id"] for call in calls} == {first["id"]}

    async def test_nonsense_is_refused(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        for event in ({"type": "exploded"}, {"type": "opened", "wait": 1}, {}):
            refused = await sandbox.post(f"/mails/{mail_id}/events", json=event)
            assert refused.status_code == 422
        missing = await sandbox.post("/mails/none/events", json={"type": "opened"})
        assert missing.status_code == 404
        assert (await sandbox.post("/webhooks/none/repeat")).status_code == 404


class TestOnTheWay:
    async def test_it_is_posted_until_it_is_taken(
        self, sandbox: httpx.AsyncClient, receiver: Receiver, settings: Settings
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        receiver.replies = [Reply(503), Reply(404), Reply(204)]
        webhook = await tell(sandbox, mail_id, type="opened")
        calls = await receiver.until(3)
        assert len({call.headers["svix-id"] for call in calls}) == 1
        assert all(is_signed(call, settings) for call in calls)
        done = await ended(sandbox, webhook["id"], 3)
        assert done["state"] == "accepted"
        assert [attempt["status"] for attempt in done["attempts"]] == [503, 404, 204]

    async def test_it_is_given_up_when_nobody_takes_it(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        mail_id = await sent_quietly(sandbox, receiver)
        receiver.replies = [Reply(500)]
        webhook = await tell(sandbox, mail_id, type="opened")
        done = await ended(sandbox, webhook["id"], 3)
        assert (done["state"], len(receiver.calls)) == ("refused", 3)

    async def test_nobody_there_is_no_harm(self, settings: Settings) -> None:
        async with receiving() as gone:
            address = gone.url()
        async with (
            serving_sandbox(settings, webhooks_to=address, webhook_pauses=()) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            mail_id = await send(client)
            [sent, _] = (await client.get(f"/mails/{mail_id}/events")).json()["items"]
            done = await ended(client, sent["id"], 1)
            assert done["state"] == "refused"
            assert done["attempts"][0]["error"] == "ConnectError"

    async def test_a_receiver_that_hangs_delays_no_mail_and_no_end(
        self, settings: Settings, receiver: Receiver
    ) -> None:
        receiver.replies = [Reply(hangs=True)]
        async with (
            serving_sandbox(settings, webhooks_to=receiver.url()) as url,
            client_of(url, headers=AUTHORIZED, timeout=5) as client,
        ):
            for _ in range(20):
                await send(client)
            await receiver.until(1)
            assert (await client.get("/mails")).json()["total"] == 20

    async def test_off_unless_told_where(self, settings: Settings) -> None:
        async with (
            serving_sandbox(settings) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            mail_id = await send(client)
            assert (await client.get("/webhooks")).json() == {"address": None, "items": []}
            off = await client.post(f"/mails/{mail_id}/events", json={"type": "opened"})
            assert off.status_code == 503

    async def test_faults_lose_delay_and_duplicate(
        self, sandbox: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        rules = [
            {"provider": "webhook", "kind": "lose", "to": "email.sent"},
            {"provider": "webhook", "kind": "duplicate", "to": "email.delivered", "times": 1},
            {"provider": "webhook", "kind": "delay", "seconds": 60, "to": "emmy@example.com"},
        ]
        (await sandbox.put("/faults", json=rules)).raise_for_status()
        await send(sandbox)
        calls = await receiver.until(2)
        assert types(calls) == ["email.delivered", "email.delivered"]
        assert calls[0].headers["svix-id"] == calls[1].headers["svix-id"]
        delayed = await send(sandbox, to="emmy@example.com")
        listed = (await sandbox.get(f"/mails/{delayed}/events")).json()["items"]
        assert [(item["type"], item["state"]) for item in listed] == [
            ("sent", "lost"),
            ("delivered", "waiting"),
        ]
        assert [rule["hits"] for rule in (await sandbox.get("/faults")).json()["items"]] == [
            2,
            1,
            1,
        ]


async def test_the_api_is_told_wherever_it_listens(tmp_path: Path) -> None:
    def settings(**chosen: object) -> Settings:
        return load_settings(_env_file=None, data_dir=tmp_path, **chosen)

    there = webhooks_to(settings(api_port=9123, public_url="https://app.example"))
    assert there == "http://127.0.0.1:9123/api/v1/webhooks/resend"
    assert (webhooks_to(settings(api_host="::1")) or "").startswith("http://[::1]:8000/")
    assert webhooks_to(settings(sandbox_webhooks=False)) is None
