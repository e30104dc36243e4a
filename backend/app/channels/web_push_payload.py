"""What a browser is shown: a declarative Web Push message, within what one record may hold.

Browsers that know the shape (`"web_push": 8030`) show it without a service worker; others hand it
to ours. The length is padded to one of a few, so that it tells a push service little of the text.
"""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from re import compile as pattern
from typing import Any, Final

import orjson
from pydantic import JsonValue

from app.channels.base import Claim
from app.channels.push_content import (
    badge_of,
    fitted,
    is_silenced,
    json_size,
    navigate_of,
    own_address,
    plain_text,
)
from app.policy.kinds import Priority

MAX_PLAINTEXT: Final = 3_993  # bytes: with its header and tag, one record of 4,096
BUCKET: Final = 512  # bytes
TOPIC: Final = pattern(r"[A-Za-z0-9_-]{1,32}")
URGENCIES: Final = {Priority.CRITICAL: "high", Priority.HIGH: "high", Priority.LOW: "low"}


def payload_of(claim: Claim, base_url: str, ack_token: str, limit: int = MAX_PLAINTEXT) -> bytes:
    """The message of a notification as JSON, padded with spaces.

    What is too long loses its actions first, then the end of its body, then that of its title. An
    address that leaves no room for any of it is replaced by the notification's own.

    Args:
        base_url: what a relative address is relative to, without a slash at its end.
        ack_token: with which the browser says what became of it.
        limit: bytes.
    """
    message = _message(claim, base_url, ack_token)
    whole = orjson.dumps(message)
    if len(whole) <= limit:
        return _padded(whole, limit)
    told = message["notification"]
    told["data"]["actions"] = []
    if _length({**message, "notification": {**told, "title": "", "body": ""}}) > limit:
        told["navigate"] = own_address(claim, base_url)
    for field in ("body", "title"):
        if (over := _length(message) - limit) > 0:
            told[field] = fitted(told[field], json_size(told[field]) - over)
    return _padded(orjson.dumps(message), limit)


def urgency_of(claim: Claim) -> str:
    """How much of a battery it is worth (RFC 8030, section 5.3)."""
    return URGENCIES.get(Priority(claim.priority), "normal")


def topic_of(claim: Claim) -> str | None:
    """What it replaces at the push service while the browser is away; None for nothing.

    At most 32 characters of base64url (RFC 8030, section 5.4); whatever is none is hashed.
    """
    wanted = claim.data.get("topic")
    if not isinstance(wanted, str) or not wanted:
        return None
    if TOPIC.fullmatch(wanted):
        return wanted
    return urlsafe_b64encode(sha256(wanted.encode("utf-8", "replace")).digest())[:32].decode()


def _message(claim: Claim, base_url: str, ack_token: str) -> dict[str, Any]:
    badge = badge_of(claim)
    told: dict[str, Any] = {
        "title": claim.title,
        "body": plain_text(claim.body_html),
        "navigate": navigate_of(claim, base_url),
        "tag": str(claim.notification_id),
        "silent": is_silenced(claim),
        "data": {
            "id": str(claim.notification_id),
            "type": claim.type,
            "priority": claim.priority,
            "ack_token": ack_token,
            "actions": _actions(claim),
        },
        "app_badge": str(badge),
    }
    if claim.locale is not None:
        told["lang"] = claim.locale
    return {"web_push": 8030, "mutable": True, "app_badge": badge, "notification": told}


def _actions(claim: Claim) -> Sequence[JsonValue]:
    actions = claim.data.get("actions")
    return actions if isinstance(actions, list) else []


def _length(message: dict[str, Any]) -> int:
    return len(orjson.dumps(message))


def _padded(message: bytes, limit: int) -> bytes:
    bucket = -(-len(message) // BUCKET) * BUCKET
    return message.ljust(min(bucket, limit))
