"""WebSocket clients light enough that one process holds 10,000 of them (RFC 6455).

They behave as the project's own client does: they authenticate by a first message, ping at the
interval the server asks for, and acknowledge what they got a moment later. They neither fragment
nor mask for real: the masking key is four zeros, which the protocol allows.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import cast
from uuid import UUID

import orjson

from bench.load import HOST, MeasurementFailed

PATH = "/api/v1/notifications/ws"
HANDSHAKE = (
    f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()
SWITCHED = b"HTTP/1.1 101"
END_OF_HEAD = b"\r\n\r\n"

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
FINAL, MASKED = 0x80, 0x80
NO_MASK = bytes(4)
TWO_BYTES, EIGHT_BYTES = 126, 127

OPENED_AT_ONCE = 64
OPEN_SECONDS = 90.0
ACKNOWLEDGE_AFTER = 0.25
PING_TICK = 0.1
PING_MESSAGE = b'{"type":"ping"}'


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A final frame as a client sends it."""
    length = len(payload)
    if length < TWO_BYTES:
        head = bytes((FINAL | opcode, MASKED | length))
    else:
        head = struct.pack("!BBH", FINAL | opcode, MASKED | TWO_BYTES, length)
    return head + NO_MASK + payload


def frame_at(buffer: bytes, start: int) -> tuple[int, int, int] | None:
    """Opcode, start and end of the payload of the frame at `start`, None if it is not whole."""
    if len(buffer) < start + 2:
        return None
    length, payload = buffer[start + 1], start + 2
    if length == TWO_BYTES:
        if len(buffer) < start + 4:
            return None
        (length,) = struct.unpack_from("!H", buffer, payload)
        payload += 2
    elif length == EIGHT_BYTES:
        if len(buffer) < start + 10:
            return None
        (length,) = struct.unpack_from("!Q", buffer, payload)
        payload += 8
    end = payload + length
    return (buffer[start] & 0x0F, payload, end) if end <= len(buffer) else None


OnNotification = Callable[["Socket", str, float], None]


