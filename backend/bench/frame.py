"""From the create call to the frame on the user's socket, with many sockets open."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from time import perf_counter
from uuid import UUID

from bench.create import USERS, broken_promises, create_requests, lateness
from bench.load import HttpClient, open_loop, send_all
from bench.report import Result, Row, at_least, at_most, latency_rows
from bench.sockets import Socket, closed_by_server, open_sockets
from bench.stack import Stack
from bench.usage import start_counting

RATE = 200
SECONDS = 30  # as long as a heartbeat, so that every socket pings meanwhile
CONNECTIONS = 32
WARM_UP = 200
ARRIVE_WITHIN = 10.0
SETTLE_SECONDS = 1.0

REQUIRED_P95 = at_most(50)
REQUIRED_SOCKETS = 10_000
AIM_P95 = at_most(10)
AIM_MEMORY = at_most(25)


class Arrivals:
    """Which notifications arrived, when and where."""

    def __init__(self) -> None:
        self.frames: dict[str, list[tuple[float, UUID]]] = defaultdict(list)
        self._arrived = asyncio.Event()

    @property
    def count(self) -> int:
        """Frames that arrived, repeated ones too."""
        return sum(map(len, self.frames.values()))

    def note(self, socket: Socket, notification_id: str, at: float) -> None:
        """A frame was read."""
        self.frames[notification_id].append((at, socket.user_id))
        self._arrived.set()

    async def wait_until(self, is_complete: Callable[[], bool], *, within: float) -> None:
        """Wait for arrivals until there are enough, or time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not is_complete():
                    self._arrived.clear()
                    await self._arrived.wait()

    def faults(self, expected: dict[str, UUID]) -> list[str]:
        """Frames that are missing, repeated, or on another user's socket.

        Args:
            expected: the user of each notification that must have arrived, and of no other.
        """
        missing = sum(known not in self.frames for known in expected)
        repeated = sum(len(self.frames[known]) > 1 for known in expected if known in self.frames)
        unknown = sum(known not in expected for known in self.frames)
        misled = sum(
            user != expected[known]
            for known, frames in self.frames.items()
            if known in expected
            for _, user in frames
        )
        return [
            f"{count} of {len(expected)} frames {fault}"
            for count, fault in (
                (missing, "never arrived"),
                (repeated, "arrived more than once"),
                (misled, "arrived at another user's socket"),
                (unknown, "beyond them arrived that nobody waited for"),
            )
            if count
        ]


async def measure(stack: Stack, *, sockets: int, through: str) -> Result:
    """Open `sockets`, one for each user, and create at a steady rate.

    Args:
        through: the part that holds the sockets, `gateway` or `api`.
    """
    result = Result(f"frame, {sockets:,} sockets on the {through}")
    # Those whom `create` has not written to: nothing waits for them when they connect.
    users = (await stack.users(USERS + sockets))[-sockets:]
    arrivals = Arrivals()
    part = stack.part(through)
    memory, began = part.memory_info().rss, perf_counter()
    async with open_sockets(
        port_of(stack, through),
        [(user, stack.user_token(user)) for user in users],
        arrivals.note,
        ping_interval=stack.settings.ws_heartbeat_interval,
    ) as opened:
        per_second = len(opened) / (perf_counter() - began)
        await asyncio.sleep(SETTLE_SECONDS)
        memory = part.memory_info().rss - memory
        arrivals.frames.clear()
        result.rows += await _latencies(stack, users, arrivals, result, through)
        if gone := closed_by_server(opened):
            result.failures.append(f"{len(gone)} sockets were closed: {sorted(set(gone))}")
        enough = at_least(REQUIRED_SOCKETS) if sockets >= REQUIRED_SOCKETS else None
        still_open = len(opened) - len(gone)
    result.rows += [
        Row("sockets open throughout", still_open, "", required=enough),
        Row("heartbeats answered meanwhile", sum(s.pongs for s in opened), ""),
        Row("opened, authenticated and synced", per_second, "/s"),
        Row(f"memory of the {through} per socket", memory / sockets / 1024, "KB", aim=AIM_MEMORY),
    ]
    return result


def port_of(stack: Stack, through: str) -> int:
    """Where a part listens."""
    return stack.settings.ws_port if through == "gateway" else stack.settings.api_port


async def _latencies(
    stack: Stack, users: list[UUID], arrivals: Arrivals, result: Result, through: str
) -> list[Row]:
    async with HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client:
        warm_up = list(islice(create_requests(stack, users), WARM_UP))
        await send_all(client, warm_up, hoped_for=202)
        await asyncio.sleep(SETTLE_SECONDS)
        arrivals.frames.clear()
        due: dict[int, float] = {}
        calls = list(islice(create_requests(stack, users), RATE * SECONDS))
        used = start_counting(stack)
        trial = await open_loop(client, calls, rate=RATE, hoped_for=202, on_sent=due.__setitem__)
        ids = {answer.json()["id"]: number for number, answer in trial.accepted}
        await arrivals.wait_until(
            lambda: ids.keys() <= arrivals.frames.keys(), within=ARRIVE_WITHIN
        )
        usage = used()
        result.notes.append(f"{lateness(trial)}; {usage}")
        # A repeated frame comes a little later.
        await asyncio.sleep(SETTLE_SECONDS)
    expected = {known: users[number % len(users)] for known, number in ids.items()}
    result.failures += arrivals.faults(expected)
    result.failures += await broken_promises(stack, [trial])
    latencies = [
        arrivals.frames[known][0][0] - due[number]
        for known, number in ids.items()
        if known in arrivals.frames
    ]
    answers = [answer.at - due[number] for number, answer in trial.accepted]
    return [
        *latency_rows(f"POST → frame at {RATE}/s", latencies, required=REQUIRED_P95, aim=AIM_P95),
        *latency_rows("of that POST → 202", answers, required=None, aim=None)[1:2],
        *usage.rows(len(ids), through),
    ]
