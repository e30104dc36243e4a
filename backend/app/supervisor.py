"""`notify up`: everything on one machine, each part a process that is restarted when it ends.

Embedded servers start first, then the migrations run, then the parts start. SIGINT and SIGTERM end
all of it in reverse, at any time.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TextIO

import click
import structlog

from app.collector import leave_startup_alone
from app.config import ConfigurationError, Settings
from app.embedded.data_dir import claim_servers, published, try_lock, usable_data_dir
from app.embedded.orphans import end_orphans, has_variable
from app.embedded.program import (
    Program,
    ServerFailed,
    StopSequence,
    kill_group,
    spawn,
    start_failure,
)
from app.embedded.servers import (
    START_ATTEMPTS,
    EmbeddedServer,
    embedded_servers,
    needs_servers,
    urls_of,
    with_urls,
)
from app.observability.logs import configure_logging, log_warnings

RESTART_PAUSES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0)
"""Seconds before each restart of a program that keeps ending; the last one repeats."""

STABLE_SECONDS = 30.0
"""After this life a program's restarts are forgotten."""

_PART_STOP: StopSequence = ((signal.SIGTERM, 15),)
_CLAIM_SECONDS = 30
_POLL_SECONDS = 0.1
_PROBE_SECONDS = 2

# Marks the processes of one data directory, so that the next start finds what a killed one left.
_MARK = "NOTIFY_SUPERVISED"

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class StartFailed(Exception):
    """`notify up` cannot go on; the message says why."""


def up(settings: Settings) -> int:
    """Run everything in the foreground until SIGINT or SIGTERM.

    Returns:
        The exit status: 0 after a signal, 1 if it could not start, which is then explained on
        stderr.
    """
    configure_logging(settings, "up")
    log_warnings(settings)
    leave_startup_alone()
    return run(settings, migration=_part("migrate"), parts=parts_for(settings))


def parts_for(settings: Settings) -> Sequence[Program]:
    """The parts of a complete installation."""
    names = ["api", "worker", "scheduler"]
    if settings.ws_enabled:
        names.append("gateway")
    if settings.is_development:
        names.append("sandbox")
    return [_part(name) for name in names]


def run(settings: Settings, *, migration: Program, parts: Sequence[Program]) -> int:
    """What `up` does, with any parts.

    Args:
        settings: `data_dir`, URLs and ports count.
        migration: must end with status 0 before the parts start.
        parts: kept running; their environment is set here.
    """
    errors: list[str] = []
    try:
        asyncio.run(_until_signalled(_serve(settings, migration, parts)))
    except* (ConfigurationError, ServerFailed, StartFailed) as group:
        errors = _messages(group)
    for message in errors:
        click.echo(message, err=True)
    return 1 if errors else 0


class Supervisor:
    """Runs programs without blocking the event loop, which must be the main thread's: programs end
    with the thread that started them.

    Args:
        pauses: seconds before the first, second, … restart.
        stable_seconds: a life that makes the next restart the first again.
    """

    def __init__(
        self, *, pauses: Sequence[float] = RESTART_PAUSES, stable_seconds: float = STABLE_SECONDS
    ) -> None:
        self._pauses = pauses
        self._stable_seconds = stable_seconds
        self.restarts = Counter[str]()

    async def keep_running(self, program: Program) -> None:
        """Run a program, and again whenever it ends, until cancelled.

        Raises:
            ConfigurationError: its preparation says that it can never start.
        """
        in_a_row = 0
        while True:
            started = time.monotonic()
            try:
                await _in_thread(program.prepare)
                ended = _description(await self.run(program))
            except (OSError, ServerFailed) as error:
                ended = str(error)
            if time.monotonic() - started >= self._stable_seconds:
                in_a_row = 0
            pause = self._pauses[min(in_a_row, len(self._pauses) - 1)]
            in_a_row += 1
            self.restarts[program.name] += 1
            _log.warning("ended", program=program.name, by=ended, restart_in_seconds=pause)
            await asyncio.sleep(pause)

    async def run(self, program: Program) -> int:
        """Run a program once. When cancelled, the program is ended first.

        Returns:
            Its exit status, or the negative number of the signal that ended it.
        """
        process = spawn(program)
        try:
            exited = _exited(process)
        except RuntimeError as error:  # the system has no thread left
            kill_group(process)
            process.wait()
            raise OSError(str(error)) from error
        try:
            return await asyncio.shield(exited)
        finally:
            await self._end(process, exited, program)

    async def _end(
        self, process: subprocess.Popen[bytes], exited: asyncio.Future[int], program: Program
    ) -> None:
        for signum, seconds in program.stop_sequence:
            process.send_signal(signum)
            await asyncio.wait([exited], timeout=seconds)
            if exited.done():
                return
        kill_group(process)
        await asyncio.shield(exited)


