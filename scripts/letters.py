"""Writes letters into a folder, to be looked at and checked: `scripts/letters.py OUT`.

`OUT` gets those with golden files, `OUT/templates` one of every shipped template in every language.
"""

import asyncio
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "backend"))

from app.channels.email.letter import Letter  # noqa: E402
from tests.letter_samples import letters, template_letters  # noqa: E402


async def main() -> None:
    """Write them all, HTML and text."""
    folder = Path(sys.argv[1])
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    for name, letter in letters():
        write(folder / name, letter)
    async for name, letter in template_letters():
        write(folder / "templates" / name, letter)


def write(path: Path, letter: Letter) -> None:
    """A file for each part of a letter."""
    path.with_name(f"{path.name}.html").write_text(letter.html, "utf-8")
    path.with_name(f"{path.name}.txt").write_text(letter.text, "utf-8")


if __name__ == "__main__":
    asyncio.run(main())
