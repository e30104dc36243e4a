"""The whole program as an operator runs it, in processes of its own, for tests that break it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil

from app.config import Settings
from app.embedded import running_servers
from app.load_settings import load_settings
from app.security.jwt import issue_token
from tests.http_client import client_of
from tests.ports import free_ports

NOTIFY = Path(sys.executable).with_name("notify")
START_SECONDS = 90
STOP_SECONDS = 40
TOKEN_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class Stack:
    """A running `notify up`.

    Args:
        environment: what its programs were started with, so that another can be put beside them.
        api: client of the API, as an internal service.
        sandbox: client of the sandbox.
    """

    process: subprocess.Popen[bytes]
    settings: Settings
    environment: Mapping[str, str]
    ws_port: int
    api: httpx.AsyncClient
    sandbox: httpx.AsyncClient

    def part(self, name: str) -> psutil.Process:
        """The running process whose command line contains `name`, such as `notify worker`."""
        for child, line in self.command_lines().items():
            if name in line:
                return child
        raise LookupError(name)

    def command_lines(self) -> Mapping[psutil.Process, str]:
        """The running processes of the program, and of its servers."""
        found: dict[psutil.Process, str] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                found[child] = " ".join(child.cmdline())
            except psutil.Error:
                continue
        return found

    async def kill(self, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
        """Kill a part, with -9 by default, and wait until another process has taken its place."""
        old = self.part(name)
        old.send_signal(signum)
        async with asyncio.timeout(START_SECONDS):
            while True:
                try:
                    if self.part(name).pid != old.pid:
                        return
                except LookupError:
                    pass
                await asyncio.sleep(0.1)

    async def add_user(self) -> UUID:
        """A user with an address of their own."""
        user_id = uuid4()
        answer = await self.api.put(
            f"/api/v1/internal/users/{user_id}", json={"email": f"{user_id}@example.com"}
        )
        answer.raise_for_status()
        return user_id

    async def send(self, user_id: UUID, **fields: Any) -> UUID:
        """Create a notification as an internal service; returns its id.

        Args:
            fields: of the call, in place of what is sent else or beside it.
        """
        body = {"user_id": str(user_id), "type": "task", "title": "Done", "body": "It is"}
        answer = await self.api.post("/api/v1/internal/notifications/send", json=body | fields)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["notification_id"])

    def user_token(self, user_id: UUID) -> str:
        """Access token of a user."""
        return issue_token(
            self.settings,
            subject=str(user_id),
            role="authenticated",
            expires_at=datetime.now(UTC) + TOKEN_LIFETIME,
        )

    def create_headers(self) -> dict[str, str]:
        """Headers of internal calls."""
        return {
            "X-Internal-Service-Key": self.settings.service_keys[0],
            "X-Service-Name": "tests",
        }


def initialise(data_dir: Path) -> None:
    """Let a data directory be as the first start of the servers leaves it."""
    settings = load_settings(
        data_dir=data_dir, database_url=None, database_owner_url=None, redis_url=None
    )
    with running_servers(settings, postgres_settings={"fsync": "off"}):
        pass


def copy_data(source: Path, target: Path) -> None:
    """Make a data directory like another, which no server uses; the owners stay who they are."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


@asynccontextmanager
async def running_stack(
    data_dir: Path,
    environment: Mapping[str, str] | None = None,
    *,
    ports: Sequence[int] = (),
    log_dir: Path | None = None,
) -> AsyncGenerator[Stack]:
    """Run `notify up` while the context lasts; nothing of it is left behind.

    Args:
        environment: variables that win over those of the tests.
        ports: of API, gateway, sandbox and its SMTP; default: free ones.
        log_dir: where its output goes; default: the data directory.
    """
    api_port, ws_port, sandbox_port, smtp_port = ports or free_ports(4)
    variables = {
        "LOG_LEVEL": "warning",
        "API_PORT": str(api_port),
        "WS_PORT": str(ws_port),
        "SANDBOX_PORT": str(sandbox_port),
        "SANDBOX_SMTP_PORT": str(smtp_port),
        "DATA_DIR": str(data_dir),
        # Limits have tests of their own.
        "RATE_LIMIT_PUSH_PER_HOUR": "1000000",
        "RATE_LIMIT_IN_APP_PER_HOUR": "1000000",
        "RATE_LIMIT_EMAIL_PER_DAY": "1000000",
        "RATE_LIMIT_GLOBAL_PER_MINUTE": "1000000",
        **(environment or {}),
    }
    data_dir.mkdir(parents=True, exist_ok=True)
    log_file = (log_dir or data_dir) / "up.log"
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [NOTIFY, "up"],
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data_dir,
            start_new_session=True,
        )
    api_url = f"http://127.0.0.1:{api_port}"
    try:
        async with (
            client_of(api_url, timeout=30) as api,
            client_of(f"http://127.0.0.1:{sandbox_port}", timeout=30) as sandbox,
        ):
            for part in (api_url, f"http://127.0.0.1:{ws_port}"):
                await _until_ready(process, api, f"{part}/readyz", log_file)
            given = {name.lower(): value for name, value in variables.items()}
            with running_servers(load_settings(_env_file=None, **given)) as attached:
                stack = Stack(process, attached, variables, ws_port, api, sandbox)
                api.headers.update(stack.create_headers())
                yield stack
    finally:
        await stop(process)


async def stop(process: subprocess.Popen[bytes]) -> None:
    """End the program as an operator does, and make sure that all of it ended."""
    family = [psutil.Process(process.pid)] if process.poll() is None else []
    family += [child for parent in family for child in parent.children(recursive=True)]
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.to_thread(process.wait, STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    left = [member.cmdline() for member in family if member.is_running()]
    assert left == [], f"left behind: {left}"


async def _until_ready(
    process: subprocess.Popen[bytes], client: httpx.AsyncClient, address: str, log: Path
) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.poll() is None, log.read_text()
            try:
                if (await client.get(address)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def as_json(text: str | bytes) -> dict[str, Any]:
    """A frame's content."""
    return json.loads(text)
