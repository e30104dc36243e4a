"""Programs that run in the foreground as direct children and end when their parent does."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1

StopSequence = tuple[tuple[signal.Signals, float], ...]


class ServerFailed(Exception):
    """An embedded server did not start; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Account:
    """The system user a program runs as."""

    uid: int
    gid: int


def _nothing() -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Program:
    """How one program is started and stopped.

    Args:
        name: what messages call it.
        argv: its command line.
        cwd: its working directory; default: ours.
        environment: all of its variables; default: ours.
        account: the user it runs as, which only root may choose; default: ours.
        log: the file that takes its output; default: our own output.
        stop_sequence: signals that ask it to end, each with the seconds it is then given;
            SIGKILL follows.
        prepare: blocking work before each start.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path | None = None
    environment: Mapping[str, str] | None = None
    account: Account | None = None
    log: Path | None = None
    stop_sequence: StopSequence = ((signal.SIGTERM, 15),)
    prepare: Callable[[], None] = _nothing


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a terminal's Ctrl-C does not reach it.

    On Linux the kernel sends it the first signal of its stop sequence as soon as the calling
    *thread* ends, even by SIGKILL: call this from the main thread.

    Raises:
        OSError: it cannot be executed.
    """
    account = program.account
    with _output(program.log) as output:
        return subprocess.Popen(  # noqa: S603 -- our own command lines
            program.argv,
            cwd=program.cwd,
            env=program.environment,
            user=account and account.uid,
            group=account and account.gid,
            extra_groups=[] if account else None,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # A change of user clears the death signal; preexec_fn runs after that change.
            preexec_fn=_end_with_parent(program.stop_sequence[0][0]),  # noqa: PLW1509
        )


def run(program: Program) -> int:
    """Start a program and wait for its end.

    Returns:
        Its exit status.

    Raises:
        OSError: it cannot be executed.
    """
    process = spawn(program)
    try:
        return process.wait()
    finally:
        stop(process, program)


def stop(process: subprocess.Popen[bytes], program: Program) -> None:
    """End a program and wait until it is gone."""
    for signum, seconds in program.stop_sequence:
        process.send_signal(signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a program and what it started in its own process group."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def start_failure(program: Program, reason: str) -> ServerFailed:
    """The error for a server that does not start, with what its log says last."""
    if program.log is None or not program.log.exists():
        return ServerFailed(f"{program.name} {reason}")
    lines = program.log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return ServerFailed("\n".join((f"{program.name} {reason}. {program.log}:", *lines)))


@contextmanager
def _output(log: Path | None) -> Generator[BinaryIO | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(mode=0o700, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        yield output


def _end_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    # Looked up before the fork: the child of a threaded program may do very little.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum))
        if os.getppid() != parent:
            os._exit(1)

    return arm