def _exited(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """The exit status of a process, once it has ended.

    A thread waits for it: the signal that tells of children belongs to one loop of a process.
    """
    loop = asyncio.get_running_loop()
    exited = loop.create_future()

    def wait() -> None:
        status = process.wait()
        loop.call_soon_threadsafe(exited.set_result, status)

    threading.Thread(target=wait, name=f"wait-{process.pid}", daemon=True).start()
    return exited


async def _until_signalled(work: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(work)

    def end() -> None:
        if not task.cancelling():
            click.echo("Stopping")
            task.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, end)
    with suppress(asyncio.CancelledError):
        await task


async def _serve(settings: Settings, migration: Program, parts: Sequence[Program]) -> None:
    data_dir = usable_data_dir(settings)
    with _only_one(data_dir):
        supervisor = Supervisor()
        await _in_thread(lambda: end_orphans(has_variable(_MARK, str(data_dir)), _PART_STOP))
        _check_ports(settings)
        async with _servers(settings, data_dir, supervisor) as complete:
            environment = _environment(complete, data_dir)
            status = await supervisor.run(replace(migration, environment=environment))
            if status != 0:
                raise StartFailed(f"{migration.name} ended with {_description(status)}")
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(
                        supervisor.keep_running(replace(part, environment=environment))
                    )
                await _answering(complete)
                click.echo(_start_message(complete))


@asynccontextmanager
async def _servers(
    settings: Settings, data_dir: Path, supervisor: Supervisor
) -> AsyncGenerator[Settings]:
    """Keep the servers running that have no URL; yields settings in which all URLs are present."""
    if not needs_servers(settings):
        yield settings
        return
    with await _claim(data_dir):
        servers = embedded_servers(settings, data_dir)
        names = " and ".join(server.program.name for server in servers)
        click.echo(f"Starting {names} in {data_dir}")
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(supervisor.keep_running(server.program))
            for server in servers:
                await _set_up(server, supervisor)
            with published(data_dir, urls_of(servers)):
                yield with_urls(settings, urls_of(servers))


async def _set_up(server: EmbeddedServer, supervisor: Supervisor) -> None:
    program = server.program
    while not await asyncio.to_thread(server.is_ready):
        if supervisor.restarts[program.name] >= START_ATTEMPTS:
            raise start_failure(program, "does not start")
        await asyncio.sleep(_POLL_SECONDS)
    await _in_thread(server.bootstrap)


async def _in_thread(work: Callable[[], None]) -> None:
    """Run blocking work. When cancelled, wait for its end, so that it outlives no lock."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise


def _only_one(data_dir: Path) -> TextIO:
    path = data_dir / "up.lock"
    lock = try_lock(path)
    if lock is None:
        raise StartFailed(
            f"DATA_DIR: notify up already runs on {data_dir} (process {path.read_text().strip()}). "
            "Stop it, or choose another DATA_DIR"
        )
    return lock


async def _claim(data_dir: Path) -> TextIO:
    """The right to run the servers, which a short command such as `notify token` may still have."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while (lock := claim_servers(data_dir)) is None:
        if time.monotonic() > deadline:
            raise StartFailed(
                f"DATA_DIR: another notify program runs the servers of {data_dir}. Stop it, or "
                "choose another DATA_DIR"
            )
        await asyncio.sleep(_POLL_SECONDS)
    return lock


def _check_ports(settings: Settings) -> None:
    wanted = [("API_PORT", settings.api_host, settings.api_port)]
    if settings.ws_enabled:
        wanted.append(("WS_PORT", settings.gateway_host, settings.ws_port))
    if settings.is_development:
        wanted.append(("SANDBOX_PORT", "127.0.0.1", settings.sandbox_port))
        if settings.sandbox_smtp_port is not None:
            wanted.append(("SANDBOX_SMTP_PORT", "127.0.0.1", settings.sandbox_smtp_port))
    variables: dict[int, str] = {}
    for variable, host, port in wanted:
        if port in variables:
            raise StartFailed(f"{variable}: {port} is also {variables[port]}; choose another port")
        variables[port] = variable
        try:
            _bind(host, port)
        except OSError as error:
            raise StartFailed(
                f"{variable}: cannot listen on {host}:{port}: {error.strerror}. Stop the program "
                f"that uses the port, or set {variable} to another"
            ) from None


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of an earlier run that linger are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


async def _answering(settings: Settings) -> None:
    while True:
        if await asyncio.to_thread(_answers, settings):
            return
        await asyncio.sleep(_POLL_SECONDS)


def _answers(settings: Settings) -> bool:
    connection = HTTPConnection(settings.api_host, settings.api_port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _part(name: str) -> Program:
    script = Path(sys.executable).with_name("notify")
    return Program(name=f"notify {name}", argv=(str(script), name), stop_sequence=_PART_STOP)


def _environment(settings: Settings, data_dir: Path) -> dict[str, str]:
    urls = {
        "DATABASE_URL": settings.database_url,
        "DATABASE_OWNER_URL": settings.database_owner_url,
        "REDIS_URL": settings.redis_url,
    }
    present = {name: url.get_secret_value() for name, url in urls.items() if url is not None}
    return {**os.environ, **present, "DATA_DIR": str(data_dir), _MARK: str(data_dir)}


def _start_message(settings: Settings) -> str:
    rows = [("Page", f"{settings.base_url}/")]
    if settings.is_development:
        rows.append(("Mailbox", f"{settings.sandbox_url}/"))
    rows += [("API docs", f"{settings.base_url}/docs"), ("Stop", "Ctrl-C")]
    lines = [f"  {click.style(f'{label:<10}', dim=True)}{value}" for label, value in rows]
    title = click.style("Notify is running", bold=True, fg="green")
    return "\n".join(("", f"  {title}", "", *lines, ""))


def _description(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def _messages(group: BaseExceptionGroup[Exception]) -> list[str]:
    return [
        message
        for error in group.exceptions
        for message in (_messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)])
    ]
