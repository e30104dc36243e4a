"""From a read to the frame on the user's other session (REQ-012), by HTTP and by the socket."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from time import perf_counter
from uuid import UUID

from bench.create import create_requests, lateness
from bench.frame import ARRIVE_WITHIN, Arrivals, port_of
from bench.load import (
    HttpClient,
    MeasurementFailed,
    closed_loop,
    open_loop,
    request_bytes,
    schedule,
)
from bench.report import Result, Row, at_most, latency_rows
from bench.sockets import Socket, closed_by_server, open_sockets
from bench.stack import Stack
from bench.usage import start_counting

ROOT = "/api/v1/notifications"
USERS = 500
SESSIONS = 2  # of each user
RATE = 200
SECONDS = 5
CONNECTIONS = 32
SEED_SECONDS = 60
SETTLE_SECONDS = 1.0

REQUIRED_P95 = at_most(50)
AIM_P95 = at_most(10)

COUNT_READ = """
    SELECT count(*) FROM notifications n JOIN inbox_state i USING (user_id)
    WHERE i.unread = '{{}}' AND n.read_at IS NOT NULL AND n.user_id IN ({users})
"""


async def measure(stack: Stack) -> Result:
    """Mark notifications as read, each once, at a steady rate; half of them by either way."""
    result = Result(f"reading, {USERS:,} users with {SESSIONS} sessions")
    # The last who were made: nothing else is written to them.
    users = (await stack.users(stack.known_users + USERS))[-USERS:]
    arrivals = Arrivals()
    async with (
        open_sockets(
            port_of(stack, "gateway"),
            [(user, stack.user_token(user)) for user in users for _ in range(SESSIONS)],
            arrivals.note,
            ping_interval=stack.settings.ws_heartbeat_interval,
        ) as opened,
        HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client,
    ):
        unread = await _create(stack, client, users)
        await asyncio.sleep(SETTLE_SECONDS)
        half = len(unread) // 2
        result.rows += await _by_http(stack, client, unread[:half], arrivals, result)
        result.rows += await _by_socket(stack, opened, unread[half:], arrivals, result)
        if gone := closed_by_server(opened):
            result.failures.append(f"{len(gone)} sockets were closed: {sorted(set(gone))}")
    told = ", ".join(f"'{user}'" for user in users)
    read = await stack.value(COUNT_READ.format(users=told))
    if read != len(unread):
        result.failures.append(f"{read} of {len(unread)} are stored as read")
    return result


async def _create(
    stack: Stack, client: HttpClient, users: Sequence[UUID]
) -> list[tuple[str, UUID]]:
    """Unread notifications, each user's apart from one another."""
    count = 2 * RATE * SECONDS
    calls = islice(create_requests(stack, users), count)
    trial = await closed_loop(client, calls, seconds=SEED_SECONDS, hoped_for=202)
    if trial.failures or len(trial.accepted) < count:
        raise MeasurementFailed(f"preparing failed: {trial.failures}")
    return [
        (answer.json()["id"], users[number % len(users)])
        for number, answer in sorted(trial.accepted, key=lambda item: item[0])
    ]


async def _by_http(
    stack: Stack,
    client: HttpClient,
    unread: Sequence[tuple[str, UUID]],
    arrivals: Arrivals,
    result: Result,
) -> list[Row]:
    tokens = {user: {"Authorization": f"Bearer {stack.user_token(user)}"} for _, user in unread}
    calls = [request_bytes("PATCH", f"{ROOT}/{item}/read", tokens[user]) for item, user in unread]
    arrivals.frames.clear()
    due: dict[int, float] = {}
    used = start_counting(stack)
    trial = await open_loop(client, calls, rate=RATE, hoped_for=200, on_sent=due.__setitem__)
    since = {unread[number][0]: at for number, at in due.items()}
    latencies = await _last_frames(arrivals, since, result)
    result.notes.append(f"PATCH: {lateness(trial)}; {used()}")
    result.failures += trial.failures
    return [
        *latency_rows(
            f"PATCH → frame at the last session at {RATE}/s",
            latencies,
            required=REQUIRED_P95,
            aim=AIM_P95,
        ),
        *latency_rows("of that PATCH → 200", trial.latencies, required=None, aim=None),
    ]


async def _by_socket(
    stack: Stack,
    opened: Sequence[Socket],
    unread: Sequence[tuple[str, UUID]],
    arrivals: Arrivals,
    result: Result,
) -> list[Row]:
    senders = {socket.user_id: socket for socket in opened}
    arrivals.frames.clear()
    since: dict[str, float] = {}
    used = start_counting(stack)
    start = perf_counter()
    for (item, user), offset in zip(unread, schedule(len(unread), RATE), strict=True):
        if (wait := start + offset - perf_counter()) > 0:
            await asyncio.sleep(wait)
        since[item] = min(start + offset, perf_counter())
        senders[user].mark_read(item)
    latencies = await _last_frames(arrivals, since, result)
    result.notes.append(f"mark_read: {used()}")
    return latency_rows(
        f"mark_read → frame at the last session at {RATE}/s",
        latencies,
        required=REQUIRED_P95,
        aim=AIM_P95,
    )


async def _last_frames(
    arrivals: Arrivals, since: Mapping[str, float], result: Result
) -> list[float]:
    """Seconds until all sessions had the frame, of each notification that was read."""
    expected = SESSIONS * len(since)
    await arrivals.wait_until(_reached(arrivals, expected), within=ARRIVE_WITHIN)
    # A repeated frame comes a little later.
    await asyncio.sleep(SETTLE_SECONDS)
    wrong = sum(len(arrivals.frames[item]) != SESSIONS for item in since)
    if wrong or arrivals.count != expected:
        result.failures.append(
            f"{arrivals.count} frames of {expected} arrived; {wrong} reads were not told once to "
            "each session"
        )
    return [
        max(at for at, _ in arrivals.frames[item]) - at0
        for item, at0 in since.items()
        if arrivals.frames[item]
    ]


def _reached(arrivals: Arrivals, count: int) -> Callable[[], bool]:
    return lambda: arrivals.count >= count
