"""Makes content safe before it is stored (SEC-001, SEC-005 A03).

Titles are plain text. Bodies are Markdown: the source is kept, and beside it HTML that may be put
into a page as it is.
"""

import re
from html import unescape

import nh3
import pyromark

from app.security.addresses import is_safe_link

ALLOWED_TAGS = {
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
ALLOWED_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
ALLOWED_SCHEMES = {"http", "https", "mailto"}
MAX_HTML = 256 * 1024  # characters; tables may render to fifty times their source
MAX_DEPTH = 100  # elements within each other; parsing takes time by the square of it

# Tags that nest. The others hold nothing, or end where the next of their kind begins.
NESTING_TAG = re.compile(
    r"<(/?)(?!(?:area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr|p|li|t[rdh]|d[td])\b)"
    r"[a-z]",
    re.IGNORECASE,
)

markdown = pyromark.Markdown(
    options=pyromark.Options.ENABLE_TABLES | pyromark.Options.ENABLE_STRIKETHROUGH
)


class TooComplex(ValueError):
    """A Markdown source that would take too long to clean, or too much room once it is HTML."""


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
    """HTML of a Markdown source, holding only the allowed tags, attributes and link targets.

    Raises:
        TooComplex: it nests more than 100 levels deep, or has more than 256 Ki characters of HTML.
    """
    return clean_html(markdown.html(source))


def clean_html(html: str) -> str:
    """The HTML with nothing but the allowed tags, attributes and link targets.

    Raises:
        TooComplex: it nests more than 100 levels deep, or has more than 256 Ki characters.
    """
    if len(html) > MAX_HTML:
        raise TooComplex(f"renders to more than {MAX_HTML // 1024} Ki characters of HTML")
    if _depth(html) > MAX_DEPTH:
        raise TooComplex(f"nests more than {MAX_DEPTH} levels deep")
    return cleaner.clean(html).strip()


def _depth(html: str) -> int:
    depth = deepest = 0
    for closing in NESTING_TAG.findall(html):
        depth += -1 if closing else 1
        if depth > deepest:  # noqa: PLR1730 -- a call of max costs more than the rest
            deepest = depth
    return deepest


def _safe_attribute(tag: str, attribute: str, value: str) -> str | None:
    if attribute == "href" and not is_safe_link(value):
        return None
    return value


cleaner = nh3.Cleaner(
    tags=ALLOWED_TAGS,
    attributes=ALLOWED_ATTRIBUTES,
    attribute_filter=_safe_attribute,
    url_schemes=ALLOWED_SCHEMES,
    link_rel="noopener noreferrer nofollow",
)
