"""A notification as an FCM message (HTTP v1): for Android, and for iOS through APNs (REQ-007).

`data` carries what the app itself needs, all of it strings. Beside it, in `data` of the
notification, these steer the message:

| key | effect |
| --- | --- |
| `silent` | `true`: data alone, nothing is shown |
| `badge` | number on the icon instead of the unread count |
| `sound` | name of a sound of the app; `false` or `"none"`: no sound |
| `category` | the app's category (iOS) and the intent that a tap starts (Android) |
| `topic` | a later message of the same topic takes this one's place |
| `ttl` | seconds that FCM keeps it for a phone it does not reach |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import orjson
from pydantic import JsonValue

from app.channels.base import Claim
from app.channels.push_content import (
    asked_badge,
    badge_of,
    fitted,
    is_silenced,
    json_size,
    navigate_of,
    plain_text,
    time_to_live,
)
from app.policy.kinds import Priority

Json = dict[str, JsonValue]

MOST_BYTES: Final = 4_096  # of a message
LEAST_BODY: Final = 200  # bytes; for more of it, neither actions nor other data are dropped
LONGEST_NAME: Final = 100  # characters of a sound or a category
LONGEST_TOPIC: Final = 64  # bytes, as APNs wants it
CLOSED_AT_ONCE: Final = 60  # notifications that one message closes
CLOSING_TTL: Final = timedelta(hours=1)
# The intent that a tap starts on Android, which an app declares, where no category says another.
CLICK_ACTION: Final = "OPEN_NOTIFICATION"
URGENT: Final = frozenset({Priority.CRITICAL, Priority.HIGH})
INTERRUPTION: Final = {
    # `critical` is for apps that Apple has allowed it.
    Priority.CRITICAL: "time-sensitive",
    Priority.HIGH: "active",
    Priority.NORMAL: "active",
    Priority.LOW: "passive",
}
STEERING: Final = frozenset({"silent", "badge", "sound", "topic", "ttl", "actions"})
RESERVED: Final = frozenset({"from", "message_type", "collapse_key", "notification"})
RESERVED_STARTS: Final = ("google", "gcm")


def message_of(claim: Claim, token: str, *, ack_token: str, base_url: str, now: datetime) -> bytes:
    """The request that sends a notification to a phone: at most 4,096 bytes of JSON.

    What is too long is shortened: the body down to 200 bytes; then the actions go, then what is
    longest of the caller's data, then the rest of the body and of the title.

    Args:
        token: the phone's.
        ack_token: with which the app says that it was delivered or clicked.
        base_url: of links, without a trailing slash.
        now: the instant it is sent.
    """
    silent = is_silent(claim)
    whole = _Draft(
        claim=claim,
        token=token,
        now=now,
        title="" if silent else claim.title,
        body="" if silent else plain_text(claim.body_html),
        own={
            "id": str(claim.notification_id),
            "type": claim.type,
            "priority": claim.priority,
            "ack_token": ack_token,
            "url": navigate_of(claim, base_url),
            "badge": str(badge_of(claim)),
        },
        actions=_actions(claim),
        extra=_extra(claim),
    )
    # The address may be what is too long.
    shown_at = navigate_of(replace(claim, data={}), base_url)
    without_actions = replace(whole, actions=None)
    least = replace(whole, actions=None, extra={}, own={**whole.own, "url": shown_at})
    for draft in (whole, without_actions, without_actions.with_few_extra(), least):
        room = draft.room()
        if room >= min(json_size(draft.body), LEAST_BODY):
            return replace(draft, body=fitted(draft.body, room)).encoded()
    title = fitted(least.title, replace(least, title="").room())
    short = replace(least, title=title)
    return replace(short, body=fitted(short.body, short.room())).encoded()


def closing_of(token: str, ids: Sequence[UUID], badge: int, now: datetime) -> bytes:
    """The request that has a phone close notifications which were read elsewhere.

    Args:
        ids: at most `CLOSED_AT_ONCE` notifications.
        badge: what the user has not read, absolute.
        now: the instant it is sent.
    """
    closed = ",".join(str(item) for item in ids)
    return orjson.dumps(
        {
            "message": {
                "token": token,
                "data": {"type": "close", "ids": closed, "badge": str(badge)},
                "android": {"priority": "NORMAL", "ttl": f"{int(CLOSING_TTL.total_seconds())}s"},
                "apns": _background(now + CLOSING_TTL, {}, badge),
            }
        }
    )


def trial_of(token: str) -> bytes:
    """The request that asks whether a token is one, and sends nothing."""
    return orjson.dumps(
        {"validate_only": True, "message": {"token": token, "data": {"type": "trial"}}}
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    """A message, of which some may be dropped still.

    Args:
        own: data that every message has.
        actions: the notification's buttons as JSON, None when there are none.
        extra: the caller's own data.
    """

    claim: Claim
    token: str
    now: datetime
    title: str
    body: str
    own: Mapping[str, str]
    actions: str | None
    extra: Mapping[str, str]

    def encoded(self) -> bytes:
        data: Json = {**self.extra, **self.own}
        if self.actions is not None:
            data["actions"] = self.actions
        message: Json = {"token": self.token, "data": data}
        if is_silent(self.claim):
            message |= {"android": self._android(), "apns": self._silent_apns()}
        else:
            android: Json = {**self._android(), "notification": self._android_notification()}
            message["notification"] = {"title": self.title, "body": self.body}
            message |= {"android": android, "apns": self._apns()}
        return orjson.dumps({"message": message})

    def room(self) -> int:
        """Bytes that are left for the body."""
        return MOST_BYTES - len(replace(self, body="").encoded())

    def with_few_extra(self) -> "_Draft":
        """With as much of the caller's data as leaves the body its least, the shortest first."""
        room = replace(self, extra={}).room() - min(json_size(self.body), LEAST_BODY)
        kept: dict[str, str] = {}
        for name, value in sorted(self.extra.items(), key=lambda item: len(item[1])):
            room -= json_size(name) + json_size(value) + len('"":"",')
            if room >= 0:
                kept[name] = value
        return replace(self, extra=kept)

    @property
    def _is_urgent(self) -> bool:
        return self.claim.priority in URGENT

    def _android(self) -> Json:
        urgent = self._is_urgent and not is_silent(self.claim)
        topic = _topic(self.claim)
        return {
            "priority": "HIGH" if urgent else "NORMAL",
            "ttl": f"{time_to_live(self.claim, self.now)}s",
            **({"collapse_key": topic} if topic else {}),
        }

    def _android_notification(self) -> Json:
        sound = _sound(self.claim)
        return {
            "channel_id": self.claim.type,
            "click_action": _name(self.claim, "category") or CLICK_ACTION,
            "tag": str(self.claim.notification_id),
            "notification_count": badge_of(self.claim),
            **({"sound": sound} if sound else {}),
        }

    @property
    def _apns_expiration(self) -> datetime:
        return self.now + timedelta(seconds=time_to_live(self.claim, self.now))

    def _apns(self) -> Json:
        sound, category = _sound(self.claim), _name(self.claim, "category")
        aps: Json = {
            "badge": badge_of(self.claim),
            "thread-id": self.claim.type,
            "interruption-level": INTERRUPTION[Priority(self.claim.priority)],
            "mutable-content": 1,
            **({"sound": sound} if sound else {}),
            **({"category": category} if category else {}),
        }
        headers = {
            "apns-push-type": "alert",
            "apns-priority": "10" if self._is_urgent else "5",
            "apns-expiration": str(int(self._apns_expiration.timestamp())),
            "apns-collapse-id": _collapse_id(self.claim),
        }
        return {"headers": dict(headers), "payload": {"aps": aps}}

    def _silent_apns(self) -> Json:
        # Apple wants none of a background push but what was asked for.
        badge = asked_badge(self.claim)
        more = {"apns-collapse-id": _collapse_id(self.claim)}
        return _background(self._apns_expiration, more, badge)


