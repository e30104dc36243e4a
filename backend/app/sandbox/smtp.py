"""A mail server on loopback (RFC 5321), over the sandbox's mailbox: where `SMTP_URL` may point.

It takes any credentials and none, keeps what it accepts, and passes nothing on.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from app.sandbox.faults import (
    CountedFault,
    DelayFault,
    DropAfterFault,
    DropFault,
    Faults,
    HangFault,
    StatusFault,
)
from app.sandbox.mailbox import Clock, Mailbox, bare_address
from app.sandbox.mime import read_message

MAX_MESSAGE_BYTES = 10 * 1024 * 1024
MAX_RECIPIENTS = 100
IDLE_SECONDS = 60
GOES_ON = "250 OK"
_PERMANENT = 500


class MailServer:
    """What the server answers; `aiosmtpd` speaks the protocol.

    Args:
        mailbox: takes the mails.
        faults: the rules for providers `smtp` (a mail's data) and `smtp_rcpt` (a recipient).
        clock: tells when a mail is received.
    """

    def __init__(self, mailbox: Mailbox, faults: Faults, clock: Clock) -> None:
        self._mailbox = mailbox
        self._faults = faults
        self._clock = clock
        self._open: set[_Connection] = set()

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncGenerator[None]:
        """Take mails while the context lasts; connections are cut off at its end."""
        # It logs every command, addresses included.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        server = await asyncio.get_running_loop().create_server(self._connection, sock=listener)
        try:
            yield
        finally:
            server.close()
            for connection in list(self._open):
                connection.cut()
            await server.wait_closed()

    def _connection(self) -> "_Connection":
        return _Connection(self, self._open)

    async def handle_RCPT(  # noqa: N802 -- the names that aiosmtpd calls
        self,
        server: "_Connection",
        _session: Session,
        envelope: Envelope,
        address: str,
        options: list[str],
    ) -> str:
        """Answer whether a recipient is taken."""
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        fault = self._faults.next("smtp_rcpt", {bare_address(address)})
        answer = await self._obey(fault, server, "5.1.1 No such mailbox here")
        if answer == GOES_ON:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        if isinstance(fault, DropAfterFault):
            server.cut()
        return answer

    async def handle_DATA(  # noqa: N802
        self, server: "_Connection", _session: Session, envelope: Envelope
    ) -> str:
        """Keep a mail, and answer the id it has in the mailbox."""
        fault = self._faults.next("smtp", set(map(bare_address, envelope.rcpt_tos)))
        answer = await self._obey(fault, server, "The mail is not taken")
        if answer != GOES_ON:
            return answer
        source = envelope.original_content or b""
        mail = read_message(
            source,
            sender=envelope.mail_from or "",
            recipients=envelope.rcpt_tos,
            at=self._clock(),
        )
        self._mailbox.accept_message(mail, source)
        if isinstance(fault, DropAfterFault):
            server.cut()
        return f"250 2.0.0 Queued as {mail.id}"

    async def _obey(self, fault: CountedFault | None, server: "_Connection", refusal: str) -> str:
        match fault:
            case StatusFault(status=status, message=message):
                hint = "4.3.0 Try again later" if status < _PERMANENT else refusal
                return f"{status} {message or hint}"
            case DelayFault(seconds=seconds):
                if await self._faults.hold(seconds):
                    return GOES_ON
            case HangFault(seconds=seconds):
                await self._faults.hold(seconds)
            case DropFault():
                pass
            case _:
                return GOES_ON
        server.cut()
        return "421 4.4.2 Gone"


class _Connection(SMTP):
    """One client's connection, which a fault may cut off."""

    def __init__(self, handler: MailServer, others: "set[_Connection]") -> None:
        super().__init__(
            handler,
            data_size_limit=MAX_MESSAGE_BYTES,
            enable_SMTPUTF8=True,
            hostname="sandbox.localhost",
            ident="notify sandbox",
            timeout=IDLE_SECONDS,
            auth_require_tls=False,
            authenticator=_anybody,
        )
        self._others = others

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._others.discard(self)
        super().connection_lost(error)

    def cut(self) -> None:
        """Reset the connection, so that the client gets no answer."""
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()


def _anybody(*_told: object) -> AuthResult:
    return AuthResult(success=True)
