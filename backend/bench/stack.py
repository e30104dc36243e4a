"""The real stack, started as `notify up` starts it, with users to measure with."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import Popen
from typing import Any
from uuid import UUID, uuid4

import psutil
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import Settings
from app.db.database import Database
from app.embedded.data_dir import published_urls
from app.embedded.program import Program, spawn, stop
from app.embedded.servers import with_urls
from app.load_settings import load_settings
from app.security.jwt import issue_token
from bench.load import HOST, HttpClient, request_bytes, send_all
from tests.ports import free_ports

START_SECONDS = 120
STOP_SECONDS = 60
TOKEN_LIFETIME = timedelta(hours=12)
SEEDING_CONNECTIONS = 16
SERVICE = "bench"
TIMEZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", None)

# Below the ports that outgoing connections take.

# What is measured is the capacity, so the policy's limits are out of the way.
LIMITS = {
    "RATE_LIMIT_PUSH_PER_HOUR": "1000000",
    "RATE_LIMIT_IN_APP_PER_HOUR": "1000000",
    "RATE_LIMIT_EMAIL_PER_DAY": "1000000",
    "RATE_LIMIT_GLOBAL_PER_MINUTE": "10000000",
    "NOTIFICATION_QUEUE_SIZE": "10000000",
}

COUNT_STORED = text("SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))")
COUNT_DECIDED = text("""
    SELECT count(DISTINCT notification_id) FROM notification_deliveries
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND channel = 'in_app'
""")


class StackFailed(Exception):
    """The stack did not start; the message ends with its log."""


@dataclass
class Stack:
    """A running installation of its own.

    Args:
        settings: as its programs have them, both URLs included.
        process: `notify up`.
        log: what its programs wrote.
    """

    settings: Settings
    process: Popen[bytes]
    log: Path
    _users: list[UUID] = field(default_factory=list[UUID])

    @property
    def service_headers(self) -> dict[str, str]:
        """Credentials of a service."""
        return {
            "Authorization": f"Bearer {self._token(SERVICE, 'service')}",
            "X-Service-Auth": self.settings.service_keys[0],
            "X-Service-Name": SERVICE,
        }

    @property
    def known_users(self) -> int:
        """How many users there are so far."""
        return len(self._users)

    def user_token(self, user_id: UUID) -> str:
        """Access token of a user."""
        return self._token(str(user_id), "authenticated")

    def part(self, name: str) -> psutil.Process:
        """The process of one part, such as `api`."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.cmdline()[-1:] == [name]:
                return child
        raise StackFailed(f"notify {name} does not run")

    async def users(self, count: int) -> list[UUID]:
        """The first `count` users, each with an address of their own; makes those missing."""
        missing = range(len(self._users), count)
        new = [uuid4() for _ in missing]
        headers = {
            "X-Internal-Service-Key": self.settings.service_keys[0],
            "X-Service-Name": SERVICE,
        }
        requests = [
            request_bytes("PUT", f"/api/v1/internal/users/{user_id}", headers, _user(number))
            for number, user_id in zip(missing, new, strict=True)
        ]
        if requests:
            async with HttpClient(
                self.settings.api_port, connections=SEEDING_CONNECTIONS
            ) as client:
                await send_all(client, requests, hoped_for=200)
        self._users += new
        return self._users[:count]

    async def lost(self, ids: Collection[str]) -> int:
        """How many of these notifications are not stored, or not decided."""
        async with self.connection() as connection:
            stored = (await connection.execute(COUNT_STORED, {"ids": list(ids)})).scalar_one()
            decided = (await connection.execute(COUNT_DECIDED, {"ids": list(ids)})).scalar_one()
        return len(ids) - min(stored, decided)

    async def value(self, query: str) -> Any:
        """The one value that a query answers."""
        async with self.connection() as connection:
            return (await connection.execute(text(query))).scalar_one()

    async def servers(self) -> dict[str, str]:
        """PostgreSQL's version, and how durable its commits are."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        known = {name: await self.value(f"SHOW {name}") for name in names}
        durability = ", ".join(f"{name} {known[name]}" for name in names[1:])
        return {"postgresql": f"{known['server_version']} ({durability})"}

    def warnings(self) -> list[str]:
        """Lines in which a program warned of something."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if "warning" in line.lower() or "error" in line.lower()]

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """A connection to PostgreSQL, beside those of the stack."""
        database = Database(self.settings)
        try:
            async with database.as_service() as connection:
                yield connection
        finally:
            await database.close()

    def _token(self, subject: str, role: str) -> str:
        expires_at = datetime.now(UTC) + TOKEN_LIFETIME
        return issue_token(self.settings, subject=subject, role=role, expires_at=expires_at)


@contextmanager
def running_stack() -> Generator[Stack]:
    """Run everything on free ports and an empty data directory; both are gone at the end.

    Raises:
        StackFailed: it did not get ready.
    """
    _forget_configuration()
    with tempfile.TemporaryDirectory(prefix="notify-bench-") as name:
        directory = Path(name)
        parts = ("API_PORT", "WS_PORT", "SANDBOX_PORT", "SANDBOX_SMTP_PORT")
        ports = dict(zip(parts, free_ports(len(parts)), strict=True))
        variables = {
            **{variable: str(port) for variable, port in ports.items()},
            "DATA_DIR": str(directory / "data"),
            "LOG_LEVEL": "warning",
            **LIMITS,
        }
        os.environ.update(variables)
        program = Program(
            name="notify up",
            argv=(str(Path(sys.executable).with_name("notify")), "up"),
            cwd=directory,
            log=directory / "log" / "up.log",
            stop_sequence=((signal.SIGTERM, STOP_SECONDS),),
        )
        settings = load_settings(_env_file=None)
        process = spawn(program)
        try:
            stack = Stack(settings, process, directory / "log" / "up.log")
            _wait_ready(stack)
            urls = published_urls(settings.data_dir)
            assert urls is not None
            stack.settings = with_urls(settings, urls)
            yield stack
        finally:
            stop(process, program)


def _forget_configuration() -> None:
    """What the caller's shell configures must not change what is measured."""
    for variable in list(os.environ):
        if variable.lower() in Settings.model_fields:
            del os.environ[variable]


def _wait_ready(stack: Stack) -> None:
    settings = stack.settings
    waiting = {
        settings.api_port: "/readyz",
        settings.ws_port: "/readyz",
        settings.sandbox_port: "/healthz",
    }
    deadline = time.monotonic() + START_SECONDS
    while waiting:
        if stack.process.poll() is not None or time.monotonic() > deadline:
            log = stack.log.read_text(errors="replace")[-4000:]
            raise StackFailed(f"The stack did not start:\n{log}")
        time.sleep(0.1)
        waiting = {port: path for port, path in waiting.items() if not _answers(port, path)}


def _answers(port: int, path: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def wait_answers(port: int, path: str, process: Popen[bytes]) -> None:
    """Wait until a server that was just started answers.

    Raises:
        StackFailed: it ended, or takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackFailed(f"nothing answers on port {port}")
        time.sleep(0.1)


def _user(number: int) -> dict[str, Any]:
    return {
        "email": f"user{number}@bench.example",
        "full_name": f"User {number}",
        "timezone": TIMEZONES[number % len(TIMEZONES)],
        "attributes": {"plan": "pro" if number % 5 == 0 else "free"},
    }
