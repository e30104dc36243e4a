"""Email through an SMTP server (RFC 5321, REQ-014), one letter a request.

The connection of `smtp://` is encrypted as soon as the server offers that, of `smtps://` from the
start; certificates are verified. User and password go over an encrypted connection only, or to
this machine. SMTP cannot repeat a request: what broke off after DATA is sent again with the same
Message-ID, by which mailboxes tell it.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from time import monotonic
from types import TracebackType
from typing import ClassVar, Final, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib
import orjson
import structlog
from pydantic import SecretStr

from app.channels.base import Failed, Retry
from app.channels.email.allowance import Allowance
from app.channels.email.letter import Letter
from app.channels.email.lines import one_line
from app.channels.email.mime import message_id, message_of, reachable
from app.channels.email.provider import Answer, Fault, Parcel, Refused, Taken, Unknown
from app.config import Settings
from app.loopback import is_loopback
from app.policy.kinds import Reason
from app.security.authorities import public_authorities

log = structlog.get_logger()

PLACES: Final = 8  # connections; many servers allow a client about ten
IDLE_SECONDS: Final = 20.0
LETTERS_A_CONNECTION: Final = 100
CLOSE_SECONDS: Final = 1.0
FIRST_PERMANENT = 500
MESSAGE_TOO_BIG = 552


class _NotEncrypted(Exception):
    """The server offers no encryption, and the password must not go there in the clear."""


class _Broken(Exception):
    """A connection that was idle turned out to be closed, before anything was handed over."""


@dataclass(slots=True)
class _Connection:
    client: aiosmtplib.SMTP
    letters: int = 0
    idle_since: float = 0.0

    @property
    def is_fresh(self) -> bool:
        return self.letters == 0


@dataclass(slots=True)
class _Hand:
    """How far a letter got."""

    is_over: bool = False  # from here on the server may have it


class SmtpProvider:
    """Hands letters to a server; an asynchronous context manager, which closes its connections.

    Args:
        settings: sender and time limit.
        address: `smtp://` or `smtps://`, user and password included.
        clock: the present instant.
        tls: whom to believe; by default the public authorities.
    """

    name: ClassVar[str] = "smtp"

    def __init__(
        self,
        settings: Settings,
        address: SecretStr,
        clock: Callable[[], datetime],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = urlsplit(address.get_secret_value())
        self.places = PLACES
        self.allowance = Allowance(limit=None)
        self._host = url.hostname or "localhost"
        self._is_encrypted = url.scheme == "smtps"
        self._port = url.port or (465 if self._is_encrypted else 587)
        self._user = unquote(url.username) if url.username else None
        self._password = unquote(url.password or "")
        self._tls = tls or public_authorities(None)
        self._from_name = settings.resend_from_name
        self._from_address = one_line(settings.resend_from_email)
        self._seconds = settings.provider_timeout_seconds
        self._clock = clock
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_end(connection) for connection in idle))

    def parcels(self, letters: Sequence[Letter]) -> list[Parcel]:
        """Each letter by itself."""
        return [Parcel((letter,), self._payload(letter)) for letter in letters]

    async def post(self, key: UUID, payload: bytes) -> Answer:
        """Hand a letter over."""
        envelope = orjson.loads(payload)
        if "refused" in envelope:
            return _refused_for_good(envelope["refused"])
        hand = _Hand()
        try:
            async with asyncio.timeout(self._seconds):
                await self._hand_over(envelope["to"], envelope["message"].encode(), hand)
        except _NotEncrypted:
            return _ours_to_mend("The server offers no encryption.")
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            return _answer(error, hand)
        return Taken([message_id(key, self._from_address)])

    def _payload(self, letter: Letter) -> bytes:
        to = reachable(letter.to)
        if isinstance(to, Failed):
            return orjson.dumps({"refused": to.detail})
        try:
            message = message_of(
                letter,
                to=to,
                from_name=self._from_name,
                from_address=self._from_address,
                at=self._clock(),
            ).as_bytes()
        except (ValueError, LookupError, MessageError) as error:
            log.warning("letter_not_writable", letter_id=str(letter.id), error=type(error).__name__)
            return orjson.dumps({"refused": "It cannot be written as a message."})
        return orjson.dumps({"to": to, "message": message.decode()})

    async def _hand_over(self, to: str, message: bytes, hand: _Hand) -> None:
        while True:
            connection = await self._connection()
            try:
                await self._converse(connection, to, message, hand)
            except _Broken:
                connection.client.close()
                continue  # on the next one; a fresh one does not raise it
            except aiosmtplib.SMTPResponseException as refusal:
                # The server is well and waits for the next letter, unless it said good-bye.
                with suppress(aiosmtplib.SMTPException, OSError):
                    await connection.client.rset()
                    self._put_back(connection)
                raise refusal
            except BaseException:
                connection.client.close()
                raise
            self._put_back(connection)
            return

    async def _converse(
        self, connection: _Connection, to: str, message: bytes, hand: _Hand
    ) -> None:
        client = connection.client
        was_fresh, connection.letters = connection.is_fresh, connection.letters + 1
        options: list[str] = []
        encoding = "ascii"
        if not (to.isascii() and self._from_address.isascii()):
            if not client.supports_extension("smtputf8"):
                raise aiosmtplib.SMTPRecipientRefused(FIRST_PERMANENT, "needs SMTPUTF8", to)
            options, encoding = ["SMTPUTF8", "BODY=8BITMIME"], "utf-8"
        try:
            await client.mail(self._from_address, options=options, encoding=encoding)
        except aiosmtplib.SMTPServerDisconnected:
            if was_fresh:
                raise
            raise _Broken from None
        await client.rcpt(to, encoding=encoding)
        hand.is_over = True
        await client.data(message)

    async def _connection(self) -> _Connection:
        """An idle connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            rested = monotonic() - connection.idle_since
            if connection.client.is_connected and rested < IDLE_SECONDS:
                return connection
            connection.client.close()
        client = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            use_tls=self._is_encrypted,
            tls_context=self._tls,
            timeout=self._seconds,
            local_hostname="localhost",
        )
        try:
            await client.connect()
            await client.ehlo()
            if self._user is not None:
                await self._log_in(client, self._user)
        except BaseException:
            client.close()
            raise
        return _Connection(client)

    async def _log_in(self, client: aiosmtplib.SMTP, user: str) -> None:
        is_encrypted = client.get_transport_info("ssl_object") is not None
        if not is_encrypted and not is_loopback(self._host):
            raise _NotEncrypted
        await client.login(user, self._password)

    def _put_back(self, connection: _Connection) -> None:
        if connection.letters >= LETTERS_A_CONNECTION or len(self._idle) >= PLACES:
            connection.client.close()
        else:
            connection.idle_since = monotonic()
            self._idle.append(connection)


