"""A light HTTP client and the two ways to load a server with it.

An *open loop* sends at the instants of a schedule, whether or not answers have come, and counts
latency from the scheduled instant, so a server that stalls is charged for all who would have come
meanwhile. A *closed loop* sends the next request when an answer comes, which finds the highest
throughput.

Every instant is `time.perf_counter()`, which all processes of a machine share.
"""

import asyncio
import gc
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Self, cast

import httptools
import orjson

HOST = "127.0.0.1"
NO_ANSWER = 0
DRAIN_SECONDS = 10.0
SCHEDULE_SEED = 20


class MeasurementFailed(Exception):
    """It could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Args:
        status: 0 when the connection broke instead.
        at: when the answer was complete.
    """

    status: int
    body: bytes
    at: float

    def json(self) -> Any:
        """The body's value."""
        return orjson.loads(self.body)


OnAnswer = Callable[[Answer], None]


def request_bytes(
    method: str, path: str, headers: dict[str, str], body: object | None = None
) -> bytes:
    """A request as it goes over the wire, its body as JSON."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if content:
        lines.append("Content-Type: application/json")
    return "\r\n".join((*lines, "", "")).encode() + content


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way.

    Args:
        on_idle: called when the connection can take the next request.
        on_lost: called when it cannot take any more.
    """

    def __init__(
        self,
        on_idle: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self._on_idle = on_idle
        self._on_lost = on_lost
        self._on_answer: OnAnswer | None = None
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Write a request; `on_answer` is called exactly once."""
        assert self._transport is not None
        self._on_answer = on_answer
        self._transport.write(request)

    def close(self) -> None:
        """Let go of the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the next request from now on."""
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._on_idle(self)

    def data_received(self, data: bytes) -> None:
        """Read a part of an answer."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body (called by the parser)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over (called by the parser)."""
        status = self._parser.get_status_code()
        body, self._body = b"".join(self._body), []
        self._parser = httptools.HttpResponseParser(self)
        self._answer(Answer(status, body, perf_counter()))
        self._on_idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that no answer will come."""
        self._on_lost(self)
        self._answer(Answer(NO_ANSWER, b"", perf_counter()))

    def _answer(self, answer: Answer) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(answer)


class HttpClient:
    """A fixed number of connections to one port of this machine; requests beyond it wait in line.

    Use it as an asynchronous context manager.

    Args:
        connections: how many requests can be under way at once.
    """

    def __init__(self, port: int, *, connections: int) -> None:
        self.connections = connections
        self._port = port
        self._open: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[bytes, OnAnswer]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        for _ in range(self.connections):
            await self._connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        for connection in self._open:
            connection.close()
        await asyncio.sleep(0)

    def submit(self, request: bytes, on_answer: OnAnswer) -> None:
        """Send a request now, or as soon as a connection is free; never waits."""
        if self._idle:
            # The one that has been idle longest, so that the server ends none for idleness.
            self._idle.popleft().send(request, on_answer)
            return
        self._waiting.append((request, on_answer))
        if len(self._open) + len(self._opening) < self.connections:
            task = asyncio.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def request(
        self, method: str, path: str, headers: dict[str, str], body: object | None = None
    ) -> Answer:
        """The answer to one request."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.submit(request_bytes(method, path, headers, body), future.set_result)
        return await future

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: Connection(self._became_idle, self._was_lost), HOST, self._port
        )

    def _became_idle(self, connection: Connection) -> None:
        self._open.add(connection)
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _was_lost(self, connection: Connection) -> None:
        if self._closed:
            return
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


@dataclass(slots=True)
class Trial:
    """What a loop saw; lists are in the order of answers, latencies in seconds.

    Args:
        sent: requests that were to be sent.
        seconds: how long was measured.
        lags: how late each request of an open loop was handed to the client.
        accepted: number of the request and answer of all with the status that was hoped for.
        refused: counts of all other statuses; 0 counts those that were never answered.
    """

    sent: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list[float])
    lags: list[float] = field(default_factory=list[float])
    accepted: list[tuple[int, Answer]] = field(default_factory=list[tuple[int, Answer]])
    refused: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def failures(self) -> list[str]:
        """What went wrong, in words."""
        return [
            f"{count} of {self.sent} requests were "
            + (f"answered {status}" if status else "not answered")
            for status, count in sorted(self.refused.items())
        ]

    def count(self, number: int, answer: Answer, *, since: float, hoped_for: int) -> None:
        """Note the answer to a request that was due at `since`."""
        if answer.status == hoped_for:
            self.accepted.append((number, answer))
            self.latencies.append(answer.at - since)
        else:
            self.refused[answer.status] = self.refused.get(answer.status, 0) + 1


