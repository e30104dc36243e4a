"""A letter as an Internet message (RFC 5322), both parts in it (RFC 2046, 5.1.4)."""

from datetime import datetime
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from typing import Any, Final
from uuid import UUID

import idna

from app.channels.base import Failed
from app.channels.email.letter import Letter
from app.channels.email.lines import sender
from app.policy.kinds import Reason

LONGEST_LINE: Final = 998  # bytes (RFC 5322, 2.1.1)


class _LetterPolicy(EmailPolicy):
    """The standard library's, which leaves ASCII headers on one line.

    It folds addresses of links by encoding them, and then no program finds them any more.
    """

    def fold(self, name: str, value: Any) -> str:
        line = f"{name}: {value}"
        if line.isascii() and len(line) <= LONGEST_LINE and "\r" not in line and "\n" not in line:
            return line + self.linesep
        if name.lower() == "subject" and not self.utf8:
            # The policy's own folding loses the space that a line of encoded words ends in.
            words = Header(str(value), "utf-8", self.max_line_length, name)
            return f"{name}: {words.encode(linesep=self.linesep)}{self.linesep}"
        return super().fold(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:
        line = self.fold(name, value)
        return line.encode("utf-8" if self.utf8 else "ascii", "surrogateescape")


# Seven bits everywhere, so that any server takes it; encoded words on lines as short as they must
# be (RFC 2047, 2).
_POLICY = _LetterPolicy(linesep=SMTP.linesep, cte_type="7bit", max_line_length=76)


def reachable(address: str) -> str | Failed:
    """The address with its domain in ASCII (RFC 5890), so that few servers need SMTPUTF8 for it."""
    local, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}@{idna.encode(domain, uts46=True).decode()}"
    except idna.IDNAError:
        return Failed(Reason.PROVIDER_REJECTED, "Its domain is none.")


def message_id(letter_id: UUID, sender_address: str) -> str:
    """The same for every try of a letter, by which mailboxes tell a second one."""
    return f"<{letter_id}@{sender_address.rpartition('@')[2]}>"


def message_of(
    letter: Letter, *, to: str, from_name: str, from_address: str, at: datetime
) -> EmailMessage:
    """The message, with headers that every email has.

    Args:
        letter: checked.
        to: as `reachable` gives it.
        at: an aware instant, for `Date`.
    """
    policy = _POLICY if to.isascii() else _POLICY.clone(utf8=True)
    message = EmailMessage(policy=policy)
    message["From"] = sender(from_name, from_address)
    if to.isascii():
        message["To"] = Address(addr_spec=to)
    else:
        local, _, domain = to.rpartition("@")
        message["To"] = Address(username=local, domain=domain)
    message["Subject"] = letter.subject
    message["Date"] = at
    message["Message-ID"] = message_id(letter.id, from_address)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers, please
    for name, value in letter.tags.items():
        message[f"X-{name.replace('_', '-').title()}"] = value
    for name, value in letter.headers.items():
        if name.lower() not in _OURS:
            message[name] = value
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    return message


_OURS = frozenset(
    {"from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version"}
    | {"cc", "bcc", "content-type", "content-transfer-encoding"}
)
