"""Makes a notification's own words part of a letter: links absolute, headings in order, styled.

Mail programs know neither the page a link is relative to nor many style sheets, so every link is
written out and every element carries its style.
"""

import re
from collections.abc import Callable
from functools import cache
from html import escape, unescape
from typing import Final, Literal

import nh3
from css_inline import CSSInliner

from app.channels.email.layout import FOLDER
from app.channels.email.links import absolute
from app.channels.push_content import plain_text
from app.security.sanitize import ALLOWED_SCHEMES, ALLOWED_TAGS

MOST_HTML: Final = 60_000  # bytes; Gmail hides what is beyond 102 KB of a letter, links below too
HEADING: Final = re.compile(r"<(/?)h([1-6])>")
LINK: Final = re.compile(r'(<a href=")([^"]*)(")')
TAG: Final = re.compile(r"<(/?)([a-z][a-z0-9]*)[^>]*>")
TAG_OR_TEXT: Final = re.compile(r"(<[^>]+>)")
LONG_WORD: Final = re.compile(r"[^\s&;]{16}(?=[^\s&;])")
EMPTY: Final = re.compile(r"<(h[1-6]|a)(?: [^>]*)?>\s*</\1>")
LONE_TAGS: Final = frozenset({"br", "hr"})
LOWEST_HEADING: Final = 6


class Content:
    """Prepares HTML for letters.

    Args:
        base_url: what relative links are relative to.
    """

    def __init__(self, base_url: str) -> None:
        def with_address(tag: str, attribute: str, value: str) -> str | None:
            return absolute(value, base_url) if attribute == "href" else value

        # What a tooltip says is read to nobody, and `rel` means nothing here.
        self._cleaner = nh3.Cleaner(
            tags=ALLOWED_TAGS,
            attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
            attribute_filter=with_address,
            url_schemes=ALLOWED_SCHEMES,
            link_rel=None,
        )

    def prepared(self, html: str) -> str:
        """Safe HTML with absolute links, its headings below the letter's own.

        Args:
            html: as it is stored.
        """
        return EMPTY.sub("", _below_the_title(self._cleaner.clean(html).strip()))


def with_links(html: str, replace: Callable[[str], str]) -> str:
    """Prepared HTML with its links replaced, each address by what the function gives for it."""
    return LINK.sub(
        lambda found: f"{found[1]}{escape(replace(unescape(found[2])))}{found[3]}", html
    )


def styled(html: str, start: Literal["left", "right"]) -> str:
    """Prepared HTML with its style in every element.

    Args:
        start: the side that its lines begin on.
    """
    return _inliner().inline_fragment(_breakable(html), _sheet(start)) if html else ""


def fitting(html: str, start: Literal["left", "right"]) -> str:
    """As much of prepared HTML as may be in a letter, whole elements, 60,000 bytes with styles."""
    size = len(styled(html, start).encode())
    while size > MOST_HTML:
        # Never so little less that it takes many rounds.
        html = _beginning(html, len(html) * MOST_HTML * 9 // (size * 10))
        size = len(styled(html, start).encode())
    return html


def _below_the_title(html: str) -> str:
    """Headings that begin at the second level, and none of which skips one."""
    last, opened = 1, list[int]()

    def renumbered(found: re.Match[str]) -> str:
        nonlocal last
        if found[1]:
            return f"</h{opened.pop() if opened else last}>"
        last = min(int(found[2]) + 1, last + 1, LOWEST_HEADING)
        opened.append(last)
        return f"<h{last}>"

    return HEADING.sub(renumbered, html)


def _breakable(html: str) -> str:
    """The same, where long words in tables may be broken, so that a phone has room for them."""
    if "<table>" not in html:
        return html
    depth, parts = 0, TAG_OR_TEXT.split(html)
    for place, part in enumerate(parts):
        if part in ("<table>", "</table>"):
            depth += 1 if part == "<table>" else -1
        elif depth and not part.startswith("<"):
            parts[place] = LONG_WORD.sub(r"\g<0><wbr>", part)
    return "".join(parts)


def _beginning(html: str, most: int) -> str:
    depth = end = 0
    for found in TAG.finditer(html):
        if found.end() > most:
            break
        if found[2] not in LONE_TAGS:
            depth += -1 if found[1] else 1
        if depth == 0:
            end = found.end()
    if end:
        return html[:end]
    return f"<p>{escape(plain_text(html)[:most])}</p>".replace("\n", "<br>")


@cache
def _inliner() -> CSSInliner:
    return CSSInliner(load_remote_stylesheets=False)


@cache
def _sheet(start: str) -> str:
    end = "right" if start == "left" else "left"
    sheet = (FOLDER / "content.css").read_text("utf-8")
    return sheet.replace("{{ start }}", start).replace("{{ end }}", end)
