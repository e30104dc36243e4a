"""An append-only file of JSON lines that survives the death of the process writing it."""

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class JournalInUse(Exception):
    """Another process has this journal open."""


class Place(NamedTuple):
    """Where a line lies in the file, in bytes, without its line end."""

    offset: int
    length: int


class Journal:
    """Lines of bytes, each at a place from which it can be read again.

    What was appended has reached the operating system when `append` returns, so it outlives
    `kill -9`. A line the writer died in is left out of `lines` and cut off by `cut`.

    Args:
        path: the file; its directory is made, and locked against a second writer.

    Raises:
        JournalInUse: the directory is locked by another journal.
        OSError: the directory or file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file = _open(path)
        except BlockingIOError:
            os.close(self._lock)
            raise JournalInUse(str(path)) from None
        except OSError:
            os.close(self._lock)
            raise
        self._end = os.fstat(self._file).st_size

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._end

    def lines(self) -> Iterator[tuple[Place, bytes]]:
        """Every complete line with its place, from the first to the last."""
        offset = 0
        with self._path.open("rb") as reader:
            for line in reader:
                if line.endswith(b"\n"):
                    yield Place(offset, len(line) - 1), line[:-1]
                offset += len(line)

    def read(self, place: Place) -> bytes:
        """The line at a place that `append`, `lines` or `rewrite` gave."""
        return os.pread(self._file, place.length, place.offset)

    def append(self, lines: Iterable[bytes]) -> list[Place]:
        """Write lines at the end, together.

        Raises:
            OSError: they could not be written, and none of them is in the file.
        """
        parts = list(lines)
        try:
            _write(self._file, b"".join(part + b"\n" for part in parts))
        except OSError:
            os.ftruncate(self._file, self._end)
            raise
        places: list[Place] = []
        for part in parts:
            places.append(Place(self._end, len(part)))
            self._end += len(part) + 1
        return places

    def cut(self, end: int) -> None:
        """Drop everything from `end` bytes on."""
        os.ftruncate(self._file, end)
        self._end = end

    def rewrite(self, lines: Iterable[bytes]) -> list[Place]:
        """Replace the content; after a crash the file has either the old or the new one."""
        draft_path = self._path.with_suffix(".draft")
        draft_path.unlink(missing_ok=True)
        draft, end = _open(draft_path), 0
        places: list[Place] = []
        for line in lines:
            _write(draft, line + b"\n")
            places.append(Place(end, len(line)))
            end += len(line) + 1
        draft_path.replace(self._path)
        os.close(self._file)
        self._file, self._end = draft, end
        return places

    def close(self) -> None:
        """Close the file and let another writer have it."""
        os.close(self._file)
        os.close(self._lock)


def _open(path: Path) -> int:
    # Mails carry personal data even in development.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
