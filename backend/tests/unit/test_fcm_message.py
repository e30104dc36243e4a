"""What an app is sent (CONTRACT: FCM message; REQ-007)."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from app.channels.fcm_message import CLOSED_AT_ONCE, MOST_BYTES, closing_of, message_of, trial_of
from app.channels.push_content import as_shown
from tests.pushing import NOW, a_claim

BASE = "https://notify.example"
ID = "0197a000-0000-7000-8000-00000000abcd"
EPOCH = int(NOW.timestamp())
TOKEN = "c0ffee:APA91b" + "x" * 140


def sent(**changes: Any) -> bytes:
    return message_of(a_claim(**changes), TOKEN, ack_token="ack", base_url=BASE, now=NOW)


def message(**changes: Any) -> dict[str, Any]:
    request: dict[str, Any] = orjson.loads(sent(**changes))
    assert request.keys() == {"message"}
    return request["message"]


def aps(made: dict[str, Any]) -> dict[str, Any]:
    return made["apns"]["payload"]["aps"]


def test_the_contracts_message() -> None:
    actions = [{"label": "View", "url": "/tasks/1"}]
    data = {"action_url": "/tasks/1", "actions": actions, "task": 128, "done": False, "tags": ["a"]}
    assert message(priority="high", unread_count=3, data=data) == {
        "token": TOKEN,
        "notification": {"title": "Build failed", "body": "The build of main failed."},
        "data": {
            "id": ID,
            "type": "task",
            "priority": "high",
            "ack_token": "ack",
            "url": "https://notify.example/tasks/1",
            "badge": "3",
            "actions": '[{"label":"View","url":"/tasks/1"}]',
            "action_url": "/tasks/1",
            "task": "128",
            "done": "false",
        },
        "android": {
            "priority": "HIGH",
            "ttl": "86400s",
            "notification": {
                "channel_id": "task",
                "click_action": "OPEN_NOTIFICATION",
                "sound": "default",
                "tag": ID,
                "notification_count": 3,
            },
        },
        "apns": {
            "headers": {
                "apns-push-type": "alert",
                "apns-priority": "10",
                "apns-expiration": str(EPOCH + 86_400),
                "apns-collapse-id": ID,
            },
            "payload": {
                "aps": {
                    "badge": 3,
                    "sound": "default",
                    "thread-id": "task",
                    "interruption-level": "active",
                    "mutable-content": 1,
                }
            },
        },
    }


@pytest.mark.parametrize(
    ("priority", "android", "apns", "level"),
    [
        ("critical", "HIGH", "10", "time-sensitive"),
        ("high", "HIGH", "10", "active"),
        ("normal", "NORMAL", "5", "active"),
        ("low", "NORMAL", "5", "passive"),
    ],
)
def test_priorities(priority: str, android: str, apns: str, level: str) -> None:
    made = message(priority=priority)
    assert made["android"]["priority"] == android
    assert made["apns"]["headers"]["apns-priority"] == apns
    assert aps(made)["interruption-level"] == level


def test_the_caller_steers() -> None:
    made = message(
        unread_count=3,
        data={
            "badge": 9, "sound": "bell.caf", "category": "TASK", "topic": "build", "ttl": 60
        },
    )  # fmt: skip
    shown = made["android"]["notification"]
    assert (shown["sound"], shown["click_action"]) == ("bell.caf", "TASK")
    assert shown["notification_count"] == aps(made)["badge"] == 9
    assert made["data"]["badge"] == "9"
    assert (aps(made)["sound"], aps(made)["category"]) == ("bell.caf", "TASK")
    assert (made["android"]["collapse_key"], made["android"]["ttl"]) == ("build", "60s")
    assert made["apns"]["headers"]["apns-collapse-id"] == "build"
    assert made["apns"]["headers"]["apns-expiration"] == str(EPOCH + 60)


@pytest.mark.parametrize("sound", [False, "none"])
def test_without_a_sound(sound: object) -> None:
    made = message(data={"sound": sound})
    assert "sound" not in aps(made)
    assert "sound" not in made["android"]["notification"]


@pytest.mark.parametrize("badge", [-1, True, "7", 1.5, None])
def test_what_is_no_badge_leaves_the_unread_count(badge: object) -> None:
    assert aps(message(unread_count=4, data={"badge": badge}))["badge"] == 4


@pytest.mark.parametrize("topic", ["t" * 65, "Bau ärgert", "a\nb", "🔔"])
def test_a_topic_that_no_header_carries_is_another_name_of_the_same(topic: str) -> None:
    first, again = message(data={"topic": topic}), message(data={"topic": topic})
    carried = first["apns"]["headers"]["apns-collapse-id"]
    assert carried == again["android"]["collapse_key"]
    assert carried.isascii()
    assert carried.isalnum()
    assert len(carried) <= 64
    assert carried != message(data={"topic": topic + "!"})["android"]["collapse_key"]


def test_it_is_kept_no_longer_than_it_is_worth() -> None:
    made = message(expires_at=NOW + timedelta(minutes=5), data={"ttl": 3600})
    assert made["android"]["ttl"] == "300s"
    assert made["apns"]["headers"]["apns-expiration"] == str(EPOCH + 300)
    assert message(data={"ttl": 10**9})["android"]["ttl"] == "2419200s"
    assert message(data={"ttl": -5})["android"]["ttl"] == "0s"


def test_silent_is_data_alone() -> None:
    made = message(priority="critical", unread_count=3, data={"silent": True, "sync": "tasks"})
    assert made.keys() == {"token", "data", "android", "apns"}
    assert made["data"]["sync"] == "tasks"
    assert made["data"]["ack_token"] == "ack"
    assert made["android"] == {"priority": "NORMAL", "ttl": "86400s"}
    assert made["apns"] == {
        "headers": {
            "apns-push-type": "background",
            "apns-priority": "5",
            "apns-expiration": str(EPOCH + 86_400),
            "apns-collapse-id": ID,
        },
        "payload": {"aps": {"content-available": 1}},
    }
    assert aps(message(data={"silent": True, "badge": 0})) == {"content-available": 1, "badge": 0}
    assert "notification" in message(data={"silent": "true"})


def test_no_name_of_fcms_own_is_used_nor_ours_overwritten() -> None:
    taken = {"from": "x", "message_type": "x", "google.a": "x", "gcm.b": "x", "GCM": "x", "": "x"}
    ours = {"id": "x", "type": "x", "url": "x", "ack_token": "x", "priority": "x"}
    assert message(data={**taken, **ours})["data"] == message()["data"]


def test_what_is_too_long_gives_way_in_order() -> None:
    actions: list[dict[str, object]] = [{"label": "x" * 100, "url": "/"} for _ in range(10)]
    many = {"actions": actions, "task": "128"}
    made = message(body_html="b" * 9_000, data=many)
    assert made["notification"]["body"].endswith("b…")
    assert {"actions", "task"} <= made["data"].keys()
    assert len(sent(body_html="b" * 9_000, data=many)) == MOST_BYTES
    made = message(body_html="b" * 9_000, data={**many, "long": "l" * 2_200})
    assert "actions" not in made["data"]
    assert {"long", "task"} <= made["data"].keys()
    made = message(body_html="b" * 9_000, data={**many, "long": "l" * 5_000})
    assert made["data"].keys() & {"long", "task"} == {"task"}
    assert len(made["notification"]["body"]) > 2_000
    far = f"https://other.example/{'p' * 4_000}"
    made = message(body_html="b" * 9_000, data={"action_url": far})
    assert made["data"]["url"] == f"{BASE}/?notification={ID}"
    made = message(title="t" * 9_000, data=many)
    assert made["notification"]["title"].endswith("t…")
    assert made["notification"]["body"] == ""


def test_a_summary_of_what_was_held() -> None:
    data = {"action_url": "/tasks/1", "task": 128, "badge": 9, "topic": "build", "sound": False}
    claim = as_shown(
        a_claim(summarises=5, titles=("Deployed",), priority="high", unread_count=7, data=data)
    )
    request = orjson.loads(message_of(claim, TOKEN, ack_token="ack", base_url=BASE, now=NOW))
    made = request["message"]
    assert made["notification"] == {
        "title": "5 new notifications",
        "body": "Build failed · Deployed · …",
    }
    assert made["data"] == {
        "id": ID,
        "type": "task",
        "priority": "high",
        "ack_token": "ack",
        "url": "https://notify.example/",
        "badge": "7",
    }
    assert made["android"]["notification"] == {
        "channel_id": "task",
        "click_action": "OPEN_NOTIFICATION",
        "sound": "default",
        "tag": ID,
        "notification_count": 7,
    }
    assert made["apns"]["headers"]["apns-collapse-id"] == ID
    assert (aps(made)["badge"], aps(made)["sound"]) == (7, "default")


def test_a_closing_closes_and_shows_nothing() -> None:
    ids = [uuid4() for _ in range(CLOSED_AT_ONCE)]
    request = closing_of(TOKEN, ids, 2, NOW)
    assert len(request) <= MOST_BYTES
    made = orjson.loads(request)["message"]
    assert made == {
        "token": TOKEN,
        "data": {"type": "close", "ids": ",".join(map(str, ids)), "badge": "2"},
        "android": {"priority": "NORMAL", "ttl": "3600s"},
        "apns": {
            "headers": {
                "apns-push-type": "background",
                "apns-priority": "5",
                "apns-expiration": str(EPOCH + 3600),
            },
            "payload": {"aps": {"content-available": 1, "badge": 2}},
        },
    }


def test_a_trial_sends_nothing() -> None:
    request = orjson.loads(trial_of(TOKEN))
    assert request["validate_only"] is True
    assert request["message"]["token"] == TOKEN
    assert "notification" not in request["message"]
