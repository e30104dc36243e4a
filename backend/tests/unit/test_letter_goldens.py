"""Whole letters against files that people have looked at (REQ-014, REQ-015).

`WRITE_GOLDENS=1` writes them anew: look at the difference, and at the letters themselves
(`scripts/letters.py OUT`), before committing it.
"""

import os
from pathlib import Path

import pytest

from app.channels.email.letter import Letter
from tests.letter_samples import letters

FOLDER = Path(__file__).parents[1] / "goldens/letters"
LETTERS = dict(letters())


@pytest.mark.parametrize("name", LETTERS)
def test_a_letter_is_as_it_was_looked_at(name: str) -> None:
    for path, text in parts_of(name, LETTERS[name]).items():
        if os.environ.get("WRITE_GOLDENS"):
            path.write_text(text, "utf-8")
        assert path.read_text("utf-8") == text


def test_no_file_is_left_of_a_letter_that_is_gone() -> None:
    expected = {path for name in LETTERS for path in parts_of(name, LETTERS[name])}
    assert set(FOLDER.iterdir()) == expected


def parts_of(name: str, letter: Letter) -> dict[Path, str]:
    links = "".join(f"{place}: {target}\n" for place, target in enumerate(letter.links))
    return {
        FOLDER / f"{name}.html": letter.html,
        FOLDER / f"{name}.txt": f"Subject: {letter.subject}\n\n{letter.text}\nLinks:\n{links}",
    }
