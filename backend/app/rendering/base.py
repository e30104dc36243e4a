"""What rendering takes and gives (REQ-004)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import JsonValue

FIELDS: Final = (
    "title", "body", "email_subject", "email_html", "email_text", "push_title", "push_body",
)  # fmt: skip
"""What a template has texts for; the columns are named after them, with `_template` behind."""

HTML_FIELDS: Final = frozenset({"email_html"})
"""Those whose values are escaped: they are HTML."""

MARKDOWN_FIELDS: Final = frozenset({"body"})
"""Those whose values are escaped, too: they are Markdown."""


@dataclass(frozen=True, slots=True)
class Job:
    """A template to render.

    Args:
        sources: Jinja2 source of each field that the template has.
        variables: checked against what the template declares; every declared one is there.
        language: a BCP 47 tag, for plurals, numbers and dates.
        timezone: IANA name, for dates.
    """

    sources: Mapping[str, str]
    variables: Mapping[str, JsonValue]
    language: str = "en"
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class CannotRender:
    """Why a template has no text; nothing of the variables is in it.

    Args:
        field: the one at fault.
        code: stable: `syntax_error`, `undefined_variable`, `forbidden`, `too_slow`, `too_large`,
            `failed`.
        message: a sentence for whoever wrote the template, with the line where it is known.
    """

    field: str
    code: str
    message: str


Rendered = dict[str, str] | CannotRender


@dataclass(frozen=True, slots=True)
class Checked:
    """What a template's sources need.

    Args:
        variables: all names that the sources use and do not set themselves.
    """

    variables: frozenset[str]


class Renderer(Protocol):
    """Renders templates somewhere else."""

    async def render(self, jobs: Sequence[Job]) -> list[Rendered]:
        """The text of each field of each job, or why there is none.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        ...

    async def check(self, sources: Mapping[str, str]) -> Checked | CannotRender:
        """Compile sources without rendering them.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        ...
