"""Plain text on one line: titles, and labels of buttons (SEC-001)."""

import re

from app.security.sanitize import plain_text

BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x9f]")
DIRECTIONS = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
CLOSED_BY = {"\u202a": "\u202c", "\u202b": "\u202c"} | dict.fromkeys("\u2066\u2067\u2068", "\u2069")


def plain_line(text: str) -> str:
    """The text without tags and control characters, line breaks and tabs turned into a space.

    Marks of writing direction stay where each that opens is closed; overrides, with which text
    can be made to read backwards, and unclosed marks take all of them along.
    """
    cleaned = plain_text(_one_line(text))
    # Taking a mark out of `<\u2067b>` leaves a new tag behind, and the other way round.
    while cleaned != text:
        text, cleaned = cleaned, plain_text(_one_line(cleaned))
    return cleaned


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    parts = (part.strip() for part in BREAKS.split(text))
    line = CONTROLS.sub("", " ".join(part for part in parts if part))
    return line if _are_closed(DIRECTIONS.findall(line)) else DIRECTIONS.sub("", line)


def _are_closed(marks: list[str]) -> bool:
    awaited: list[str] = []
    for mark in marks:
        if mark in CLOSED_BY:
            awaited.append(CLOSED_BY[mark])
        elif not awaited or awaited.pop() != mark:
            return False
    return not awaited


def plain_lines(text: str) -> str:
    """The text without control characters; its lines and what looks like a tag stay."""
    return CONTROLS.sub("", text)
