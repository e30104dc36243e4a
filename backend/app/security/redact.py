"""Finds secrets in content and masks them before it is stored, logged or sent (SEC-001, SEC-002).

`docs/content.md` lists what is found. UUIDs and links are never altered, but for credentials in
front of a link's host, which are taken out.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

import orjson
from pydantic import JsonValue

from app.security.secret_patterns import (
    ADDRESS,
    BEFORE_HOST,
    LEFT_ALONE,
    MASK,
    SECRET_FIELD,
    SECRETS,
    USERINFO,
    Span,
)

JsonObject = dict[str, JsonValue]
Path = tuple[str, ...]
Clean = Callable[[JsonValue, Path], JsonValue]
Note = Callable[[str], None]

MAX_TOLD = 100  # places named; content may have thousands
MAX_PATH = 200  # characters
FIELD_HINTS = ("credential", "cvv", "cvc", "card")


def _any_of(words: Iterable[str]) -> str:
    """A pattern of words, grouped by their first letter: the engine then skips most text."""
    groups: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        groups.setdefault(word[0], []).append(re.escape(word[1:]))
    return "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in groups.items())


# Ordinary content, in lower case, holds none of this, and is not looked at any further.
SUSPICIOUS = re.compile(
    _any_of((*FIELD_HINTS, *(hint for secret in SECRETS for hint in secret.hints)))
    + rf"|://{BEFORE_HOST}"
    + "|[2-6][0-9]{3}(?:[0-9]{10}|[ -][0-9]{4,6}[ -])"  # like the number of a card
)


@dataclass(frozen=True, slots=True)
class Masked:
    """Where a secret was masked, such as `data.deploy.log`, and its kind, such as `jwt`."""

    path: str
    kind: str


def redact(content: JsonObject) -> tuple[JsonObject, list[Masked]]:
    """Mask every secret in an object's strings, at any depth.

    Returns:
        The object, the same one where nothing was found, and where something was masked.
    """
    if not SUSPICIOUS.search(orjson.dumps(content).decode().lower()):
        return content, []
    walk = _Walk()
    cleaned = walk.object(content, ())
    return (cleaned, list(walk.masked)) if walk.masked else (content, [])


def mask_text(text: str) -> str:
    """The text with its secrets masked."""
    return _mask(text, lambda _kind: None)


def is_secret_field(name: str) -> bool:
    """Whether a field's name says that its value is a secret."""
    return _names_a_secret(name) if len(name) <= MAX_PATH else False


@lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    return SECRET_FIELD.fullmatch(re.sub(r"[^a-z0-9]", "", name.lower())) is not None


class _Walk:
    """Masks a value and what it holds, noting where."""

    def __init__(self) -> None:
        # A dictionary as an ordered set: a place with ten tokens is told once.
        self.masked: dict[Masked, None] = {}

    def object(self, value: JsonObject, path: Path) -> JsonObject:
        """The object without secrets in its names and values."""
        return self._named(value, path, self._value)

    def _named(self, value: JsonObject, path: Path, clean: Clean) -> JsonObject:
        cleaned: JsonObject = {}
        times: Counter[str] = Counter()
        for name, item in value.items():
            masked = known = _mask(name, self._note((*path, "*")))
            while known in cleaned:  # two names that were secrets
                times[masked] += 1
                known = f"{masked}_{times[masked] + 1}"
            is_secret = is_secret_field(known) and not _is_count(known, item)
            cleaned[known] = (self._whole if is_secret else clean)(item, (*path, known))
        return cleaned

    def _value(self, value: JsonValue, path: Path) -> JsonValue:
        if isinstance(value, str):
            text = _without_credentials(value, self._note(path))
            return text if ADDRESS.fullmatch(text) else _mask_found(text, self._note(path))
        if isinstance(value, list):
            return [self._value(item, (*path, str(index))) for index, item in enumerate(value)]
        return self.object(value, path) if isinstance(value, dict) else value

    def _whole(self, value: JsonValue, path: Path) -> JsonValue:
        """What a secret's field holds, masked whatever it looks like."""
        if isinstance(value, dict):
            return self._named(value, path, self._whole)
        if isinstance(value, list):
            return [self._whole(item, (*path, str(index))) for index, item in enumerate(value)]
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, str) and any(kept.fullmatch(value) for kept in LEFT_ALONE):
            return self._value(value, path)
        self._note(path)("named_secret")
        return MASK

    def _note(self, path: Path) -> Note:
        def note(kind: str) -> None:
            if len(self.masked) < MAX_TOLD:
                self.masked[Masked(".".join(path)[:MAX_PATH], kind)] = None

        return note


def _is_count(name: str, value: JsonValue) -> bool:
    """Whether a field tells how many there are, as `access_tokens` with 15 does."""
    return name[-1:] in ("s", "S") and isinstance(value, int | float)


def _mask(text: str, note: Note) -> str:
    return _mask_found(_without_credentials(text, note), note)


def _without_credentials(text: str, note: Note) -> str:
    """The text without credentials in front of a host."""
    if "://" not in text:
        return text
    return USERINFO.sub(lambda match: _public_userinfo(match[0], note), text)


def _mask_found(text: str, note: Note) -> str:
    found = _found(text)
    if not found:
        return text
    kept = _left_alone(text)
    pieces: list[str] = []
    end = 0
    # What begins within a link ends with it: there is no telling where else.
    for span, kind in _apart(find for find in found if not _is_within(find[0][0], kept)):
        for start, stop in _without(span, kept):
            pieces += (text[end:start], MASK)
            end = stop
            note(kind)
    return "".join((*pieces, text[end:]))


def _found(text: str) -> list[tuple[Span, str]]:
    lowered = text.lower()
    if not SUSPICIOUS.search(lowered):
        return []
    return [
        (span, secret.kind)
        for secret in SECRETS
        if not secret.hints or any(hint in lowered for hint in secret.hints)
        for span in secret.spans(text)
    ]


def _public_userinfo(userinfo: str, note: Note) -> str:
    password = userinfo.partition(":")[2]
    if password in ("", "@") and not _found(userinfo):
        return userinfo
    note("url_credentials")
    return ""


def _left_alone(text: str) -> list[Span]:
    """What stays as it is, in order and apart."""
    spans = ((match.span(), "") for kept in LEFT_ALONE for match in kept.finditer(text))
    return [span for span, _ in _apart(spans)]


def _is_within(place: int, spans: list[Span]) -> bool:
    index = bisect_right(spans, place, key=itemgetter(0))
    return index > 0 and place < spans[index - 1][1]


def _apart(found: Iterable[tuple[Span, str]]) -> list[tuple[Span, str]]:
    """The finds in order, those that overlap as one, named after its first and longest."""
    merged: list[tuple[Span, str]] = []
    for (start, stop), kind in sorted(found, key=lambda item: (item[0][0], -item[0][1])):
        if merged and start < merged[-1][0][1]:
            (first, last), known = merged[-1]
            merged[-1] = ((first, max(last, stop)), known)
        else:
            merged.append(((start, stop), kind))
    return merged


def _without(span: Span, kept: list[Span]) -> list[Span]:
    """The parts of a span that lie outside of others, which are in order and apart."""
    start, stop = span
    parts: list[Span] = []
    for index in range(bisect_right(kept, start, key=itemgetter(1)), len(kept)):
        first, last = kept[index]
        if first >= stop:
            break
        if first > start:
            parts.append((start, first))
        start = last
    if start < stop:
        parts.append((start, stop))
    return parts
