"""`python -m bench [NAME…]`: measures the real stack and fails when a requirement is missed."""

import asyncio
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import click
import orjson
import uvloop

from bench import bulk, create, email, frame, push, query, reading
from bench.load import MeasurementFailed
from bench.report import Result, as_json, environment, table
from bench.stack import Stack, StackFailed, running_stack

MEASURE_SECONDS = 240
PAUSE_SECONDS = 1.0
SPARE_DESCRIPTORS = 1_000
SHOWN_WARNINGS = 5
HOLD_SOCKETS = frozenset({"frame", "bulk"})

Measure = Callable[[Stack], Awaitable[Result]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option(
    "--sockets",
    type=click.IntRange(1, 10_000),
    default=10_000,
    show_default=True,
    help="Open sockets of frame and bulk.",
)
@click.option(
    "--through",
    type=click.Choice(["gateway", "api"]),
    default="gateway",
    show_default=True,
    help="Part that holds the sockets.",
)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write results here too.")
def main(names: Sequence[str], sockets: int, through: str, path: Path | None) -> None:
    """Measure NAMES (default: create, frame, bulk, email, push, query, reading) on a new stack."""
    measures: dict[str, Measure] = {
        "create": create.measure,
        "frame": lambda stack: frame.measure(stack, sockets=sockets, through=through),
        "bulk": lambda stack: bulk.measure(stack, sockets=sockets, through=through),
        "email": email.measure,
        "push": push.measure,
        "query": query.measure,
        "reading": reading.measure,
    }
    if unknown := set(names) - measures.keys():
        raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}")
    chosen = {name: measures[name] for name in names or measures}
    _raise_descriptor_limit(sockets if HOLD_SOCKETS & chosen.keys() else 0)
    signal.signal(signal.SIGTERM, _end)
    try:
        with running_stack() as stack:
            facts, results = uvloop.run(_run(stack, chosen))
            _show_warnings(stack)
    except StackFailed as error:
        raise click.ClickException(str(error)) from None
    if path is not None:
        path.write_bytes(orjson.dumps(as_json(facts, results), option=orjson.OPT_INDENT_2))
    sys.exit(0 if all(result.is_good for result in results) else 1)


async def _run(
    stack: Stack, measures: Mapping[str, Measure]
) -> tuple[dict[str, str], Sequence[Result]]:
    facts = environment(stack.settings.data_dir, await stack.servers())
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:<{width}}  {fact}", flush=True)
    results: list[Result] = []
    for name, measure in measures.items():
        await asyncio.sleep(PAUSE_SECONDS)
        try:
            async with asyncio.timeout(MEASURE_SECONDS):
                results.append(await measure(stack))
        except MeasurementFailed as failed:
            results.append(Result(name, failures=[str(failed)]))
        except TimeoutError:
            results.append(Result(name, failures=[f"took more than {MEASURE_SECONDS} s"]))
        print(f"\n{table(results[-1])}", flush=True)
    return facts, results


def _raise_descriptor_limit(sockets: int) -> None:
    """Let this process and the stack, which inherits it, hold so many sockets each."""
    needed = sockets + SPARE_DESCRIPTORS
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise click.ClickException(
            f"{sockets:,} sockets need {needed:,} open files in a process, and the hard limit is "
            f"{hard:,} (ulimit -Hn): raise it, or measure fewer with --sockets "
            f"{max(1, hard - SPARE_DESCRIPTORS)}."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end(number: int, _frame: FrameType | None) -> None:
    # As an exception, it stops the stack on its way.
    sys.exit(128 + number)


def _show_warnings(stack: Stack) -> None:
    warnings = stack.warnings()
    if warnings:
        print(f"\nThe stack's programs wrote {len(warnings)} warnings, the last of them:")
        print("\n".join(f"  {line[:200]}" for line in warnings[-SHOWN_WARNINGS:]))


if __name__ == "__main__":
    main()
