"""Who used the processor during a measurement: each part, the load generator, and strangers.

On a machine that others use, processor time per call says more than latency does.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import cast

import psutil

from bench.report import Row
from bench.stack import Stack

# A guest's time is part of the user's.
NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")
PARTS = ("api", "gateway", "worker", "scheduler", "sandbox")
OTHERS = "other programs"

# Cores that others may use before latencies say more about them than about us.
BUSY = 0.3


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds by user, over some seconds."""

    seconds: float
    spent: Mapping[str, float]

    def __str__(self) -> str:
        told = ", ".join(
            f"{name} {100 * used / self.seconds:.0f} %"
            for name, used in sorted(self.spent.items(), key=lambda item: -item[1])
            if used >= 0.005 * self.seconds
        )
        busy = self.spent[OTHERS] > BUSY * self.seconds
        warning = "; so busy a machine slows everything down: measure again" if busy else ""
        return f"of {os.cpu_count()} cores: {told}{warning}"

    def rows(self, calls: int, *parts: str) -> list[Row]:
        """Milliseconds of processor time per call, of each part."""
        return [
            Row(f"processor time of {part} per call", 1000 * self.spent[part] / calls, "ms")
            for part in parts
            if calls
        ]


def start_counting(stack: Stack) -> Callable[[], Usage]:
    """Begin; calling the result ends it. Processes that end meanwhile count as other programs."""
    began, before, busy = perf_counter(), _used(stack), _busy()

    def finish() -> Usage:
        seconds, after = perf_counter() - began, _used(stack)
        spent = {name: max(0.0, after[name] - before.get(name, 0.0)) for name in after}
        spent[OTHERS] = max(0.0, _busy() - busy - sum(spent.values()))
        return Usage(seconds, spent)

    return finish


def _used(stack: Stack) -> Mapping[str, float]:
    used = defaultdict[str, float](float)
    used["load generator"] = _seconds(psutil.Process())
    for process in psutil.Process(stack.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            used[_name(process)] += _seconds(process)
    return used


def _name(process: psutil.Process) -> str:
    last = (process.cmdline() or [""])[-1]
    if last in PARTS:
        return last
    return "valkey" if process.name().startswith("valkey") else "postgres"


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _busy() -> float:
    times = cast("dict[str, float]", psutil.cpu_times()._asdict())
    return sum(seconds for name, seconds in times.items() if name not in NOT_BUSY)
