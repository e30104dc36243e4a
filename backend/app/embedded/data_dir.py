"""The data directory as programs share it.

One program at a time runs its servers, holding a lock on `servers.lock`. While they can be used it
publishes their URLs in `servers.json`, by which others on the same directory find them.
"""

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypedDict

from pydantic import SecretStr

from app.config import ConfigurationError, Settings

Urls = Mapping[str, SecretStr]
"""Settings by their field's name, such as `redis_url`."""


class _Publication(TypedDict):
    pid: int
    urls: dict[str, str]


def usable_data_dir(settings: Settings) -> Path:
    """Create the data directory.

    Returns:
        Its absolute path, free of links.

    Raises:
        ConfigurationError: it cannot be created or written to.
    """
    path = settings.data_dir.expanduser().resolve()
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        owner = path.stat().st_uid
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"DATA_DIR: {path} belongs to uid {owner}, and uid {os.geteuid()} cannot write to it. "
            "Start as its owner, or choose another DATA_DIR"
        )
    return path


@contextmanager
def explained(data_dir: Path) -> Generator[None]:
    """Turn errors of the file system into `ConfigurationError`, naming the path."""
    try:
        yield
    except OSError as error:
        path = error.filename or data_dir
        raise ConfigurationError(f"DATA_DIR: {path}: {error.strerror}") from error


def try_lock(path: Path) -> TextIO | None:
    """Lock a file for as long as it stays open and this process lives.

    Returns:
        The open file, which then holds our process id; `None`: another program has the lock.

    Raises:
        ConfigurationError: the file cannot be opened.
    """
    with explained(path):
        file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def claim_servers(data_dir: Path) -> TextIO | None:
    """Become the program that runs the servers, until the returned file is closed.

    Returns:
        The lock; `None`: another program has it.

    Raises:
        ConfigurationError: the lock cannot be opened.
    """
    lock = try_lock(data_dir / "servers.lock")
    if lock is not None:
        _publication(data_dir).unlink(missing_ok=True)
    return lock


@contextmanager
def published(data_dir: Path, urls: Urls) -> Generator[None]:
    """Let other programs find the servers we run, as long as the context lasts."""
    content: _Publication = {
        "pid": os.getpid(),
        "urls": {name: url.get_secret_value() for name, url in urls.items()},
    }
    path = _publication(data_dir)
    draft = path.with_suffix(".new")
    write_private(draft, json.dumps(content, indent=2) + "\n")
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def published_urls(data_dir: Path) -> Urls | None:
    """The URLs of servers that another living program runs and that can be used.

    Raises:
        ConfigurationError: that program is another user's.
    """
    with explained(data_dir):
        try:
            content: _Publication = json.loads(_publication(data_dir).read_text())
        except FileNotFoundError:
            return None
    # A killed program leaves its publication behind.
    if not _is_alive(content["pid"]):
        return None
    return {name: SecretStr(url) for name, url in content["urls"].items()}


def write_private(path: Path, text: str) -> None:
    """Write a file anew that only we can read.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publication(data_dir: Path) -> Path:
    return data_dir / "servers.json"
