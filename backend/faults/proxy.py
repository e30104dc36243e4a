"""A TCP relay on loopback that can do what networks do: drop, stall, half-close, lose answers."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
CHUNK = 65_536
LONGEST_WAIT = 5.0  # seconds; for a side that does not take what is left


class Side(Enum):
    """The two ends of a connection."""

    CLIENT = auto()
    SERVER = auto()


RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Watcher = Callable[[bytes, int], bool]
"""Called with what a client sent, and with the client's port; False resets the connection."""


def _reset(writer: asyncio.StreamWriter) -> None:
    # Without it, closing tells the other end that all was said.
    connection: socket.socket = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


class _Link:
    """One relayed connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.writers = {Side.CLIENT: client, Side.SERVER: server}
        self.ended: set[Side] = set()

    def abort(self) -> None:
        for writer in self.writers.values():
            _reset(writer)

    def end(self, side: Side) -> None:
        """Tell one side that no more comes; what it sends itself still passes."""
        self.ended.add(side)
        writer = self.writers[side]
        if writer.can_write_eof() and not writer.transport.is_closing():
            writer.write_eof()


class Proxy:
    """Relays connections to a server; faultless until told otherwise.

    Args:
        target: port of the server, on loopback.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._refusing = False
        self._losing = False
        self.answer_lost = asyncio.Event()
        self.watch: Watcher | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many connections it relays."""
        return len(self._links)

    def mend(self) -> None:
        """Relay faultlessly again."""
        self._refusing = self._losing = False
        self.watch = None
        self._flowing.set()

    def drop(self) -> None:
        """Reset every connection."""
        for link in self._links:
            link.abort()

    def refuse(self) -> None:
        """Reset every connection, and every new one at once, until mended."""
        self._refusing = True
        self.drop()

    def stall(self) -> None:
        """Pass nothing in either direction, and keep every connection open, until mended."""
        self._flowing.clear()

    def half_close(self, side: Side) -> None:
        """End what flows to one side of every connection; the other direction stays open."""
        for link in self._links:
            link.end(side)

    def lose_answers(self) -> None:
        """Reset each connection when its server answers, until mended: requests still arrive."""
        self.answer_lost.clear()
        self._losing = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = asyncio.current_task()
        assert relay is not None
        self._relays.add(relay)
        try:
            await self._relay(reader, writer)
        finally:
            self._relays.discard(relay)
            _reset(writer)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            return
        await self._flowing.wait()
        try:
            answers, server = await asyncio.open_connection(HOST, self._target)
        except OSError:
            return
        link = _Link(writer, server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(link, reader, Side.SERVER), self._pump(link, answers, Side.CLIENT)
            )
        except OSError:
            pass
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, to: Side) -> None:
        port: int = link.writers[Side.CLIENT].get_extra_info("peername")[1]
        writer = link.writers[to]
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            if to is Side.CLIENT and self._losing:
                self.answer_lost.set()
                link.abort()
                return
            if to is Side.SERVER and self.watch is not None and not self.watch(data, port):
                link.abort()
                return
            if to not in link.ended:
                writer.write(data)
                await writer.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                await writer.drain()
        link.end(to)
