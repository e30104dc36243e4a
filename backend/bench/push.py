"""Web Push: this sender beside pywebpush in a loop, with the same messages to the same service."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pywebpush import webpush  # pyright: ignore[reportUnknownVariableType]

from app.channels.base import Claim, Outcome, Sent
from app.channels.web_push import PUSHES_TO_ONE_ORIGIN, WebPushSender
from app.channels.web_push_payload import payload_of
from app.pipeline.deliver import utc_now
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from app.security.vapid_keys import VapidKey
from bench.load import HOST
from bench.report import Result, Row, at_least
from bench.stack import Stack
from tests.pushing import Browser, Ring, a_claim, encoded, vapid_key

BROWSERS = 100
OURS = 4_000
THEIRS = 400
WARM_UP = 100
SUBJECT = "mailto:bench@example.com"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nLocation: /m/1\r\n\r\n"

AIM_RATIO = at_least(5)


async def measure(stack: Stack) -> Result:
    """Send to a service, in a process of its own, that takes all; count those it took."""
    result = Result("push")
    key = vapid_key("bench")
    settings = stack.settings.model_copy(update={"vapid_subject": SUBJECT})
    rules = AddressRules(allow_loopback=True)
    async with (
        _push_service() as port,
        Outbound(rules, calls_to_one_origin=PUSHES_TO_ONE_ORIGIN) as outbound,
    ):
        sender = WebPushSender(settings, Ring([key]), outbound, str, utc_now)
        devices = [
            Browser().device(f"http://{HOST}:{port}/push/{number}", key.id)
            for number in range(BROWSERS)
        ]
        now = utc_now()
        claims = [a_claim(devices[n % BROWSERS], created_at=now) for n in range(OURS)]
        slots = stack.settings.delivery_slots
        await _send(sender, claims[:WARM_UP], slots)
        began = perf_counter()
        outcomes = await _send(sender, claims, slots)
        ours = OURS / (perf_counter() - began)
        await asyncio.to_thread(_send_with_pywebpush, key, claims[:10], settings.base_url)
        began = perf_counter()
        taken = await asyncio.to_thread(
            _send_with_pywebpush, key, claims[:THEIRS], settings.base_url
        )
        theirs = THEIRS / (perf_counter() - began)
    if lost := sum(not isinstance(outcome, Sent) for outcome in outcomes):
        result.failures.append(f"{lost} of {OURS} pushes were not taken")
    if taken != THEIRS:
        result.failures.append(f"{THEIRS - taken} of pywebpush's pushes were not taken")
    result.rows = [
        Row("this sender", ours, "/s"),
        Row("pywebpush in a loop", theirs, "/s"),
        Row("ratio", ours / theirs, "×", aim=AIM_RATIO),
    ]
    return result


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
