"""The sandbox's push service as senders, tests and people meet it: over HTTP, on a real port."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.config import Settings
from app.load_settings import load_settings
from app.sandbox.ledger import Device, Ledger, Message
from app.sandbox.push.encryption import opened
from app.sandbox.server import serving_sandbox
from tests.http_client import client_of
from tests.integration import sandbox_server
from tests.integration.push_senders import (
    ADA,
    Sender,
    base64url,
    encrypt,
    from_base64url,
    new_key,
    point,
)
from tests.integration.sandbox_server import START, SettableClock

clock, served = sandbox_server.clock, sandbox_server.served


@pytest.fixture
async def sandbox(
    served: tuple[str, SettableClock], clock: SettableClock
) -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(served[0], timeout=5) as client:
        await client.delete("/state")
        yield client


@pytest.fixture
def sender(sandbox: httpx.AsyncClient) -> Sender:
    return Sender(sandbox, now=START.timestamp())


async def subscribe(
    client: httpx.AsyncClient, name: str = "laptop", key: str | None = None
) -> dict[str, Any]:
    answer = await client.put(f"/push/browsers/{name}", json={"application_server_key": key})
    return answer.raise_for_status().json()


async def arrived(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    return (await client.get("/push/messages", params=query)).raise_for_status().json()["items"]


async def fail(client: httpx.AsyncClient, *rules: Mapping[str, object]) -> None:
    put = [{"provider": "push", **rule} for rule in rules]
    (await client.put("/faults", json=put)).raise_for_status()


def refusal(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"code", "error", "message", "reason"}
    assert body["code"] == response.status_code
    return response.status_code, body["reason"]


def device_of(browser: dict[str, Any]) -> str:
    return browser["endpoint"].rpartition("/")[2]


class TestBrowsers:
    async def test_a_browser_is_a_push_subscription(self, sandbox: httpx.AsyncClient) -> None:
        made = await sandbox.put("/push/browsers/laptop")
        assert made.status_code == 201
        browser = made.json()
        assert browser.keys() == {"name", "endpoint", "keys", "expirationTime"}
        assert urlsplit(str(browser["endpoint"])).path.startswith("/push/")
        assert browser["expirationTime"] is None
        assert browser["keys"].keys() == {"p256dh", "auth"}

    async def test_the_same_name_is_the_same_browser(self, sandbox: httpx.AsyncClient) -> None:
        first = await subscribe(sandbox)
        again = await sandbox.put("/push/browsers/laptop")
        assert (again.status_code, again.json()) == (200, first)
        assert (await sandbox.get("/push/browsers/laptop")).json() == first
        assert (await subscribe(sandbox, "phone"))["endpoint"] != first["endpoint"]

    async def test_another_server_key_subscribes_anew(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        first = await subscribe(sandbox, key=sender.public_key)
        # Padding makes no other key, and none asked for leaves the one there is.
        assert await subscribe(sandbox, key=sender.public_key + "=") == first
        assert await subscribe(sandbox) == first
        rotated = Sender(sandbox, now=sender.now)
        second = await subscribe(sandbox, key=rotated.public_key)
        assert second["endpoint"] != first["endpoint"]
        assert second["keys"] != first["keys"]
        assert refusal(await sender.send(first)) == (410, "ExpiredSubscription")
        assert (await rotated.send(second)).status_code == 201
        [listed] = (await sandbox.get("/push/browsers")).json()["items"]
        assert listed["application_server_key"] == rotated.public_key

    async def test_an_unsubscribed_browser_is_gone(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        assert (await sandbox.delete("/push/browsers/laptop")).status_code == 204
        assert refusal(await sender.send(browser)) == (410, "ExpiredSubscription")
        assert (await sandbox.delete("/push/browsers/laptop")).status_code == 404
        assert (await sandbox.get("/push/browsers/laptop")).status_code == 404
        assert (await subscribe(sandbox))["endpoint"] != browser["endpoint"]
        browser["endpoint"] += "x"
        assert refusal(await sender.send(browser)) == (404, "UnknownEndpoint")

    @pytest.mark.parametrize("key", ["", "not base64url!", base64url(b"\4" + bytes(64)), "AAAA"])
    async def test_a_key_must_be_one(self, sandbox: httpx.AsyncClient, key: str) -> None:
        refused = await sandbox.put("/push/browsers/x", json={"application_server_key": key})
        assert refused.status_code == 422
        assert refused.json()["error"]["details"][0]["path"] == "application_server_key"


class TestMessages:
    async def test_a_message_is_decrypted(self, sandbox: httpx.AsyncClient, sender: Sender) -> None:
        browser = await subscribe(sandbox, key=sender.public_key)
        body = encrypt(b'{"title": "H\xc3\xa9llo"}', **browser["keys"])
        answer = await sender.send(browser, body=body, Urgency="high", Topic="orders_1-A")
        assert answer.status_code == 201
        assert answer.headers["ttl"] == "60"
        [message] = await arrived(sandbox)
        assert message == {
            "id": message["id"],
            "device": device_of(browser),
            "device_name": "laptop",
            "at": "2026-03-01T12:00:00Z",
            "state": "waiting",
            "topic": "orders_1-A",
            "endpoint": browser["endpoint"],
            "headers": {"TTL": "60", "Urgency": "high", "Topic": "orders_1-A"},
            "vapid": {"key": sender.public_key, "claims": sender.claims()},
            "payload": {"title": "Héllo"},
            "size": len(body),
            "expires_at": "2026-03-01T12:01:00Z",
        }
        assert answer.headers["location"].endswith(f"/push/messages/{message['id']}")
        assert (await sandbox.get(answer.headers["location"])).json() == message

    async def test_text_and_padding_and_the_largest_body(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        largest = 4096 - 86 - 17
        for size in (1, largest):
            body = encrypt(b"x" * size, **browser["keys"])
            assert (await sender.send(browser, body=body)).status_code == 201
        assert len(body) == 4096
        assert [message["payload"] for message in await arrived(sandbox)] == ["x" * largest, "x"]
        over = encrypt(b"x" * (largest + 1), **browser["keys"], record_size=5000)
        assert refusal(await sender.send(browser, body=over)) == (413, "PayloadTooLarge")

    async def test_lists_by_device_and_limit(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        laptop, phone = await subscribe(sandbox, "laptop"), await subscribe(sandbox, "phone")
        for number, browser in enumerate([laptop, phone, laptop]):
            await sender.send(browser, number)

        async def payloads(**query: str | int) -> list[int]:
            return [message["payload"] for message in await arrived(sandbox, **query)]

        assert await payloads() == [2, 1, 0]
        assert await payloads(device="phone") == [1]
        assert await payloads(device=device_of(laptop), limit=1) == [2]
        assert (await sandbox.get("/push/messages/none")).status_code == 404
        assert (await sandbox.delete("/push/messages")).status_code == 204
        assert await payloads() == []
        assert (await sender.send(laptop)).status_code == 201

    async def test_a_topic_replaces_what_was_not_fetched(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        laptop, phone = await subscribe(sandbox, "laptop"), await subscribe(sandbox, "phone")

        async def states() -> list[tuple[int, str]]:
            return [(m["payload"], m["state"]) for m in await arrived(sandbox, device="laptop")]

        await sender.send(laptop, 1, Topic="news")
        await sender.send(laptop, 2, Topic="other")
        await sender.send(laptop, 3)
        await sender.send(phone, 4, Topic="news")
        await sender.send(laptop, 5, Topic="news")
        waiting = [(5, "waiting"), (3, "waiting"), (2, "waiting"), (1, "replaced")]
        assert await states() == waiting
        fetched = (await sandbox.post("/push/browsers/laptop/fetch")).json()["items"]
        assert [(m["payload"], m["state"]) for m in fetched] == [
            (2, "fetched"),
            (3, "fetched"),
            (5, "fetched"),
        ]
        await sender.send(laptop, 6, Topic="news")
        assert await states() == [
            (6, "waiting"),
            (5, "fetched"),
            (3, "fetched"),
            (2, "fetched"),
            (1, "replaced"),
        ]
        assert (await arrived(sandbox, device="phone"))[0]["state"] == "waiting"

    async def test_what_outlives_its_ttl_is_not_fetched(
        self, sandbox: httpx.AsyncClient, sender: Sender, clock: SettableClock
    ) -> None:
        browser = await subscribe(sandbox)
        await sender.send(browser, 1, TTL="0")
        await sender.send(browser, 2, TTL="59")
        await sender.send(browser, 3, TTL="9999999999")
        clock.now += timedelta(minutes=1)
        fetched = (await sandbox.post("/push/browsers/laptop/fetch")).json()
        assert ([m["payload"] for m in fetched["items"]], fetched["total"]) == ([3], 1)
        states = [message["state"] for message in await arrived(sandbox)]
        assert states == ["fetched", "expired", "expired"]


class TestHeaders:
    @pytest.mark.parametrize(
        ("without", "headers", "reason"),
        [
            ("TTL", {}, "BadTtl"),
            (None, {"TTL": "-1"}, "BadTtl"),
            (None, {"TTL": "1.5"}, "BadTtl"),
            (None, {"TTL": "soon"}, "BadTtl"),
            ("Content-Encoding", {}, "BadContentEncoding"),
            (None, {"Content_Encoding": "aesgcm"}, "BadContentEncoding"),
            (None, {"Urgency": "urgent"}, "BadUrgency"),
            (None, {"Topic": ""}, "BadTopic"),
            (None, {"Topic": "x" * 33}, "BadTopic"),
            (None, {"Topic": "a.b"}, "BadTopic"),
        ],
    )
    async def test_wrong_headers_are_refused(
        self,
        sandbox: httpx.AsyncClient,
        sender: Sender,
        without: str | None,
        headers: dict[str, str],
        reason: str,
    ) -> None:
        browser = await subscribe(sandbox)
        answer = await sender.send(browser, body=None, without=without, **headers)
        assert refusal(answer) == (400, reason)
        assert await arrived(sandbox) == []

    @pytest.mark.parametrize("urgency", ["very-low", "low", "normal", "high"])
    async def test_every_urgency_is_known(
        self, sandbox: httpx.AsyncClient, sender: Sender, urgency: str
    ) -> None:
        browser = await subscribe(sandbox)
        assert (await sender.send(browser, Urgency=urgency, Topic="x" * 32)).status_code == 201

    async def test_only_posts_send(self, sandbox: httpx.AsyncClient) -> None:
        browser = await subscribe(sandbox)
        assert refusal(await sandbox.get(browser["endpoint"]))[0] == 405
        assert refusal(await sandbox.post("/push/"))[0] == 404


class TestEncryption:
    def test_the_standards_own_example_is_opened(self) -> None:
        # RFC 8291, 5.
        scalar = from_base64url("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")
        body = from_base64url(
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
            "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
            "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        )
        plaintext = opened(
            body,
            private_key=ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1()),
            auth=from_base64url("BTBZMqHH6r4Tts7J_aSIgg"),
        )
        assert plaintext == b"When I grow up, I want to be a watermelon"

    async def test_what_the_browser_cannot_open_is_refused(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser, other = await subscribe(sandbox), await subscribe(sandbox, "other")
        whole = encrypt(b"secret", **browser["keys"])
        for body in (
            b"",
            b"in the clear",
            whole[:-1],
            whole[:-1] + bytes([whole[-1] ^ 1]),
            whole[:16] + (22).to_bytes(4, "big") + whole[20:],  # a record shorter than it is
            whole[:21] + b"\4" + bytes(64) + whole[86:],  # a point beside the curve
            encrypt(b"secret", **other["keys"]),
            encrypt(b"secret", p256dh=browser["keys"]["p256dh"], auth=other["keys"]["auth"]),
            encrypt(b"x" * 100, **browser["keys"], record_size=60),  # two records
        ):
            assert refusal(await sender.send(browser, body=body)) == (400, "BadEncryption")
        assert await arrived(sandbox) == []
        assert (await sender.send(browser, body=whole)).status_code == 201


class TestVapid:
    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"aud": None}, "BadJwtAudience"),
            ({"aud": "http://127.0.0.1"}, "BadJwtAudience"),
            ({"aud": "https://fcm.googleapis.com"}, "BadJwtAudience"),
            ({"exp": None}, "BadJwtExpiry"),
            ({"exp": "1772370000"}, "BadJwtExpiry"),
            ({"exp": True}, "BadJwtExpiry"),
            ({"exp": int(START.timestamp()) + 86_401}, "BadJwtExpiry"),
            ({"exp": int(START.timestamp())}, "ExpiredJwtToken"),
            ({"sub": None}, "BadJwtSubject"),
            ({"sub": "admin@yourapp.com"}, "BadJwtSubject"),
            ({"sub": "mailto:admin"}, "BadJwtSubject"),
            ({"sub": "mailto:admin@localhost"}, "BadJwtSubject"),
            ({"sub": "mailto: <admin@yourapp.com>"}, "BadJwtSubject"),
            ({"sub": "http://yourapp.com"}, "BadJwtSubject"),
            ({"sub": "https://localhost"}, "BadJwtSubject"),
        ],
    )
    async def test_claims_are_checked(
        self,
        sandbox: httpx.AsyncClient,
        sender: Sender,
        claims: dict[str, object],
        reason: str,
    ) -> None:
        browser = await subscribe(sandbox)
        authorization = sender.authorization(**claims)
        answer = await sender.send(browser, Authorization=authorization)
        assert refusal(answer) == (401, reason)
        assert await arrived(sandbox) == []

    async def test_the_longest_token_and_a_page_as_contact_are_fine(
        self, sandbox: httpx.AsyncClient, sender: Sender, clock: SettableClock
    ) -> None:
        browser = await subscribe(sandbox)
        expiry = int(sender.now) + 86_400
        authorization = sender.authorization(exp=expiry, sub="https://yourapp.com/contact")
        assert (await sender.send(browser, Authorization=authorization)).status_code == 201
        clock.now += timedelta(days=1)
        late = await sender.send(browser, Authorization=authorization)
        assert refusal(late) == (401, "ExpiredJwtToken")

    async def test_signatures_are_checked(self, sandbox: httpx.AsyncClient, sender: Sender) -> None:
        browser = await subscribe(sandbox)
        stranger = Sender(sandbox, now=sender.now)
        token = sender.authorization().split("t=")[1].split(",")[0]
        unsigned = jwt.encode(sender.claims(), "", algorithm="none")
        symmetric = jwt.encode(sender.claims(), "s" * 32, algorithm="HS256")
        other_curve = jwt.encode(
            sender.claims(), ec.generate_private_key(ec.SECP384R1()), algorithm="ES384"
        )
        for authorization, reason in (
            (f"vapid t={token}, k={stranger.public_key}", "BadJwtSignature"),
            (f"vapid t={unsigned}, k={sender.public_key}", "BadJwtToken"),
            (f"vapid t={symmetric}, k={sender.public_key}", "BadJwtToken"),
            (f"vapid t={other_curve}, k={sender.public_key}", "BadJwtToken"),
            (f"vapid t=abc, k={sender.public_key}", "BadJwtToken"),
            (f"vapid t={token}, k=AAAA", "BadVapidKey"),
            (f"vapid t={token}", "BadAuthorization"),
            (f"vapid t={token}, k={sender.public_key}, t={token}", "BadAuthorization"),
            (f"WebPush {token}", "BadAuthorization"),
            (f"Bearer {token}", "BadAuthorization"),
        ):
            answer = await sender.send(browser, Authorization=authorization)
            assert refusal(answer) == (401, reason), authorization
        missing = await sender.send(browser, without="Authorization")
        assert refusal(missing) == (401, "MissingAuthorization")
        compact = f"Vapid k={sender.public_key},t={token}"
        assert (await sender.send(browser, Authorization=compact)).status_code == 201

    async def test_a_subscription_is_bound_to_its_key(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox, key=base64url(point(new_key())))
        assert refusal(await sender.send(browser)) == (403, "VapidPkHashMismatch")

    async def test_the_audience_is_the_name_that_was_asked(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        port = urlsplit(str(sandbox.base_url)).port
        async with client_of(f"http://localhost:{port}") as client:
            browser = await subscribe(client)
            assert browser["endpoint"].startswith(f"http://localhost:{port}/push/")
            assert refusal(await sender.send(browser)) == (401, "BadJwtAudience")
            local = Sender(client, now=sender.now)
            assert (await local.send(browser)).status_code == 201


class TestFaults:
    @pytest.mark.parametrize("status", [403, 404, 406, 410, 413, 429, 500, 502, 503])
    async def test_any_error(self, sandbox: httpx.AsyncClient, sender: Sender, status: int) -> None:
        browser = await subscribe(sandbox)
        await fail(sandbox, {"kind": "status", "status": status, "times": 1})
        assert refusal(await sender.send(browser))[0] == status
        assert await arrived(sandbox) == []
        assert (await sender.send(browser)).status_code == 201

    async def test_apples_word_for_another_key(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        await fail(sandbox, {"kind": "status", "status": 400, "name": "VapidPkHashMismatch"})
        answer = await sender.send(browser)
        assert (answer.status_code, answer.json()) == (400, {"reason": "VapidPkHashMismatch"})

    async def test_retry_after_in_seconds_and_as_a_date(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        rule: dict[str, object] = {"kind": "status", "status": 429, "retry_after": 7}
        await fail(sandbox, rule)
        assert (await sender.send(browser)).headers["retry-after"] == "7"
        await fail(sandbox, {**rule, "retry_after": 3600, "retry_after_as": "date"})
        before = datetime.now(UTC)
        date = parsedate_to_datetime((await sender.send(browser)).headers["retry-after"])
        assert before + timedelta(hours=1) <= date
        assert date <= datetime.now(UTC) + timedelta(hours=1, seconds=1)

    async def test_rules_may_be_for_one_browser_endpoint_or_origin(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        laptop, phone = await subscribe(sandbox, "laptop"), await subscribe(sandbox, "phone")

        async def statuses() -> list[int]:
            return [(await sender.send(browser)).status_code for browser in (laptop, phone)]

        for to in ("laptop", device_of(laptop)):
            await fail(sandbox, {"kind": "status", "status": 503, "to": to})
            assert await statuses() == [503, 201]
        await fail(sandbox, {"kind": "status", "status": 503, "to": "http://localhost:1"})
        assert await statuses() == [201, 201]
        origin = str(sandbox.base_url).rstrip("/")
        await fail(sandbox, {"kind": "status", "status": 503, "to": origin, "times": 3})
        assert await statuses() == [503, 503]
        [rule] = (await sandbox.get("/faults")).json()["items"]
        assert (rule["hits"], rule["remaining"]) == (2, 1)
        shown = f"Push service answers 503 (only for {origin}), 1 more time"
        assert rule["summary"] == shown

    async def test_connections_dropped_before_and_after_acceptance(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        for kind, messages in (("drop", 0), ("drop_after", 1)):
            await fail(sandbox, {"kind": kind, "times": 1})
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await sender.send(browser)
            assert len(await arrived(sandbox)) == messages

    async def test_hangs_and_delays(self, sandbox: httpx.AsyncClient, sender: Sender) -> None:
        browser = await subscribe(sandbox)
        await fail(sandbox, {"kind": "hang", "times": 1})
        sandbox.timeout = httpx.Timeout(0.2)
        with pytest.raises(httpx.ReadTimeout):
            await sender.send(browser)
        assert await arrived(sandbox) == []
        await fail(sandbox, {"kind": "delay", "seconds": 0.4, "times": 1})
        with pytest.raises(httpx.ReadTimeout):
            await sender.send(browser)
        while not await arrived(sandbox):
            await asyncio.sleep(0.02)

    async def test_redirects_are_answered_and_lead_nowhere(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser, other = await subscribe(sandbox), await subscribe(sandbox, "other")
        redirect = {"kind": "redirect", "location": other["endpoint"], "status": 308}
        await fail(sandbox, {**redirect, "to": "laptop"})
        answer = await sender.send(browser)
        assert (answer.status_code, answer.headers["location"]) == (308, other["endpoint"])
        assert await arrived(sandbox) == []

    async def test_lost_messages_were_checked_and_accepted(
        self, sandbox: httpx.AsyncClient, sender: Sender
    ) -> None:
        browser = await subscribe(sandbox)
        await fail(sandbox, {"kind": "lose"})
        assert (await sender.send(browser)).status_code == 201
        assert refusal(await sender.send(browser, TTL="x")) == (400, "BadTtl")
        assert await arrived(sandbox) == []

    async def test_only_sending_fails(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "status", "status": 500})
        assert (await subscribe(sandbox))["name"] == "laptop"
        assert await arrived(sandbox) == []
        assert (await sandbox.get("/faults")).json()["items"][0]["hits"] == 0

    async def test_rules_that_make_no_sense_are_refused(self, sandbox: httpx.AsyncClient) -> None:
        for rule in (
            {"provider": "resend", "kind": "drop", "to": "laptop"},
            {"provider": "resend", "kind": "lose"},
            {"provider": "push", "kind": "rate_limit", "requests_per_second": 1},
            {"provider": "push", "kind": "redirect", "location": "http://a\r\nb"},
            {"provider": "push", "kind": "status", "status": 201},
        ):
            assert (await sandbox.put("/faults", json=rule)).status_code == 422, rule


class TestPage:
    async def test_page_and_its_files_need_nothing_from_elsewhere(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        page = await sandbox.get("/devices")
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        for path in ("/devices/push/any", "/devices/fcm/any"):
            assert (await sandbox.get(path)).text == page.text
        for name in ("devices.css", "devices.js", "mailbox.css"):
            assert f"/static/{name}" in page.text
            assert (await sandbox.get(f"/static/{name}")).status_code == 200
        assert "/static/shared.js" in (await sandbox.get("/static/devices.js")).text
        assert (await sandbox.get("/static/shared.js")).status_code == 200
        assert "http" not in page.text
        assert 'href="/devices"' in (await sandbox.get("/")).text

    async def test_feed_shows_messages_and_devices_newest_first(
        self, sandbox: httpx.AsyncClient, sender: Sender, clock: SettableClock
    ) -> None:
        laptop = await subscribe(sandbox, "ada-laptop")
        await sender.send(laptop, ADA)
        clock.now += timedelta(seconds=1)
        await subscribe(sandbox, "grace-desktop")
        await sender.send(laptop, "just text")
        feed = (await sandbox.get("/devices/feed")).json()
        assert [(item["title"], item["text"]) for item in feed["items"]] == [
            ("just text", ""),
            ("Hello, Ada", "…"),
        ]
        assert feed["items"][1] | {"id": ""} == {
            "service": "push",
            "id": "",
            "device_name": "ada-laptop",
            "platform": "web",
            "title": "Hello, Ada",
            "text": "…",
            "at": "2026-03-01T12:00:00Z",
            "state": "waiting",
        }
        assert feed["total"] == feed["device_count"] == 2
        assert [device["name"] for device in feed["devices"]] == ["grace-desktop", "ada-laptop"]
        other = (await sandbox.get("/devices/feed", params={"device": "GRACE"})).json()
        assert (other["items"], other["total"]) == ([], 0)

    async def test_feed_answers_304_until_something_changes(
        self, sandbox: httpx.AsyncClient, sender: Sender, clock: SettableClock
    ) -> None:
        browser = await subscribe(sandbox)
        await sender.send(browser)
        first = await sandbox.get("/devices/feed")
        unchanged = {"If-None-Match": first.headers["etag"]}
        assert (await sandbox.get("/devices/feed", headers=unchanged)).status_code == 304
        clock.now += timedelta(minutes=2)
        expired = await sandbox.get("/devices/feed", headers=unchanged)
        assert expired.json()["items"][0]["state"] == "expired"


class TestRestart:
    async def test_browsers_and_messages_are_there_again(self, tmp_path: Path) -> None:
        settings = load_settings(_env_file=None, data_dir=tmp_path)
        async with running(settings) as client:
            sender = Sender(client)
            browser = await subscribe(client, key=sender.public_key)
            gone = await subscribe(client, "gone")
            await client.delete("/push/browsers/gone")
            for number in (1, 2):
                await sender.send(browser, number, Topic="t")
            messages = await arrived(client)
        path = tmp_path / "sandbox" / "push" / "push.jsonl"
        assert path.stat().st_mode & 0o077 == 0
        # The line its writer died in.
        path.write_bytes(path.read_bytes() + b'{"type":"message","content":{"id":')
        async with running(settings) as client:
            again = await arrived(client)
            assert [(m["payload"], m["state"]) for m in again] == [(2, "waiting"), (1, "replaced")]
            assert [m["id"] for m in again] == [m["id"] for m in messages]
            there = await subscribe(client, key=sender.public_key)
            assert there["keys"] == browser["keys"]
            assert device_of(there) == device_of(browser)
            sender.client = client
            assert (await sender.send(there, ADA)).status_code == 201
            gone["endpoint"] = there["endpoint"].replace(device_of(there), device_of(gone))
            assert (await sender.send(gone)).status_code == 410
        async with running(settings) as client:
            assert [m["payload"] for m in await arrived(client)] == [ADA, 2, 1]


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving_sandbox(settings) as url,
        client_of(url, timeout=5) as client,
    ):
        yield client


class TestBounds:
    def test_a_full_ledger_drops_the_oldest_and_shrinks_its_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.sandbox.ledger.WASTE_BEFORE_COMPACTION", 4000)
        path = tmp_path / "ledger.jsonl"
        ledger = Ledger(path, Device, Message, capacity=2)
        ledger.put(Device(name="old", address="a", created_at=START))
        ledger.put(Device(name="kept", address="b", created_at=START))
        ledger.remove("old")
        for number in range(200):
            ledger.add(
                Message(id=str(number), device="b", device_name="kept", at=START, state="waiting")
            )
            ledger.mark([str(number)], "fetched")
        assert path.stat().st_size < 6000
        ledger.close()
        reopened = Ledger(path, Device, Message, capacity=2)
        entries, total = reopened.newest(lambda _entry: True, 10)
        assert [(entry.id, entry.state) for entry in entries] == [
            ("199", "fetched"),
            ("198", "fetched"),
        ]
        assert [reopened.read(entry).id for entry in entries] == ["199", "198"]
        assert total == 2
        assert [device.name for device in reopened.devices()] == ["kept"]
        assert reopened.is_gone("a")
        reopened.close()
