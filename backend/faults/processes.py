"""Processes that are killed, told to end, frozen, or beside one of another version."""

import asyncio
from uuid import uuid4

import orjson

from faults.trial import Scenario, Trial

API, WORKER = "notify api", "notify worker"


async def api_before_commit(trial: Trial) -> None:
    """Callers wait for a transaction that a lock holds up; then the API is killed."""
    for user in trial.users:
        await trial.caller.create(user)
    for _ in range(3):
        async with trial.lab.holding("inbox_state", trial.users):
            calls = asyncio.create_task(trial.caller.create_many(60))
            await trial.lab.blocked()
            await trial.lab.stack.kill(API)
            await calls
        await trial.lab.ready()
    await trial.caller.create_many(60)


async def api_after_commit(trial: Trial) -> None:
    """The first answer is lost on its way, and with it the API."""
    for _ in range(3):
        trial.lab.front.lose_answers()
        calls = asyncio.create_task(trial.caller.create_many(80))
        await trial.lab.front.answer_lost.wait()
        await trial.lab.stack.kill(API)
        await calls
        trial.lab.front.mend()
        await trial.lab.ready()
    await trial.caller.create_many(60)


async def api_under_load(trial: Trial) -> None:
    async with trial.caller.creating(300, seconds=12):
        for _ in range(3):
            await asyncio.sleep(trial.random.uniform(0.5, 2))
            await trial.lab.stack.kill(API)


async def gateway_under_load(trial: Trial) -> None:
    async with trial.caller.creating(200, seconds=8):
        for _ in range(2):
            await asyncio.sleep(trial.random.uniform(0.5, 2))
            await trial.lab.stack.kill("notify gateway")


async def worker_mid_send(trial: Trial) -> None:
    """The provider has the requests and has not answered; afterwards nobody calls."""
    await trial.lab.fail_provider({"kind": "hang", "seconds": 60})
    await trial.caller.create_many(100)
    await trial.arrived(20)
    await trial.lab.stack.kill(WORKER)
    await trial.lab.mend()


async def worker_after_answer(trial: Trial) -> None:
    """The provider has answered, and nothing of it is recorded; afterwards nobody calls."""
    await trial.lab.fail_provider({"kind": "delay", "seconds": 1.5})
    await trial.caller.create_many(40)
    await _killed_before_recording(trial, 40)


async def worker_after_batch(trial: Trial) -> None:
    """The same with batches, which a provider gets that takes few requests."""
    few = {"kind": "rate_limit", "requests_per_second": 2}
    await trial.lab.fail_provider(few)
    await trial.caller.create(priority="high")
    await trial.ended()
    await trial.lab.fail_provider(few, {"kind": "delay", "seconds": 1.5})
    await asyncio.gather(*(trial.caller.create(priority="high") for _ in range(60)))
    await _killed_before_recording(trial, 60)
    await trial.ended()
    requests = await trial.own_requests()
    again = {item for item, (key, count) in requests.items() if key != item and count > 1}
    assert len(again) > 1, "no batch was sent again"


async def _killed_before_recording(trial: Trial, number: int) -> None:
    await trial.arrived(number)
    async with trial.lab.holding("notification_deliveries", trial.users):
        await trial.lab.blocked()
        await trial.lab.stack.kill(WORKER)
    await trial.lab.mend()


async def worker_under_load(trial: Trial) -> None:
    await trial.lab.fail_provider({"kind": "delay", "seconds": 0.3})
    async with trial.caller.creating(300, seconds=10):
        for _ in range(3):
            await asyncio.sleep(trial.random.uniform(0.5, 3))
            await trial.lab.stack.kill(WORKER)


async def told_to_end(trial: Trial) -> None:
    """SIGTERM finds 200 calls waiting for PostgreSQL, which then goes on: each is answered."""
    for user in trial.users:
        await trial.caller.create(user)
    async with trial.lab.frozen(trial.lab.backends()):
        calls = asyncio.create_task(trial.caller.create_many(200))
        await trial.lab.connected(200)
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(trial.lab.stop())
        await asyncio.sleep(0.5)
    await stopping
    await calls
    await trial.lab.start()
    assert not trial.caller.ledger.unanswered, "calls in flight were not answered"
    await trial.caller.create_many(20)


