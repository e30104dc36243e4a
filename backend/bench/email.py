"""From the create call to the provider's acceptance of the email; the sandbox is the provider."""

import asyncio
from datetime import datetime
from itertools import islice
from time import perf_counter, time
from typing import Any

from bench.create import broken_promises, create_requests, lateness
from bench.load import HttpClient, open_loop, send_all
from bench.report import Result, Row, at_most, latency_rows
from bench.stack import Stack
from bench.usage import start_counting

RATE = 20
SECONDS = 10
BURST = 1_000
BURST_WITHIN = 90.0
CONNECTIONS = 8
ACCEPT_WITHIN = 15.0
MAILS_PATH = "/mails?limit=10000"

REQUIRED_P95 = at_most(5_000)
AIM_P95 = at_most(1_000)


async def measure(stack: Stack) -> Result:
    """Create with `send_email`, and look up in the sandbox when each mail was accepted."""
    result = Result("email")
    count = RATE * SECONDS
    users = await stack.users(count)
    calls = list(islice(create_requests(stack, users, send_email=True), count))
    due: dict[int, float] = {}
    async with (
        HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client,
        HttpClient(stack.settings.sandbox_port, connections=1) as sandbox,
    ):
        await sandbox.request("DELETE", "/mails", {})
        # `received_at` is the wall's time.
        wall = time() - perf_counter()
        used = start_counting(stack)
        trial = await open_loop(client, calls, rate=RATE, hoped_for=202, on_sent=due.__setitem__)
        ids = {answer.json()["id"]: number for number, answer in trial.accepted}
        mails = await _wait_for_mails(sandbox, len(ids))
        result.notes.append(f"{lateness(trial)}; {used()}")
    result.failures = await broken_promises(stack, [trial])
    accepted: dict[str, float] = {}
    for mail in mails:
        notification_id = next(tag["value"] for tag in mail["tags"])
        if notification_id in accepted or notification_id not in ids:
            result.failures.append(f"a mail for {notification_id} that nobody waited for")
        accepted[notification_id] = datetime.fromisoformat(mail["received_at"]).timestamp() - wall
    if missing := len(ids.keys() - accepted.keys()):
        result.failures.append(f"{missing} of {len(ids)} mails were not accepted in time")
    latencies = [
        accepted[known] - due[number] for known, number in ids.items() if known in accepted
    ]
    result.rows = latency_rows(
        f"POST → accepted by the provider at {RATE}/s",
        latencies,
        required=REQUIRED_P95,
        aim=AIM_P95,
    )
    result.rows.append(await _measure_burst(stack, result))
    return result


async def _measure_burst(stack: Stack, result: Result) -> Row:
    """Create many at once, and see how fast the provider has all of them."""
    users = await stack.users(BURST)
    calls = list(islice(create_requests(stack, users, send_email=True), BURST))
    async with (
        HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client,
        HttpClient(stack.settings.sandbox_port, connections=1) as sandbox,
    ):
        await sandbox.request("DELETE", "/mails", {})
        before = (await sandbox.request("GET", "/arrivals", {})).json()["requests"]
        began = time()
        await send_all(client, calls, hoped_for=202)
        mails = await _wait_for_mails(sandbox, BURST, within=BURST_WITHIN)
        after = (await sandbox.request("GET", "/arrivals", {})).json()["requests"]
    if len(mails) != BURST:
        result.failures.append(f"{len(mails)} of {BURST} mails of a burst were accepted in time")
    last = max(
        (datetime.fromisoformat(mail["received_at"]).timestamp() for mail in mails), default=0
    )
    result.notes.append(f"a burst of {BURST:,} took {after - before} requests")
    return Row("mails of a burst accepted", len(mails) / max(0.001, last - began), "/s")


async def _wait_for_mails(
    sandbox: HttpClient, count: int, within: float = ACCEPT_WITHIN
) -> list[dict[str, Any]]:
    deadline = perf_counter() + within
    while True:
        listed = (await sandbox.request("GET", MAILS_PATH, {})).json()
        if listed["total"] >= count or perf_counter() > deadline:
            return listed["items"]
        await asyncio.sleep(0.5)
