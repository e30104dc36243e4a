"""Creating notifications one by one: latency under a steady load, and the highest throughput.

The requirement of 100,000 notifications a minute is judged by `bench.bulk`, the way meant for
many; what single calls to one API process would make of it is reported beside it.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from uuid import UUID

from bench.load import HttpClient, Trial, closed_loop, open_loop, request_bytes, send_all
from bench.peers import BARE, INSERT, running_peers
from bench.report import Result, Row, at_least, at_most, latency_rows
from bench.stack import Stack
from bench.usage import start_counting

PATH = "/api/v1/notifications"
RATES = (200, 500)
SECONDS = 10
FULL_SPEED_SECONDS = 8
PEER_SECONDS = 5
CONNECTIONS = 64
FULL_SPEED_CONNECTIONS = 128
USERS = 2_000
WARM_UP = 500
PER_MINUTE = 100_000

REQUIRED_P95 = at_most(100)
AIMS = {500: at_most(10)}


def create_requests(
    stack: Stack, users: Sequence[UUID], path: str = PATH, **fields: object
) -> Iterator[bytes]:
    """Create calls without end, each with a text of its own, to one user after the other."""
    headers = stack.service_headers
    for number in count():
        yield request_bytes(
            "POST",
            path,
            headers,
            {
                "user_id": users[number % len(users)],
                "type": "task",
                "title": f"Review requested: change {number}",
                "body": f"**Ada** asks you to review [change {number}](https://example.com/c/"
                f"{number}).\n\n- 3 files\n- due *tomorrow*",
                "data": {"change": number, "project": "notify", "labels": ["api", "urgent"]},
                **fields,
            },
        )


async def measure(stack: Stack) -> Result:
    """Open loops at each rate, then a closed loop at full speed; every 202 is looked up."""
    result = Result("create")
    users = await stack.users(USERS)
    requests = create_requests(stack, users)
    trials: list[Trial] = []
    async with HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client:
        await send_all(client, list(islice(requests, WARM_UP)), hoped_for=202)
        for rate in RATES:
            calls = list(islice(requests, rate * SECONDS))
            used = start_counting(stack)
            trial = await open_loop(client, calls, rate=rate, hoped_for=202)
            result.notes.append(f"{rate}/s: {lateness(trial)}; {used()}")
            result.rows += latency_rows(
                f"POST → 202 at {rate}/s",
                trial.latencies,
                required=REQUIRED_P95,
                aim=AIMS.get(rate),
            )
            trials.append(trial)
    async with HttpClient(stack.settings.api_port, connections=FULL_SPEED_CONNECTIONS) as client:
        used = start_counting(stack)
        trial = await closed_loop(client, requests, seconds=FULL_SPEED_SECONDS, hoped_for=202)
        usage = used()
        result.notes.append(f"full speed: {usage}")
        trials.append(trial)
    per_second = len(trial.latencies) / trial.seconds
    bare, insert = await peers(stack, users)
    result.rows += [
        *usage.rows(len(trial.accepted), "api", "postgres"),
        Row(
            f"durable 202s, one API process, {FULL_SPEED_CONNECTIONS} connections",
            per_second,
            "/s",
            aim=at_least(3_000),
        ),
        Row("the bare framework, which stores nothing", bare, "/s"),
        Row("one INSERT per request, of the notification alone", insert, "/s"),
        Row("durable 202s against one INSERT per request", per_second / insert, "×"),
        Row(
            f"if kept up for a minute (measured for {FULL_SPEED_SECONDS} s)",
            60 * per_second,
            "/min",
            aim=at_least(PER_MINUTE),
        ),
    ]
    result.failures = await broken_promises(stack, trials)
    return result


async def peers(stack: Stack, users: Sequence[UUID]) -> tuple[float, float]:
    """Calls a second of the bare framework, and with one INSERT each, on the same machine."""
    rates: list[float] = []
    with running_peers(stack) as port:
        for path in (BARE, INSERT):
            async with HttpClient(port, connections=FULL_SPEED_CONNECTIONS) as client:
                requests = create_requests(stack, users, path)
                trial = await closed_loop(client, requests, seconds=PEER_SECONDS, hoped_for=202)
            rates.append(len(trial.latencies) / trial.seconds)
    return rates[0], rates[1]


def lateness(trial: Trial) -> str:
    """How punctual the load generator was; its delays are part of all latencies."""
    late = sorted(trial.lags)[int(len(trial.lags) * 0.95)]
    return f"load generator late by {1000 * late:.1f} ms (p95)"


async def broken_promises(stack: Stack, trials: Sequence[Trial]) -> list[str]:
    """What was refused, and what was accepted and is not there."""
    failures = [failure for trial in trials for failure in trial.failures]
    ids = [answer.json()["id"] for trial in trials for _, answer in trial.accepted]
    if len(set(ids)) != len(ids):
        failures.append(f"{len(ids) - len(set(ids))} ids were answered twice")
    if lost := await stack.lost(ids):
        failures.append(f"{lost} of {len(ids)} accepted notifications are not stored or decided")
    return failures
