import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psutil
import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.config import ConfigurationError, Settings
from app.embedded import ServerFailed, running_servers
from app.embedded.account import make_reachable
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.program import LOG_LIMIT_BYTES, Account, Program, run, spawn, stop
from app.embedded.valkey import EmbeddedValkey
from app.load_settings import embedded_passwords, load_settings
from tests.ports import free_ports
from tests.stack import copy_data

BACKEND = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
FAST = {"fsync": "off"}

PROGRAM = """
import sys, time
from pathlib import Path
from app.collector import start_undisturbed
from app.optional import FOR_TERMINALS, leave_out
start_undisturbed()
leave_out(FOR_TERMINALS)
from app.load_settings import load_settings
from app.embedded import running_servers
settings = load_settings(
    data_dir=Path(sys.argv[1]), database_url=None, database_owner_url=None, redis_url=None
)
if len(sys.argv) > 2:
    # The other user may be unable to read the interpreter's files, so all is loaded before.
    import os
    import app.embedded.postgres, app.embedded.valkey
    "".encode("idna")
    os.setgroups([])
    os.setgid(int(sys.argv[3]))
    os.setuid(int(sys.argv[2]))
with running_servers(settings, postgres_settings={"fsync": "off"}) as complete:
    print(complete.database_url.get_secret_value(), flush=True)
    sys.stdin.read()
"""


def settings_for(data_dir: Path) -> Settings:
    return load_settings(
        data_dir=data_dir, database_url=None, database_owner_url=None, redis_url=None
    )


def plain(url: SecretStr | None) -> str:
    assert url is not None
    return url.get_secret_value()


async def query(url: str, *statements: str) -> Sequence[tuple[object, ...]]:
    """Rows of the last statement."""
    engine = create_async_engine(
        make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool
    )
    async with engine.begin() as connection:
        for statement in statements[:-1]:
            await connection.execute(text(statement))
        result = await connection.execute(text(statements[-1]))
        return [tuple(row) for row in result] if result.returns_rows else []


def ask(redis_url: str, *command: str) -> object:
    """The reply to one Redis command."""
    with Redis.from_url(redis_url, decode_responses=True) as client:  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves **kwargs open
        return cast("object", client.execute_command(*command))  # pyright: ignore[reportUnknownMemberType] -- as above


def servers_in(data_dir: Path) -> list[psutil.Process]:
    """Living processes of the servers on a data directory, zombies aside."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).parent == data_dir:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_until_no_server(data_dir: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while servers_in(data_dir):
        assert time.monotonic() < deadline, servers_in(data_dir)
        time.sleep(0.05)


@contextmanager
def program_on(data_dir: Path, *account: str) -> Generator[subprocess.Popen[str]]:
    """A program of its own that runs the servers until its standard input ends."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(data_dir), *account],
        cwd=BACKEND,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield program
    finally:
        program.communicate(timeout=DEADLINE_SECONDS)


def first_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    assert line, "the program ended before its servers ran"
    return line


@pytest.fixture
def used(initialised: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy_data(initialised, tmp_path / "used")
    return tmp_path / "used"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Settings]:
    with running_servers(settings_for(tmp_path_factory.mktemp("embedded"))) as settings:
        yield settings


async def test_the_app_logs_in_as_a_role_that_owns_nothing_and_inherits_nothing(
    running: Settings,
) -> None:
    rows = await query(
        plain(running.database_url),
        "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolinherit,"
        " pg_get_userbyid(datdba) FROM pg_roles JOIN pg_database ON datname = current_database()"
        " WHERE rolname = current_user",
    )
    assert rows == [("notify", False, False, False, False, False, "notify_owner")]


async def test_the_owner_may_create_roles_and_tables_but_is_no_superuser(
    running: Settings,
) -> None:
    rows = await query(
        plain(running.database_owner_url),
        "CREATE ROLE made_by_owner",
        "DROP ROLE made_by_owner",
        "CREATE TABLE made_by_owner ()",
        "DROP TABLE made_by_owner",
        "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user",
    )
    assert rows == [("notify_owner", False, False)]


async def test_the_app_cannot_create_tables(running: Settings) -> None:
    with pytest.raises(DBAPIError, match="permission denied"):
        await query(plain(running.database_url), "CREATE TABLE made_by_app ()")


async def test_pgvector_is_there(running: Settings) -> None:
    rows = await query(plain(running.database_url), "SELECT '[1,2,3]'::vector <-> '[1,2,5]'")
    assert rows == [(2.0,)]


