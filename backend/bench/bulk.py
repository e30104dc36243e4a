"""One bulk call to 10,000 users, some of whom are connected."""

import asyncio
from time import perf_counter

from bench.frame import ARRIVE_WITHIN, Arrivals, port_of
from bench.load import HttpClient
from bench.report import Result, Row, at_least, at_most
from bench.sockets import open_sockets
from bench.stack import Stack
from bench.usage import start_counting

PATH = "/api/v1/notifications/bulk"
RECIPIENTS = 10_000
COMPLETE_WITHIN = 90.0
POLL_SECONDS = 0.1
PER_MINUTE = 100_000

AIM_LAST_FRAME = at_most(1.5)
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
        answer = await client.request(
            "POST",
            PATH,
            stack.service_headers,
            {
                "user_ids": users,
                "type": "system",
                "title": "Maintenance tonight",
                "body": "We are away from **22:00 to 22:15 UTC**. [Details](https://example.com)",
                "data": {"incident": 17},
            },
        )
        if answer.status != 202:
            result.failures.append(f"answered {answer.status}: {answer.body[:200]!r}")
            return result
        batch_id = answer.json()["batch_id"]
        status, completed = await _wait_complete(stack, client, batch_id)
        await arrivals.wait_until(lambda: arrivals.count >= sockets, within=ARRIVE_WITHIN)
        result.notes.append(str(used()))
    created = await stack.value(COUNT_CREATED.format(batch_id=batch_id))
    last_frame = max((at for frames in arrivals.frames.values() for at, _ in frames), default=0)
    per_second = RECIPIENTS / (completed - began)
    result.rows = [
        Row("POST → 202", 1000 * (answer.at - began), "ms"),
        Row(f"POST → last frame, {sockets:,} sockets", last_frame - began, "s", aim=AIM_LAST_FRAME),
        Row("POST → status completed", completed - began, "s"),
        Row("notifications created", created, "", required=at_least(RECIPIENTS)),
        Row("recipients", per_second, "/s"),
        Row(
            f"if kept up for a minute (measured for {completed - began:.1f} s)",
            60 * per_second,
            "/min",
            required=at_least(PER_MINUTE),
        ),
    ]
    if status["status"] != "completed" or status["created"] != RECIPIENTS:
        result.failures.append(f"the batch ended as {status}")
    if arrivals.count != sockets:
        result.failures.append(f"{arrivals.count} frames arrived at {sockets} sockets")
    return result


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
