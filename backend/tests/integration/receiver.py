"""A real HTTP server on loopback that keeps what it is sent and answers what it is told to."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CLOSING = b"Connection: close\r\n"


@dataclass(frozen=True)
class Call:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer; `hangs` never comes, `drips` never ends."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hangs: bool = False
    drips: bool = False


@dataclass
class Receiver:
    """What came, and what is answered: the next of `replies`, then always the last of them."""

    scheme: str
    port: int = 0
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    calls: list[Call] = field(default_factory=list[Call])
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def url(self, host: str = "127.0.0.1", path: str = "/hook") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def until(self, count: int, within: float = 20.0) -> list[Call]:
        """The calls, once there are so many."""
        async with asyncio.timeout(within), self.came:
            await self.came.wait_for(lambda: len(self.calls) >= count)
        return self.calls

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = await _read(reader)
            async with self.came:
                self.calls.append(call)
                self.came.notify_all()
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            await _answer(reply, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has left
        finally:
            writer.close()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Receiver]:
    """A receiver on a port of its own while the context lasts."""
    receiver = Receiver("https" if tls else "http")
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Call:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = [line.partition(":") for line in head[1:] if line]
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Call(
        method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))
    )


async def _answer(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.hangs:
        await asyncio.Event().wait()
    extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    writer.write(f"HTTP/1.1 {reply.status} Told\r\n{extra}".encode())
    if reply.drips:
        writer.write(b"Content-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)
    writer.write(CLOSING + f"Content-Length: {len(reply.body)}\r\n\r\n".encode() + reply.body)
    await writer.drain()
