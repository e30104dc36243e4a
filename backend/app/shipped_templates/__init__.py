"""The templates that come with the program, in each of its languages (REQ-001, REQ-004).

One folder a type: `declarations.toml` says once what its templates take, and a file a language what
they say. `notify migrate` puts them into the database.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent
LANGUAGES: Final = ("en", "de", "ar")
DECLARATIONS: Final = "declarations.toml"


@dataclass(frozen=True, slots=True)
class ShippedTemplate:
    """A template in one language.

    Args:
        type: of the notifications that it words; its folder.
        priority: what they have if the call says nothing else.
        variables: what it takes, by name, as the column has it: `{"type", "required"}`.
        example: a value for each variable, as JSON.
        texts: Jinja2 source by field, such as `title` and `email_html`.
    """

    name: str
    type: str
    language: str
    priority: str
    variables: dict[str, Any]
    example: dict[str, Any]
    texts: dict[str, str]


def shipped_templates() -> list[ShippedTemplate]:
    """All of them, by type, name and language."""
    folders = sorted(path.parent for path in FOLDER.glob(f"*/{DECLARATIONS}"))
    return [template for folder in folders for template in _templates_of(folder)]


def _templates_of(folder: Path) -> Iterator[ShippedTemplate]:
    texts = {language: _read(folder / f"{language}.toml") for language in LANGUAGES}
    for name, declared in _read(folder / DECLARATIONS).items():
        # None is required: each text can do without, and says what can be said.
        variables = {
            variable: {"type": kind, "required": False}
            for variable, kind in declared["variables"].items()
        }
        for language in LANGUAGES:
            yield ShippedTemplate(
                name=name,
                type=folder.name,
                language=language,
                priority=declared["priority"],
                variables=variables,
                example=declared["example"],
                texts={field: text.strip() for field, text in texts[language][name].items()},
            )


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
