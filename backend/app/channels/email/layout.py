"""The one layout of all letters: MJML for HTML, Jinja for what stands in it (REQ-014, REQ-015).

`app/email_templates` holds the sources. MJML compiles them in less than a millisecond, so each
process does it once as it starts: there is no generated file that could be stale or missing.
"""

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined
from mjml import mjml2html

FOLDER: Final = Path(__file__).parents[2] / "email_templates"
LETTERS: Final = ("letter.mjml", "digest.mjml")
INCLUDE: Final = re.compile(r'<mj-include path="([a-z]+\.mjml)" />')
INDENT: Final = re.compile(r"\n\s+")
WIDTH: Final = 76  # characters of a line of plain text


class Layout:
    """The compiled templates; `layout()` gives the one of this process."""

    def __init__(self) -> None:
        self._html = _environment(
            {path.stem: _compiled(path) for path in map(FOLDER.joinpath, LETTERS)}, escapes=True
        )
        self._text = _environment(
            {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.txt")}, escapes=False
        )
        for name in self._html.list_templates():
            self._html.get_template(name)
            self._text.get_template(f"{name}.txt")

    def html(self, name: str, values: dict[str, Any]) -> str:
        """A letter's HTML; strings among the values are text and escaped.

        Args:
            name: `letter` or `digest`.
        """
        return self._html.get_template(name).render(values)

    def text(self, name: str, values: dict[str, Any]) -> str:
        """The same as plain text."""
        return f"{self._text.get_template(f'{name}.txt').render(values).strip()}\n"


@cache
def layout() -> Layout:
    """The layout, compiled at the first call.

    Raises:
        ValueError: a source is no MJML.
        jinja2.TemplateSyntaxError: what it compiles to is no template.
    """
    return Layout()


def wrapped(text: str, width: int = WIDTH) -> str:
    """The text in lines of that width, in characters; what has no spaces stays whole."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _compiled(path: Path) -> str:
    # What the compiler includes by itself forgets how wide the letter is.
    source = INCLUDE.sub(
        lambda found: (FOLDER / found[1]).read_text("utf-8"), path.read_text("utf-8")
    )
    html = mjml2html(source, disable_comments=True, fonts={})  # no font is loaded from elsewhere
    # A page has one main part, which is where those who use a screen reader jump to.
    return INDENT.sub("\n", html.replace('role="article"', 'role="main"'))


def _environment(sources: dict[str, str], *, escapes: bool) -> Environment:
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=escapes,  # noqa: S701 -- plain text has nothing to escape
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wrapped"] = wrapped
    return environment
