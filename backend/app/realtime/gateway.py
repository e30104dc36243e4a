"""The conversation on one socket (requirements 5.4, contract, WebSocket; REQ-010, SEC-004)."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import orjson
import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.websockets import WebSocket

from app.config import Settings
from app.errors import Busy, NotFound, NotifyError, Unavailable
from app.realtime import frames
from app.realtime.backplane import Backplane
from app.realtime.close_codes import CloseCode
from app.realtime.frames import ErrorCode
from app.realtime.hub import Hub
from app.realtime.origin import origin_is_allowed
from app.realtime.reader import BoundedReader, InboxReader, InboxSnapshot, NetChanges
from app.realtime.session import GONE, Session
from app.realtime.timing import Timing
from app.security.jwt import Claims, ExpiredToken, InvalidToken, TokenVerifier

log = structlog.get_logger()

Message = Mapping[str, Any]
Command = Callable[[Session, Message], Awaitable[None]]

NO_COMMANDS: Mapping[str, Command] = MappingProxyType({})
HIGHEST_SEQ = 2**63 - 1
SEQ_TEXT = re.compile(r"[0-9]{1,19}")
NO_TEXT = b""  # as little JSON as a binary frame
MALFORMED_LIMIT = 3
SILENT_HEARTBEATS = 3
MESSAGES_PER_WINDOW = 50
WINDOW_SECONDS = 10.0


class BadMessage(Exception):
    """A message has fields that cannot be used; the text says which."""


class Gateway:
    """Authenticates sockets, brings them up to date, and answers what they send.

    Args:
        settings: the socket's limits and the allowed origins.
        tokens: verifies access tokens.
        inbox: reads and acknowledges.
        timing: durations that the contract settles.
        commands: further messages that authenticated clients may send, by `type`. A command may
            raise `NotifyError`, which becomes an `error` message.
    """

    def __init__(
        self,
        settings: Settings,
        tokens: TokenVerifier,
        inbox: InboxReader,
        *,
        timing: Timing | None = None,
        commands: Mapping[str, Command] = NO_COMMANDS,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._inbox = BoundedReader(inbox, at_once=max(1, settings.database_pool_size // 2))
        self._timing = timing or Timing()
        self._draining = False
        self._commands: Mapping[str, Command] = {
            "authenticate": self._authenticate,
            "ping": self._ping,
            "ack": self._acknowledge,
            **commands,
        }
        self.hub = Hub(
            self._inbox, per_user=settings.ws_max_connections_per_user, timing=self._timing
        )

    @property
    def is_enabled(self) -> bool:
        """Whether the socket path exists at all."""
        return self._settings.ws_enabled

    @property
    def command_names(self) -> Collection[str]:
        """Types of message that clients may send."""
        return self._commands.keys()

    @asynccontextmanager
    async def running(self, backplane: Backplane) -> AsyncGenerator[None]:
        """Distribute changes and keep deadlines as long as the context lasts."""
        async with self.hub.running(backplane):
            sweeper = asyncio.create_task(self._sweep_forever())
            try:
                yield
            finally:
                sweeper.cancel()
                await asyncio.gather(sweeper, return_exceptions=True)

    async def drain(self) -> None:
        """Close every socket with 3001, and refuse new ones, before the process ends."""
        self._draining = True
        await self.hub.close_all(CloseCode.SHUTTING_DOWN)

    async def serve(self, websocket: WebSocket) -> None:
        """Talk on a socket until it is closed.

        Args:
            websocket: not yet accepted.
        """
        refusal = self._refusal(Headers(raw=websocket.scope["headers"]))
        # A code only reaches clients, and pages above all, on a socket that was accepted.
        await websocket.accept()
        if refusal is not None:
            with suppress(*GONE):
                await websocket.close(refusal, refusal.name.lower())
            return
        session = Session(
            websocket, queue_size=self._settings.ws_send_queue_size, now=time.monotonic()
        )
        self.hub.open(session)
        try:
            await self._greet(session, QueryParams(websocket.scope["query_string"]))
            await self._converse(session, websocket)
        finally:
            self.hub.leave(session)

    def _refusal(self, headers: Headers) -> CloseCode | None:
        if self._draining:
            return CloseCode.SHUTTING_DOWN
        if not origin_is_allowed(headers, self._settings.cors_origins):
            log.warning("origin_refused", origin=headers.get("origin"))
            return CloseCode.ORIGIN_REFUSED
        if len(self.hub.sessions) >= self._settings.ws_max_connections:
            return CloseCode.GATEWAY_FULL
        return None

    async def _greet(self, session: Session, query: QueryParams) -> None:
        """Authenticate by the address, which then needs no message."""
        if "token" in query:
            given = query.get("since", "")
            # What is not a number stays text, and is refused like any other message's.
            since = int(given) if SEQ_TEXT.fullmatch(given) else given or None
            await self._run(
                session, {"type": "authenticate", "token": query["token"], "since": since}
            )

    async def _converse(self, session: Session, websocket: WebSocket) -> None:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            now = time.monotonic()
            session.heard_at = now
            if session.is_closing:
                continue
            if within_rate(session, now):
                await self._answer(session, event.get("text"))
            else:
                session.push(frames.error(ErrorCode.RATE_LIMITED, "Too many messages; slow down."))

    async def _answer(self, session: Session, text: str | None) -> None:
        """Answer one frame; `text` is None for a binary one."""
        try:
            message: Any = orjson.loads(NO_TEXT if text is None else text)
        except orjson.JSONDecodeError:
            self._count_malformed(session)
            return
        if isinstance(message, dict):
            await self._run(session, cast("Message", message))
        else:
            session.push(invalid("A message is a JSON object."))

    def _count_malformed(self, session: Session) -> None:
        session.malformed += 1
        told = invalid("A message is a text frame of JSON.")
        if session.malformed >= MALFORMED_LIMIT:
            session.close(CloseCode.INVALID_MESSAGES, told)
        else:
            session.push(told)

    async def _run(self, session: Session, message: Message) -> None:
        kind = message.get("type")
        if session.user_id is None and kind != "authenticate":
            refuse(session, "Authenticate first.")
            return
        command = self._commands.get(kind) if isinstance(kind, str) else None
        if command is None:
            session.push(invalid("There is no message of this type."))
            return
        try:
            await command(session, message)
        except BadMessage as error:
            session.push(invalid(str(error)))
        except NotFound as error:
            session.push(frames.error(ErrorCode.NOT_FOUND, error.message))
        except Busy as error:
            session.push(frames.error(ErrorCode.RATE_LIMITED, error.message))
        except Unavailable:
            session.close(CloseCode.TRY_AGAIN_LATER)
        except NotifyError as error:
            session.push(invalid(error.message))

    async def _authenticate(self, session: Session, message: Message) -> None:
        since = optional_seq(message, "since")
        token = message.get("token")
        try:
            claims = await self._tokens.verify(token if isinstance(token, str) else "")
        except ExpiredToken as error:
            log_refusal(ErrorCode.TOKEN_EXPIRED, str(error))
            expire(session)
            return
        except InvalidToken:
            refuse(session, "Invalid or expired token")
            return
        if claims.user_id is None:
            refuse(session, "This token is not a user's.")
        elif session.user_id is None:
            await self._welcome(session, claims.user_id, claims, since)
        elif session.user_id == claims.user_id:
            await self._renew(session, claims)
        else:
            refuse(session, "This token is another user's.")

    async def _renew(self, session: Session, claims: Claims) -> None:
        session.expires_at = claims.expires_at.timestamp()
        state = await self._inbox.state(user_of(session))
        session.push(self._authenticated(session, session.seq, state, recovered=True))

    async def _welcome(
        self, session: Session, user_id: UUID, claims: Claims, since: int | None
    ) -> None:
        """Bring a new session up to date and let it go live.

        It hears live changes from before the inbox is read, and holds back those that the reading
        may contain, so nothing falls between the two.
        """
        if not self.hub.join(session, user_id):
            session.close(CloseCode.TOO_MANY_SOCKETS)
            return
        session.expires_at = claims.expires_at.timestamp()
        if since is None:
            await self._send_undelivered(session)
        else:
            await self._resume(session, since)

    async def _send_undelivered(self, session: Session) -> None:
        backlog = await self._inbox.undelivered(user_of(session))
        state = backlog.snapshot
        session.feed(
            [
                self._authenticated(session, state.seq, state, recovered=False),
                *(
                    frames.notification(item, seq=item.position, unread_count=state.unread_count)
                    for item in backlog.items
                ),
                frames.sync_complete(seq=state.seq),
            ]
        )
        self.hub.release(session, state.seq)

    async def _resume(self, session: Session, since: int) -> None:
        part = await self._inbox.changes_since(user_of(session), since)
        state, recovered = part.snapshot, part.snapshot.can_resume(since)
        session.feed([self._authenticated(session, state.seq, state, recovered=recovered)])
        session.seq = since if recovered else state.seq
        if recovered:
            await self._tell_missed(session, part)
        session.push(frames.sync_complete(seq=session.seq))
        self.hub.release(session, session.seq)

    async def _tell_missed(self, session: Session, part: NetChanges) -> None:
        while True:
            session.feed(part.frames(since=session.seq))
            session.seq = part.reached
            await self.hub.flush([session])
            if part.is_last or session.is_closing:
                return
            part = await self._inbox.changes_since(user_of(session), session.seq)
            if not part.snapshot.can_resume(session.seq):
                session.close(CloseCode.POSITION_LOST)
                return

    def _authenticated(
        self, session: Session, seq: int, state: InboxSnapshot, *, recovered: bool
    ) -> bytes:
        return frames.authenticated(
            user_id=user_of(session),
            seq=seq,
            unread_count=state.unread_count,
            recovered=recovered,
            heartbeat_interval=self._settings.ws_heartbeat_interval,
            expires_at=datetime.fromtimestamp(session.expires_at, UTC),
        )

    async def _ping(self, session: Session, _: Message) -> None:
        session.push(frames.pong(at=datetime.now(UTC), seq=session.seq))

    async def _acknowledge(self, session: Session, message: Message) -> None:
        seq = optional_seq(message, "seq")
        if seq is None:
            raise BadMessage("seq: required")
        self.hub.acknowledgements.note(user_of(session), min(seq, session.seq))

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(self._timing.sweep_every)
            now, wall = time.monotonic(), time.time()
            try:
                for session in self.hub.sessions:
                    self._keep_deadlines(session, now, wall)
            except Exception:
                # Tokens must end on time, whatever is the matter with one session.
                log.exception("deadlines_not_kept")

    def _keep_deadlines(self, session: Session, now: float, wall: float) -> None:
        if session.user_id is None:
            if now - session.opened_at > self._timing.authenticate_within:
                told = frames.error(ErrorCode.AUTH_TIMEOUT, "No token came in time.")
                session.close(CloseCode.NOT_AUTHENTICATED, told)
        elif wall >= session.expires_at:
            expire(session)
        elif now - session.heard_at > SILENT_HEARTBEATS * self._settings.ws_heartbeat_interval:
            session.close(CloseCode.NO_PING)


def user_of(session: Session) -> UUID:
    """The user of an authenticated session."""
    if session.user_id is None:
        raise AssertionError("the session is not authenticated")
    return session.user_id


def optional_seq(message: Message, field: str) -> int | None:
    """A position in a message, None when it is absent or null.

    Raises:
        BadMessage: it is something else.
    """
    value = message.get(field)
    if value is None or (type(value) is int and 0 <= value <= HIGHEST_SEQ):
        return value
    raise BadMessage(f"{field}: must be a whole number from 0")


def within_rate(session: Session, now: float) -> bool:
    """Count a message; whether the socket has not sent too many lately."""
    if now - session.window_start > WINDOW_SECONDS:
        session.window_start, session.window_count = now, 0
    session.window_count += 1
    return session.window_count <= MESSAGES_PER_WINDOW


def invalid(message: str) -> bytes:
    """The answer to a message that cannot be understood."""
    return frames.error(ErrorCode.INVALID_MESSAGE, message)


def refuse(session: Session, message: str) -> None:
    """Close a socket whose credentials are no good."""
    log_refusal(ErrorCode.AUTH_FAILED, message)
    told = frames.error(ErrorCode.AUTH_FAILED, message)
    session.close(CloseCode.NOT_AUTHENTICATED, told)


def log_refusal(code: ErrorCode, reason: str) -> None:
    """Note that somebody was not let in (SEC-004)."""
    log.warning("access_refused", path="websocket", code=code, reason=reason)


def expire(session: Session) -> None:
    """Close a socket whose token has ended."""
    told = frames.error(ErrorCode.TOKEN_EXPIRED, "The token has expired.")
    session.close(CloseCode.TOKEN_EXPIRED, told)
