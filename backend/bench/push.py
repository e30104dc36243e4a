"""Web Push: this sender beside pywebpush in a loop, with the same messages to the same services.

One service answers 201 to all and costs next to nothing; the other is the sandbox's, which verifies
and opens each push. Either runs in a process of its own.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter, process_time

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pywebpush import webpush  # pyright: ignore[reportUnknownVariableType]

from app.channels.base import Claim, Device, Outcome, Sent
from app.channels.web_push import PUSHES_TO_ONE_ORIGIN, WebPushSender
from app.channels.web_push_payload import payload_of
from app.collector import leave_startup_alone
from app.config import Settings
from app.pipeline.deliver import utc_now
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from app.security.vapid_keys import VapidKey
from bench.load import HOST
from bench.report import Result, Row, at_least
from bench.stack import Stack
from tests.pushing import Browser, Ring, a_claim, encoded, vapid_key

BROWSERS = 1_000
SANDBOX_BROWSERS = 20
ROUNDS = 3  # alternately ours and theirs, as other work on the machine comes and goes
OURS = 2_000
THEIRS = 200
WARM_UP = 200
SUBJECT = "mailto:bench@example.com"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nLocation: /m/1\r\n\r\n"

AIM_RATIO = at_least(5)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast pushes went.

    Args:
        rate: in one second.
        used: of this process' processor time for one, in microseconds.
    """

    rate: float
    used: float


async def measure(stack: Stack) -> Result:
    """Send to both services with both senders; count what the services took."""
    result = Result("push", notes=[f"medians of {ROUNDS} rounds, ours and theirs by turns"])
    key = vapid_key("bench")
    leave_startup_alone()  # as a worker does
    async with _push_service() as port:
        minimal = [
            Browser().device(f"http://{HOST}:{port}/push/{number}", key.id)
            for number in range(BROWSERS)
        ]
        await _compare(result, stack.settings, key, minimal, "minimal service")
    async with httpx.AsyncClient(base_url=stack.settings.sandbox_url) as sandbox:
        subscribed = [
            await _subscribe(sandbox, f"bench-{number}", key) for number in range(SANDBOX_BROWSERS)
        ]
    await _compare(result, stack.settings, key, subscribed, "sandbox")
    return result


async def _compare(
    result: Result, settings: Settings, key: VapidKey, devices: Sequence[Device], service: str
) -> None:
    settings = settings.model_copy(update={"vapid_subject": SUBJECT})
    now = utc_now()
    claims = [a_claim(devices[n % len(devices)], created_at=now) for n in range(OURS)]
    ours: list[Speed] = []
    theirs: list[Speed] = []
    async with Outbound(
        AddressRules(allow_loopback=True),
        connections=settings.delivery_slots,
        calls_to_one_origin=PUSHES_TO_ONE_ORIGIN,
    ) as outbound:
        sender = WebPushSender(settings, Ring([key]), outbound, str, utc_now)
        await _send(sender, claims[:WARM_UP], settings.delivery_slots)
        for _ in range(ROUNDS):
            began = _clocks()
            outcomes = await _send(sender, claims, settings.delivery_slots)
            ours.append(_speed(began, OURS))
            if lost := sum(not isinstance(outcome, Sent) for outcome in outcomes):
                result.failures.append(f"{service}: {lost} of {OURS} pushes were not taken")
            began = _clocks()
            taken = await asyncio.to_thread(
                _send_with_pywebpush, key, claims[:THEIRS], settings.base_url
            )
            theirs.append(_speed(began, THEIRS))
            if lost := THEIRS - taken:
                result.failures.append(f"{service}: {lost} of pywebpush's were not taken")
    ratios = [mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)]
    result.rows += [
        Row(f"{service}: this sender", median(speed.rate for speed in ours), "/s"),
        Row(f"{service}: pywebpush in a loop", median(speed.rate for speed in theirs), "/s"),
        Row(f"{service}: ratio", median(ratios), "×", aim=AIM_RATIO),
        Row(f"{service}: one push of ours", median(speed.used for speed in ours), "µs CPU"),
        Row(f"{service}: one of pywebpush's", median(speed.used for speed in theirs), "µs CPU"),
    ]


def _clocks() -> tuple[float, float]:
    return perf_counter(), process_time()


def _speed(began: tuple[float, float], count: int) -> Speed:
    wall, used = (now - then for now, then in zip(_clocks(), began, strict=True))
    return Speed(count / wall, used / count * 1e6)


async def _subscribe(sandbox: httpx.AsyncClient, name: str, key: VapidKey) -> Device:
    """A browser of the sandbox that takes what `key` signs."""
    answer = await sandbox.put(
        f"/push/browsers/{name}", json={"application_server_key": key.public_text}
    )
    told = answer.raise_for_status().json()
    return replace(Browser().device(told["endpoint"], key.id), **told["keys"])


async def _send(sender: WebPushSender, claims: Sequence[Claim], slots: int) -> list[Outcome]:
    """Send as a worker does: as many as there are free slots, as soon as some are free."""
    outcomes: list[Outcome] = []
    free = asyncio.Event()
    sent = 0

    def report(_claim: Claim, outcome: Outcome) -> None:
        outcomes.append(outcome)
        free.set()

    async with asyncio.TaskGroup() as group:
        while sent < len(claims):
            room = slots - (sent - len(outcomes))
            group.create_task(sender.send(claims[sent : sent + room], report))
            sent = min(sent + room, len(claims))
            free.clear()
            await free.wait()
    return outcomes


def _send_with_pywebpush(key: VapidKey, claims: Sequence[Claim], base_url: str) -> int:
    """Send one after the other; returns how many were taken."""
    private = encoded(key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    taken = 0
    for claim in claims:
        device = claim.device
        assert device is not None
        assert device.endpoint is not None
        answer = webpush(
            {"endpoint": device.endpoint, "keys": {"p256dh": device.p256dh, "auth": device.auth}},
            payload_of(claim, base_url, str(claim.id)).decode(),
            vapid_private_key=private,
            vapid_claims={"sub": SUBJECT},
            ttl=86_400,
        )
        taken += getattr(answer, "status_code", None) == 201
    return taken


@asynccontextmanager
async def _push_service() -> AsyncGenerator[int]:
    """The port of a service that answers 201 to all, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.push", stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def _serve() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
                writer.write(CREATED)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
