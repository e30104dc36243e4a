"""More is created than may wait while the mail provider hangs (REQ-022)."""

import asyncio
from time import monotonic

from faults.caller import Caller
from faults.lab import SHORT_QUEUE
from faults.push import ended
from faults.trial import Scenario, Trial

BURST = 5_000
AT_ONCE = 100  # calls in flight
CRITICAL = 20
HEALING_SECONDS = 240.0


async def queue_full(trial: Trial) -> None:
    """Two APIs refuse the surplus; what they accepted is mailed once, and nothing else stored."""
    lab, ledger = trial.lab, trial.caller.ledger
    await lab.fail_provider({"kind": "hang", "seconds": 120})
    headers = lab.stack.create_headers()
    async with (
        lab.second_api() as port,
        Caller(port, headers, trial.users, trial.random) as other,
    ):
        other.ledger = ledger
        callers = (trial.caller, other)
        room = asyncio.Semaphore(AT_ONCE)

        async def create(number: int, priority: str) -> None:
            async with room:
                await callers[number % 2].create(priority=priority)

        began = monotonic()
        await asyncio.gather(*(create(number, "normal") for number in range(BURST)))
        seconds = monotonic() - began
        accepted, refused = len(ledger.accepted), ledger.refused[429]
        await asyncio.gather(*(create(number, "critical") for number in range(CRITICAL)))
    assert ledger.refused[429] == refused, "critical ones were refused"
    assert accepted + refused + ledger.unanswered == BURST, "there were other answers"
    assert accepted > SHORT_QUEUE.queue, f"only {accepted} were accepted"
    assert refused, "none was refused"
    untold = (await trial.books()).notifications.keys() - ledger.accepted.keys()
    assert len(untold) <= ledger.unanswered, "what was refused is stored"

    await lab.mend()
    await ended(trial, HEALING_SECONDS)
    trial.notes.append(
        f"{BURST} calls, bound {SHORT_QUEUE.queue}: {accepted} accepted, {refused} refused"
        f" within {seconds:.0f} s"
    )


SCENARIOS = (
    Scenario(
        "queue-full",
        "5,000 created at two APIs while the provider hangs and 2,000 may wait",
        queue_full,
        bed=SHORT_QUEUE,
        longest=600,
    ),
)
