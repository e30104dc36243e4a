"""What may stand in the header of an email: one line, and an address that is one (RFC 5322).

Every letter passes here before it reaches a provider, so nothing in a title, a name or an address
can begin a header of its own.
"""

import re
from dataclasses import replace
from email.headerregistry import Address
from email.utils import formataddr
from typing import Final

from app.channels.base import Failed
from app.channels.email.letter import Letter
from app.policy.kinds import Reason

LONGEST_ADDRESS: Final = 320  # characters

# No quoted local parts: nobody registers such an address, and it would need quoting everywhere.
_PART = r"[^\s\x00-\x20\x7f-\x9f@<>()\[\],;:\"\\]+"
_ADDRESS = re.compile(rf"{_PART}@{_PART}")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,76}")
# All that any program may take for the end of a line, or of a text.
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """The text without anything that could end a line."""
    return " ".join(_NOT_PRINTED.sub(" ", text).split())


def is_address(text: str) -> bool:
    """Whether it is a bare address, in any script."""
    return len(text) <= LONGEST_ADDRESS and _ADDRESS.fullmatch(text) is not None


def checked(letter: Letter) -> Letter | Failed:
    """The letter with one line where one line belongs.

    Headers whose name is none are left out.
    """
    if not is_address(letter.to):
        return Failed(Reason.PROVIDER_REJECTED, "It is no email address.")
    return replace(
        letter,
        subject=one_line(letter.subject),
        headers={
            name: one_line(value)
            for name, value in letter.headers.items()
            if _HEADER_NAME.fullmatch(name)
        },
    )


def display_name(name: str) -> str:
    """A sender's name as it may be shown; pointed brackets would end it for many programs."""
    return one_line(re.sub(r"[<>]", " ", name))


def mailbox(name: str, address: str) -> str:
    """`Name <address>`, the name quoted where it has to be; letters of any script stay."""
    shown, address = display_name(name), one_line(address)
    if shown.isascii():
        return formataddr((shown, address))
    if re.search(r'[][()@,:;.\\"]', shown):
        shown = '"' + re.sub(r'([\\"])', r"\\\1", shown) + '"'
    return f"{shown} <{address}>"


def sender(name: str, address: str) -> Address:
    """The same for a header of the standard library, which encodes it."""
    user, _, domain = address.rpartition("@")
    return Address(display_name=display_name(name), username=user, domain=domain)
