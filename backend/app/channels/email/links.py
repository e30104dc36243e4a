"""Where the links of a letter lead, and how its clicks and its opening are noticed (REQ-014)."""

import re
from typing import Final
from urllib.parse import urljoin
from uuid import UUID

from app.security.addresses import is_safe_link
from app.security.email_tokens import EmailTokens

WEB: Final = ("http://", "https://")
MOST_TRACKED: Final = 1_000  # links of a letter; tokens have room for 65,536
# They would end an attribute or a line somewhere on the way.
TO_ENCODE: Final = re.compile(r"[\s<>\"`]")


def absolute(target: str, base_url: str) -> str | None:
    """Where a link of a notification leads, seen from a letter: http, https or mailto.

    Args:
        target: as a caller wrote it, relative to the site or not.

    Returns:
        None where no letter may lead there.
    """
    if not is_safe_link(target):
        return None
    try:
        address = urljoin(f"{base_url}/", target)
    except ValueError:  # such as an IP address that is none
        return None
    return TO_ENCODE.sub(lambda found: f"%{ord(found[0]):02X}", address)


def web_address(target: object, base_url: str) -> str | None:
    """Where a button leads: http or https, None where it may not lead there."""
    address = absolute(target, base_url) if isinstance(target, str) and target else None
    return address if address is not None and is_web(address) else None


def is_web(address: str) -> bool:
    """Whether a browser opens it."""
    return address[:8].lower().startswith(WEB)


class Links:
    """The tracked links of one letter.

    Args:
        letter_id: of its delivery, or its digest.
        tokens: make the tracked addresses; None leaves all links as they are.
    """

    def __init__(self, base_url: str, letter_id: UUID, tokens: EmailTokens | None) -> None:
        self._base_url = base_url
        self._letter_id = letter_id
        self._tokens = tokens
        self._places: dict[str, int] = {}

    def tracked(self, address: str) -> str:
        """What stands in the HTML for an absolute address; equal ones get the same."""
        if self._tokens is None or not is_web(address):
            return address
        place = self._places.get(address)
        if place is None:
            place = len(self._places)
            if place >= MOST_TRACKED:
                return address
            self._places[address] = place
        token = self._tokens.clicked(self._letter_id, place)
        return f"{self._base_url}/api/v1/email/click/{token}"

    @property
    def pixel(self) -> str | None:
        """The address of the image that tells of the opening, None for none."""
        if self._tokens is None:
            return None
        return f"{self._base_url}/api/v1/email/open/{self._tokens.opened(self._letter_id)}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the tracked links lead, by their place."""
        return tuple(self._places)
