"""The other end of the process that renders: starts it when there is something to render."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import orjson
import structlog

from app.errors import Unavailable
from app.rendering.base import HTML_FIELDS, MARKDOWN_FIELDS, CannotRender, Checked, Job, Rendered
from app.rendering.process import LENGTH, OUT_OF_MEMORY, PROCESSOR_SECONDS
from app.rendering.values import Kind

log = structlog.get_logger()

MODULE: Final = "app.rendering.process"
MAX_TEXT: Final = 64 * 1024
MAX_HTML: Final = 256 * 1024
"""Characters of a rendered field."""

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
PATIENCE: Final = 10.0
"""Seconds for one job; one that runs is ended by its processor time long before."""

# Nothing of our own environment, which holds secrets, but what Python itself and a supervisor need.
INHERITED: Final = ("PYTHON", "COVERAGE", "NOTIFY_SUPERVISED")

TOO_SLOW: Final = {"code": "too_slow", "message": "takes longer than a template may"}
TOO_LARGE: Final = {"code": "too_large", "message": "needs more memory than a template may"}
FAILED: Final = {"code": "failed", "message": "ended the process that renders it"}

Answer = Mapping[str, Any]


class _Ended(Exception):
    """The process is no more.

    Args:
        fault: what the job that it was at is told, if it ended for that job's sake.
        is_certain: whether it did.
        begun: fields of that job that it had begun.
    """

    def __init__(self, fault: Answer, *, begun: int, is_certain: bool = False) -> None:
        super().__init__()
        self.fault = {**fault, "begun": begun}
        self.is_certain = is_certain


class ProcessRenderer:
    """Renders in a process of its own; use it as an asynchronous context manager.

    The process starts with the first job, and a new one whenever it has ended. A job that uses up
    its time is refused; one during which the process ended otherwise is tried once more, since
    anybody may have ended it. All others are rendered as if nothing had happened.

    Args:
        patience: seconds until a process that does not answer is killed.
        took: told what processor time each job took, in seconds.
        seconds: processor time that a job may take.
    """

    def __init__(
        self,
        patience: float = PATIENCE,
        took: Callable[[Job, float], None] | None = None,
        seconds: float = PROCESSOR_SECONDS,
    ) -> None:
        self._patience = patience
        self._seconds = seconds
        self._took = took
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, and see it end."""
        async with self._turn:
            await self._end()

    @property
    def pid(self) -> int | None:
        """The process, None if there is none now."""
        return None if self._process is None else self._process.pid

    async def render(self, jobs: Sequence[Job]) -> list[Rendered]:
        """The text of each field of each job, or why there is none.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        answers = await self._ask([_to_render(job) for job in jobs])
        if self._took is not None:
            for job, answer in zip(jobs, answers, strict=True):
                # Whoever ended the process took all there was.
                self._took(job, answer.get("seconds", self._seconds))
        return [
            answer["texts"] if "texts" in answer else _refusal(answer, job.sources)
            for answer, job in zip(answers, jobs, strict=True)
        ]

    async def check(self, sources: Mapping[str, str]) -> Checked | CannotRender:
        """Compile sources without rendering them.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        (answer,) = await self._ask([{"fields": _fields(sources)}])
        if "names" in answer:
            return Checked(frozenset(answer["names"]))
        return _refusal(answer, sources)

    async def _ask(self, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
        frames = [_frame(request) for request in requests]
        # Whoever goes away in the middle must not leave answers behind for the next.
        return await asyncio.shield(self._exchange(frames))

    async def _exchange(self, frames: Sequence[bytes]) -> list[Answer]:
        answers: list[Answer] = []
        tried_again = -1
        async with self._turn:
            while len(answers) < len(frames):
                try:
                    await self._send(frames[len(answers) :])
                    while len(answers) < len(frames):
                        answers.append(await self._answer())
                except _Ended as ended:
                    log.warning("renderer_ended", code=ended.fault["code"])
                    if ended.is_certain or tried_again == len(answers):
                        answers.append(ended.fault)
                    else:
                        tried_again = len(answers)
                except BaseException:
                    await self._kill()
                    raise
        return answers

    async def _send(self, frames: Sequence[bytes]) -> None:
        """Write requests without waiting until they are read; answers may have to be, before."""
        if self._process is not None and self._process.returncode is not None:
            await self._end()  # somebody ended it while there was nothing to do
        if self._process is None:
            self._process = await _started(self._seconds)
        assert self._process.stdin is not None  # noqa: S101 -- it was started with pipes
        self._process.stdin.writelines(frames)

    async def _answer(self) -> Answer:
        """The next answer.

        Raises:
            _Ended: there is none; the process has ended, or was killed for its silence.
        """
        assert self._process is not None  # noqa: S101 -- something was sent to it
        begun = 0
        try:
            async with asyncio.timeout(self._patience):
                while not (answer := await _read(self._process)):
                    begun += 1
                return answer
        except TimeoutError:
            await self._kill()
            raise _Ended(TOO_SLOW, begun=begun) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            status = await self._end()
        if status == -signal.SIGPROF:
            raise _Ended(TOO_SLOW, begun=begun, is_certain=True)
        raise _Ended(TOO_LARGE if status == OUT_OF_MEMORY else FAILED, begun=begun)

    async def _end(self) -> int | None:
        """Let the process end, if there is one; its exit status."""
        process, self._process = self._process, None
        return None if process is None else await _closed(process)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await _killed(process)


async def _started(seconds: float) -> Process:
    """A process that is ready for requests, each of which may take so much processor time.

    Raises:
        Unavailable: it cannot be started.
    """
    environment = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", MODULE, str(seconds),
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment,
        )  # fmt: skip
    except OSError as error:
        log.error("renderer_not_started", error=type(error).__name__)
        raise Unavailable("Templates cannot be rendered now; try again.") from None
    try:
        async with asyncio.timeout(START_SECONDS):
            await _read(process)
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
        status = await _killed(process)
        log.error("renderer_not_started", error=type(error).__name__, status=status)
        raise Unavailable("Templates cannot be rendered now; try again.") from None
    except BaseException:
        await _killed(process)
        raise
    return process


