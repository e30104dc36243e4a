"""One socket: what waits to be sent on it, and the position it has reached."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from uuid import UUID

from starlette.websockets import WebSocket, WebSocketDisconnect

from app.realtime.backplane import Change
from app.realtime.close_codes import CloseCode

FAREWELL_SECONDS = 2.0
"""How long what still waits may hold up a close."""

BYTES_LIMIT = 1024 * 1024
"""What may wait for a reader, beyond what it asked for."""

# What Starlette and the server raise once the peer is gone or the socket is closed.
GONE = (WebSocketDisconnect, RuntimeError, OSError)


class Session:
    """A socket with one bounded queue and at most one writer (REQ-010).

    A session starts by holding live changes back; `release` tells it the position that it has
    reached by other means. From then on every change goes out exactly once and in order: the next
    one at once, an earlier one never, a later one when those between have come.

    Args:
        websocket: accepted.
        queue_size: frames that may wait before the reader counts as too slow.
        now: the loop's time.
    """

    __slots__ = (
        "_allowance",
        "_bytes",
        "_bytes_allowed",
        "_closer",
        "_early",
        "_early_bytes",
        "_holding",
        "_limit",
        "_outbox",
        "_websocket",
        "_writer",
        "_writing",
        "expires_at",
        "heard_at",
        "malformed",
        "opened_at",
        "seq",
        "user_id",
        "window_count",
        "window_start",
    )

    def __init__(self, websocket: WebSocket, *, queue_size: int, now: float) -> None:
        self.user_id: UUID | None = None
        self.seq = 0
        self.opened_at = now
        self.heard_at = now
        self.expires_at = 0.0
        self.malformed = 0
        self.window_start = now
        self.window_count = 0
        self._websocket = websocket
        self._limit = queue_size
        self._allowance = 0
        self._bytes = 0
        self._bytes_allowed = 0
        self._early_bytes = 0
        self._holding = True
        # Most sockets are silent most of the time, so neither queue nor writer exists meanwhile.
        self._outbox: deque[bytes] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._writing = False
        self._closer: asyncio.Task[None] | None = None
        self._early: dict[int, tuple[bytes, ...]] | None = None

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closer is not None

    @property
    def is_live(self) -> bool:
        """Whether changes go out as they come."""
        return not self._holding and self._closer is None

    @property
    def writer(self) -> asyncio.Task[None] | None:
        """The task that ends once all that waits is sent; None if nothing waits."""
        return self._writer

    def is_behind(self, seq: int) -> bool:
        """Whether a live session has yet to reach `seq`."""
        return self.seq < seq and self.is_live

    def push(self, *messages: bytes) -> None:
        """Queue messages; a queue that overflows before the reader takes them closes with 3008."""
        if self._closer is not None:
            return
        self._bytes += sum(map(len, messages))
        if self._outbox is None:
            self._outbox = deque(messages)
            self._writer = asyncio.create_task(self._write(self._outbox))
            return
        self._outbox.extend(messages)
        if self._writing and self._is_over():
            self._outbox.clear()
            self.close(CloseCode.TOO_SLOW)

    def feed(self, messages: Iterable[bytes]) -> None:
        """Queue what the client asked for beyond the bound; await `writer` between two parts."""
        batch = list(messages)
        self._allowance += len(batch)
        self._bytes_allowed += sum(map(len, batch))
        self.push(*batch)

    def hold(self) -> None:
        """Keep live changes back, until `release`."""
        self._holding = True

    def release(self, seq: int) -> None:
        """Go on with live changes from position `seq`."""
        self.seq = seq
        self._holding = False
        if self._early is not None:
            self._early = {at: frames for at, frames in self._early.items() if at > seq} or None
        self._send_following()

    def offer(self, change: Change) -> None:
        """Send the change if it is the next one, keep it if it is early, drop it if it is old."""
        if change.seq <= self.seq or self._closer is not None:
            return
        if self._holding or change.seq > self.seq + 1:
            self._keep(change)
            return
        self.seq = change.seq
        self.push(*change.frames)
        self._send_following()

    def close(self, code: CloseCode, *farewell: bytes) -> None:
        """Send what waits and a farewell, unless the reader is stalled, then close."""
        if self._closer is None:
            self._closer = asyncio.create_task(
                self._close(self._writer, self._outbox or deque(), farewell, code)
            )

    def abandon(self) -> None:
        """The socket is gone: stop writing."""
        for task in (self._writer, self._closer):
            if task is not None:
                task.cancel()

    def _is_over(self) -> bool:
        waiting = len(self._outbox or ())
        return (
            waiting > self._limit + self._allowance
            or self._bytes > BYTES_LIMIT + self._bytes_allowed
        )

    def _keep(self, change: Change) -> None:
        if self._early is None:
            self._early, self._early_bytes = {}, 0
        # One that finds no room is refilled like one that got lost.
        if len(self._early) < self._limit and self._early_bytes < BYTES_LIMIT:
            self._early[change.seq] = change.frames
            self._early_bytes += sum(map(len, change.frames))

    def _send_following(self) -> None:
        while self._early:
            following = self._early.pop(self.seq + 1, None)
            if following is None:
                return
            self.seq += 1
            self.push(*following)
        self._early = None

    async def _write(self, outbox: deque[bytes]) -> None:
        # The server only makes a writer wait whose reader is stalled. Before the first write the
        # queue is long because much happened at once, which is not the reader's fault.
        self._writing = True
        try:
            while outbox:
                await self._websocket.send_text(outbox[0].decode())
                self._bytes -= len(outbox.popleft())
        except GONE:
            outbox.clear()
        finally:
            self._outbox = None
            self._writer = None
            self._writing = False
            self._allowance = 0
            self._bytes = self._bytes_allowed = 0

    async def _close(
        self,
        writer: asyncio.Task[None] | None,
        outbox: deque[bytes],
        farewell: tuple[bytes, ...],
        code: CloseCode,
    ) -> None:
        if writer is not None:
            # It waits before it writes, never in the middle, so no frame is cut or sent twice.
            writer.cancel()
            await asyncio.wait([writer])
        with suppress(*GONE):
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    for message in chain(outbox, farewell):
                        await self._websocket.send_text(message.decode())
            await self._websocket.close(code, code.name.lower())
