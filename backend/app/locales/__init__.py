"""The system's own words, in the languages it speaks; templates have their own.

Each language is a file of phrases. One with a number in it has a text for each plural category of
its language (CLDR), chosen by `count`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from babel import Locale, UnknownLocaleError
from babel.numbers import format_decimal

FOLDER: Final = Path(__file__).parent
DEFAULT: Final = "en"
LONGEST_TAG: Final = 35  # characters, as RFC 5646 (4.4.1) has it; browsers may send any

Phrase = str | Mapping[str, str]


def languages_of(tag: str | None) -> list[str]:
    """Where to look for a language: `pt-BR` in `pt-br`, then `pt`, then `en`; lower case.

    Args:
        tag: BCP 47, None when it is not known; of one that is too long, the beginning counts.
    """
    parts = (tag or "")[:LONGEST_TAG].lower().replace("_", "-").split("-")
    chain = ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return list(dict.fromkeys([*filter(None, chain), DEFAULT]))


@dataclass(frozen=True, slots=True)
class Phrases:
    """The words of one language.

    Args:
        language: its tag.
        direction: of its script, as HTML's `dir` has it.
    """

    language: str
    direction: Literal["ltr", "rtl"]
    _locale: Locale
    _phrases: Mapping[str, Phrase]

    def __call__(self, key: str, *, count: int | None = None, **values: str) -> str:
        """A phrase, such as `letter.unsubscribe`, with its values filled in.

        Args:
            count: chooses the plural, and is shown as `{count}` in the language's own digits.
            values: plain text; the caller escapes the whole where it goes into HTML.
        """
        phrase = self._phrases[key]
        if not isinstance(phrase, str):
            if count is None:
                raise ValueError(f"{key} needs a count")
            phrase = phrase.get(self._locale.plural_form(count)) or phrase["other"]
        shown = {} if count is None else {"count": format_decimal(count, locale=self._locale)}
        return phrase.format(**shown, **values)

    @property
    def locale(self) -> Locale:
        """For dates and numbers."""
        return self._locale


def phrases_of(tag: str | None) -> Phrases:
    """The words for whoever speaks this language, else English."""
    known = available()
    return _read(next(name for name in languages_of(tag) if name in known))


@lru_cache(maxsize=1)
def available() -> frozenset[str]:
    """The languages that there are words in."""
    return frozenset(path.stem for path in FOLDER.glob("*.toml"))


@lru_cache
def locale_of(tag: str | None) -> Locale:
    """The conventions of a language and region for dates and numbers, else of English."""
    for name in languages_of(tag):
        try:
            return Locale.parse(name, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
    return Locale.parse(DEFAULT)


@lru_cache
def _read(language: str) -> Phrases:
    with (FOLDER / f"{language}.toml").open("rb") as file:
        sections = tomllib.load(file)
    locale = Locale.parse(language, sep="-")
    return Phrases(
        language,
        "rtl" if locale.character_order == "right-to-left" else "ltr",
        locale,
        {
            f"{section}.{name}": phrase
            for section, of in sections.items()
            for name, phrase in of.items()
        },
    )