async def test_databases_that_the_owner_creates_have_pgvector_too(running: Settings) -> None:
    owner = make_url(plain(running.database_owner_url))
    await query(plain(running.database_owner_url), "COMMIT", "CREATE DATABASE another")
    another = owner.set(database="another").render_as_string(hide_password=False)
    rows = await query(
        another, "CREATE EXTENSION IF NOT EXISTS vector", "SELECT '[1]'::vector::text"
    )
    assert rows == [("[1]",)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_version_num / 10000", "18"),
        ("listen_addresses", "127.0.0.1"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("log_timezone", "UTC"),
        ("server_encoding", "UTF8"),
    ],
)
async def test_postgres_settings(running: Settings, name: str, value: str) -> None:
    setting, _, divisor = name.partition(" / ")
    rows = await query(plain(running.database_url), f"SELECT current_setting('{setting}')")
    actual = str(rows[0][0])
    assert (str(int(actual) // int(divisor)) if divisor else actual) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("aof-load-truncated", "yes"),
        ("maxmemory-policy", "noeviction"),
        ("save", ""),
        ("bind", "127.0.0.1"),
    ],
)
def test_valkey_settings(running: Settings, name: str, value: str) -> None:
    assert ask(plain(running.redis_url), "CONFIG", "GET", name) == {name: value}


async def test_both_servers_want_a_password(running: Settings) -> None:
    database = make_url(plain(running.database_url)).set(password="wrong")
    with pytest.raises(Exception, match="password authentication failed"):
        await query(database.render_as_string(hide_password=False), "SELECT 1")
    redis = make_url(plain(running.redis_url))
    with pytest.raises(AuthenticationError):
        ask(f"redis://{redis.host}:{redis.port}/0", "PING")


def test_no_password_is_in_a_command_line_or_readable_by_others(running: Settings) -> None:
    passwords = {
        str(make_url(plain(url)).password)
        for url in (running.database_url, running.database_owner_url, running.redis_url)
    }
    assert len(passwords) == 3
    command_lines = " ".join(word for p in servers_in(running.data_dir) for word in p.cmdline())
    assert "postgres" in command_lines
    for path in (p for p in running.data_dir.rglob("*") if p.is_file()):
        if path.stat().st_mode & 0o077 == 0:
            continue
        assert not any(p in path.read_text(errors="replace") for p in passwords), path
    assert not any(password in command_lines for password in passwords)


async def test_data_survive_a_restart_in_an_awkward_place(
    initialised: Path, tmp_path: Path
) -> None:
    # Too long for a socket's path, and with what shells and configuration files trip over.
    data_dir = tmp_path / 'it\'s a # "long" path' / ("x" * 120)
    copy_data(initialised, data_dir)
    with running_servers(settings_for(data_dir), postgres_settings=FAST) as settings:
        await query(plain(settings.database_owner_url), "CREATE TABLE kept AS SELECT 42 AS answer")
        ask(plain(settings.redis_url), "SET", "kept", "42")
    assert servers_in(data_dir) == []
    with running_servers(settings_for(data_dir), postgres_settings=FAST) as settings:
        assert await query(plain(settings.database_owner_url), "TABLE kept") == [(42,)]
        assert ask(plain(settings.redis_url), "GET", "kept") == "42"


