"""Running uvicorn so that sockets end as the contract says.

Left to itself uvicorn closes every socket with 1012 on SIGTERM, before the application hears of
it; waits for stalled readers for ever; pings clients that may be slow; and logs the query string
of sockets, which may hold a token. It has no setting for these.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

Application = Callable[..., Any]
"""An ASGI application, of any library's type."""

MAX_MESSAGE_BYTES = 64 * 1024
GRACE_SECONDS = 10
"""How long requests may take to finish once the server stops."""

log = structlog.get_logger()

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SocketProtocol(WebSocketsSansIOProtocol):
    """A socket whose connection is cut off when its reader does not take the close.

    A close waits until the reader has taken what was written before, which a stalled one never
    does; ASGI has no way to say that it is enough. The headers are gone once it is accepted.
    """

    cut_off_seconds = 10.0
    _cut_off: asyncio.TimerHandle | None = None

    async def send(self, message: "ASGISendEvent") -> None:
        """Pass the application's message on; a close starts the clock."""
        if message["type"] == "websocket.close":
            self._start_clock()
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._forget_headers()

    def shutdown(self) -> None:
        """Close because the server stops."""
        super().shutdown()
        self._start_clock()

    def handle_parser_exception(self) -> None:
        """Close because the client broke the protocol, or sent a frame that is too long."""
        super().handle_parser_exception()
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._cut_off is not None:
            self._cut_off.cancel()
        super().connection_lost(exc)

    def _forget_headers(self) -> None:
        # Only the handshake needs them; thousands of sockets would keep them for hours, thrice.
        self.request.headers.clear()
        self.response.headers.clear()
        self.scope["headers"] = []

    def _start_clock(self) -> None:
        if self._cut_off is None:
            self._cut_off = self.loop.call_later(self.cut_off_seconds, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn without signal handling of its own."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to `serve`."""
        yield


class WithoutQueryString(logging.Filter):
    """Cuts query strings, where tokens may be, out of what uvicorn logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; it is always logged."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                value.partition("?")[0] if isinstance(value, str) else value
                for value in record.args
            )
        return True


def build_server(
    app: Application,
    host: str,
    port: int,
    *,
    protocol: type[SocketProtocol] = SocketProtocol,
) -> Server:
    """A server that is ready to `serve`, in whichever event loop runs.

    Args:
        app: the application, whose lifespan runs with the server.
        port: 0 takes a free one.
        protocol: of the sockets.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws=protocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        lifespan="on",
        log_config=None,
        # Below this the libraries log frames and request lines whole, tokens included.
        log_level="info",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(known, WithoutQueryString) for known in logger.filters):
        logger.addFilter(WithoutQueryString())
    return Server(config)


async def serve(
    app: Application, host: str, port: int, *, drain: Callable[[], Awaitable[None]]
) -> None:
    """Serve until SIGTERM or SIGINT; run it with `uvloop.run`.

    Args:
        drain: says goodbye to the sockets; it is awaited before the server begins to stop, while
            it still answers. A second signal does not wait for anything.
    """
    server = build_server(app, host, port)
    with _stopped_by_signals(server, drain):
        await server.serve()


@contextmanager
def _stopped_by_signals(server: Server, drain: Callable[[], Awaitable[None]]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    async def stop() -> None:
        try:
            await drain()
        except Exception:
            # As when the signal comes before the application has started.
            log.exception("sockets_not_drained")
        server.should_exit = True

    def on_signal() -> None:
        if stopping:
            server.should_exit = server.force_exit = True
        else:
            stopping.append(asyncio.create_task(stop()))

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
