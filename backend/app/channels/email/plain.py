"""Writes safe HTML as plain text that reads well: marks for lists and quotes, links written out."""

import re
from html.parser import HTMLParser
from itertools import takewhile
from typing import Final

from app.channels.email.layout import WIDTH, wrapped

SPACE: Final = re.compile(r"\s+")
# Blocks with an empty line between them; those of a list, and rows, follow each other.
APART: Final = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "blockquote", "ul", "ol", "table", "hr"}
)
TOGETHER: Final = frozenset({"li", "tr"})
NARROWEST: Final = 20  # characters of a line, however deep it is indented


def text_of(html: str) -> str:
    """The text of safe HTML in lines of 76 characters, without an empty line at its ends."""
    writer = _Writer()
    writer.feed(html)
    writer.close()
    return writer.text()


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._words: list[str] = []  # of the block that is read; line breaks only where meant
        self._indents: list[str] = []  # of what blocks there are within each other
        self._marks: dict[int, str] = {}  # stand once in place of the indent at that depth
        self._numbers: list[int | None] = []  # of the next item of each list, None without numbers
        self._links: list[tuple[str, int]] = []  # address, and where in the words its text begins
        self._is_pre = False
        self._is_apart = False
        self._around: list[str] = []  # the indents of the line before
        self._cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in APART | TOGETHER:
            self._end_block(is_apart=tag in APART and not (tag in ("ul", "ol") and self._numbers))
        match tag:
            case "br":
                self._words.append("\n")
            case "hr":
                self._words.append("-" * 20)
                self._end_block(is_apart=True)
            case "blockquote":
                self._indents.append("> ")
            case "pre":
                self._is_pre = True
            case "ul":
                self._numbers.append(None)
            case "ol":
                start = values.get("start") or "1"
                self._numbers.append(int(start) if start.lstrip("-").isdecimal() else 1)
            case "li":
                self._begin_item()
            case "tr":
                self._cells = 0
            case "td" | "th":
                self._words.append(" | " if self._cells else "")
                self._cells += 1
            case "a":
                self._links.append((values.get("href") or "", len(self._words)))
            case _:
                pass

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._links:
            address, begin = self._links.pop()
            said = "".join(self._words[begin:])
            if address.removeprefix("mailto:") not in said:
                self._words.append(f" <{address}>" if said.strip() else address)
        if tag not in APART | TOGETHER or tag == "hr":
            return
        is_inner_list = tag in ("ul", "ol") and len(self._numbers) > 1
        self._end_block(is_apart=tag in APART and not is_inner_list)
        match tag:
            case "blockquote" | "li" if self._indents:
                self._indents.pop()
                self._marks.pop(len(self._indents), None)
            case "pre":
                self._is_pre = False
            case "ul" | "ol" if self._numbers:
                self._numbers.pop()
            case _:
                pass

    def handle_data(self, data: str) -> None:
        self._words.append(data if self._is_pre else SPACE.sub(" ", data))

    def text(self) -> str:
        self._end_block(is_apart=False)
        return "\n".join(self._lines).strip("\n")

    def _begin_item(self) -> None:
        number = self._numbers[-1] if self._numbers else None
        mark = "- "
        if number is not None:
            mark = f"{number}. "
            self._numbers[-1] = number + 1
        self._marks[len(self._indents)] = mark
        self._indents.append(" " * len(mark))

    def _end_block(self, *, is_apart: bool) -> None:
        """Write what was read of a block, with an empty line before the next where it is apart."""
        words, self._words, self._links = "".join(self._words), [], []
        lines = words.strip("\n").split("\n") if self._is_pre else words.strip().split("\n")
        if any(line.strip() for line in lines):
            if self._is_apart and self._lines:
                shared = takewhile(
                    lambda pair: pair[0] == pair[1], zip(self._around, self._indents, strict=False)
                )
                self._lines.append("".join(indent for indent, _ in shared).rstrip())
            self._is_apart = False
            self._around = self._indents.copy()
            self._write(lines)
        self._is_apart |= is_apart

    def _write(self, lines: list[str]) -> None:
        width = max(WIDTH - sum(map(len, self._indents)), NARROWEST)
        for line in lines:
            for part in [line] if self._is_pre else wrapped(line.strip(), width).split("\n"):
                begin = (self._marks.pop(*at) for at in enumerate(self._indents))
                self._lines.append(f"{''.join(begin)}{part}".rstrip())