async def test_what_a_killed_run_leaves_is_no_obstacle(used: Path) -> None:
    with running_servers(settings_for(used), postgres_settings=FAST) as settings:
        await query(plain(settings.database_owner_url), "CREATE TABLE kept ()")
        ask(plain(settings.redis_url), "SET", "kept", "42")
        ask(plain(settings.redis_url), "SET", "cut", "off")
        for process in servers_in(used):
            process.kill()
        wait_until_no_server(used)
        shutil.copy(used / "servers.json", used / "servers.stale")

    assert (used / "postgres" / "postmaster.pid").exists()
    # The process id may by now be another's, such as ours.
    (used / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{used}\n")
    (used / "postgres.new").mkdir()
    (used / "postgres.new" / "PG_VERSION").write_text("18\n")
    (used / "postgres.password").write_text("stale")
    (used / "servers.stale").rename(used / "servers.json")
    log = next((used / "valkey").rglob("*.incr.aof"))
    with log.open("r+b") as file:
        file.truncate(max(log.stat().st_size - 3, 0))

    with running_servers(settings_for(used), postgres_settings=FAST) as settings:
        assert await query(plain(settings.database_owner_url), "TABLE kept") == []
        assert ask(plain(settings.redis_url), "GET", "kept") == "42"


def test_a_killed_initdb_is_done_again(tmp_path: Path) -> None:
    with program_on(tmp_path) as program:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (tmp_path / "postgres.new" / "PG_VERSION").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        program.kill()
    assert not (tmp_path / "postgres" / "PG_VERSION").exists()
    with running_servers(settings_for(tmp_path), postgres_settings=FAST):
        assert not (tmp_path / "postgres.new").exists()


async def test_servers_end_with_a_killed_program(used: Path) -> None:
    with program_on(used) as program:
        assert await query(first_line(program), "SELECT 1") == [(1,)]
        program.kill()
    if sys.platform == "linux":
        wait_until_no_server(used)
    with running_servers(settings_for(used), postgres_settings=FAST) as settings:
        assert await query(plain(settings.database_url), "SELECT 1") == [(1,)]


async def test_orphaned_servers_are_ended_before_a_start(used: Path) -> None:
    secret, password = embedded_passwords(used)
    first, second = free_ports(2)
    orphans = [
        EmbeddedPostgres(used, first, secret, FAST),
        EmbeddedValkey(used, second, password),
    ]
    processes: list[subprocess.Popen[bytes]] = []
    for orphan in orphans:
        orphan.prepare()
        processes.append(spawn(orphan.program))
    with running_servers(settings_for(used), postgres_settings=FAST) as settings:
        assert [process.wait(DEADLINE_SECONDS) for process in processes] == [0, 0]
        assert await query(plain(settings.database_url), "SELECT 1") == [(1,)]


async def test_a_second_program_attaches_and_leaves_the_servers_running(used: Path) -> None:
    with program_on(used) as program:
        url = first_line(program)
        for _ in range(2):
            with running_servers(settings_for(used)) as settings:
                assert plain(settings.database_url) == url
                assert await query(url, "SELECT 1") == [(1,)]
                assert ask(plain(settings.redis_url), "PING") is True
        assert (used / "servers.json").stat().st_mode & 0o077 == 0
    assert program.returncode == 0
    assert servers_in(used) == []
    assert not (used / "servers.json").exists()


def test_programs_that_start_at_once_share_one_pair_of_servers(tmp_path: Path) -> None:
    with program_on(tmp_path) as one, program_on(tmp_path) as other:
        assert first_line(one) == first_line(other)


def test_configured_urls_are_left_alone(tmp_path: Path) -> None:
    url = SecretStr("postgresql://somewhere/else")
    external = settings_for(tmp_path).model_copy(
        update={"database_url": url, "redis_url": SecretStr("redis://somewhere")}
    )
    with running_servers(external) as settings:
        assert settings is external

    half = settings_for(tmp_path).model_copy(update={"database_url": url})
    with running_servers(half) as settings:
        assert settings.database_url == url
        assert settings.database_owner_url is None
        assert ask(plain(settings.redis_url), "PING") is True
        assert not (tmp_path / "postgres").exists()
        with (
            pytest.raises(ConfigurationError, match=r"DATABASE_URL: set for"),
            running_servers(settings_for(tmp_path)),
        ):
            pass


async def test_it_runs_as_a_normal_user(tmp_path: Path) -> None:
    is_root = os.geteuid() == 0
    account = pwd.getpwnam("nobody") if is_root else pwd.getpwuid(os.geteuid())
    data_dir = tmp_path / "data"
    settings_for(data_dir)
    if is_root:
        make_reachable(data_dir, Account(account.pw_uid, account.pw_gid))
        for path in (data_dir, data_dir / "secrets.json"):
            os.chown(path, account.pw_uid, account.pw_gid)
    switch = (str(account.pw_uid), str(account.pw_gid)) if is_root else ()
    with program_on(data_dir, *switch) as program:
        assert await query(first_line(program), "SELECT 1") == [(1,)]
        assert {process.username() for process in servers_in(data_dir)} == {account.pw_name}
    assert program.returncode == 0
    assert servers_in(data_dir) == []


def test_data_of_another_user_are_refused_by_name(tmp_path: Path) -> None:
    # /usr belongs to root, and no server of ours runs as root.
    (tmp_path / "postgres").symlink_to("/usr")
    with (
        pytest.raises(ConfigurationError, match=r"DATA_DIR: .*postgres belongs to root"),
        running_servers(settings_for(tmp_path)),
    ):
        pass


def test_a_data_dir_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    (tmp_path / "file").touch()
    broken = settings.model_copy(update={"data_dir": tmp_path / "file" / "data"})
    with pytest.raises(ConfigurationError, match=r"DATA_DIR: .*file"), running_servers(broken):
        pass


def test_lost_passwords_are_explained(used: Path) -> None:
    with running_servers(settings_for(used), postgres_settings=FAST):
        pass
    (used / "secrets.json").unlink()
    with (
        pytest.raises(ConfigurationError, match=r"secrets\.json are not those of"),
        running_servers(settings_for(used), postgres_settings=FAST),
    ):
        pass
    assert servers_in(used) == []


def test_a_server_that_does_not_start_is_explained_by_its_log(used: Path) -> None:
    with (
        pytest.raises(ServerFailed, match=r'(?s)postgres ended with status 1.*"max_connections"'),
        running_servers(settings_for(used), postgres_settings={"max_connections": "-1"}),
    ):
        pass


def test_a_program_that_ignores_its_signals_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " open(sys.argv[1], 'w').close(); signal.pause()"
    )
    program = Program(
        name="stubborn",
        argv=(sys.executable, "-c", stubborn, str(tmp_path / "ready")),
        stop_sequence=((signal.SIGTERM, 0.2),),
    )
    process = spawn(program)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop(process, program)
    assert process.returncode == -signal.SIGKILL


def test_logs_are_bounded_at_each_start(tmp_path: Path) -> None:
    log = tmp_path / "log" / "chatty.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (LOG_LIMIT_BYTES + 1))
    assert run(Program(name="chatty", argv=("/bin/echo", "new"), log=log)) == 0
    assert log.read_text() == "new\n"
    assert log.with_suffix(".old.log").stat().st_size == LOG_LIMIT_BYTES + 1
