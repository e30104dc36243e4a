"""`python -m faults [NAME…]`: breaks real installations and counts what arrives."""

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from types import FrameType

import click

from faults import inbox, network, processes, provider, push, push_hangs, queue_full, servers
from faults.lab import Bed, CannotTry, Lab
from faults.report import Report, heading, lines
from faults.trial import Scenario, conduct

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for module in (processes, inbox, push, push_hangs, queue_full, servers, provider, network)
    for scenario in module.SCENARIOS
}
SHOWN_LINES = 15


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides every choice.")
@click.option("--seconds", type=float, help="How long a fault lasts that may last as you choose.")
@click.option("--list", "listing", is_flag=True, help="Name the scenarios and stop.")
def main(names: Sequence[str], seed: int, seconds: float | None, listing: bool) -> None:
    """Try NAMES (default: all) on installations of their own; fail if a promise is broken."""
    if listing:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:<34} {scenario.fault}")
        return
    if unknown := set(names) - SCENARIOS.keys():
        raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, _end)
    reports = asyncio.run(run([SCENARIOS[name] for name in names or SCENARIOS], seed, seconds))
    failed = sum(not report.is_ok for report in reports)
    print(f"\n{len(reports)} scenarios, seed {seed}, {failed} failed")
    sys.exit(1 if failed else 0)


async def run(
    scenarios: Sequence[Scenario], seed: int, seconds: float | None = None
) -> list[Report]:
    """Try scenarios, those that need the same kind of installation on one; print each report."""
    started = time.monotonic()
    print(heading(), flush=True)
    beds: list[Bed] = list(dict.fromkeys(scenario.bed for scenario in scenarios))
    by_bed = sorted(scenarios, key=lambda scenario: beds.index(scenario.bed))
    reports: list[Report] = []
    for bed, members in groupby(by_bed, key=lambda scenario: scenario.bed):
        waiting = list(members)
        while waiting:
            reports += await _run_on_one(bed, waiting, seed, seconds)
    print(f"\n{time.monotonic() - started:.0f} s", flush=True)
    return reports


async def _run_on_one(
    bed: Bed, waiting: list[Scenario], seed: int, seconds: float | None
) -> list[Report]:
    """Take scenarios off the list until one fails: what it leaves behind is no one else's."""
    reports: list[Report] = []
    try:
        async with Lab.opened(bed) as lab:
            while waiting and all(report.is_ok for report in reports):
                scenario = waiting.pop(0)
                reports.append(await conduct(scenario, lab, seed, seconds))
                print(lines(reports[-1]), flush=True)
            if not reports[-1].is_ok:
                tail = lab.log()[-SHOWN_LINES:]
                print("\n".join(f"    | {line[:200]}" for line in tail), flush=True)
    except CannotTry as reason:
        reports += [Report(left.name, left.fault, skipped=str(reason)) for left in waiting]
        waiting.clear()
        print("\n".join(map(lines, reports)), flush=True)
    return reports


def _end(number: int, _frame: FrameType | None) -> None:
    # As an exception, it stops the installation on its way.
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
