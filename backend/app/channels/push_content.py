"""What browsers and apps are pushed alike, and what in a notification's `data` steers it.

| key | effect |
| --- | --- |
| `action_url` | where a click leads |
| `badge` | number on the icon instead of the unread count |
| `sound` | `false` or `"none"`: none |
| `ttl` | seconds that it is kept for a device that is away |
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from html import escape, unescape
from re import compile as pattern
from typing import Final
from urllib.parse import urljoin

import nh3
import orjson

from app.channels.base import Claim
from app.locales import phrases_of

LONGEST_TEXT: Final = 4_096  # characters; no push holds more
MAX_TTL: Final = 2_419_200  # seconds, four weeks; push services keep nothing for longer
DEFAULT_TTL: Final = 86_400
MAX_BADGE: Final = 999_999
ELLIPSIS: Final = "…"
LONGEST_LINE: Final = 160  # characters of titles in a summary
BETWEEN: Final = " · "
BLOCK_END: Final = pattern(r"(?:</(?:p|h[1-6]|li|tr|pre|blockquote)>|<[bh]r\s*/?>)\n*")
CELL_END: Final = pattern(r"</t[dh]>")


@lru_cache(maxsize=64)  # what goes to many is the same for all
def plain_text(html: str) -> str:
    """The text of safe HTML, its blocks on lines of their own; no more than can be of use."""
    marked = CELL_END.sub(" ", BLOCK_END.sub("\n", html))
    text = unescape(nh3.clean(marked, tags=set(), attributes={}))
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)[:LONGEST_TEXT]


def as_shown(claim: Claim) -> Claim:
    """The claim as a device is to show it, in a template's own words for pushes if it has any.

    One that stands for others says how many they are and what the latest are about, in the user's
    language, and nothing of its own `data` steers it.
    """
    if claim.summarises is not None:
        phrases = phrases_of(claim.locale)
        return replace(
            claim,
            title=phrases("push.summary", count=claim.summarises),
            body_html=escape(_line((claim.title, *claim.titles), claim.summarises)),
            data={},
            locale=phrases.language,
        )
    if claim.language is None:
        return claim
    title, body = claim.texts.push_title, claim.texts.push_body
    return replace(
        claim,
        title=claim.title if title is None else title,
        body_html=claim.body_html if body is None else escape(body),
        locale=claim.language,
    )


def _line(titles: Sequence[str], number: int) -> str:
    """As many of the titles as fit into a line, the first in any case, and whether there is more.

    Args:
        number: of all that there is to tell of.
    """
    line, *others = (" ".join(title.split()) for title in titles)
    left = number - 1
    for title in others:
        if len(line) + len(BETWEEN) + len(title) > LONGEST_LINE:
            break
        line, left = f"{line}{BETWEEN}{title}", left - 1
    return f"{line}{BETWEEN}{ELLIPSIS}" if left > 0 else line


def navigate_of(claim: Claim, base_url: str) -> str:
    """Where a click leads, absolute."""
    if claim.summarises is not None:
        return f"{base_url}/"
    address = claim.data.get("action_url")
    if isinstance(address, str) and address:
        return urljoin(f"{base_url}/", address)
    return own_address(claim, base_url)


def own_address(claim: Claim, base_url: str) -> str:
    """Where the page shows it, absolute."""
    return f"{base_url}/?notification={claim.notification_id}"


def time_to_live(claim: Claim, now: datetime) -> int:
    """Seconds that it may be kept for a device that is away (REQ-006)."""
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


def is_silenced(claim: Claim) -> bool:
    """Whether it is to be shown without a sound."""
    return claim.data.get("sound") in (False, "none")


def asked_badge(claim: Claim) -> int | None:
    """The number that the caller wants on the icon, None when they left it to us."""
    wanted = claim.data.get("badge")
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0:
        return min(wanted, MAX_BADGE)
    return None


def badge_of(claim: Claim) -> int:
    """The number on the icon: what the user has not read, unless the caller wants another."""
    wanted = asked_badge(claim)
    return min(claim.unread_count, MAX_BADGE) if wanted is None else wanted


def json_size(text: str) -> int:
    """Bytes that a text takes within JSON, without its quotes."""
    return len(orjson.dumps(text)) - 2


def fitted(text: str, room: int) -> str:
    """The text, or as much of its beginning as has room, in bytes within JSON."""
    if json_size(text) <= room:
        return text
    shortest, longest = 0, max(0, min(len(text), room))
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if json_size(_cut(text, middle)) <= room:
            shortest = middle
        else:
            longest = middle - 1
    return _cut(text, shortest) if shortest else ""


def _cut(text: str, length: int) -> str:
    return text[:length].rstrip() + ELLIPSIS
