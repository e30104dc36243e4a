"""A real SMTP server on loopback that keeps what it is handed and answers what it is told to."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as PLAIN
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Received:
    """A mail as the server took it."""

    sender: str
    to: str
    raw: bytes
    is_encrypted: bool
    is_utf8: bool

    @property
    def message(self) -> EmailMessage:
        return message_from_bytes(self.raw, policy=PLAIN)


@dataclass
class MailServer:
    """What came, and what is answered.

    Args:
        refusals: answers to the commands MAIL, RCPT and DATA, one for each time, before it takes.
        breaks: after DATA, `before` or `after` it has taken the mail, it hangs up so many times.
        hangs: whether it takes mails and never says so.
    """

    port: int = 0
    mails: list[Received] = field(default_factory=list[Received])
    connections: int = 0
    logins: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refusals: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    breaks: list[str] = field(default_factory=list[str])
    hangs: bool = False
    asks_for_login: bool = False
    transports: list[asyncio.Transport] = field(default_factory=list[asyncio.Transport])

    def hang_up(self) -> None:
        """Close every connection."""
        for transport in self.transports:
            transport.abort()
        self.transports.clear()

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        login = (data.login.decode(), data.password.decode())
        self.logins.append(login)
        return AuthResult(success=login == ("notify", "p:w@d"), handled=False)

    def _refusal(self, command: str) -> str | None:
        waiting = self.refusals.get(command)
        return waiting.pop(0) if waiting else None

    async def handle_MAIL(  # noqa: N802 -- aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self._refusal("MAIL"):
            return refusal
        if self.asks_for_login and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _: list[str]
    ) -> str:
        if refusal := self._refusal("RCPT"):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if refusal := self._refusal("DATA"):
            return refusal
        how = self.breaks.pop(0) if self.breaks else ""
        if how != "before":
            self._take(session, envelope)
        if how:
            cast("asyncio.Transport", server.transport).abort()
        if self.hangs:
            await asyncio.sleep(HANG_SECONDS)
        return "250 2.0.0 queued"

    def _take(self, session: Session, envelope: Envelope) -> None:
        (to,) = envelope.rcpt_tos
        assert isinstance(envelope.original_content, bytes)
        self.mails.append(
            Received(
                envelope.mail_from or "",
                to,
                envelope.original_content,
                session.ssl is not None,
                envelope.smtp_utf8,
            )
        )


@asynccontextmanager
async def serving_mail(
    tls: ssl.SSLContext | None = None,
    *,
    from_the_start: bool = False,
    utf8: bool = True,
    asks_for_login: bool = False,
) -> AsyncGenerator[MailServer]:
    """A server while the context lasts.

    Args:
        tls: with it STARTTLS is offered, or encryption `from_the_start`.
        utf8: whether SMTPUTF8 is offered.
        asks_for_login: whether it takes mail only from user `notify` with password `p:w@d`.
    """
    told = MailServer(asks_for_login=asks_for_login)
    loop = asyncio.get_running_loop()

    class Counted(SMTP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            told.connections += self.transport is None
            told.transports.append(cast("asyncio.Transport", transport))
            super().connection_made(transport)

    def protocol() -> SMTP:
        return Counted(
            told,
            hostname="localhost",
            enable_SMTPUTF8=utf8,
            tls_context=None if from_the_start else tls,
            authenticator=told.authenticate,
            auth_require_tls=False,
            loop=loop,
        )

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if from_the_start else None)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        told.hang_up()
        await server.wait_closed()