class Socket(asyncio.Protocol):
    """One session of one user.

    Args:
        on_notification: told the id of each notification that became visible or was read, and the
            instant the frame about it arrived.
    """

    __slots__ = (
        "_acknowledging",
        "_buffer",
        "_on_notification",
        "_token",
        "_transport",
        "_upgraded",
        "closed_by",
        "live",
        "pongs",
        "seq",
        "user_id",
    )

    def __init__(self, user_id: UUID, token: str, on_notification: OnNotification) -> None:
        self.user_id = user_id
        self.seq = 0
        self.pongs = 0
        self.closed_by: str | None = None
        self.live: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self._token: str | None = token
        self._on_notification = on_notification
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._upgraded = False
        self._acknowledging = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        at = perf_counter()
        buffer = self._buffer + data if self._buffer else data
        start = 0
        if not self._upgraded:
            start = self._upgrade(buffer)
        if self._upgraded:
            while (frame := frame_at(buffer, start)) is not None:
                opcode, payload, start = frame
                self._take(opcode, buffer[payload:start], at)
        self._buffer = buffer[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._fail("connection lost" if exc is None else type(exc).__name__)

    def ping(self) -> None:
        """Tell the server that this client is there."""
        self._send(PING_MESSAGE)

    def mark_read(self, notification_id: str) -> None:
        """Mark a notification as read."""
        self._send(orjson.dumps({"type": "mark_read", "notification_id": notification_id}))

    def close(self) -> None:
        """Leave."""
        self.closed_by = self.closed_by or "us"
        if self._transport is not None:
            self._transport.write(client_frame(CLOSE, b"\x03\xe8"))
            self._transport.close()

    def _upgrade(self, buffer: bytes) -> int:
        end = buffer.find(END_OF_HEAD)
        if end < 0:
            return 0
        if not buffer.startswith(SWITCHED):
            self._fail(buffer.split(b"\r\n", 1)[0].decode())
            return len(buffer)
        self._upgraded = True
        self._send(orjson.dumps({"type": "authenticate", "token": self._token}))
        self._token = None
        return end + len(END_OF_HEAD)

    def _take(self, opcode: int, payload: bytes, at: float) -> None:
        if opcode == TEXT:
            self._read(payload, at)
        elif opcode == PING and self._transport is not None:
            self._transport.write(client_frame(PONG, payload))
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big")
            self._fail(f"close {code} {payload[2:].decode(errors='replace')}")

    def _read(self, payload: bytes, at: float) -> None:
        message = orjson.loads(payload)
        match message["type"]:
            case "notification":
                self.seq = max(self.seq, message["seq"])
                self._on_notification(self, message["data"]["id"], at)
                self._acknowledge_soon()
            case "read_status_updated":
                self.seq = max(self.seq, message["seq"])
                self._on_notification(self, message["notification_id"], at)
            case "sync_complete":
                self.seq = max(self.seq, message["seq"])
                if self.live is not None:
                    self.live.set_result(None)
                    self.live = None
            case "pong":
                self.pongs += 1
            case "error":
                self._fail(f"error {message['code']}: {message['message']}")
            case _:
                pass

    def _acknowledge_soon(self) -> None:
        if not self._acknowledging:
            self._acknowledging = True
            asyncio.get_running_loop().call_later(ACKNOWLEDGE_AFTER, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        if self.closed_by is None:
            self._send(orjson.dumps({"type": "ack", "seq": self.seq}))

    def _send(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(client_frame(TEXT, message))

    def _fail(self, reason: str) -> None:
        if self.closed_by is not None:
            return
        self.closed_by = reason
        if self.live is not None:
            self.live.set_exception(MeasurementFailed(reason))
            self.live = None
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def open_sockets(
    port: int,
    sessions: Sequence[tuple[UUID, str]],
    on_notification: OnNotification,
    *,
    ping_interval: float,
) -> AsyncGenerator[Sequence[Socket]]:
    """Sockets that have been told everything and are live; closed at the end.

    Args:
        sessions: user and token of each.
        ping_interval: seconds between two pings of one socket.

    Raises:
        MeasurementFailed: one of them was refused, or did not open in time.
    """
    sockets: list[Socket] = []
    loop = asyncio.get_running_loop()
    waiting = iter(sessions)

    async def open_some() -> None:
        for user_id, token in waiting:
            socket = Socket(user_id, token, on_notification)
            live = socket.live
            assert live is not None
            await loop.create_connection(lambda made=socket: made, HOST, port)
            sockets.append(socket)
            await live

    pinging: asyncio.Task[None] | None = None
    try:
        # One that does not open within the time shows in what is waited for.
        openers = [asyncio.create_task(open_some()) for _ in range(OPENED_AT_ONCE)]
        _, late = await asyncio.wait(
            openers, timeout=OPEN_SECONDS, return_when=asyncio.FIRST_EXCEPTION
        )
        for opener in late:
            opener.cancel()
        await asyncio.gather(*openers, return_exceptions=True)
        refused = [opener.exception() for opener in openers if not opener.cancelled()]
        if error := next((error for error in refused if error is not None), None):
            raise MeasurementFailed(f"{len(sockets)} opened, then: {error}") from error
        if late:
            raise MeasurementFailed(f"only {len(sockets)} opened within {OPEN_SECONDS:.0f} s")
        pinging = asyncio.create_task(_ping_forever(sockets, ping_interval))
        yield sockets
    finally:
        if pinging is not None:
            pinging.cancel()
        for socket in sockets:
            socket.close()
        await asyncio.sleep(0.1)


def closed_by_server(sockets: Sequence[Socket]) -> list[str]:
    """What the server or the network closed sockets with, one entry for each socket lost."""
    return [socket.closed_by for socket in sockets if socket.closed_by is not None]


async def _ping_forever(sockets: Sequence[Socket], interval: float) -> None:
    """Let every socket ping once in `interval`, spread evenly."""
    at_once = max(1, round(len(sockets) * PING_TICK / interval))
    while True:
        for start in range(0, len(sockets), at_once):
            for socket in sockets[start : start + at_once]:
                if socket.closed_by is None:
                    socket.ping()
            await asyncio.sleep(interval * at_once / len(sockets))
