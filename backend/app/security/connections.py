"""A pool of connections, HTTP/2 where the other side speaks it, that no lost call can spoil.

httpcore never resets an HTTP/2 stream that is given up, so h2 counts it as open for ever, and 100
such calls make a connection useless; nor does it see that an idle connection was closed, or that
nobody is at its other end any more. So a connection that a call was given up on, or that was
closed, is used for no new one: those in flight on it go on, and it is closed when they have ended.
"""

import select
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, Protocol, cast

import httpcore

# Of what is not on Linux, only whether there is anything to read can be asked.
CLOSED_BY_PEER: Final[int] = getattr(select, "POLLRDHUP", select.POLLIN)


class ConnectionPool(httpcore.AsyncConnectionPool):
    """httpcore's, of such connections."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """A connection to be opened."""
        return _Connection(super().create_connection(origin))


class _Connection(httpcore.AsyncConnectionInterface):
    """A connection that can be retired."""

    def __init__(self, inner: httpcore.AsyncConnectionInterface) -> None:
        self._inner = inner
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._is_retired = False

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except httpcore.ConnectionNotAvailable:
            raise  # nothing was sent, and the pool takes another
        except BaseException:
            self.retire()
            raise
        extensions = cast("dict[str, Any]", response.extensions)
        self._stream = extensions.get("network_stream")
        return httpcore.Response(
            response.status,
            headers=response.headers,
            content=_Body(self, cast("_Stream", response.stream)),
            extensions=extensions,
        )

    def retire(self) -> None:
        """Use it for no new call."""
        self._is_retired = True

    async def aclose(self) -> None:
        await self._inner.aclose()

    def info(self) -> str:
        return self._inner.info()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return self._inner.can_handle_request(origin)

    def is_available(self) -> bool:
        return not self._is_retired and self._inner.is_available()

    def has_expired(self) -> bool:
        if self._inner.has_expired():
            return True
        return self._inner.is_idle() and (self._is_retired or self._was_closed())

    def is_idle(self) -> bool:
        return self._inner.is_idle()

    def is_closed(self) -> bool:
        return self._inner.is_closed()

    def _was_closed(self) -> bool:
        """Whether the other side closed it while nobody was listening."""
        socket = self._stream.get_extra_info("socket") if self._stream else None
        if socket is None or socket.fileno() < 0:
            return socket is not None
        poll = select.poll()
        poll.register(socket.fileno(), CLOSED_BY_PEER)
        return bool(poll.poll(0))


class _Stream(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class _Body:
    """An answer's body; one that is not read to its end leaves a stream open."""

    def __init__(self, connection: _Connection, stream: _Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._is_read = False

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async for part in self._stream:
            yield part
        self._is_read = True

    async def aclose(self) -> None:
        if not self._is_read:
            self._connection.retire()
        await self._stream.aclose()
