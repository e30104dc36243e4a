"""Writes letters into a folder, to be looked at and checked: `scripts/letters.py OUT`.

Those with golden files, and one for each golden file of a template: a JSON object with the
rendered fields (`title`, `body`, `email_subject`, `email_html`, `email_text`), named
`NAME.LANGUAGE.json`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "backend"))

from app.channels.texts import ChannelTexts  # noqa: E402
from tests.letter_samples import ADDRESS, a_claim, composer, letters  # noqa: E402

TEMPLATES = ROOT / "backend/tests/goldens/templates"


def letters_of_templates() -> Iterator[tuple[str, str]]:
    """The HTML of each shipped template in its language, by a name for it."""
    write = composer()
    for path in sorted(TEMPLATES.rglob("*.json")):
        fields: dict[str, str | None] = json.loads(path.read_text("utf-8"))
        name = ".".join(path.relative_to(TEMPLATES).with_suffix("").parts)
        language = name.rpartition(".")[2]
        texts = {field: fields.get(field) for field in ChannelTexts.__dataclass_fields__}
        claim = a_claim(
            fields.get("title") or name,
            fields.get("body") or "",
            locale=language,
            language=language,
            texts=ChannelTexts(**texts),
        )
        yield f"template.{name}", write.instant(claim, ADDRESS).html


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, letter in letters():
        (folder / f"{name}.html").write_text(letter.html, "utf-8")
        (folder / f"{name}.txt").write_text(letter.text, "utf-8")
    for name, html in letters_of_templates():
        (folder / f"{name}.html").write_text(html, "utf-8")


if __name__ == "__main__":
    main()
