"""Processes that a killed run left behind."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from app.embedded.program import StopSequence

_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.02

Matches = Callable[[psutil.Process], bool]


def end_orphans(matches: Matches, stop_sequence: StopSequence) -> None:
    """End every process that matches, with SIGKILL after the given signals."""
    orphans = [process for process in psutil.process_iter() if _holds(matches, process)]
    pids = {process.pid for process in orphans}
    # The others of a process tree end with its root, in the order the root wants.
    roots = [process for process in orphans if _parent(process) not in pids]
    for signum, seconds in (*stop_sequence, (signal.SIGKILL, _KILL_SECONDS)):
        for process in orphans if signum == signal.SIGKILL else roots:
            with suppress(psutil.Error):
                process.send_signal(signum)
        deadline = time.monotonic() + seconds
        while orphans and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            orphans = [process for process in orphans if _holds(matches, process)]


def runs_in(directory: Path, name: str) -> Matches:
    """Matches processes called `name` whose working directory is `directory`."""
    return lambda process: process.name() == name and process.cwd() == str(directory)


def has_variable(name: str, value: str) -> Matches:
    """Matches processes that were started with an environment variable of that value."""
    return lambda process: process.environ().get(name) == value


def _holds(matches: Matches, process: psutil.Process) -> bool:
    try:
        return matches(process)
    except (psutil.Error, OSError):
        # Another user's process, or one that has just ended: neither is an orphan of ours.
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None
