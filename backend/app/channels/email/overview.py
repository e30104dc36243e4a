"""What a digest's letter says: its notifications by type, each with its page, its time and how it
begins (REQ-015).
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from babel import Locale
from babel.dates import format_date, format_skeleton, format_time
from babel.numbers import format_decimal

from app.channels.email.digest import Digest, DigestItem
from app.channels.email.subject import shortened
from app.channels.email.writing import Writing, frame_of, writing_of
from app.channels.push_content import plain_text
from app.locales import Phrases, locale_of
from app.policy.kinds import NotificationType

MOST_SHOWN: Final = 50
LONGEST_EXCERPT: Final = 140  # characters


@dataclass(frozen=True, slots=True)
class Item:
    """One notification.

    Args:
        writing: of its title.
        words: how the excerpt is written.
        address: of its page.
        href: what stands for the address in HTML.
        time: when it was sent, in the user's timezone and language.
    """

    title: str
    writing: Writing
    excerpt: str
    words: Writing
    time: str
    address: str
    href: str


@dataclass(frozen=True, slots=True)
class Group:
    """The notifications of a type.

    Args:
        count: of all of them, in the language's digits.
        items: those that are shown, the newest first.
    """

    name: str
    count: str
    items: tuple[Item, ...]


def groups_of(
    digest: Digest,
    phrases: Phrases,
    address_of: Callable[[DigestItem], str],
    tracked: Callable[[str], str],
) -> tuple[Group, ...]:
    """All that a digest tells of, by type in the order in which the types are defined.

    Args:
        address_of: gives the page of a notification.
        tracked: gives what stands for an address in HTML.
    """
    counts = Counter(item.type for item in digest.items)
    shown: defaultdict[NotificationType, list[Item]] = defaultdict(list)
    for item in digest.items[:MOST_SHOWN]:
        shown[item.type].append(_item(item, digest, phrases, address_of(item), tracked))
    locale = conventions(digest.locale, phrases)
    return tuple(
        Group(
            phrases(f"types.{type_}"),
            format_decimal(counts[type_], locale=locale),
            tuple(shown[type_]),
        )
        for type_ in NotificationType
        if counts[type_]
    )


def date_of(digest: Digest, phrases: Phrases) -> str:
    """The day of the digest, for its user."""
    day = digest.slot.astimezone(digest.timezone).date()
    return format_date(day, "full", locale=conventions(digest.locale, phrases))


def conventions(tag: str | None, phrases: Phrases) -> Locale:
    """How the user writes dates and numbers, where that is the language of the words around."""
    locale = locale_of(tag)
    return locale if locale.language == phrases.locale.language else phrases.locale


def _item(
    item: DigestItem,
    digest: Digest,
    phrases: Phrases,
    address: str,
    tracked: Callable[[str], str],
) -> Item:
    excerpt = shortened(" ".join(plain_text(item.body_html).split()), LONGEST_EXCERPT)
    around = frame_of(phrases)
    return Item(
        title=item.title,
        writing=writing_of(item.title, item.language, around),
        excerpt=excerpt,
        words=writing_of(excerpt, item.language, around),
        time=_time(item.created_at, digest, conventions(digest.locale, phrases)),
        address=address,
        href=tracked(address),
    )


def _time(instant: datetime, digest: Digest, locale: Locale) -> str:
    """The time, with the day where it was another than the digest's."""
    local = instant.astimezone(digest.timezone)
    time = format_time(local, "short", locale=locale)
    if local.date() == digest.slot.astimezone(digest.timezone).date():
        return time
    day = format_skeleton("MMMEd", local, locale=locale)
    return str(locale.datetime_formats["short"]).replace("{1}", day).replace("{0}", time)