async def _read(process: Process) -> Answer:
    """The next frame; empty where one says that a field was begun."""
    assert process.stdout is not None  # noqa: S101 -- it was started with pipes
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    return orjson.loads(await process.stdout.readexactly(length)) if length else {}


async def _closed(process: Process) -> int:
    """Reap a process that has ended, or has nothing to do and is to end; its exit status."""
    assert process.stdin is not None  # noqa: S101 -- it was started with pipes
    process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            return await process.wait()
    return await _killed(process)


async def _killed(process: Process) -> int:
    """Kill a process and reap it; its exit status."""
    assert process.stdin is not None  # noqa: S101 -- it was started with pipes
    assert process.stdout is not None  # noqa: S101
    with suppress(ProcessLookupError):
        process.kill()
    process.stdin.close()
    await process.stdout.read()  # what is left in the pipe would hold up the end
    return await process.wait()


def _to_render(job: Job) -> Mapping[str, Any]:
    return {
        "fields": _fields(job.sources),
        "variables": job.variables,
        "language": job.language,
        "timezone": job.timezone,
    }


def _fields(sources: Mapping[str, str]) -> list[tuple[str, str, Kind, int]]:
    return [(field, source, *_kind_and_length(field)) for field, source in sources.items()]


def _kind_and_length(field: str) -> tuple[Kind, int]:
    if field in HTML_FIELDS:
        return "html", MAX_HTML
    return "markdown" if field in MARKDOWN_FIELDS else "text", MAX_TEXT


def _frame(request: Mapping[str, Any]) -> bytes:
    encoded = orjson.dumps(request)
    return LENGTH.pack(len(encoded)) + encoded


def _refusal(answer: Answer, sources: Mapping[str, str]) -> CannotRender:
    # Whoever did not live to tell which field it was at had begun so many.
    field = answer.get("field") or list(sources)[max(0, answer["begun"] - 1)]
    return CannotRender(field, answer["code"], answer["message"])
