import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from app.embedded.orphans import has_variable
from app.embedded.program import Program, StopSequence
from app.load_settings import load_settings
from app.supervisor import Supervisor, parts_for
from tests.ports import free_ports
from tests.stack import copy_data

BACKEND = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
PORTS = ("API_PORT", "WS_PORT", "SANDBOX_PORT", "SANDBOX_SMTP_PORT")

# Each life of a part adds its process id to a file.
COUNTED = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n');"
LIVES = COUNTED + "import signal; signal.pause()"
ENDS = COUNTED + "sys.exit(3)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + LIVES

API = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["API_PORT"])), Handler)
with open(sys.argv[1], "w") as file:
    json.dump(dict(os.environ), file)
server.serve_forever()
"""

UP = """
import json, sys
from app.collector import start_undisturbed
from app.optional import FOR_TERMINALS, leave_out
start_undisturbed()
leave_out(FOR_TERMINALS)
from app.load_settings import load_settings
from app.embedded.orphans import has_variable
from app.embedded.program import Program
from app.supervisor import run
programs = [Program(name=argv[0], argv=tuple(argv[1:])) for argv in json.loads(sys.argv[1])]
sys.exit(run(load_settings(_env_file=None), migration=programs[0], parts=programs[1:]))
"""

Argv = tuple[str, ...]


def python(name: str, code: str, *arguments: str) -> Argv:
    return (name, sys.executable, "-c", code, *arguments)


def counted(path: Path, code: str = LIVES, stop_sequence: StopSequence | None = None) -> Program:
    name, *argv = python(path.name, code, str(path))
    if stop_sequence is None:
        return Program(name=name, argv=tuple(argv))
    return Program(name=name, argv=tuple(argv), stop_sequence=stop_sequence)


def lives(path: Path) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(line) for line in path.read_text().splitlines()]
    return []


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def living(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if matches(process):
                found.append(process)
    return found


async def test_a_killed_part_is_started_again_and_ended_with_the_supervisor(
    tmp_path: Path,
) -> None:
    log = tmp_path / "part"
    supervisor = Supervisor()
    task = asyncio.create_task(supervisor.keep_running(counted(log)))
    await until(lambda: len(lives(log)) == 1)
    os.kill(lives(log)[0], signal.SIGKILL)
    await until(lambda: len(lives(log)) == 2)
    assert supervisor.restarts["part"] == 1
    assert is_alive(lives(log)[1])
    task.cancel()
    await asyncio.wait([task])
    assert not any(is_alive(pid) for pid in lives(log))


async def test_a_part_that_keeps_ending_waits_longer_each_time(tmp_path: Path) -> None:
    log = tmp_path / "part"
    supervisor = Supervisor(pauses=(0, 0, 1000))
    task = asyncio.create_task(supervisor.keep_running(counted(log, ENDS)))
    await until(lambda: supervisor.restarts["part"] == 3)
    assert len(lives(log)) == 3
    task.cancel()
    await asyncio.wait([task])


async def test_a_part_that_lived_long_enough_is_started_again_at_once(tmp_path: Path) -> None:
    log = tmp_path / "part"
    supervisor = Supervisor(pauses=(0, 1000), stable_seconds=0)
    task = asyncio.create_task(supervisor.keep_running(counted(log, ENDS)))
    await until(lambda: len(lives(log)) > 3)
    task.cancel()
    await asyncio.wait([task])


async def test_a_part_that_ignores_its_stop_signal_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "part"
    stubborn = counted(log, STUBBORN, ((signal.SIGTERM, 0.2),))
    supervisor = Supervisor()
    task = asyncio.create_task(supervisor.keep_running(stubborn))
    await until(lambda: len(lives(log)) == 1)
    task.cancel()
    await asyncio.wait([task])
    assert not is_alive(lives(log)[0])


async def test_a_part_that_cannot_be_executed_is_tried_again(tmp_path: Path) -> None:
    missing = Program(name="missing", argv=(str(tmp_path / "missing"),))
    supervisor = Supervisor(pauses=(0,))
    task = asyncio.create_task(supervisor.keep_running(missing))
    await until(lambda: supervisor.restarts["missing"] > 2)
    task.cancel()
    await asyncio.wait([task])


def test_a_part_ends_with_a_killed_supervisor(tmp_path: Path) -> None:
    log = tmp_path / "part"
    code = (
        "import sys, time; from app.embedded.program import Program, spawn;"
        "spawn(Program(name='part', argv=tuple(sys.argv[1:]))); time.sleep(1000)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, *counted(log).argv], cwd=BACKEND)
    try:
        wait_until(lambda: len(lives(log)) == 1)
    finally:
        parent.kill()
        parent.wait()
    if sys.platform == "linux":
        wait_until(lambda: not is_alive(lives(log)[0]))
    else:
        os.kill(lives(log)[0], signal.SIGTERM)


def test_the_parts_are_those_that_the_settings_ask_for(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path)
    production = settings.model_copy(update={"app_env": "production", "ws_enabled": False})
    assert {part.name for part in parts_for(settings)} == {
        "notify api",
        "notify gateway",
        "notify worker",
        "notify scheduler",
        "notify sandbox",
    }
    assert {part.name for part in parts_for(production)} == {
        "notify api",
        "notify worker",
        "notify scheduler",
    }
    for part in parts_for(settings):
        assert " ".join(part.argv).endswith(f"/{part.name}")


class Installation:
    """A data directory and free ports, on which `notify up` runs with small parts."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"
        self.api = directory / "api.json"
        self.part = directory / "part"
        self.ports: dict[str, str] = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        self.migration = python("migrate", "pass")
        self.parts = [
            python("api", API, str(self.api)),
            python("part", LIVES, str(self.part)),
        ]

    @contextmanager
    def up(self) -> Generator[subprocess.Popen[str]]:
        external = ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "APP_ENV", "PUBLIC_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in external}
        program = subprocess.Popen(
            [sys.executable, "-c", UP, json.dumps([self.migration, *self.parts])],
            cwd=BACKEND,
            env={**inherited, **self.ports, "DATA_DIR": str(self.data_dir)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield program
        finally:
            if program.poll() is None:
                program.send_signal(signal.SIGTERM)
            program.communicate(timeout=DEADLINE_SECONDS)

    def environment(self) -> dict[str, str]:
        """What the API was started with last."""
        return json.loads(self.api.read_text())

    def servers(self) -> list[psutil.Process]:
        """Living processes of the servers."""
        return living(lambda process: Path(process.cwd()).parent == self.data_dir)

    def processes(self) -> list[psutil.Process]:
        """Living processes of servers and parts."""
        return self.servers() + living(has_variable("NOTIFY_SUPERVISED", str(self.data_dir)))


def read_until(program: subprocess.Popen[str], text: str) -> str:
    """The output up to the line with `text`."""
    assert program.stdout is not None
    lines: list[str] = []
    for line in program.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"ended without {text!r}:\n{''.join(lines)}")


def refusal(program: subprocess.Popen[str]) -> str:
    """All output of a program that ends by itself because it cannot start."""
    output, _ = program.communicate(timeout=DEADLINE_SECONDS)
    assert program.returncode == 1, output
    return output


def accepts(url: str) -> bool:
    address = make_url(url)
    with suppress(OSError):
        socket.create_connection((address.host or "", address.port or 0), 1).close()
        return True
    return False


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def used(installation: Installation, initialised: Path) -> Installation:
    """One that is not started for the first time."""
    copy_data(initialised, installation.data_dir)
    return installation


def test_everything_starts_is_announced_restarted_and_ended(installation: Installation) -> None:
    with installation.up() as program:
        output = read_until(program, "Ctrl-C")
        for port in ("API_PORT", "SANDBOX_PORT"):
            assert f"http://127.0.0.1:{installation.ports[port]}/" in output

        environment = installation.environment()
        assert environment["DATA_DIR"] == str(installation.data_dir)
        urls = [environment[name] for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL")]
        assert all(accepts(url) for url in urls)

        wait_until(lambda: len(lives(installation.part)) == 1)
        os.kill(lives(installation.part)[0], signal.SIGKILL)
        wait_until(lambda: len(lives(installation.part)) == 2)

        for server in installation.servers():
            server.kill()
        wait_until(lambda: all(accepts(url) for url in urls))

        program.send_signal(signal.SIGINT)
        program.communicate(timeout=DEADLINE_SECONDS)
    assert program.returncode == 0
    assert installation.processes() == []


@pytest.mark.parametrize("stage", ["servers", "migration", "parts"])
def test_sigterm_ends_a_start_at_any_stage(
    installation: Installation, initialised: Path, stage: str
) -> None:
    if stage != "servers":
        copy_data(initialised, installation.data_dir)
    never = installation.data_dir.parent / "never"
    if stage == "migration":
        installation.migration = python("migrate", LIVES, str(never))
    if stage == "parts":
        installation.parts = [python("api", LIVES, str(never))]
    with installation.up() as program:
        read_until(program, "Starting postgres and valkey")
        wait_until(lambda: stage == "servers" or never.exists())
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=DEADLINE_SECONDS)
    assert program.returncode == 0
    assert installation.processes() == []


def test_a_start_after_a_killed_one_ends_what_was_left(used: Installation) -> None:
    with used.up() as program:
        read_until(program, "Notify is running")
        program.kill()
    left_by_it = subprocess.Popen(
        [sys.executable, "-c", LIVES, str(used.part)],
        env={**os.environ, "NOTIFY_SUPERVISED": str(used.data_dir)},
    )
    with used.up() as program:
        read_until(program, "Notify is running")
        assert left_by_it.wait(DEADLINE_SECONDS) == -signal.SIGTERM
    assert program.returncode == 0
    assert used.processes() == []


def test_a_second_one_on_the_same_data_is_refused(used: Installation) -> None:
    with used.up() as first:
        read_until(first, "Notify is running")
        with used.up() as second:
            message = f"notify up already runs on {used.data_dir} (process {first.pid})"
            assert message in refusal(second)
        assert first.poll() is None


@pytest.mark.parametrize("variable", PORTS)
def test_a_taken_port_is_named_before_anything_starts(
    installation: Installation, variable: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", int(installation.ports[variable]))),
        installation.up() as program,
    ):
        assert f"{variable}: cannot listen on 127.0.0.1:" in refusal(program)
    assert not (installation.data_dir / "postgres").exists()


def test_the_same_port_twice_is_refused(installation: Installation) -> None:
    installation.ports["WS_PORT"] = installation.ports["API_PORT"]
    with installation.up() as program:
        assert "WS_PORT: " in refusal(program)


def test_a_failed_migration_ends_the_start(used: Installation) -> None:
    used.migration = python("migrate", "import sys; sys.exit(3)")
    with used.up() as program:
        assert "migrate ended with status 3" in refusal(program)
    assert used.processes() == []


def test_a_server_that_cannot_start_ends_the_start(installation: Installation) -> None:
    installation.data_dir.mkdir()
    (installation.data_dir / "valkey").symlink_to("/usr")
    with installation.up() as program:
        assert "belongs to root" in refusal(program)
    assert installation.processes() == []


def test_configured_servers_are_not_embedded(installation: Installation) -> None:
    external = {"DATABASE_URL": "postgresql://somewhere/x", "REDIS_URL": "redis://somewhere"}
    installation.ports |= external
    with installation.up() as program:
        read_until(program, "Notify is running")
        environment = installation.environment()
        assert {name: environment[name] for name in external} == external
        assert "DATABASE_OWNER_URL" not in environment
    assert program.returncode == 0
    assert not (installation.data_dir / "servers.json").exists()
