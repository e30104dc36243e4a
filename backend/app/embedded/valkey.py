"""Valkey, out of a Python package, on a port of the loopback interface."""

import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from app.embedded.account import (
    give,
    make_executable,
    make_reachable,
    own_directory,
    service_account,
)
from app.embedded.binaries import VALKEY
from app.embedded.data_dir import write_private
from app.embedded.orphans import end_orphans, runs_in
from app.embedded.program import Program, StopSequence

_STOP: StopSequence = ((signal.SIGTERM, 30),)
_PROBE_SECONDS = 1


@dataclass(frozen=True)
class EmbeddedValkey:
    """A Valkey server whose append-only file lives in `data_dir/valkey`.

    Args:
        data_dir: absolute path.
        port: TCP port on 127.0.0.1.
        password: what clients authenticate with; one word.
    """

    data_dir: Path
    port: int
    password: str = field(repr=False)

    @property
    def directory(self) -> Path:
        """Where the data are."""
        return self.data_dir / "valkey"

    @property
    def program(self) -> Program:
        """How the server runs."""
        return Program(
            name="valkey",
            argv=(str(VALKEY), str(self._config_file)),
            cwd=self.directory,
            environment={"PATH": os.defpath, "LC_ALL": "C"},
            account=service_account(),
            log=self.data_dir / "log" / "valkey.log",
            stop_sequence=_STOP,
            prepare=self.prepare,
        )

    def prepare(self) -> None:
        """Write the configuration and end what a killed run left behind.

        Raises:
            ConfigurationError: the data belong to another user.
            OSError: the file system refuses.
        """
        account = service_account()
        make_executable([VALKEY.parent], account)
        make_reachable(self.directory, account)
        own_directory(self.directory, account)
        end_orphans(runs_in(self.directory, "valkey-server"), _STOP)
        write_private(self._config_file, self._config())
        give(self._config_file, account)

    def is_ready(self) -> bool:
        """Whether the server answers, with its data loaded."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), _PROBE_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as replies:
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def bootstrap(self) -> None:
        """Do nothing: Valkey needs no set-up once it runs."""

    @property
    def urls(self) -> dict[str, SecretStr]:
        """The settings that point to this server."""
        return {"redis_url": SecretStr(self.url)}

    @property
    def url(self) -> str:
        """URL of database 0."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def _config_file(self) -> Path:
        return self.data_dir / "valkey.conf"

    def _config(self) -> str:
        # The working directory holds the data, so no path stands in here to be quoted.
        return "\n".join(
            (
                "bind 127.0.0.1",
                f"port {self.port}",
                f"requirepass {self.password}",
                "daemonize no",
                "appendonly yes",
                "appendfsync everysec",
                "aof-load-truncated yes",
                'save ""',
                "maxmemory-policy noeviction",
                "disable-thp yes",
                "",
            )
        )
