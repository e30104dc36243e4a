"""A mail provider that hangs, limits, fails, takes a mail and does not say so, or kills."""

import asyncio
import os
import signal

import psutil

from faults.trial import Scenario, Trial, address_of


async def hangs(trial: Trial) -> None:
    await trial.lab.fail_provider({"kind": "hang", "seconds": 60, "times": 10})
    async with trial.caller.creating(300, seconds=6):
        pass
    await trial.ended()


async def limits(trial: Trial) -> None:
    await trial.lab.fail_provider({"kind": "status", "status": 429, "retry_after": 3, "times": 10})
    async with trial.caller.creating(300, seconds=6):
        pass
    await trial.ended()


async def says_nothing(trial: Trial) -> None:
    """It stores the mail and drops the connection: only the key can prevent a second one."""
    await trial.lab.fail_provider(
        {"kind": "drop_after", "probability": 0.2, "seed": trial.random.getrandbits(16)}
    )
    async with trial.caller.creating(300, seconds=6):
        pass
    await trial.ended()


async def fails(trial: Trial) -> None:
    await trial.lab.fail_provider(
        # No more than it takes until it counts as ill, and some tries whether it is well again.
        {"kind": "status", "status": 500, "times": 3},
        {"kind": "status", "status": 503, "times": 3},
        {"kind": "drop", "times": 2},
    )
    async with trial.caller.creating(300, seconds=6):
        pass
    await trial.ended()


async def loses_answers(trial: Trial) -> None:
    """The network between loses the provider's answers for a while."""
    async with trial.caller.creating(300, seconds=8):
        await asyncio.sleep(1)
        trial.lab.provider.lose_answers()
        await asyncio.sleep(4)
        trial.lab.provider.mend()


async def poison(trial: Trial) -> None:
    """One delivery kills whichever worker sends it, every time, from outside the program."""
    victim, others = trial.users[0], trial.users[1:]
    marker = address_of(victim).encode()
    killed = 0

    def kill_sender(sent: bytes, port: int) -> bool:
        nonlocal killed
        if marker not in sent:
            return True
        os.kill(_owner_of(port), signal.SIGKILL)
        killed += 1
        return False

    async def create_for_others(number: int) -> None:
        chosen = trial.random.choices(others, k=number)
        await asyncio.gather(*map(trial.caller.create, chosen))

    # The worker learns that there is room for each mail alone: a batch dies together.
    await create_for_others(3)
    await trial.ended()
    trial.lab.provider.watch = kill_sender
    # Slow answers, so that others are on their way in the same worker whenever it is killed.
    await trial.lab.fail_provider({"kind": "delay", "seconds": 0.3})
    calls = asyncio.create_task(create_for_others(25))
    poisoned = await trial.caller.create(victim)
    await calls
    for _ in range(16):
        await create_for_others(5)
        await asyncio.sleep(0.5)
    await trial.ended()
    assert killed > 1, "the delivery did not kill its workers"
    books = await trial.books()
    dead = {row["notification_id"] for row in books.deliveries if row["reason"] == "poison"}
    assert poisoned in dead, "the delivery is not poison"
    assert dead == {poisoned}, f"{len(dead) - 1} others ended as poison too"


def _owner_of(port: int) -> int:
    """The process that a connection from this port belongs to."""
    for connection in psutil.net_connections("tcp4"):
        if connection.pid and connection.laddr and connection.laddr.port == port:
            return connection.pid
    raise LookupError(port)


SCENARIOS = (
    Scenario("provider-hangs", "the provider hangs on 10 requests", hangs),
    Scenario("provider-limits", "the provider answers 10 times 429, Retry-After 3 s", limits),
    Scenario(
        "provider-says-nothing",
        "the provider takes mails and drops two of ten answers",
        says_nothing,
    ),
    Scenario("provider-fails", "the provider answers 500, 503, or drops connections", fails),
    Scenario("provider-answers-lost", "the provider's answers are lost for 4 s", loses_answers),
    # Last, when nobody has killed a worker for a while: each of its deaths delays the next start.
    Scenario(
        "poison",
        "a delivery kills -9 every worker that sends it",
        poison,
        may_die=frozenset({"poison"}),
    ),
)
