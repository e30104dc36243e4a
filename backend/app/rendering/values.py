"""How values stand in a template's text: as text, whatever they hold (SEC-005, A03).

They may come from anybody. In Markdown they are no markup, as in HTML; nowhere do they turn the
direction of what follows them, and one in another script stands as a whole of its own.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from jinja2.runtime import Context
from jinja2.utils import pass_context
from markupsafe import Markup

from app.rendering.conventions import NAME

Kind = Literal["text", "html", "markdown"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

DIRECTIONS: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
CLOSED: Final = re.compile(
    "[^{0}]*(?:[\u2066-\u2068][^{0}]*\u2069[^{0}]*)*".format("\u202a-\u202e\u2066-\u2069")
)
ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"
OTHER_SCRIPTS: Final[Mapping[str, frozenset[str]]] = {
    "left-to-right": frozenset({"R", "AL"}),
    "right-to-left": frozenset({"L"}),
}
LETTERS: Final = frozenset({"L", "R", "AL"})
# Words around it that are written from the right would turn the parts of a number like 2026-0042.
NUMBER_OF_PARTS: Final = re.compile("(?:^[-+]|[0-9][^0-9.,:/]+)[0-9]")
# Inside an address nothing may be put.
ADDRESS: Final = re.compile(r"(?:[/?#]|[a-z][a-z0-9+.-]*:)\S*", re.IGNORECASE)
MARKS: Final = re.compile(r"[\\`*_\[\]<>~|]|&(?=#|[a-z][a-z0-9]*;)", re.IGNORECASE)
# What begins a list, a heading or a line under one: after this much of a line.
BLOCK: Final = re.compile(r"^\s*(?:\d{1,9}(?=[.)](?:\s|$))|(?=[-+](?:[\s-]|$)|#(?:[#\s]|$)|=))")


def shown_in(kind: Kind) -> Callable[[Context, Any], Any]:
    """What stands for a value in texts of a kind; nothing for None.

    What a template says itself, as in a macro, stays as it is.
    """

    @pass_context
    def shown(context: Context, value: Any) -> Any:
        if value is None:
            return ""
        if isinstance(value, Markup):
            return value
        if isinstance(value, str):
            value = isolated(value, context[NAME].locale.character_order)
        return escaped_markup(value) if kind == "markdown" else value

    return shown


def isolated(value: str, order: str) -> str:
    """The value as it turns nothing else: without marks of direction, but for closed isolates.

    One with letters that are written the other way is put into an isolate, as is a number in parts
    where the text is written from the right.

    Args:
        order: of the text around it, as CLDR has it: `left-to-right` or `right-to-left`.
    """
    if DIRECTIONS.search(value):
        if CLOSED.fullmatch(value):  # such as what a template has set itself
            return value
        value = DIRECTIONS.sub("", value)
    if (value.isascii() and order == "left-to-right") or ADDRESS.fullmatch(value):
        return value
    scripts = {unicodedata.bidirectional(character) for character in value}
    is_turned = not scripts & LETTERS and order != "left-to-right" and NUMBER_OF_PARTS.search(value)
    if is_turned or scripts & OTHER_SCRIPTS[order]:
        return f"{ISOLATE}{value}{END_OF_ISOLATE}"
    return value


def escaped_markup(value: object) -> Markup:
    """Markdown that shows the value, and is not escaped again."""
    return value if isinstance(value, Markup) else Markup(escaped(str(value)))  # noqa: S704


def escaped(value: str) -> str:
    """Markdown that shows the text; its lines stay apart, and are one paragraph."""
    lines = value.splitlines()
    if len(lines) > 1:
        lines = [line.strip() for line in lines if line.strip()]
    return "\\\n".join(_escaped_line(line) for line in lines)


def _escaped_line(line: str) -> str:
    return BLOCK.sub(r"\g<0>\\", MARKS.sub(r"\\\g<0>", line))