async def power_cut(trial: Trial) -> None:
    """Everything, servers included, dies at once."""
    async with trial.caller.creating(300, seconds=6):
        await asyncio.sleep(trial.random.uniform(2, 3))
        await trial.lab.kill_everything()
    await trial.lab.stop()
    await trial.lab.start()
    await trial.caller.create_many(50)


async def frozen_past_its_lease(trial: Trial) -> None:
    """Another worker takes over; the first wakes with an answer nobody waits for."""
    await trial.lab.fail_provider({"kind": "delay", "seconds": 1, "times": 40})
    await trial.caller.create_many(40)
    await trial.arrived(40)
    async with trial.lab.frozen([trial.lab.stack.part(WORKER)]), trial.lab.second_worker():
        async with trial.caller.creating(100, seconds=5):
            pass
        await trial.ended()
    before = (await trial.books()).deliveries
    taken_over = sum(row["expired_leases"] > 0 for row in before)
    assert taken_over, "no lease ended, so nothing was taken over"
    # Served by the first worker alone: when these have ended, its late outcomes were reported.
    await trial.caller.create_many(60)


async def doorbell_of_another_version(trial: Trial) -> None:
    """Rings that today's worker cannot read, for two workers."""
    garbage: list[dict[str, bytes]] = [
        {"data": b"\xff\x00 not a message"},
        {"data": b"{}"},
        {"data": b""},
        {"body": b"another field", "version": b"9"},
        {"data": _ring("a_task_of_tomorrow", [["1"]])},
        {"data": _ring("deliver", [["not an id"]])},
        {"data": _ring("deliver", [7])},
        {"data": _ring("deliver", [])},
        {"data": _ring("expand", [[]])},
        {"data": _ring("deliver", [[str(uuid4())]]), "extra": b"field"},
    ]
    before = trial.lab.stack.part(WORKER).pid
    async with trial.lab.second_worker(), trial.caller.creating(200, seconds=8):
        for _ in range(10):
            await asyncio.sleep(0.5)
            async with trial.lab.valkey() as client:
                for fields in garbage:
                    await client.xadd("notify:doorbell", fields)
        # A key of another kind in the place of the stream.
        async with trial.lab.valkey() as client:
            await client.set("notify:doorbell", "not a stream")
            await asyncio.sleep(2)
            await client.delete("notify:doorbell")
    assert trial.lab.stack.part(WORKER).pid == before, "the worker ended"


def _ring(task: str, arguments: list[object]) -> bytes:
    message: dict[str, object] = {
        "task_id": str(uuid4()),
        "task_name": task,
        "labels": {},
        "labels_types": {},
        "args": arguments,
        "kwargs": {},
        "from_a_later_version": True,
    }
    return orjson.dumps(message)


# Deaths of one part are apart: each that follows soon delays the part's next start.
SCENARIOS = (
    Scenario("api-under-load", "API killed -9 three times under load", api_under_load),
    Scenario(
        "worker-mid-send",
        "worker killed -9 before the provider answers, then silence",
        worker_mid_send,
    ),
    Scenario(
        "worker-after-answer",
        "worker killed -9 after the provider's answer, before recording it, then silence",
        worker_after_answer,
    ),
    Scenario("worker-after-batch", "the same, with batches of mails", worker_after_batch),
    Scenario("gateway-under-load", "gateway killed -9 twice under load", gateway_under_load),
    Scenario("api-before-commit", "API killed -9 while its transaction waits", api_before_commit),
    Scenario(
        "worker-frozen",
        "worker stopped past its lease, another takes over, the first wakes",
        frozen_past_its_lease,
    ),
    Scenario(
        "another-version",
        "two workers beside rings of another version, and garbage",
        doorbell_of_another_version,
        may_log=frozenset({"Exception found while executing function."}),
    ),
    Scenario(
        "api-after-commit", "API killed -9 when its answers were on their way", api_after_commit
    ),
    Scenario("worker-under-load", "worker killed -9 three times under load", worker_under_load),
    Scenario("told-to-end", "SIGTERM to the whole with 200 creates in flight", told_to_end),
    Scenario("power-cut", "every process killed -9 at once, servers too", power_cut),
)