@contextmanager
def without_collector() -> Generator[None]:
    """Keep the garbage collector's pauses out of what is measured."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def schedule(count: int, rate: float) -> list[float]:
    """Seconds from the start at which `count` independent callers come, the same in every run."""
    luck = random.Random(SCHEDULE_SEED)
    instants: list[float] = []
    at = 0.0
    for _ in range(count):
        at += luck.expovariate(rate)
        instants.append(at)
    return instants


async def open_loop(
    client: HttpClient,
    requests: Sequence[bytes],
    *,
    rate: float,
    hoped_for: int,
    on_sent: Callable[[int, float], None] | None = None,
) -> Trial:
    """Send all requests at random instants, on average `rate` a second, and await the answers.

    Args:
        hoped_for: the status of answers that count.
        on_sent: told each request's number and the instant it was due.
    """
    trial = Trial(sent=len(requests))
    left = len(requests)
    done = asyncio.Event()

    def answered(number: int, due: float, answer: Answer) -> None:
        nonlocal left
        trial.count(number, answer, since=due, hoped_for=hoped_for)
        left -= 1
        if not left:
            done.set()

    with without_collector():
        start = perf_counter() + 0.05
        for number, offset in enumerate(schedule(len(requests), rate)):
            due = start + offset
            if (wait := due - perf_counter()) > 0:
                await asyncio.sleep(wait)
            # The loop's timers count in milliseconds, so some ring too early.
            due = min(due, perf_counter())
            if on_sent is not None:
                on_sent(number, due)
            trial.lags.append(perf_counter() - due)
            client.submit(requests[number], partial(answered, number, due))
        trial.seconds = perf_counter() - start
        await _wait(done)
    if left:
        trial.refused[NO_ANSWER] = trial.refused.get(NO_ANSWER, 0) + left
    return trial


async def closed_loop(
    client: HttpClient, requests: Iterator[bytes], *, seconds: float, hoped_for: int
) -> Trial:
    """Keep every connection busy for a while, or until there are no more requests.

    Answers that come after the end count as accepted, but not in `latencies`, whose number is
    therefore what the server did in `seconds`.
    """
    trial = Trial()
    under_way = 0
    done = asyncio.Event()
    start = perf_counter()
    end = start + seconds

    def send_next() -> None:
        nonlocal under_way
        request = next(requests, None) if perf_counter() < end else None
        if request is None:
            if not under_way:
                done.set()
            return
        number, trial.sent = trial.sent, trial.sent + 1
        under_way += 1
        client.submit(request, partial(answered, number, perf_counter()))

    def answered(number: int, sent_at: float, answer: Answer) -> None:
        nonlocal under_way
        under_way -= 1
        trial.count(number, answer, since=sent_at, hoped_for=hoped_for)
        if answer.at > end and answer.status == hoped_for:
            trial.latencies.pop()
        send_next()

    with without_collector():
        for _ in range(client.connections):
            send_next()
        await _wait(done, seconds + DRAIN_SECONDS)
        trial.seconds = min(seconds, perf_counter() - start)
    if under_way:
        trial.refused[NO_ANSWER] = trial.refused.get(NO_ANSWER, 0) + under_way
    return trial


async def send_all(
    client: HttpClient, requests: Sequence[bytes], *, hoped_for: int, within: float = 120.0
) -> None:
    """Send requests that prepare a measurement.

    Raises:
        MeasurementFailed: one was not answered as hoped for.
    """
    trial = await closed_loop(client, iter(requests), seconds=within, hoped_for=hoped_for)
    if trial.failures or len(trial.accepted) < len(requests):
        raise MeasurementFailed(f"preparing failed: {trial.failures}")


async def _wait(done: asyncio.Event, seconds: float = DRAIN_SECONDS) -> None:
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except TimeoutError:
        return
