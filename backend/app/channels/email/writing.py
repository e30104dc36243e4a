"""In which language and direction words are written."""

import unicodedata
from dataclasses import dataclass
from typing import Literal

from app.locales import Phrases, locale_of


@dataclass(frozen=True, slots=True)
class Writing:
    """How words are marked in HTML.

    Args:
        language: a BCP 47 tag, empty where it is not known.
        direction: as HTML's `dir` has it.
    """

    language: str
    direction: Literal["ltr", "rtl"]

    @property
    def start(self) -> Literal["left", "right"]:
        """The side that lines begin on."""
        return "left" if self.direction == "ltr" else "right"


def writing_of(text: str, language: str | None, around: Writing) -> Writing:
    """How a text is written.

    Where its language is not known, its first letter decides, as with `dir="auto"`, which not
    every mail program understands.

    Args:
        language: a BCP 47 tag, None when it is not known.
        around: how the words around it are written; decides where the text has no letters.
    """
    if language is not None and locale_of(language).language == _base(language):
        is_rtl = locale_of(language).character_order == "right-to-left"
        return Writing(language, "rtl" if is_rtl else "ltr")
    for character in text:
        match unicodedata.bidirectional(character):
            case "L":
                return Writing(language or "", "ltr")
            case "R" | "AL":
                return Writing(language or "", "rtl")
            case _:
                continue
    return Writing(language or "", around.direction)


def frame_of(phrases: Phrases) -> Writing:
    """How the system's own words are written."""
    return Writing(phrases.language, phrases.direction)


def _base(language: str) -> str:
    return language.replace("_", "-").split("-")[0].lower()
