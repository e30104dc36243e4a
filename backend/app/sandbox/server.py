"""Running the sandbox: as a process of its own, or inside a test."""

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

import structlog
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.collector import leave_startup_alone
from app.config import ConfigurationError, Settings
from app.sandbox.app import create_sandbox_app, require_development
from app.sandbox.fault_gate import ABORT_CONNECTION
from app.sandbox.faults import Faults
from app.sandbox.mail_ways import smtp_port, webhooks_to
from app.sandbox.mailbox import Clock, utc_now
from app.sandbox.resend import PAUSES

log = structlog.get_logger()

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
        ConfigurationError: in production, or when a chosen port or `DATA_DIR` is taken.
    """
    leave_startup_alone()
    uvloop.run(_serve_until_signalled(settings))


@asynccontextmanager
async def serving_sandbox(
    settings: Settings,
    *,
    port: int = 0,
    clock: Clock = utc_now,
    smtp_port: int | None = None,
    webhooks_to: str | None = None,
    webhook_pauses: Sequence[float] = PAUSES,
) -> AsyncGenerator[str]:
    """Serve the sandbox from the running event loop.

    Args:
        settings: say where data lies.
        port: where to listen; 0 takes a free one.
        clock: tells the time of arrivals and expiries.
        smtp_port: where to take mail over SMTP; 0 takes a free port, None none.
        webhooks_to: where to post what becomes of mails; nowhere by default.
        webhook_pauses: seconds between attempts to post one.

    Yields:
        The base address, such as `http://127.0.0.1:49152`; its `/addresses` says the others.

    Raises:
        ConfigurationError: in production, or when the port or `DATA_DIR` is taken.
    """
    require_development(settings)
    listener = _listen(port, "SANDBOX_PORT")
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    smtp = None
    try:
        if smtp_port is not None:
            smtp = _listen(smtp_port, "SANDBOX_SMTP_PORT")
        server = _server(settings, clock, smtp, webhooks_to, webhook_pauses)
    except BaseException:
        listener.close()
        if smtp is not None:
            smtp.close()
        raise
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await server.ready.wait()
    try:
        yield address
    finally:
        server.should_exit = True
        await task


async def _serve_until_signalled(settings: Settings) -> None:
    require_development(settings)
    with _listen(settings.sandbox_port, "SANDBOX_PORT") as listener, ExitStack() as opened:
        smtp = _listen_for_mail(settings)
        if smtp is not None:
            opened.enter_context(smtp)
        server = _server(settings, utc_now, smtp, webhooks_to(settings), PAUSES)

        def stop() -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await server.serve(sockets=[listener])


def _server(
    settings: Settings,
    clock: Clock,
    smtp: socket.socket | None,
    webhooks_to: str | None,
    webhook_pauses: Sequence[float],
) -> _Server:
    faults = Faults()
    app = create_sandbox_app(
        settings,
        faults=faults,
        clock=clock,
        smtp=smtp,
        webhooks_to=webhooks_to,
        webhook_pauses=webhook_pauses,
    )
    config = uvicorn.Config(
        app,
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


def _listen_for_mail(settings: Settings) -> socket.socket | None:
    port = smtp_port(settings)
    try:
        return _listen(port, "SANDBOX_SMTP_PORT")
    except ConfigurationError:
        if settings.sandbox_smtp_port is not None:
            raise
        # Nobody asked for this port, so whoever has it may keep it.
        log.warning("sandbox_without_smtp", port=port, remedy="set SANDBOX_SMTP_PORT")
        return None


def _listen(port: int, variable: str) -> socket.socket:
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
    except OSError as error:
        message = f"{variable}: cannot listen on {HOST}:{port}: {error.strerror}"
        raise ConfigurationError(message) from error
    # Connections inherit it; without it a body waits 40 ms for its head's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
