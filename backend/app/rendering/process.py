"""The process that renders: `python -m app.rendering.process`, jobs in on stdin, texts on stdout.

Its argument is the processor time that a job may take, in seconds; default: `PROCESSOR_SECONDS`.

Frames are four bytes of length and that much JSON; an empty one says that a field was begun, so
that the other end knows which one a process ended at. It imports little, so that it starts fast and
has nothing worth stealing. The kernel bounds what a job may use: more processor time ends the
process (SIGPROF), and there is no more memory than `MEMORY`. The other end starts a new one.
It ends when stdin does, and at no signal of the terminal's: jobs are rendered until the end.
"""

import json
import os
import resource
import signal
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Final

from app.rendering.conventions import NAME, Conventions
from app.rendering.environment import Compiled, Refused, Sandbox, compiled, names_in
from app.rendering.values import KINDS, Kind

LENGTH: Final = struct.Struct(">I")
READY: Final[dict[str, Any]] = {"ready": True}
OUT_OF_MEMORY: Final = 70
"""The exit status where a job needs more than `MEMORY`."""

PROCESSOR_SECONDS: Final = 1.0
MEMORY: Final = 256 * 1024 * 1024
FILES: Final = 64  # locales and timezones are read when they are first used
CACHED_CHARACTERS: Final = 1024 * 1024
"""Of sources; what is compiled of them takes up to fifty times that."""


class Workshop:
    """Renders and checks, remembering what it compiled: the sources used last stay.

    Args:
        begin: called before each field.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._sandboxes = {kind: Sandbox(kind) for kind in KINDS}
        self._compiled: OrderedDict[tuple[str, Kind], Compiled] = OrderedDict()
        self._characters = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is answered to a request.

        Args:
            request: `fields`, a list of name, source, kind, and the most characters of the
                text. To render, `variables`, `language` and `timezone` beside;
                to check, nothing.

        Returns:
            `texts` by field, or the `names` the sources use; else `field`, `code` and `message`
            of what is wrong.
        """
        work = self._texts if "variables" in request else self._names
        return work(request)

    def _texts(self, request: dict[str, Any]) -> dict[str, Any]:
        conventions = Conventions.of(request["language"], request["timezone"])
        context = {**request["variables"], NAME: conventions}
        texts: dict[str, str] = {}
        for field, source, kind, most in request["fields"]:
            self._begin()
            try:
                texts[field] = self._template(source, kind).text(context, most)
            except Refused as refused:
                return _refusal(field, refused)
        return {"texts": texts}

    def _names(self, request: dict[str, Any]) -> dict[str, Any]:
        names: set[str] = set()
        for field, source, kind, _most in request["fields"]:
            self._begin()
            try:
                names |= names_in(self._sandboxes[kind], source)
                self._template(source, kind)
            except Refused as refused:
                return _refusal(field, refused)
        return {"names": sorted(names)}

    def _template(self, source: str, kind: Kind) -> Compiled:
        key = (source, kind)
        known = self._compiled.get(key)
        if known is not None:
            self._compiled.move_to_end(key)
            return known
        template = self._compiled[key] = compiled(self._sandboxes[kind], source)
        self._characters += len(source)
        while self._characters > CACHED_CHARACTERS:
            (oldest, _), _ = self._compiled.popitem(last=False)
            self._characters -= len(oldest)
        return template


def _refusal(field: str, refused: Refused) -> dict[str, Any]:
    return {"field": field, "code": refused.code, "message": refused.message}


def read_frame(stream: BinaryIO) -> Any:
    """The next frame's content, None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(stream.read(LENGTH.unpack(head)[0]))


def write_frame(stream: BinaryIO, content: Any = None) -> None:
    """Write a frame, at once; an empty one without content."""
    encoded = b"" if content is None else json.dumps(content).encode()
    stream.write(LENGTH.pack(len(encoded)) + encoded)
    stream.flush()


def main() -> None:
    """Answer requests until there are no more."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else PROCESSOR_SECONDS
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    sys.dont_write_bytecode = True
    _limit()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    workshop = Workshop(partial(write_frame, answers))
    with suppress(BrokenPipeError):
        write_frame(answers, READY)
        while (request := read_frame(requests)) is not None:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            begun = time.process_time()
            answer = workshop.answer(request)
            signal.setitimer(signal.ITIMER_PROF, 0)
            write_frame(answers, {**answer, "seconds": time.process_time() - begun})


def _limit() -> None:
    """Bound what the process may use, whatever it runs: no other process, no file written."""
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        with suppress(ValueError, OSError):  # not every system knows all of them
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # nothing that was begun can be trusted to end
