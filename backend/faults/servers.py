"""PostgreSQL and Valkey that die, stall, forget, or run out of room."""

import asyncio
import signal
from pathlib import Path

from faults.lab import SMALL_DISK, UNWIRED, WIRED
from faults.trial import Scenario, Trial

VALKEY, POSTGRES = "valkey-server", "postgres -D"
CHUNK = b"\0" * 65_536


async def valkey_killed(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=10):
        for _ in range(3):
            await asyncio.sleep(trial.random.uniform(0.5, 2))
            await trial.lab.stack.kill(VALKEY)


async def valkey_flushed(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=8):
        for _ in range(20):
            await asyncio.sleep(trial.random.uniform(0.1, 0.5))
            await trial.lab.flush()


async def valkey_frozen(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=14):
        await asyncio.sleep(1)
        async with trial.lab.frozen([trial.lab.stack.part(VALKEY)]):
            await asyncio.sleep(10)


async def valkey_out_of_memory(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=10), trial.lab.valkey() as client:
        await asyncio.sleep(1)
        await client.config_set("maxmemory", "1")
        await asyncio.sleep(6)
        await client.config_set("maxmemory", "0")


async def valkey_gone(trial: Trial) -> None:
    """Redis goes for good under load; everything must end without it."""
    redis = trial.lab.redis
    assert redis is not None
    async with trial.caller.creating(200, seconds=6):
        await asyncio.sleep(2)
        redis.refuse()
    await trial.lab.ready(degraded=True)
    await trial.ended()
    assert not trial.caller.ledger.refused, "calls were refused for want of Redis"
    assert not trial.caller.ledger.unanswered, "calls were not answered for want of Redis"


async def valkey_never(trial: Trial) -> None:
    """Redis was never there."""
    trial.degraded = True
    async with trial.caller.creating(200, seconds=6):
        pass
    assert not trial.caller.ledger.refused, "calls were refused for want of Redis"


async def postgres_stopped(trial: Trial) -> None:
    """An immediate shutdown: nothing is written, and the next start recovers."""
    async with trial.caller.creating(300, seconds=14):
        for _ in range(2):
            await asyncio.sleep(trial.random.uniform(1, 3))
            await trial.lab.stack.kill(POSTGRES, signal.SIGQUIT)


async def postgres_backends(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=12):
        for _ in range(50):
            await asyncio.sleep(0.2)
            await trial.lab.end_backends()


async def disk_full(trial: Trial) -> None:
    """The file system fills up while creates come in, and gets room again."""
    ballast = trial.lab.directory / "ballast"
    try:
        async with trial.caller.creating(600, seconds=20):
            await asyncio.sleep(3)
            for _ in range(20):
                # Whatever the servers free meanwhile is taken too.
                _fill(ballast)
                await asyncio.sleep(0.5)
            ballast.unlink()
            await trial.lab.ready()
    finally:
        ballast.unlink(missing_ok=True)
    assert trial.caller.ledger.refused, "the disk was never full"
    await trial.caller.create_many(30)


def _fill(path: Path) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            while file.write(CHUNK):
                pass
    except OSError:
        pass


SCENARIOS = (
    Scenario("valkey-killed", "Valkey killed -9 three times under load", valkey_killed),
    Scenario("valkey-flushed", "FLUSHALL twenty times under load", valkey_flushed),
    Scenario("valkey-frozen", "Valkey stopped for 10 s", valkey_frozen),
    Scenario("valkey-out-of-memory", "Valkey refuses every write for 6 s", valkey_out_of_memory),
    Scenario("postgres-stopped", "PostgreSQL stopped at once, twice", postgres_stopped),
    Scenario(
        "postgres-backends", "every connection ended every 200 ms for 10 s", postgres_backends
    ),
    Scenario("valkey-gone", "Redis goes under load and stays away", valkey_gone, bed=WIRED),
    Scenario("valkey-never", "Redis was never there", valkey_never, bed=UNWIRED),
    Scenario("disk-full", "the data directory's disk is full for 10 s", disk_full, bed=SMALL_DISK),
)
