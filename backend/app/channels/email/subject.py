"""What may stand in a letter's subject: one short line (SEC-005 A03)."""

import re
from typing import Final

from app.security.lines import plain_line

LONGEST: Final = 255  # characters
ELLIPSIS: Final = "…"
ENCODED_WORD: Final = re.compile(r"=(?=\?[^?\s]+\?[bq]\?)", re.IGNORECASE)


def subject_of(*texts: str | None) -> str:
    """The first of the texts of which there is something left as one line of plain text.

    Line breaks become spaces, control characters and unclosed marks of writing direction go, so
    nothing can add a header or turn the line around. What looks like an encoded word (RFC 2047)
    is kept apart, or mailboxes would read from it what was taken out here.

    Args:
        texts: in the order of preference; at least the last has words.
    """
    lines = (ENCODED_WORD.sub("= ", plain_line(text)) for text in texts if text)
    return shortened(next((line for line in lines if line), ""), LONGEST)


def shortened(line: str, most: int) -> str:
    """The line, or its beginning with an ellipsis, of at most so many characters."""
    if len(line) <= most:
        return line
    beginning = line[: most - 1]
    space = beginning.rfind(" ", most * 3 // 4)
    # What is cut may have held the end of a mark of direction.
    return plain_line(beginning[:space] if space > 0 else beginning).rstrip() + ELLIPSIS
