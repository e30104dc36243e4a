"""Reading what Resend posts; what is odd or missing in it is left aside (REQ-014)."""

import re
from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Final, cast
from uuid import UUID

from app.security.redact import mask_text

HARD: Final = "hard"
SOFT: Final = "soft"
BOUNCES: Final = {"permanent": HARD, "transient": SOFT}
ADDRESS: Final = re.compile(r"[^\s<>\"']+@[^\s<>\"']+")
LONGEST_NAME: Final = 200
LONGEST_WORDS: Final = 200
LONGEST_LINK: Final = 2_000


class ResendReport:
    """The `data` of a webhook about an email.

    Args:
        data: as it was posted.
        own_links: how the addresses of links in our own letters begin; their tokens are secrets.
    """

    def __init__(self, data: Mapping[str, object], own_links: str) -> None:
        self._data = data
        self._own_links = own_links

    @property
    def email_id(self) -> str | None:
        """Resend's name for the letter."""
        given = self._data.get("email_id")
        if not isinstance(given, str) or len(given) > LONGEST_NAME:
            return None
        return given if given.isprintable() else None

    def tagged(self, name: str) -> UUID | None:
        """An id that the letter was tagged with; tags come as an object, or as a list of pairs."""
        given = self._data.get("tags")
        if isinstance(given, list):
            pairs = [_object(item) for item in cast("list[object]", given)]
            value = next((pair.get("value") for pair in pairs if pair.get("name") == name), None)
        else:
            value = _object(given).get(name)
        try:
            return UUID(value) if isinstance(value, str) else None
        except ValueError:
            return None

    @property
    def addresses(self) -> Sequence[str]:
        """Whom it is about, sorted."""
        given = self._data.get("to")
        listed = cast("list[object]", given) if isinstance(given, list) else [given]
        parsed = (parseaddr(item)[1].lower() for item in listed if isinstance(item, str))
        return sorted({address for address in parsed if "@" in address})

    @property
    def bounce(self) -> str:
        """`hard`, `soft`, or `undetermined`."""
        kind = _object(self._data.get("bounce")).get("type")
        return BOUNCES.get(str(kind).lower(), "undetermined")

    @property
    def explanation(self) -> str:
        """Why it did not arrive: a line without addresses, empty when nothing was said."""
        parts: list[str] = []
        for about in ("bounce", "failed", "suppressed"):
            said = _object(self._data.get(about))
            words = [said.get(name) for name in ("type", "subType", "reason", "message")]
            parts += [word for word in words if isinstance(word, str)]
        line = "".join(c if c.isprintable() else " " for c in ": ".join(parts)[:2_000])
        return mask_text(ADDRESS.sub("[email]", line))[:LONGEST_WORDS]

    @property
    def user_agent(self) -> str | None:
        """What the reader's program called itself; None where Resend does not tell."""
        said = self._of_reader("userAgent")
        return said if isinstance(said, str) else None

    @property
    def is_own_link(self) -> bool:
        """Whether the click was on a link that leads here."""
        link = self._of_reader("link")
        return isinstance(link, str) and link.startswith(self._own_links)

    @property
    def link(self) -> str | None:
        """Where the click led; None for none, or for one of our own."""
        link = self._of_reader("link")
        if not isinstance(link, str) or not link.startswith(("https://", "http://")):
            return None
        return None if self.is_own_link else mask_text(link[:LONGEST_LINK])

    def _of_reader(self, name: str) -> object:
        return _object(self._data.get("click") or self._data.get("open")).get(name)


def _object(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