def is_silent(claim: Claim) -> bool:
    """Whether the push is for the app alone, and nothing of it is shown."""
    return claim.data.get("silent") is True


def _background(expires_at: datetime, more: Mapping[str, str], badge: int | None) -> Json:
    """The part for APNs of a message that shows nothing."""
    headers: Json = {
        "apns-push-type": "background",
        "apns-priority": "5",
        "apns-expiration": str(int(expires_at.timestamp())),
        **more,
    }
    aps: Json = {"content-available": 1, **({} if badge is None else {"badge": badge})}
    return {"headers": headers, "payload": {"aps": aps}}


def _actions(claim: Claim) -> str | None:
    actions = claim.data.get("actions")
    return orjson.dumps(actions).decode() if isinstance(actions, list) and actions else None


def _extra(claim: Claim) -> dict[str, str]:
    """What of the caller's data fits into strings and is nobody else's name."""
    return {
        name: text
        for name, value in claim.data.items()
        if (text := _as_text(value)) is not None
        and name
        and name not in STEERING | RESERVED
        and not name.lower().startswith(RESERVED_STARTS)
    }


def _as_text(value: JsonValue) -> str | None:
    match value:
        case str():
            return value
        case bool() | int() | float():
            return orjson.dumps(value).decode()
        case _:
            return None


def _sound(claim: Claim) -> str | None:
    if is_silenced(claim):
        return None
    return _name(claim, "sound") or "default"


def _name(claim: Claim, key: str) -> str | None:
    value = claim.data.get(key)
    if isinstance(value, str) and len(value) <= LONGEST_NAME:
        return value or None
    return None


def _topic(claim: Claim) -> str | None:
    """The topic as a header can carry it; what cannot be carried is the same by its hash."""
    topic = claim.data.get("topic")
    if not isinstance(topic, str) or not topic:
        return None
    if len(topic) <= LONGEST_TOPIC and topic.isascii() and topic.isprintable():
        return topic
    return sha256(topic.encode()).hexdigest()[:LONGEST_TOPIC]


def _collapse_id(claim: Claim) -> str:
    """What it replaces on an iPhone: without a topic itself, should it be sent twice."""
    return _topic(claim) or str(claim.notification_id)