async def _end(connection: _Connection) -> None:
    with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
        await connection.client.quit(timeout=CLOSE_SECONDS)
    connection.client.close()


def _answer(error: Exception, hand: _Hand) -> Answer:
    match error:
        case aiosmtplib.SMTPRecipientRefused() | aiosmtplib.SMTPDataError():
            return _refusal(error, Fault.OF_CONTENT)
        case aiosmtplib.SMTPSenderRefused(code=code) if code == MESSAGE_TOO_BIG:
            return _refusal(error, Fault.OF_CONTENT)
        case aiosmtplib.SMTPResponseException(code=code) if code >= FIRST_PERMANENT:
            return _ours_to_mend(_detail(error))  # the account, or our sender
        case aiosmtplib.SMTPResponseException():
            return _refusal(error, Fault.OF_PROVIDER)
        case _:
            outcome = Retry(Reason.PROVIDER_UNAVAILABLE, type(error).__name__)
            if hand.is_over:
                return Unknown(outcome)
            return Refused(outcome, Fault.OF_PROVIDER, is_unwell=True)


def _refusal(error: aiosmtplib.SMTPResponseException, fault: Fault) -> Refused:
    if error.code >= FIRST_PERMANENT:
        return Refused(Failed(Reason.PROVIDER_REJECTED, _detail(error)), fault)
    return Refused(Retry(Reason.PROVIDER_UNAVAILABLE, _detail(error)), fault)


def _refused_for_good(detail: str) -> Refused:
    return Refused(Failed(Reason.PROVIDER_REJECTED, detail), Fault.OF_CONTENT)


def _ours_to_mend(detail: str) -> Refused:
    return Refused(Retry(Reason.PROVIDER_REJECTED, detail), Fault.OF_PROVIDER)


def _detail(error: aiosmtplib.SMTPResponseException) -> str:
    """The codes alone (RFC 3463): texts repeat the address."""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", error.message)
    return f"{error.code} {enhanced[0]}" if enhanced else str(error.code)
