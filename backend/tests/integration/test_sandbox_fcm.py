"""The sandbox's FCM as senders, tests and people meet it: over HTTP, on a real port."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.config import Settings
from app.load_settings import load_settings
from app.sandbox.server import serving_sandbox
from tests.http_client import client_of
from tests.integration import sandbox_server
from tests.integration.sandbox_server import START, SettableClock

clock, served = sandbox_server.clock, sandbox_server.served

SEND = "/fcm/v1/projects/notify-sandbox/messages:send"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MESSAGE: dict[str, Any] = {
    "notification": {"title": "Hello, Ada", "body": "Your build is green."},
    "data": {"id": "019a3c1e-7b1d-7c3e-9d2a-1f0c5e6a7b8c", "type": "task_completed"},
    "android": {
        "priority": "HIGH",
        "ttl": "3.5s",
        "notification": {"channel_id": "task_completed", "click_action": "OPEN", "sound": "ping"},
    },
    "apns": {
        "headers": {"apns-priority": "10", "apns-push-type": "alert"},
        "payload": {"aps": {"badge": 3, "sound": "default", "thread-id": "a"}, "own": {"a": 1}},
    },
}


@pytest.fixture
async def sandbox(
    served: tuple[str, SettableClock], clock: SettableClock
) -> AsyncGenerator[httpx.AsyncClient]:
    """A client that carries a fresh access token."""
    async with client_of(served[0], timeout=5) as client:
        await client.delete("/state")
        await sign_in(client)
        yield client


async def account(client: httpx.AsyncClient) -> dict[str, str]:
    return (await client.get("/fcm/service-account.json")).raise_for_status().json()


async def exchange(client: httpx.AsyncClient, assertion: str, **form: str) -> httpx.Response:
    fields = {"grant_type": GRANT, "assertion": assertion, **form}
    return await client.post("/fcm/token", data=fields)


async def assertion(
    client: httpx.AsyncClient, *, key: Any = None, at: datetime = START, **changes: object
) -> str:
    sender = await account(client)
    claims: dict[str, object] = {
        "iss": sender["client_email"],
        "aud": sender["token_uri"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "iat": int(at.timestamp()),
        "exp": int(at.timestamp()) + 3600,
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key or read_key(sender["private_key"]), algorithm="RS256")


@cache
def read_key(pem: str) -> Any:
    """The key; its validation takes longer than all else."""
    return load_pem_private_key(pem.encode(), password=None)


async def sign_in(client: httpx.AsyncClient, at: datetime = START) -> None:
    granted = (await exchange(client, await assertion(client, at=at))).raise_for_status().json()
    client.headers["Authorization"] = f"{granted['token_type']} {granted['access_token']}"


async def install(client: httpx.AsyncClient, name: str = "pixel", platform: str = "android") -> str:
    answer = await client.put(f"/fcm/phones/{name}", json={"platform": platform})
    return answer.raise_for_status().json()["token"]


async def send(client: httpx.AsyncClient, token: str, /, **fields: object) -> httpx.Response:
    message = {**MESSAGE, "token": token, **fields}
    return await client.post(SEND, json={"message": message})


async def arrived(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    return (await client.get("/fcm/messages", params=query)).raise_for_status().json()["items"]


async def fail(client: httpx.AsyncClient, *rules: Mapping[str, object]) -> None:
    put = [{"provider": "fcm", **rule} for rule in rules]
    (await client.put("/faults", json=put)).raise_for_status()


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """HTTP status, Google's status and FCM's code, or the front's reason."""
    error = response.json()["error"]
    assert error["code"] == response.status_code
    codes = {detail.get("errorCode", detail.get("reason")) for detail in error.get("details", [])}
    [code] = codes - {None} or {None}
    return response.status_code, error["status"], code


def violations(response: httpx.Response) -> list[str]:
    return [
        violation["field"]
        for detail in response.json()["error"]["details"]
        for violation in detail.get("fieldViolations", [])
    ]


