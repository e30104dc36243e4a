"""Makes content safe before it is stored (SEC-001, SEC-005 A03).

Titles are plain text. Bodies are Markdown: the source is kept, and beside it HTML that may be put
into a page as it is.
"""

from functools import lru_cache
from html import unescape

import nh3
from markdown_it import MarkdownIt

ALLOWED_TAGS = {
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ALLOWED_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
ALLOWED_SCHEMES = {"http", "https", "mailto"}
LINK_PREFIXES = ("https://", "http://", "mailto:", "/", "#", "?")
CACHE_SIZE = 512
SHORT = 4_096  # characters; longer sources are neither cached nor rendered on an event loop

markdown = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(
    ["table", "strikethrough"]
)


def plain_text(text: str) -> str:
    """The text without its HTML tags, and without outer space; nothing else is changed."""
    stripped = _without_tags(text)
    # Taking `<b>` out of `<<b>i>` leaves a new tag behind.
    while stripped != text:
        text, stripped = stripped, _without_tags(stripped)
    return stripped.strip()


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    # One level of escaping is added before parsing and taken off after, so entities that the
    # caller wrote stay as written.
    return unescape(nh3.clean(text.replace("&", "&amp;"), tags=set(), attributes={}))


def safe_html(source: str) -> str:
    """HTML of a Markdown source, holding only the allowed tags, attributes and link targets."""
    return _cached_html(source) if len(source) <= SHORT else _rendered(source)


@lru_cache(maxsize=CACHE_SIZE)
def _cached_html(source: str) -> str:
    return _rendered(source)


def _rendered(source: str) -> str:
    return nh3.clean(
        markdown.render(source),
        tags=ALLOWED_TAGS,
        attributes=ALLOWED_ATTRIBUTES,
        attribute_filter=_safe_attribute,
        url_schemes=ALLOWED_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    ).strip()


def _safe_attribute(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "href" and not _is_safe_link(value):
        return None
    return value


def _is_safe_link(target: str) -> bool:
    # Browsers read a backslash as a slash and skip tabs and newlines inside an address.
    if any(character in target for character in "\\\t\r\n") or target.startswith("//"):
        return False
    return target.lower().startswith(LINK_PREFIXES)
