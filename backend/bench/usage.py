"""Who used the processor during a measurement: each part, the load generator, and strangers."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter

import psutil

from bench.stack import Stack

PARTS = ("api", "gateway", "worker", "scheduler", "sandbox")


def start_counting(stack: Stack) -> Callable[[], str]:
    """Begin; calling the result ends it and says what was used.

    A whole core is 100 %. Processes that end meanwhile count as other programs.
    """
    began, before, busy = perf_counter(), _used(stack), _busy()

    def finish() -> str:
        seconds, after = perf_counter() - began, _used(stack)
        spent = {name: after[name] - before[name] for name in after}
        spent["other programs"] = _busy() - busy - sum(spent.values())
        told = ", ".join(
            f"{name} {max(0.0, 100 * used / seconds):.0f} %" for name, used in spent.items()
        )
        return f"processor, {os.cpu_count()} cores: {told}"

    return finish


def _used(stack: Stack) -> Counter[str]:
    used = Counter[str]()
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
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal
