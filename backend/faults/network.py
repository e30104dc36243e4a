"""Faults of the network between the program and its servers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from faults.lab import WIRED
from faults.proxy import Proxy, Side
from faults.trial import Scenario, Trial

Server = Literal["database", "redis"]


def between(
    server: Server, disturb: Callable[[Proxy], Awaitable[None]], seconds: float
) -> Callable[[Trial], Awaitable[None]]:
    """A strike that disturbs the way to one server under load."""

    async def strike(trial: Trial) -> None:
        proxy: Proxy | None = getattr(trial.lab, server)
        assert proxy is not None
        async with trial.caller.creating(300, seconds=seconds):
            await asyncio.sleep(1)
            await disturb(proxy)
            proxy.mend()

    return strike


async def drops(proxy: Proxy) -> None:
    for _ in range(12):
        proxy.drop()
        await asyncio.sleep(0.5)


async def stalls(proxy: Proxy) -> None:
    proxy.stall()
    await asyncio.sleep(10)


async def half_closes(proxy: Proxy) -> None:
    for side in (Side.CLIENT, Side.SERVER) * 3:
        proxy.half_close(side)
        await asyncio.sleep(1)


async def loses_answers(proxy: Proxy) -> None:
    """What was asked has happened, COMMIT included, and nobody hears of it."""
    for _ in range(7):
        proxy.lose_answers()
        await asyncio.sleep(0.3)
        proxy.mend()
        await asyncio.sleep(0.6)


KINDS = (
    ("drops", "connections to {} dropped every 0.5 s", drops, 8),
    ("stalls", "connections to {} stall for 10 s", stalls, 12),
    ("half-closes", "connections to {} half-closed, both ways in turn", half_closes, 8),
    ("answers-lost", "answers of {} lost, seven times", loses_answers, 8),
)
SERVERS: tuple[tuple[Server, str], ...] = (("database", "PostgreSQL"), ("redis", "Valkey"))
SCENARIOS = tuple(
    Scenario(f"{server}-{name}", fault.format(called), between(server, disturb, seconds), bed=WIRED)
    for server, called in SERVERS
    for name, fault, disturb, seconds in KINDS
)
