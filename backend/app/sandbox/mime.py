"""Mails as they travel (RFC 5322): read from their source, and written for those that had none."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import getaddresses
from uuid import uuid4

from app.sandbox.mailbox import Mail, bare_address

# What the mail says in fields of its own, or what only the journey needs.
_TOLD_ELSEWHERE = frozenset(
    {"from", "to", "cc", "bcc", "reply-to", "subject", "received", "mime-version", "content-type"}
    | {"content-transfer-encoding", "content-disposition"}
)
# The package folds longer words, such as addresses of links, into ones nobody can read.
_UNFOLDED = SMTP.clone(max_line_length=998)


def read_message(source: bytes, *, sender: str, recipients: Sequence[str], at: datetime) -> Mail:
    """The mail that a source holds, however broken it is.

    Args:
        source: what followed SMTP's DATA.
        sender: the envelope's, for a mail that names none.
        recipients: the envelope's; those that the mail does not name are its `bcc`.
        at: when it arrived.
    """
    message = message_from_bytes(source, policy=SMTPUTF8)
    to, cc = _addresses(message, "to"), _addresses(message, "cc")
    named = set(map(bare_address, (*to, *cc)))
    hidden = [address for address in recipients if bare_address(address) not in named]
    return Mail(
        id=str(uuid4()),
        idempotency_key=None,
        sender=_text(message, "from") or sender,
        to=to or (list(recipients) if not cc else []),
        cc=cc,
        bcc=hidden if to or cc else [],
        reply_to=_addresses(message, "reply-to"),
        subject=_text(message, "subject"),
        html=_body(message, "html"),
        text=_body(message, "plain"),
        headers={
            name: _text(message, name) for name in message if name.lower() not in _TOLD_ELSEWHERE
        },
        tags=[],
        received_at=at,
        via="smtp",
    )


def write_message(mail: Mail) -> bytes:
    """The source a mail would have that was handed over as fields, like Resend's."""
    message = EmailMessage(policy=_UNFOLDED)
    addressed = {"To": mail.to, "Cc": mail.cc, "Reply-To": mail.reply_to}
    _put(message, "From", mail.sender)
    for name, addresses in addressed.items():
        if addresses:
            _put(message, name, ", ".join(addresses))
    _put(message, "Subject", mail.subject)
    message["Date"] = mail.received_at
    message["Message-ID"] = message_id(mail)
    for name, value in mail.headers.items():
        if name.lower() not in _TOLD_ELSEWHERE:
            _put(message, name, value)
    if mail.text is not None:
        message.set_content(mail.text)
    if mail.html is not None and mail.text is not None:
        message.add_alternative(mail.html, subtype="html")
    elif mail.html is not None:
        message.set_content(mail.html, subtype="html")
    return message.as_bytes()


def message_id(mail: Mail) -> str:
    """What a mail of Resend's is known as to those that pass it on."""
    return f"<{mail.id}@sandbox.localhost>"


def _put(message: EmailMessage, name: str, value: str) -> None:
    # A name that may be there once only, or a value no mail could have: the sender's own mistake.
    with suppress(ValueError):
        message[name] = value


def _text(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, LookupError, IndexError, AttributeError):  # headers the parser trips over
        return ""


def _addresses(message: EmailMessage, name: str) -> list[str]:
    found = getaddresses([_text(message, name)])
    return [f"{shown} <{address}>" if shown else address for shown, address in found if address]


def _body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body(preferencelist=(kind,))
    if part is None:
        return None
    try:
        return str(part.get_content()).replace("\r\n", "\n")
    except (LookupError, ValueError):  # an unknown character set, or none of its characters
        content = part.get_payload(decode=True)
        return content.decode("utf-8", "replace") if isinstance(content, bytes) else None
