"""Running the sandbox: as a process of its own, or inside a test."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.config import ConfigurationError, Settings
from app.sandbox.app import create_sandbox_app, require_development
from app.sandbox.fault_gate import ABORT_CONNECTION
from app.sandbox.faults import Faults
from app.sandbox.mailbox import Clock, utc_now

HOST = "127.0.0.1"
GRACE_SECONDS = 3


class _DroppableConnection(HttpToolsProtocol):
    """Hands each request the means to reset its connection, which ASGI lacks."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope.setdefault("state", {})[ABORT_CONNECTION] = self.transport.abort


class _Server(uvicorn.Server):
    """Leaves signals to its caller, and lets go of held requests before it waits for them."""

    def __init__(self, config: uvicorn.Config, faults: Faults) -> None:
        super().__init__(config)
        self._faults = faults
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._faults.release()
        await super().shutdown(sockets)


def run_sandbox(settings: Settings) -> None:
    """Serve the sandbox on `SANDBOX_PORT` until SIGTERM or SIGINT, then finish what is running.

    Raises:
        ConfigurationError: in production, or when the port or `DATA_DIR` is taken.
    """
    uvloop.run(_serve_until_signalled(settings))


@asynccontextmanager
async def serving_sandbox(
    settings: Settings, *, port: int = 0, clock: Clock = utc_now
) -> AsyncGenerator[str]:
    """Serve the sandbox from the running event loop.

    Args:
        settings: say where data lies.
        port: where to listen; 0 takes a free one.
        clock: tells the time of arrivals and expiries.

    Yields:
        The base address, such as `http://127.0.0.1:49152`.

    Raises:
        ConfigurationError: in production, or when the port or `DATA_DIR` is taken.
    """
    listener = _listen(settings, port)
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    try:
        server = _server(settings, clock)
    except BaseException:
        listener.close()
        raise
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        yield address
    finally:
        server.should_exit = True
        await task


async def _serve_until_signalled(settings: Settings) -> None:
    listener = _listen(settings, settings.sandbox_port)
    with listener:
        server = _server(settings, utc_now)

        def stop() -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await server.serve(sockets=[listener])


def _server(settings: Settings, clock: Clock) -> _Server:
    faults = Faults()
    config = uvicorn.Config(
        create_sandbox_app(settings, faults=faults, clock=clock),
        http=_DroppableConnection,
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _Server(config, faults)


def _listen(settings: Settings, port: int) -> socket.socket:
    require_development(settings)
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        message = f"SANDBOX_PORT: cannot listen on {HOST}:{port}: {error.strerror}"
        raise ConfigurationError(message) from error
    # Connections inherit it; without it a body waits 40 ms for its head's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