class TestAccount:
    async def test_is_shaped_as_googles(self, sandbox: httpx.AsyncClient) -> None:
        sender = await account(sandbox)
        assert sender["type"] == "service_account"
        assert sender["project_id"] == "notify-sandbox"
        assert sender["token_uri"] == str(sandbox.base_url.join("/fcm/token"))
        assert sender["private_key"].startswith("-----BEGIN PRIVATE KEY-----")
        assert sender.keys() >= {"client_email", "private_key_id", "client_id"}

    async def test_an_assertion_buys_a_token(self, sandbox: httpx.AsyncClient) -> None:
        granted = await exchange(sandbox, await assertion(sandbox))
        assert granted.status_code == 200
        assert granted.json().keys() == {"access_token", "expires_in", "token_type"}
        assert (granted.json()["expires_in"], granted.json()["token_type"]) == (3600, "Bearer")

    @pytest.mark.parametrize(
        ("claims", "error"),
        [
            ({"iss": "somebody@else.iam.gserviceaccount.com"}, "invalid_grant"),
            ({"aud": "https://oauth2.googleapis.com/token"}, "invalid_grant"),
            ({"exp": None}, "invalid_grant"),
            ({"exp": "later"}, "invalid_grant"),
            ({"iat": None}, "invalid_grant"),
            ({"exp": int(START.timestamp()) + 3601}, "invalid_grant"),
            ({"exp": int(START.timestamp())}, "invalid_grant"),
            ({"iat": int(START.timestamp()) + 120}, "invalid_grant"),
            ({"scope": None}, "invalid_scope"),
            ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
        ],
    )
    async def test_claims_are_checked(
        self, sandbox: httpx.AsyncClient, claims: dict[str, Any], error: str
    ) -> None:
        refused = await exchange(sandbox, await assertion(sandbox, **claims))
        assert (refused.status_code, refused.json()["error"]) == (400, error)
        assert refused.json()["error_description"]

    async def test_signature_and_grant_are_checked(self, sandbox: httpx.AsyncClient) -> None:
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        forged = await exchange(sandbox, await assertion(sandbox, key=stranger))
        assert forged.json() == {
            "error": "invalid_grant",
            "error_description": "Invalid JWT Signature.",
        }
        assert (await exchange(sandbox, "a.b.c")).json()["error"] == "invalid_grant"
        other = await exchange(sandbox, await assertion(sandbox), grant_type="password")
        assert other.json()["error"] == "unsupported_grant_type"

    async def test_faults_of_the_token_address_are_its_own(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        token = await install(sandbox)
        rule = {"provider": "fcm_oauth", "kind": "status", "status": 503, "retry_after": 3}
        await fail(sandbox, rule)
        refused = await exchange(sandbox, await assertion(sandbox))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
        assert refused.json()["error"] == "internal_failure"
        assert (await send(sandbox, token)).status_code == 200
        await fail(sandbox, {"kind": "status", "status": 503})
        assert (await exchange(sandbox, await assertion(sandbox))).status_code == 200


class TestAuthorization:
    async def test_a_token_expires(self, sandbox: httpx.AsyncClient, clock: SettableClock) -> None:
        token = await install(sandbox)
        clock.now += timedelta(minutes=59)
        assert (await send(sandbox, token)).status_code == 200
        clock.now += timedelta(minutes=1)
        expired = await send(sandbox, token)
        assert refusal(expired) == (401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED")
        await sign_in(sandbox, at=clock.now)
        assert (await send(sandbox, token)).status_code == 200

    async def test_only_our_tokens_are_taken(self, sandbox: httpx.AsyncClient) -> None:
        token = await install(sandbox)
        del sandbox.headers["Authorization"]
        missing = await send(sandbox, token)
        assert refusal(missing) == (401, "UNAUTHENTICATED", "CREDENTIALS_MISSING")
        signed = await assertion(sandbox)
        forged = jwt.encode({"exp": 9999999999}, "s" * 32, algorithm="HS256")
        for bearer in ("nonsense", signed, f"ya29.{forged}"):
            sandbox.headers["Authorization"] = f"Bearer {bearer}"
            refused = refusal(await send(sandbox, token))
            assert refused == (401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED")
        assert await arrived(sandbox) == []

    async def test_other_projects_are_closed(self, sandbox: httpx.AsyncClient) -> None:
        message = {"message": {**MESSAGE, "token": await install(sandbox)}}
        other = await sandbox.post("/fcm/v1/projects/other/messages:send", json=message)
        assert refusal(other) == (403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED")
        assert (await sandbox.post("/fcm/v1/projects/other", json=message)).status_code == 404


class TestPhones:
    async def test_a_name_keeps_its_token(self, sandbox: httpx.AsyncClient) -> None:
        made = await sandbox.put("/fcm/phones/pixel", json={"platform": "android"})
        assert made.status_code == 201
        assert made.json() == {
            "name": "pixel",
            "platform": "android",
            "token": made.json()["token"],
        }
        again = await sandbox.put("/fcm/phones/pixel", json={"platform": "android"})
        assert (again.status_code, again.json()) == (200, made.json())
        assert (await sandbox.get("/fcm/phones/pixel")).json() == made.json()
        assert (await sandbox.get("/fcm/phones")).json() == {"items": [made.json()]}
        assert (await sandbox.put("/fcm/phones/x", json={"platform": "tv"})).status_code == 422

    async def test_an_uninstalled_app_is_unregistered(self, sandbox: httpx.AsyncClient) -> None:
        token = await install(sandbox)
        assert (await sandbox.delete("/fcm/phones/pixel")).status_code == 204
        gone = await send(sandbox, token)
        assert gone.json() == {
            "error": {
                "code": 404,
                "message": "Requested entity was not found.",
                "status": "NOT_FOUND",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                        "errorCode": "UNREGISTERED",
                    }
                ],
            }
        }
        assert (await sandbox.delete("/fcm/phones/pixel")).status_code == 404
        assert await install(sandbox) != token

    @pytest.mark.parametrize("token", ["", "nonsense", "a" * 22 + ":APA91b" + "b" * 128])
    async def test_a_token_that_never_was_is_an_invalid_argument(
        self, sandbox: httpx.AsyncClient, token: str
    ) -> None:
        refused = await send(sandbox, token)
        assert refusal(refused) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        assert violations(refused) == ["message.token"]


class TestMessages:
    async def test_a_message_is_kept_whole(self, sandbox: httpx.AsyncClient) -> None:
        token = await install(sandbox)
        answer = await send(sandbox, token)
        assert answer.status_code == 200
        assert answer.json().keys() == {"name"}
        assert answer.json()["name"].startswith("projects/notify-sandbox/messages/")
        [message] = await arrived(sandbox)
        assert message == {
            "id": message["id"],
            "device": token,
            "device_name": "pixel",
            "at": "2026-03-01T12:00:00Z",
            "state": "arrived",
            "topic": None,
            "name": answer.json()["name"],
            "platform": "android",
            "validate_only": False,
            "message": {**MESSAGE, "token": token},
        }
        assert (await sandbox.get(f"/fcm/messages/{message['id']}")).json() == message
        assert (await sandbox.get("/fcm/messages/none")).status_code == 404

    async def test_lists_by_token_and_limit(self, sandbox: httpx.AsyncClient) -> None:
        pixel, iphone = await install(sandbox), await install(sandbox, "iphone", "ios")
        for number, token in enumerate((pixel, iphone, pixel)):
            await send(sandbox, token, data={"number": str(number)})

        async def numbers(**query: str | int) -> list[str]:
            return [item["message"]["data"]["number"] for item in await arrived(sandbox, **query)]

        assert await numbers() == ["2", "1", "0"]
        assert await numbers(token=iphone) == ["1"]
        assert await numbers(token="pixel", limit=1) == ["2"]
        assert (await sandbox.delete("/fcm/messages")).status_code == 204
        assert await numbers() == []
        assert (await send(sandbox, pixel)).status_code == 200

    async def test_validate_only_checks_and_delivers_nothing(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        token = await install(sandbox)
        for name in ("validate_only", "validateOnly"):
            body = {name: True, "message": {**MESSAGE, "token": token}}
            answer = await sandbox.post(SEND, json=body)
            assert answer.json() == {"name": "projects/notify-sandbox/messages/fake_message_id"}
        for message in await arrived(sandbox):
            assert (message["validate_only"], message["state"]) == (True, "validated")
        await sandbox.delete("/fcm/phones/pixel")
        assert refusal(await sandbox.post(SEND, json=body))[2] == "UNREGISTERED"

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"notifications": {}}, "message"),
            ({"notification": {"titel": "x"}}, "message.notification"),
            ({"android": {"notification": {"badge": 1}}}, "message.android.notification"),
            ({"data": {"a": "1", "n": 1}}, "message.data[1].value"),
            ({"data": {"nested": {"a": "b"}}}, "message.data[0].value"),
            ({"data": {"flag": True}}, "message.data[0].value"),
            ({"android": {"data": {"a": None}}}, "message.android.data[0].value"),
            ({"data": ["a"]}, "message.data"),
            ({"notification": {"title": 1}}, "message.notification.title"),
            ({"android": {"priority": "urgent"}}, "message.android.priority"),
            ({"apns": {"headers": {"apns-priority": 10}}}, "message.apns.headers[0].value"),
            ({"apns": {"payload": {"aps": {"badge": "3"}}}}, "message.apns.payload.aps.badge"),
            ({"token": 1}, "message.token"),
        ],
    )
    async def test_wrong_shapes_are_named(
        self, sandbox: httpx.AsyncClient, fields: dict[str, Any], field: str
    ) -> None:
        answer = await sandbox.post(
            SEND, json={"message": {**MESSAGE, "token": await install(sandbox), **fields}}
        )
        assert refusal(answer) == (400, "INVALID_ARGUMENT", None)
        assert violations(answer)[0] == field
        assert await arrived(sandbox) == []

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"data": {"from": "a"}}, "message.data"),
            ({"data": {"google.a": "a"}}, "message.data"),
            ({"android": {"ttl": "1m"}}, "message.android.ttl"),
            ({"android": {"ttl": "2419201s"}}, "message.android.ttl"),
            ({"apns": {"headers": {"apns-priority": "7"}}}, "message.apns.headers"),
            ({"apns": {"headers": {"apns-push-type": "quiet"}}}, "message.apns.headers"),
            (
                {"apns": {"headers": {"apns-push-type": "background", "apns-priority": "10"}}},
                "message.apns.headers",
            ),
            ({"topic": "news"}, "message"),
            ({"token": None}, "message"),
            ({"token": None, "topic": "news"}, "message"),
        ],
    )
    async def test_wrong_values_are_invalid_arguments(
        self, sandbox: httpx.AsyncClient, fields: dict[str, Any], field: str
    ) -> None:
        message = {**MESSAGE, "token": await install(sandbox), **fields}
        answer = await sandbox.post(SEND, json={"message": message})
        assert refusal(answer) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        assert violations(answer) == [field]

    async def test_bodies_that_are_no_requests(self, sandbox: httpx.AsyncClient) -> None:
        for body in (b"", b"{", b"[]", b"{}", b'{"message": 1}', b'{"message": {}, "a": 1}'):
            answer = await sandbox.post(SEND, content=body)
            assert refusal(answer)[:2] == (400, "INVALID_ARGUMENT"), body

    async def test_camel_case_and_silent_messages_are_fine(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        token = await install(sandbox, "iphone", "ios")
        silent = {
            "token": token,
            "data": {"sync": "1"},
            "android": {"priority": "normal", "collapseKey": "sync", "directBootOk": True},
            "apns": {
                "headers": {"apns-push-type": "background", "apns-priority": "5"},
                "payload": {"aps": {"content-available": 1}},
            },
            "fcmOptions": {"analyticsLabel": "sync"},
        }
        answer = await sandbox.post(SEND, json={"message": silent})
        assert answer.status_code == 200, answer.text
        assert (await arrived(sandbox))[0]["message"] == silent

    @pytest.mark.parametrize("platform", ["android", "ios"])
    async def test_4096_bytes_are_the_most(self, sandbox: httpx.AsyncClient, platform: str) -> None:
        token = await install(sandbox, "phone", platform)
        rest = {"notification": None, "android": None, "apns": None}
        # {"a":"…"} has eight characters around its value.
        assert (await send(sandbox, token, **rest, data={"a": "é" * 2044})).status_code == 200
        big = await send(sandbox, token, **rest, data={"a": "é" * 2044 + "x"})
        assert refusal(big) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        field = "android" if platform == "android" else "apns"
        assert violations(big) == [f"message.{field}"]
        # What only the other platform gets does not count.
        other = {"apns": {"payload": {"own": "x" * 5000}}}
        own = {"android": {"data": {"a": "x" * 5000}}}
        mine, others = (own, other) if platform == "android" else (other, own)
        assert (await send(sandbox, token, **{**rest, **others})).status_code == 200
        assert (await send(sandbox, token, **{**rest, **mine})).status_code == 400


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "code", "google"),
        [
            (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
            (401, "THIRD_PARTY_AUTH_ERROR", "UNAUTHENTICATED"),
            (403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED"),
            (404, "UNREGISTERED", "NOT_FOUND"),
            (429, "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL", "INTERNAL"),
            (503, "UNAVAILABLE", "UNAVAILABLE"),
        ],
    )
    async def test_every_code(
        self, sandbox: httpx.AsyncClient, status: int, code: str, google: str
    ) -> None:
        token = await install(sandbox)
        rule: dict[str, object] = {"kind": "status", "status": status, "retry_after": 60}
        for named in ({}, {"name": code}):
            await fail(sandbox, {**rule, **named, "times": 1})
            answer = await send(sandbox, token)
            assert refusal(answer) == (status, google, code)
            assert answer.headers["retry-after"] == "60"
        assert await arrived(sandbox) == []
        assert (await send(sandbox, token)).status_code == 200

    async def test_what_googles_front_refuses_has_no_code_of_fcm(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        token = await install(sandbox)
        await fail(sandbox, {"kind": "status", "status": 429, "name": "RATE_LIMIT_EXCEEDED"})
        [detail] = (await send(sandbox, token)).json()["error"]["details"]
        assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
        assert detail["reason"] == "RATE_LIMIT_EXCEEDED"

    async def test_rules_may_be_for_one_token_or_phone(self, sandbox: httpx.AsyncClient) -> None:
        pixel, iphone = await install(sandbox), await install(sandbox, "iphone", "ios")
        for to in (pixel, "pixel"):
            await fail(sandbox, {"kind": "status", "status": 404, "to": to})
            assert refusal(await send(sandbox, pixel))[2] == "UNREGISTERED"
            assert (await send(sandbox, iphone)).status_code == 200
            assert (await sandbox.post(SEND, content=b"{")).status_code == 400
        [rule] = (await sandbox.get("/faults")).json()["items"]
        assert rule["summary"] == "FCM answers 404 (only for pixel), until removed"

    async def test_connections_dropped_before_and_after_acceptance(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        token = await install(sandbox)
        for kind, messages in (("drop", 0), ("drop_after", 1)):
            await fail(sandbox, {"kind": kind, "times": 1})
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                await send(sandbox, token)
            assert len(await arrived(sandbox)) == messages

    async def test_hangs_delays_redirects_and_losses(self, sandbox: httpx.AsyncClient) -> None:
        token = await install(sandbox)
        await fail(sandbox, {"kind": "hang", "times": 1})
        sandbox.timeout = httpx.Timeout(0.2)
        with pytest.raises(httpx.ReadTimeout):
            await send(sandbox, token)
        sandbox.timeout = httpx.Timeout(5)
        await fail(sandbox, {"kind": "redirect", "location": "http://127.0.0.1:1/", "times": 1})
        assert (await send(sandbox, token)).status_code == 307
        await fail(sandbox, {"kind": "lose", "times": 1})
        assert (await send(sandbox, token)).status_code == 200
        assert await arrived(sandbox) == []
        await fail(sandbox, {"kind": "delay", "seconds": 0.4, "times": 1})
        sandbox.timeout = httpx.Timeout(0.1)
        with pytest.raises(httpx.ReadTimeout):
            await send(sandbox, token)
        sandbox.timeout = httpx.Timeout(5)
        while not await arrived(sandbox):
            await asyncio.sleep(0.02)


class TestPage:
    async def test_feed_shows_what_phones_show(self, sandbox: httpx.AsyncClient) -> None:
        pixel, iphone = await install(sandbox), await install(sandbox, "iphone", "ios")
        await send(sandbox, pixel)
        await send(sandbox, iphone, notification=None, android={"notification": {"title": "Own"}})
        await send(sandbox, iphone, notification=None, android=None)
        feed = (await sandbox.get("/devices/feed")).json()
        shown = {(item["device_name"], item["platform"], item["title"]) for item in feed["items"]}
        assert shown == {
            ("pixel", "android", "Hello, Ada"),
            ("iphone", "ios", "Own"),
            ("iphone", "ios", ""),
        }
        assert {device["address"] for device in feed["devices"]} == {pixel, iphone}


class TestRestart:
    async def test_account_phones_messages_and_access_are_there_again(self, tmp_path: Path) -> None:
        settings = load_settings(_env_file=None, data_dir=tmp_path)
        async with running(settings) as client:
            await sign_in(client, at=datetime.now(UTC))
            authorization = client.headers["Authorization"]
            sender, token = await account(client), await install(client)
            gone = await install(client, "gone")
            await client.delete("/fcm/phones/gone")
            await send(client, token)
            messages = await arrived(client)
        folder = tmp_path / "sandbox" / "fcm"
        assert {path.name for path in folder.iterdir()} == {"fcm.jsonl", "service-account.pem"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        async with running(settings) as client:
            client.headers["Authorization"] = authorization
            assert (await account(client))["private_key"] == sender["private_key"]
            assert await install(client) == token
            assert await arrived(client) == messages
            assert (await send(client, token)).status_code == 200
            assert refusal(await send(client, gone))[2] == "UNREGISTERED"


@asynccontextmanager
async def running(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving_sandbox(settings) as url,
        client_of(url, timeout=5) as client,
    ):
        yield client
