"""What a browser is shown: a declarative Web Push message, within what one record may hold.

Browsers that know the shape (`"web_push": 8030`) show it without a service worker; others hand it
to ours. The length is padded to one of a few, so that it tells a push service little of the text.
"""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from html import unescape
from re import compile as pattern
from typing import Any, Final
from urllib.parse import urljoin

import nh3
import orjson
from pydantic import JsonValue

from app.channels.base import Claim
from app.policy.kinds import Priority

MAX_PLAINTEXT: Final = 3_993  # bytes: with its header and tag, one record of 4,096
BUCKET: Final = 512  # bytes
MAX_TTL: Final = 2_419_200  # seconds, four weeks; push services keep nothing for longer
DEFAULT_TTL: Final = 86_400
MAX_BADGE: Final = 999_999
ELLIPSIS: Final = "…"
NO_SOUND: Final = (False, "none")
TOPIC: Final = pattern(r"[A-Za-z0-9_-]{1,32}")
BLOCK_END: Final = pattern(r"(?:</(?:p|h[1-6]|li|tr|pre|blockquote)>|<[bh]r\s*/?>)\n*")
CELL_END: Final = pattern(r"</t[dh]>")
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
        told["navigate"] = _default_address(claim, base_url)
    for field in ("body", "title"):
        if (over := _length(message) - limit) > 0:
            told[field] = _shortened(told[field], over)
    return _padded(orjson.dumps(message), limit)


@lru_cache(maxsize=64)  # what goes to many is the same for all
def plain_text(html: str) -> str:
    """The text of safe HTML, its blocks on lines of their own; no more than can be of use."""
    marked = CELL_END.sub(" ", BLOCK_END.sub("\n", html))
    text = unescape(nh3.clean(marked, tags=set(), attributes={}))
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)[: MAX_PLAINTEXT + 1]


def navigate_of(claim: Claim, base_url: str) -> str:
    """Where a click leads, absolute."""
    address = claim.data.get("action_url")
    if isinstance(address, str) and address:
        return urljoin(f"{base_url}/", address)
    return _default_address(claim, base_url)


def _default_address(claim: Claim, base_url: str) -> str:
    return f"{base_url}/?notification={claim.notification_id}"


def time_to_live(claim: Claim, now: datetime) -> int:
    """Seconds that a push service may keep it for a browser that is away (REQ-006)."""
    wanted = claim.data.get("ttl")
    if not isinstance(wanted, int | float) or isinstance(wanted, bool):
        wanted = DEFAULT_TTL
    seconds = min(max(0.0, wanted), float(MAX_TTL))
    if claim.expires_at is not None:
        left = (claim.expires_at - now) / timedelta(seconds=1)
        seconds = min(seconds, max(0.0, left))
    return int(seconds)


def has_outlived(claim: Claim, now: datetime) -> bool:
    """Whether it has been put off for longer than it was to live, since it could first go out."""
    since = max(claim.created_at, claim.send_at or claim.created_at)
    return since + timedelta(seconds=time_to_live(claim, since)) < now


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
    badge = _badge(claim)
    told: dict[str, Any] = {
        "title": claim.title,
        "body": plain_text(claim.body_html),
        "navigate": navigate_of(claim, base_url),
        "tag": str(claim.notification_id),
        "silent": claim.data.get("sound") in NO_SOUND,
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


def _badge(claim: Claim) -> int:
    wanted = claim.data.get("badge")
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0:
        return min(wanted, MAX_BADGE)
    return claim.unread_count


def _actions(claim: Claim) -> Sequence[JsonValue]:
    actions = claim.data.get("actions")
    return actions if isinstance(actions, list) else []


def _length(message: dict[str, Any]) -> int:
    return len(orjson.dumps(message))


def _shortened(text: str, over: int) -> str:
    """The text without at least so many bytes of its end, as they are in JSON."""
    target = len(orjson.dumps(text)) - over
    low, high = 0, min(len(text), max(0, target))
    while low < high:
        middle = (low + high + 1) // 2
        if len(orjson.dumps(text[:middle].rstrip() + ELLIPSIS)) <= target:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS if low else ""


def _padded(message: bytes, limit: int) -> bytes:
    bucket = -(-len(message) // BUCKET) * BUCKET
    return message.ljust(min(bucket, limit))
