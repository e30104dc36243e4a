"""PostgreSQL 18 with pgvector, out of a Python package, on a port of the loopback interface."""

import hmac
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from app.config import ConfigurationError
from app.embedded.account import (
    give,
    make_executable,
    make_reachable,
    own_directory,
    service_account,
)
from app.embedded.binaries import POSTGRES, POSTGRES_FOLDERS
from app.embedded.data_dir import write_private
from app.embedded.orphans import end_orphans, runs_in
from app.embedded.program import (
    Program,
    ServerFailed,
    StopSequence,
    run,
    start_failure,
)

_PROBE_SECONDS = 1
_STATUS_LINE = 7  # of postmaster.pid

# SIGINT is the fast shutdown: sessions are ended, and all is written. SIGQUIT writes nothing.
_STOP: StopSequence = ((signal.SIGINT, 60), (signal.SIGQUIT, 5))
_KILL: StopSequence = ((signal.SIGKILL, 5),)

_SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    # A data directory's path may be too long for a socket.
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "effective_cache_size": "512MB",
    "random_page_cost": "1.1",
    "jit": "off",
    # Passwords are 256 random bits, so no guess need be dear; the default costs whoever connects,
    # an event loop, 10 ms.
    "scram_iterations": "1",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

# Passwords arrive by \getenv, so they are in no command line; nor may a failed statement log them.
# Only a superuser may create the extension: every database of the owner has it from its template.
_BOOTSTRAP = r"""
\getenv owner_password NOTIFY_OWNER_PASSWORD
\getenv app_password NOTIFY_APP_PASSWORD
SET log_min_error_statement = panic;
SELECT 'CREATE ROLE notify_owner' WHERE to_regrole('notify_owner') IS NULL \gexec
SELECT 'CREATE ROLE notify' WHERE to_regrole('notify') IS NULL \gexec
ALTER ROLE notify_owner LOGIN CREATEROLE CREATEDB PASSWORD :'owner_password';
ALTER ROLE notify LOGIN NOINHERIT PASSWORD :'app_password';
\connect template1
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS vector;
\connect postgres
SELECT 'CREATE DATABASE notify OWNER notify_owner'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'notify') \gexec
"""


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A PostgreSQL server whose data live in `data_dir/postgres`.

    Args:
        data_dir: absolute path.
        port: TCP port on 127.0.0.1.
        secret: what the passwords of all roles are derived from.
        extra_settings: server settings that win over ours.
    """

    data_dir: Path
    port: int
    secret: str = field(repr=False)
    extra_settings: Mapping[str, str]

    @property
    def directory(self) -> Path:
        """Where the data are."""
        return self.data_dir / "postgres"

    @property
    def program(self) -> Program:
        """How the server runs."""
        options = [
            option
            for name, value in {**_SERVER_SETTINGS, **self.extra_settings}.items()
            for option in ("-c", f"{name}={value}")
        ]
        return Program(
            name="postgres",
            argv=(
                str(POSTGRES / "postgres"),
                *("-D", str(self.directory)),
                *("-p", str(self.port)),
                *options,
            ),
            cwd=self.data_dir,
            environment=_environment(),
            account=service_account(),
            log=self.data_dir / "log" / "postgres.log",
            stop_sequence=_STOP,
            prepare=self.prepare,
        )

    def prepare(self) -> None:
        """Create the data on first use and clear what a killed run left behind.

        Raises:
            ConfigurationError: the data belong to another user.
            ServerFailed: they cannot be created.
            OSError: the file system refuses.
        """
        account = service_account()
        make_executable(POSTGRES_FOLDERS, account)
        make_reachable(self.directory, account)
        own_directory(self.directory, account)
        end_orphans(runs_in(self.directory, "postgres"), _STOP)
        if not (self.directory / "PG_VERSION").exists():
            self._initialise()
        # Its process number may by now be that of an unrelated process.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def is_ready(self) -> bool:
        """Whether the server accepts connections, with its data recovered."""
        try:
            lines = (self.directory / "postmaster.pid").read_text().splitlines()
            # The file alone may be that of a killed run.
            socket.create_connection(("127.0.0.1", self.port), _PROBE_SECONDS).close()
        except OSError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready"

    def bootstrap(self) -> None:
        """Create or update roles, database and extension in the running server.

        Raises:
            ConfigurationError: `secrets.json` is not the one of these data.
            ServerFailed: the server refuses a statement.
        """
        command = [str(POSTGRES / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull]
        result = subprocess.run(  # noqa: S603 -- our own command line
            [*command, self._url("postgres", database="postgres", password=False)],
            input=_BOOTSTRAP,
            env={
                **_environment(),
                "PGPASSWORD": self._password("postgres"),
                "NOTIFY_OWNER_PASSWORD": self._password("notify_owner"),
                "NOTIFY_APP_PASSWORD": self._password("notify"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if "password authentication failed" in result.stderr:
            raise ConfigurationError(
                f"DATA_DIR: the passwords in {self.data_dir / 'secrets.json'} are not those of "
                f"{self.directory}. Restore the file, or delete the directory to start anew"
            )
        if result.returncode != 0:
            raise ServerFailed(f"PostgreSQL cannot be set up: {result.stderr.strip()}")

    @property
    def urls(self) -> dict[str, SecretStr]:
        """The settings that point to this server."""
        return {
            "database_url": SecretStr(self.app_url),
            "database_owner_url": SecretStr(self.owner_url),
        }

    @property
    def app_url(self) -> str:
        """URL of the role the programs log in as; it owns nothing."""
        return self._url("notify")

    @property
    def owner_url(self) -> str:
        """URL of the role that owns the database."""
        return self._url("notify_owner")

    @property
    def superuser_url(self) -> str:
        """URL of the superuser."""
        return self._url("postgres", database="postgres")

    def _url(self, role: str, *, database: str = "notify", password: bool = True) -> str:
        login = f"{role}:{self._password(role)}" if password else role
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"

    def _password(self, role: str) -> str:
        # Derived, so that who knows one role's password knows no other's.
        return hmac.digest(self.secret.encode(), role.encode(), "sha256").hex()

    def _initialise(self) -> None:
        account = service_account()
        draft = self.directory.with_suffix(".new")
        password_file = self.directory.with_suffix(".password")
        for name in ("initdb", "postgres"):
            end_orphans(runs_in(draft, name), _KILL)
        if draft.exists():
            shutil.rmtree(draft)
        own_directory(draft, account)
        password_file.unlink(missing_ok=True)
        try:
            write_private(password_file, self._password("postgres"))
            give(password_file, account)
            initdb = self._initdb(draft, password_file)
            if status := run(initdb):
                raise start_failure(initdb, f"ended with status {status}")
        finally:
            password_file.unlink(missing_ok=True)
        # Replaces a directory only if that is empty.
        draft.rename(self.directory)

    def _initdb(self, directory: Path, password_file: Path) -> Program:
        return Program(
            name="initdb",
            argv=(
                str(POSTGRES / "initdb"),
                f"--pgdata={directory}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth-local=reject",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                # PostgreSQL's own, so that no system update changes the order of an index.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            ),
            cwd=directory,
            environment=_environment(),
            account=service_account(),
            log=self.data_dir / "log" / "initdb.log",
            stop_sequence=_KILL,
        )


def _environment() -> dict[str, str]:
    # Without the caller's PG* variables, which would change the client, and without its secrets.
    return {"PATH": os.defpath, "LC_ALL": "C"}
