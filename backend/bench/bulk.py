"""One bulk call to 10,000 users, some of whom are connected."""

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter
from uuid import UUID

from sqlalchemy import text

from bench.create import create_requests
from bench.frame import ARRIVE_WITHIN, Arrivals, port_of
from bench.load import Answer, HttpClient, Trial
from bench.report import Result, Row, at_least, at_most, latency_rows
from bench.sockets import open_sockets
from bench.stack import Stack
from bench.usage import start_counting

PATH = "/api/v1/notifications/bulk"
RECIPIENTS = 10_000
COMPLETE_WITHIN = 90.0
POLL_SECONDS = 0.05
BETWEEN_CREATES = 0.02
SEED = 21
PER_MINUTE = 100_000

AIM_LAST_FRAME = at_most(1.5)
AIM_MEANWHILE = at_most(100)
IS_EXPANDED = "SELECT expanded_at IS NOT NULL FROM notification_batches WHERE id = '{batch_id}'"
COUNT_CREATED = "SELECT count(*) FROM notifications WHERE batch_id = '{batch_id}'"


async def measure(stack: Stack, *, sockets: int, through: str) -> Result:
    """Send one batch and wait until its status is `completed` and every socket has its frame."""
    result = Result(f"bulk of {RECIPIENTS:,}")
    users = await stack.users(RECIPIENTS)
    connected = users[-sockets:]
    arrivals = Arrivals()
    async with (
        HttpClient(stack.settings.api_port, connections=2) as client,
        open_sockets(
            port_of(stack, through),
            [(user, stack.user_token(user)) for user in connected],
            arrivals.note,
            ping_interval=stack.settings.ws_heartbeat_interval,
        ),
    ):
        await asyncio.sleep(1)
        arrivals.frames.clear()
        used = start_counting(stack)
        began = perf_counter()
        answer = await client.request("POST", PATH, stack.service_headers, _batch(users))
        if answer.status != 202:
            result.failures.append(f"answered {answer.status}: {answer.body[:200]!r}")
            return result
        batch_id = answer.json()["batch_id"]
        expanded = await _wait_expanded(stack, batch_id)
        await arrivals.wait_until(lambda: arrivals.count >= sockets, within=ARRIVE_WITHIN)
        result.notes.append(str(used()))
        arrived = [at for frames in arrivals.frames.values() for at, _ in frames]
        status, completed = await _wait_complete(stack, client, batch_id)
        meanwhile = await _creates_meanwhile(stack, client, users)
    created = await stack.value(COUNT_CREATED.format(batch_id=batch_id))
    per_second = RECIPIENTS / (expanded - began)
    result.rows = [
        Row("POST → 202", 1000 * (answer.at - began), "ms"),
        Row(
            f"POST → last frame, {sockets:,} sockets",
            max(arrived, default=0) - began,
            "s",
            aim=AIM_LAST_FRAME,
        ),
        Row("POST → in every center", expanded - began, "s", aim=AIM_LAST_FRAME),
        Row("POST → status completed", completed - began, "s"),
        Row("notifications created", created, "", required=at_least(RECIPIENTS)),
        Row("recipients", per_second, "/s"),
        Row(
            f"if kept up for a minute (measured for {expanded - began:.1f} s)",
            60 * per_second,
            "/min",
            required=at_least(PER_MINUTE),
        ),
        *latency_rows(
            "create for a recipient, in the middle of another bulk",
            meanwhile.latencies,
            required=None,
            aim=AIM_MEANWHILE,
        ),
        Row("the slowest of them", 1000 * max(meanwhile.latencies), "ms", aim=AIM_MEANWHILE),
    ]
    result.failures += meanwhile.failures
    if status["status"] != "completed" or status["created"] != RECIPIENTS:
        result.failures.append(f"the batch ended as {status}")
    if len(arrived) != sockets:
        result.failures.append(f"{len(arrived)} frames arrived at {sockets} sockets")
    return result


def _batch(users: Sequence[UUID]) -> dict[str, object]:
    return {
        "user_ids": users,
        "type": "system",
        "title": "Maintenance tonight",
        "body": "We are away from **22:00 to 22:15 UTC**. [Details](https://example.com)",
        "data": {"incident": 17},
    }


async def _creates_meanwhile(stack: Stack, client: HttpClient, users: Sequence[UUID]) -> Trial:
    """Single creates for recipients of a batch, from its 202 until it is in every center."""
    shuffled = random.Random(SEED).sample(users, len(users))
    answer = await client.request("POST", PATH, stack.service_headers, _batch(users))
    expanding = asyncio.create_task(_wait_expanded(stack, answer.json()["batch_id"]))
    trial = Trial()
    for number, request in enumerate(create_requests(stack, shuffled)):
        if expanding.done():
            break
        began = perf_counter()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        client.submit(request, future.set_result)
        trial.count(number, await future, since=began, hoped_for=202)
        await asyncio.sleep(BETWEEN_CREATES)
    await expanding
    return trial


async def _wait_expanded(stack: Stack, batch_id: str) -> float:
    """The instant by which every recipient has their notification."""
    deadline = perf_counter() + COMPLETE_WITHIN
    async with stack.connection() as connection:
        query = text(IS_EXPANDED.format(batch_id=batch_id))
        while True:
            expanded = (await connection.execute(query)).scalar_one()
            if expanded or perf_counter() > deadline:
                return perf_counter()
            await asyncio.sleep(POLL_SECONDS)


async def _wait_complete(
    stack: Stack, client: HttpClient, batch_id: str
) -> tuple[dict[str, object], float]:
    deadline = perf_counter() + COMPLETE_WITHIN
    while True:
        answer = await client.request("GET", f"{PATH}/{batch_id}", stack.service_headers)
        status: dict[str, object] = answer.json()
        if status.get("status") != "processing" or perf_counter() > deadline:
            return status, answer.at
        await asyncio.sleep(POLL_SECONDS)
