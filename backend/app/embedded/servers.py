"""Running the servers that no URL points to."""

import random
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from app.config import ConfigurationError, Settings
from app.embedded.data_dir import (
    Urls,
    claim_servers,
    explained,
    published,
    published_urls,
    usable_data_dir,
)
from app.embedded.program import Program, ServerFailed, spawn, start_failure, stop
from app.load_settings import embedded_passwords

READY_SECONDS = 600
"""How long a server may take to start: after a crash it repeats what it had not yet written."""

START_ATTEMPTS = 3
"""Starts before a server counts as failed: another program may be in the way of the first, as one
that takes its port for a moment or, as every start of pytest does, the way to its directory."""

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_POLL_SECONDS = 0.02

# Below the ports that outgoing connections take, which could be gone when a server restarts.
_PORTS = range(20_000, 32_768)


class EmbeddedServer(Protocol):
    """A server this package runs."""

    @property
    def program(self) -> Program:
        """How it runs."""
        ...

    @property
    def urls(self) -> Urls:
        """The settings that point to it."""
        ...

    def is_ready(self) -> bool:
        """Whether it can be used, once started."""
        ...

    def bootstrap(self) -> None:
        """Complete its set-up while it runs; idempotent."""
        ...


@contextmanager
def running_servers(
    settings: Settings, *, postgres_settings: Mapping[str, str] = _NO_SETTINGS
) -> Generator[Settings]:
    """Run the servers that `settings` has no URL for, as long as the context lasts.

    If another program runs them on the same data directory they are used and left running; they
    end with that program. Enter this in a thread that lives as long as the context: on Linux the
    servers end with the thread that started them.

    Args:
        settings: its `data_dir` and URLs count.
        postgres_settings: PostgreSQL server settings that win over ours.

    Yields:
        Settings in which every URL is present.

    Raises:
        ConfigurationError: the data directory cannot be used, or is used in another way.
        ServerFailed: a server did not start.
    """
    if not needs_servers(settings):
        yield settings
        return
    data_dir = usable_data_dir(settings)
    with ExitStack() as stack:
        deadline = time.monotonic() + READY_SECONDS
        while (lock := claim_servers(data_dir)) is None:
            if urls := published_urls(data_dir):
                yield with_urls(settings, urls)
                return
            if time.monotonic() > deadline:
                raise ServerFailed(f"The program that holds {data_dir} does not get ready")
            time.sleep(_POLL_SECONDS)
        stack.enter_context(lock)
        servers = embedded_servers(settings, data_dir, postgres_settings)
        for server in servers:
            stack.enter_context(_running(server, data_dir))
        stack.enter_context(published(data_dir, urls_of(servers)))
        yield with_urls(settings, urls_of(servers))


def needs_servers(settings: Settings) -> bool:
    """Whether a URL is missing that a server of ours would provide."""
    return bool(_missing_urls(settings))


def embedded_servers(
    settings: Settings, data_dir: Path, postgres_settings: Mapping[str, str] = _NO_SETTINGS
) -> Sequence[EmbeddedServer]:
    """The servers that `settings` has no URL for, on free ports, not yet started.

    Raises:
        ConfigurationError: the secrets in the data directory cannot be read.
    """
    # Programs that are given both URLs never load what runs servers.
    from app.embedded.postgres import EmbeddedPostgres  # noqa: PLC0415
    from app.embedded.valkey import EmbeddedValkey  # noqa: PLC0415

    with explained(data_dir):
        database_secret, redis_password = embedded_passwords(data_dir)
    servers: list[EmbeddedServer] = []
    if settings.database_url is None:
        servers.append(EmbeddedPostgres(data_dir, _free_port(), database_secret, postgres_settings))
    if settings.redis_url is None:
        servers.append(EmbeddedValkey(data_dir, _free_port(), redis_password))
    return servers


def urls_of(servers: Sequence[EmbeddedServer]) -> Urls:
    """All settings that point to `servers`."""
    return {name: url for server in servers for name, url in server.urls.items()}


def with_urls(settings: Settings, urls: Urls) -> Settings:
    """A copy of `settings` with what it lacks taken from `urls`, and an absolute `data_dir`.

    Raises:
        ConfigurationError: `urls` lacks it too.
    """
    missing = _missing_urls(settings)
    data_dir = settings.data_dir.expanduser().resolve()
    if absent := sorted(missing - urls.keys()):
        names = " and ".join(name.upper() for name in absent)
        raise ConfigurationError(
            f"{names}: set for the program that runs the servers of {data_dir}, but not here; "
            "set the same value"
        )
    update = {name: urls[name] for name in missing}
    return settings.model_copy(update={"data_dir": data_dir, **update})


@contextmanager
def _running(server: EmbeddedServer, data_dir: Path) -> Generator[None]:
    program = server.program
    with explained(data_dir):
        process = _started(server, program)
    try:
        server.bootstrap()
        yield
    finally:
        stop(process, program)


def _started(server: EmbeddedServer, program: Program) -> subprocess.Popen[bytes]:
    for _ in range(START_ATTEMPTS - 1):
        with suppress(ServerFailed):
            return _started_at_once(server, program)
    return _started_at_once(server, program)


def _started_at_once(server: EmbeddedServer, program: Program) -> subprocess.Popen[bytes]:
    program.prepare()
    process = spawn(program)
    try:
        _wait_ready(server, program, process)
    except BaseException:
        stop(process, program)
        raise
    return process


def _wait_ready(server: EmbeddedServer, program: Program, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not server.is_ready():
        if process.poll() is not None:
            raise start_failure(program, f"ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise start_failure(program, f"was not ready within {READY_SECONDS} s")
        time.sleep(_POLL_SECONDS)


def _missing_urls(settings: Settings) -> set[str]:
    missing: set[str] = set()
    if settings.database_url is None:
        missing |= {"database_url", "database_owner_url"}
    if settings.redis_url is None:
        missing.add("redis_url")
    return missing


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)  # noqa: S311 -- no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
