"""The fault suite's proxy does to connections what it says."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from faults.proxy import HOST, Proxy, Side

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncGenerator[Proxy]:
    """A proxy before a server that answers every line with itself, and the end with "end"."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
            writer.write(b"end\n")
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, HOST, 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: Proxy) -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await said(reader, writer, b"hello\n") == b"hello\n"
    yield reader, writer
    writer.transport.abort()


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line)
    return await reader.readline()


async def test_a_dropped_connection_is_reset_and_the_next_one_works(
    proxy: Proxy, client: Streams
) -> None:
    proxy.drop()
    with pytest.raises(ConnectionResetError):
        await client[0].readline()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await said(reader, writer, b"again\n") == b"again\n"
    writer.transport.abort()


async def test_what_stalls_arrives_once_it_is_mended(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    proxy.stall()
    answer = asyncio.create_task(said(reader, writer, b"late\n"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(answer), 0.2)
    proxy.mend()
    assert await answer == b"late\n"


async def test_a_lost_answer_follows_a_request_that_arrived(proxy: Proxy, client: Streams) -> None:
    proxy.lose_answers()
    with pytest.raises(ConnectionResetError):
        await said(*client, b"heard\n")
    assert proxy.answer_lost.is_set()


async def test_a_half_closed_server_hears_the_end_and_still_speaks(
    proxy: Proxy, client: Streams
) -> None:
    proxy.half_close(Side.SERVER)
    assert await client[0].readline() == b"end\n"


async def test_a_half_closed_client_hears_the_end(proxy: Proxy, client: Streams) -> None:
    proxy.half_close(Side.CLIENT)
    assert await said(*client, b"anybody?\n") == b""


async def test_refusing_resets_new_connections_until_mended(proxy: Proxy) -> None:
    proxy.refuse()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    with pytest.raises(ConnectionResetError):
        await reader.readline()
    writer.close()
    proxy.mend()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await said(reader, writer, b"again\n") == b"again\n"
    writer.transport.abort()


async def test_a_watcher_sees_what_is_sent_and_by_whom(proxy: Proxy, client: Streams) -> None:
    seen: list[tuple[bytes, int]] = []

    def watch(sent: bytes, port: int) -> bool:
        seen.append((sent, port))
        return sent != b"stop\n"

    proxy.watch = watch
    assert await said(*client, b"go\n") == b"go\n"
    with pytest.raises(ConnectionResetError):
        await said(*client, b"stop\n")
    assert seen == [
        (line, client[1].get_extra_info("sockname")[1]) for line in (b"go\n", b"stop\n")
    ]
