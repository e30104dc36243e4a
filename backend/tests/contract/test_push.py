"""Subscribing devices and acknowledging pushes, as clients see it (REQ-008, section 5.2)."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.config import Settings
from app.security.ack_tokens import AckTokens
from app.security.vapid_keys import decoded
from tests.contract.callers import (
    GENERATOR,
    V1,
    Api,
    Json,
    assert_refused,
    base64url,
    browser,
    open_api,
)

PUSH = f"{V1}/notifications/push"
CHROME: Json = {"platform": "web", "device_name": "Chrome on Windows", "screen_width": 1920}


async def listed(api: Api, user: UUID) -> list[Json]:
    return (await api.read(user, "/push/subscriptions"))["items"]


# --- subscribing -----------------------------------------------------------------------------


async def test_the_newest_key_is_what_browsers_subscribe_with(api: Api) -> None:
    told = await api.read(uuid4(), "/push/vapid-public-key")
    assert set(told) == {"public_key", "key_id"}
    assert len(decoded(told["public_key"])) == 65
    user = await api.new_user()
    await api.subscribe(user, browser(), key_id=told["key_id"])
    assert [item["key_id"] for item in await listed(api, user)] == [told["key_id"]]


async def test_a_browser_is_subscribed_and_listed_without_its_keys(api: Api) -> None:
    user, wanted = await api.new_user(), browser()
    stored = await api.subscribe(user, wanted, device_info=CHROME)
    assert stored == {
        "id": stored["id"],
        "user_id": str(user),
        "is_active": True,
        "created_at": stored["created_at"],
    }
    assert await listed(api, user) == [
        {
            "id": stored["id"],
            "kind": "web",
            "endpoint": wanted["endpoint"],
            "device_info": CHROME,
            "is_active": True,
            "key_id": None,
            "last_used_at": None,
            "created_at": stored["created_at"],
        }
    ]


async def test_a_user_never_seen_subscribes(api: Api) -> None:
    newcomer = uuid4()
    stored = await api.subscribe(newcomer, browser())
    assert [item["id"] for item in await listed(api, newcomer)] == [stored["id"]]
    assert (await api.create(newcomer))["channels"] == ["push", "in_app"]


async def test_the_same_browser_keeps_its_id(api: Api) -> None:
    user, name = await api.new_user(), str(uuid4())
    first = await api.subscribe(user, browser(name), device_info=CHROME)
    key = (await api.read(user, "/push/vapid-public-key"))["key_id"]
    changed = await api.subscribe(user, browser(name, auth=b"b" * 16), key_id=key)
    again = await api.subscribe(user, browser(name, auth=b"b" * 16))
    assert first == changed == again
    (item,) = await listed(api, user)
    assert (item["device_info"], item["key_id"]) == ({}, key)  # an endpoint is bound to its key
    ((auth,),) = await api.rows(
        "SELECT auth_key FROM push_subscriptions WHERE id = CAST(:id AS uuid)", id=first["id"]
    )
    assert auth == base64url(b"b" * 16)


async def test_subscribing_anew_takes_a_disabled_browser_up_again(api: Api) -> None:
    user, wanted = await api.new_user(), browser()
    stored = await api.subscribe(user, wanted)
    await api.rows(
        "UPDATE push_subscriptions SET is_active = false, failure_count = 2"
        " WHERE id = CAST(:id AS uuid) RETURNING id",
        id=stored["id"],
    )
    assert [item["is_active"] for item in await listed(api, user)] == [False]
    assert await api.subscribe(user, wanted) == stored
    ((active, failures),) = await api.rows(
        "SELECT is_active, failure_count FROM push_subscriptions WHERE id = CAST(:id AS uuid)",
        id=stored["id"],
    )
    assert (active, failures) == (True, 0)


async def test_subscribing_twice_at_once_is_one_device(api: Api) -> None:
    user, wanted = uuid4(), browser()  # a user that nobody has seen, too
    stored = await asyncio.gather(*(api.subscribe(user, wanted) for _ in range(12)))
    assert len({item["id"] for item in stored}) == 1
    assert len(await listed(api, user)) == 1


async def test_keys_are_taken_with_padding(api: Api) -> None:
    user, wanted = await api.new_user(), browser()
    stored = await api.subscribe(user, wanted)
    wanted["keys"] = {name: f"{key}=" for name, key in wanted["keys"].items()}
    wanted["keys"]["auth"] += "="
    assert await api.subscribe(user, wanted) == stored


async def test_what_browsers_add_to_a_subscription_is_left_alone(api: Api) -> None:
    wanted = browser() | {"name": "x", "options": {"userVisibleOnly": True}}
    await api.subscribe(await api.new_user(), wanted | {"expirationTime": 1.5e12})


async def test_texts_of_a_device_are_cleaned(api: Api) -> None:
    user = await api.new_user()
    info = {"device_name": "a\x1b[31mb\x85\x7f", "deep": [{"k\x07ey": "v\nw"}], "platform": None}
    await api.subscribe(user, browser(), device_info=info)
    assert [item["device_info"] for item in await listed(api, user)] == [
        {"device_name": "a[31mb", "deep": [{"key": "vw"}], "platform": None}
    ]


def subscribing(**fields: Any) -> Json:
    return {"subscription": browser(), "device_info": CHROME, **fields}


def with_endpoint(endpoint: object) -> Json:
    return subscribing(subscription=browser() | {"endpoint": endpoint})


def with_keys(**keys: object) -> Json:
    wanted = browser()
    return subscribing(subscription=wanted | {"keys": {**wanted["keys"], **keys}})


OFF_THE_CURVE = GENERATOR[:-1] + bytes([GENERATOR[-1] ^ 1])
REFUSED: dict[str, tuple[Json, str, str]] = {
    "no device": ({"device_info": {}}, "", "subscription_or_fcm_token"),
    "two devices": (subscribing(fcm_token="x"), "", "subscription_or_fcm_token"),
    "neither": ({"subscription": None, "fcm_token": None}, "", "subscription_or_fcm_token"),
    "a field nobody knows": (subscribing(token="x"), "token", "extra_forbidden"),
    "http": (
        with_endpoint("http://push.example.com/1"),
        "subscription.endpoint",
        "address_not_allowed",
    ),
    "another loopback port": (
        with_endpoint("http://127.0.0.1:8000/push/1"),
        "subscription.endpoint",
        "address_not_allowed",
    ),
    "no key": (
        subscribing(subscription={"endpoint": "https://a.example/"}),
        "subscription.keys",
        "missing",
    ),
    "p256dh that is no text": (
        with_keys(p256dh=1),
        "subscription.keys.p256dh",
        "string_type",
    ),
    "p256dh of 64 bytes": (
        with_keys(p256dh=base64url(GENERATOR[:-1])),
        "subscription.keys.p256dh",
        "invalid_p256dh",
    ),
    "p256dh off the curve": (
        with_keys(p256dh=base64url(OFF_THE_CURVE)),
        "subscription.keys.p256dh",
        "invalid_p256dh",
    ),
    "p256dh that is endless": (
        with_keys(p256dh="A" * 100_000),
        "subscription.keys.p256dh",
        "invalid_p256dh",
    ),
    "p256dh in another base64": (
        with_keys(p256dh="+" * 87),
        "subscription.keys.p256dh",
        "invalid_p256dh",
    ),
    "auth of 15 bytes": (
        with_keys(auth=base64url(b"a" * 15)),
        "subscription.keys.auth",
        "invalid_auth",
    ),
    "auth that is empty": (with_keys(auth=""), "subscription.keys.auth", "invalid_auth"),
    "an unknown key": (subscribing(key_id="nobodys"), "key_id", "unknown_key"),
    "replacing what is no id": (subscribing(replaces="x"), "replaces", "uuid_parsing"),
    "device_info that is no object": (
        subscribing(device_info=[]),
        "device_info",
        "object_expected",
    ),
    "a platform that is no text": (
        subscribing(device_info={"platform": 1}),
        "device_info.platform",
        "string_type",
    ),
    "device_info that is too large": (
        subscribing(device_info={"a": "x" * 4096}),
        "device_info",
        "value_error",
    ),
    "device_info with NUL": (
        subscribing(device_info={"a": "\x00"}),
        "device_info",
        "json_invalid",
    ),
    "an empty token": ({"fcm_token": ""}, "fcm_token", "invalid_fcm_token"),
    "a token with a space": ({"fcm_token": "a b"}, "fcm_token", "invalid_fcm_token"),
    "a token beyond ASCII": ({"fcm_token": "tökén"}, "fcm_token", "invalid_fcm_token"),
    "an endless token": ({"fcm_token": "a" * 4_097}, "fcm_token", "invalid_fcm_token"),
}
for number, address in enumerate(
    (
        "",
        "x",
        "https://",
        "//push.example.com/",
        "ftp://push.example.com/",
        "https://user@push.example.com/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://push.example.com:99999/",
        "https://push/",
        "https://push.example.com/\t",
        "https://push.example.com\\@10.0.0.1/",
        f"https://push.example.com/{'x' * 2048}",
    )
):
    name = f"endpoint {number}: {address[:40]!r}"
    REFUSED[name] = (with_endpoint(address), "subscription.endpoint", "address_not_allowed")


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_used_is_named(api: Api, name: str) -> None:
    body, path, code = REFUSED[name]
    user = uuid4()
    answer = await api.try_to_subscribe(user, **body)
    details = assert_refused(answer, 422, "validation_error")
    assert [(detail["path"], detail["code"]) for detail in details] == [(path, code)]
    assert await listed(api, user) == []


async def test_every_field_at_fault_is_named_at_once(api: Api) -> None:
    body = with_keys(p256dh="x", auth="x") | {"device_info": {"user_agent": 1}, "x": 1}
    details = assert_refused(await api.try_to_subscribe(uuid4(), **body), 422, "validation_error")
    assert {detail["path"] for detail in details} == {
        "subscription.keys.p256dh",
        "subscription.keys.auth",
        "device_info.user_agent",
        "x",
    }


# --- whose device it is ----------------------------------------------------------------------


async def test_an_endpoint_of_another_user_is_in_use(api: Api) -> None:
    owner, other, name = await api.new_user(), await api.new_user(), str(uuid4())
    stored = await api.subscribe(owner, browser(name))
    answer = await api.try_to_subscribe(other, subscription=browser(name, auth=b"b" * 16))
    assert assert_refused(answer, 409, "endpoint_in_use") == []
    assert [item["id"] for item in await listed(api, owner)] == [stored["id"]]
    assert await listed(api, other) == []


async def test_a_browser_moves_to_who_has_its_keys_and_leaves_its_pushes_behind(api: Api) -> None:
    owner, other = await api.new_user(), await api.new_user()
    subscription, delivery = await api.pushed(owner)
    ((endpoint,),) = await api.rows(
        "SELECT endpoint FROM push_subscriptions WHERE id = CAST(:id AS uuid)",
        id=subscription["id"],
    )
    moved = await api.subscribe(other, browser(endpoint.rpartition("/")[2]))
    assert moved["id"] != subscription["id"]
    assert moved["user_id"] == str(other)
    assert await listed(api, owner) == []
    ((device,),) = await api.rows(
        "SELECT device_id FROM notification_deliveries WHERE id = :id", id=delivery
    )
    assert device is None


async def test_a_browser_that_two_users_claim_at_once_has_one_owner(api: Api) -> None:
    users, name = [await api.new_user() for _ in range(6)], str(uuid4())
    await asyncio.gather(*(api.subscribe(user, browser(name)) for user in users))
    owned = [item for user in users for item in await listed(api, user)]
    assert len(owned) == 1


async def test_nobody_removes_or_tries_the_device_of_another(api: Api) -> None:
    owner, other = await api.new_user(), await api.new_user()
    stored = await api.subscribe(owner, browser())
    path = f"{PUSH}/subscriptions/{stored['id']}"
    for user in (other, uuid4()):
        headers = api.user(user)
        by_body = {"subscription_id": stored["id"]}
        for answer in (
            await api.client.delete(path, headers=headers),
            await api.client.request(
                "DELETE", f"{PUSH}/unsubscribe", json=by_body, headers=headers
            ),
            await api.client.post(f"{path}/test", headers=headers),
        ):
            assert_refused(answer, 404, "not_found")
        assert await listed(api, user) == []
    assert len(await listed(api, owner)) == 1


# --- unsubscribing ---------------------------------------------------------------------------


async def test_unsubscribing_removes_the_device(api: Api) -> None:
    user = await api.new_user()
    first, second = [await api.subscribe(user, browser()) for _ in range(2)]
    assert [item["id"] for item in await listed(api, user)] == [second["id"], first["id"]]
    headers, body = api.user(user), {"subscription_id": first["id"]}
    calls = [
        ("DELETE", f"{PUSH}/unsubscribe", body),
        ("DELETE", f"{PUSH}/subscriptions/{second['id']}", None),
    ]
    for method, path, content in calls:
        answer = await api.client.request(method, path, json=content, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        again = await api.client.request(method, path, json=content, headers=headers)
        assert_refused(again, 404, "not_found")
    assert await listed(api, user) == []


async def test_unsubscribing_needs_an_id(api: Api) -> None:
    bodies: list[Json] = [{}, {"subscription_id": "x"}, {"subscription_id": None}]
    for body in bodies:
        answer = await api.client.request(
            "DELETE", f"{PUSH}/unsubscribe", json=body, headers=api.user(uuid4())
        )
        assert_refused(answer, 422, "validation_error")


# --- trying and acknowledging ----------------------------------------------------------------


async def test_a_test_is_a_notification_for_one_device(api: Api) -> None:
    user = await api.new_user(email="ada@example.com")
    await api.subscribe(user, browser())
    subscription, _ = await api.pushed(user)
    (item,) = (await api.read(user))["items"]
    assert (item["type"], item["priority"]) == ("system", "high")
    rows = await api.rows(
        "SELECT channel, CAST(device_id AS text) AS device FROM notification_deliveries"
        " WHERE notification_id = CAST(:id AS uuid)",
        id=item["id"],
    )
    assert set(rows) == {("push", subscription["id"]), ("in_app", None)}


async def test_devices_acknowledge_without_signing_in(api: Api) -> None:
    user = await api.new_user()
    _, delivery = await api.pushed(user)
    token = AckTokens(api.settings.encryption_keys).issue(delivery)
    assert (await api.read(user, "/unread-count"))["count"] == 1
    for event in ("delivered", "closed", "clicked", "clicked", "delivered"):
        body = {"ack_token": token, "event": event}
        answer = await api.client.post(f"{PUSH}/ack", json=body)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await api.read(user, "/unread-count"))["count"] == 0
    rows = await api.rows(
        "SELECT event FROM notification_events e JOIN notification_deliveries d"
        " USING (notification_id) WHERE d.id = :id AND e.channel = 'push' ORDER BY e.id",
        id=delivery,
    )
    assert [row.event for row in rows] == ["delivered", "closed", "clicked"]


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "A" * 100_000, "ä", "a.b.c"])
async def test_a_token_that_nobody_was_given_is_refused(api: Api, token: str) -> None:
    answer = await api.client.post(f"{PUSH}/ack", json={"ack_token": token, "event": "clicked"})
    assert assert_refused(answer, 401, "invalid_ack_token") == []


@pytest.mark.parametrize("event", ["opened", "", None, 1])
async def test_an_unknown_event_is_refused(api: Api, event: object) -> None:
    token = AckTokens(api.settings.encryption_keys).issue(uuid4())
    answer = await api.client.post(f"{PUSH}/ack", json={"ack_token": token, "event": event})
    details = assert_refused(answer, 422, "validation_error")
    assert [detail["path"] for detail in details] == ["event"]


async def test_the_metrics_count_subscriptions_by_their_key(api: Api, settings: Settings) -> None:
    user = await api.new_user()
    key = (await api.read(user, "/push/vapid-public-key"))["key_id"]
    await api.subscribe(user, browser(), key_id=key)
    async with open_api(settings) as fresh:  # which has not counted yet
        told = (await fresh.client.get("/metrics")).text
    ((number,),) = await api.rows(
        "SELECT count(*) FROM push_subscriptions WHERE vapid_key_id = :key", key=key
    )
    assert f'notify_push_subscriptions{{key_id="{key}",kind="web"}} {number}.0' in told
