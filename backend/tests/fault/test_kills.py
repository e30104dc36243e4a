"""What every change has to survive, all of it on one installation (promises 1 and 2).

Scenarios of `make fault`, and whatever is frozen or killed in the middle of a click, a bulk call,
or a digest.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from faults.__main__ import SCENARIOS
from faults.lab import WHOLE, Lab
from faults.report import lines
from faults.trial import conduct
from tests.fault.parking import DIGESTS, Parking, ago
from tests.integration.receiver import Reply, receiving
from tests.stack import Stack

pytestmark = pytest.mark.timeout(300)

WORKER, SCHEDULER = "notify worker", "notify scheduler"
PATIENCE = 60.0
BULK = "/api/v1/notifications/bulk"
KNOWN, UNKNOWN = 1_200, 7
# Storing decisions waits, so a worker that expands stands still in the middle of a transaction.
FREEZE = text("LOCK TABLE notification_decisions IN SHARE MODE")
FROZEN = text("""
    SELECT count(*) FROM pg_locks
    WHERE relation = 'notification_decisions'::regclass AND NOT granted
""")


@pytest.fixture(scope="module")
async def lab() -> AsyncGenerator[Lab]:
    async with Lab.opened(WHOLE) as opened:
        yield opened


@pytest.fixture
async def mended(lab: Lab) -> Lab:
    """The installation, with no fault left of what was tried on it before."""
    await lab.mend()
    await lab.ready()
    return lab


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await is_so():
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "name",
    [
        "worker-mid-send",
        "worker-after-answer",
        "worker-after-batch",
        "valkey-killed",
        "reads-flushed",
    ],
)
async def test_what_was_accepted_arrives(lab: Lab, name: str) -> None:
    report = await conduct(SCENARIOS[name], lab, seed=1)
    assert report.is_ok, lines(report)


# --- a click that was stored is posted (REQ-013) ---------------------------------------------


async def click(stack: Stack, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a click is answered, once the API is there."""
    while True:
        try:
            answer = await stack.api.post(path, headers=headers)
            if answer.status_code == 200:
                return answer.json()
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)


async def test_a_click_survives_the_death_of_those_who_post_it(mended: Lab) -> None:
    stack = mended.stack
    async with receiving() as receiver:
        receiver.replies = [Reply(hangs=True)]
        put = await stack.api.put(
            "/api/v1/internal/action-callbacks/accept", json={"url": receiver.url()}
        )
        put.raise_for_status()
        user = await stack.add_user()
        actions = [{"label": "Accept", "action": "accept"}]
        asked = await stack.send(user, title="Accept?", data={"actions": actions})
        path = f"/api/v1/notifications/{asked}/actions/accept"
        headers = {"Authorization": f"Bearer {stack.user_token(user)}"}

        first = asyncio.create_task(click(stack, path, headers))
        await receiver.until(1, PATIENCE)
        await stack.kill("notify api")  # in the middle of the call
        await receiver.until(2, PATIENCE)  # a worker has taken over
        await stack.kill(WORKER)  # and is killed as well
        receiver.replies = [Reply(200, b'{"state": "accepted"}')]

        async with asyncio.timeout(PATIENCE):
            while (told := await click(stack, path, headers))["status"] == "pending":
                await asyncio.sleep(0.1)
            assert (await first)["status"] in {"pending", "completed"}
        assert told["status"] == "completed"
        assert told["result"] == {"state": "accepted"}
        assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
        assert len({call.body for call in receiver.calls}) == 1


# --- a bulk call reaches each of its users once (REQ-005) ------------------------------------


async def status(stack: Stack, batch_id: str) -> dict[str, Any]:
    answer = await stack.api.get(f"{BULK}/{batch_id}")
    answer.raise_for_status()
    return answer.json()


async def kill_while_it_writes(lab: Lab, batch_id: str) -> None:
    """Kill the worker in the middle of a transaction, if there is anything left to expand."""
    async with lab.sql() as connection:
        await connection.execute(FREEZE)
        async with asyncio.timeout(PATIENCE):
            while not (await connection.execute(FROZEN)).scalar():
                if (await status(lab.stack, batch_id))["created"] == KNOWN:
                    return
                await asyncio.sleep(0.05)
        await lab.stack.kill(WORKER)


async def test_a_bulk_call_survives_workers_killed_half_way(mended: Lab) -> None:
    stack = mended.stack
    users = [uuid4() for _ in range(KNOWN)]
    async with mended.sql() as connection:
        await connection.execute(
            text("INSERT INTO users (id) SELECT unnest(CAST(:ids AS uuid[]))"), {"ids": users}
        )
    wanted = {
        "user_ids": [str(user) for user in [*users, *(uuid4() for _ in range(UNKNOWN))]],
        "type": "system",
        "title": "Maintenance",
        "body": "Tonight",
    }
    answer = await stack.api.post(BULK, json=wanted)
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["batch_id"]
    for _ in range(3):
        await kill_while_it_writes(mended, batch_id)
        created = (await status(stack, batch_id))["created"]
        async with asyncio.timeout(PATIENCE):
            while created == (await status(stack, batch_id))["created"] < KNOWN:
                await asyncio.sleep(0.05)
    async with asyncio.timeout(PATIENCE):
        while (counts := await status(stack, batch_id))["status"] == "processing":
            await asyncio.sleep(0.1)
    assert counts == {
        "batch_id": batch_id,
        "recipient_count": KNOWN + UNKNOWN,
        "created": KNOWN,
        "delivered": KNOWN,
        "failed": UNKNOWN,
        "skipped": 0,
        "pending": 0,
        "status": "partially_failed",
    }
    async with mended.sql() as connection:
        rows = await connection.execute(
            text("SELECT user_id, position FROM notifications WHERE batch_id = :id"),
            {"id": UUID(batch_id)},
        )
        got = Counter((row.user_id, row.position) for row in rows)
    assert got == Counter((user, 1) for user in users)


# --- one digest for each user and slot (REQ-016) ---------------------------------------------


@pytest.fixture
async def parking(mended: Lab) -> Parking:
    return Parking(mended, await mended.stack.add_user())


async def test_a_frozen_worker_that_comes_back_sends_no_digest_twice(parking: Parking) -> None:
    lab = parking.lab
    other = Parking(lab, await lab.stack.add_user())
    # The provider takes the mail and answers; whoever asked does not hear it.
    await lab.fail_provider({"kind": "delay", "seconds": 1.5})
    frozen = [lab.stack.part(WORKER), lab.stack.part(SCHEDULER)]
    before = await lab.requests()
    parked = await parking.park(ago(2))
    await until(lambda: has_more(lab, before))
    async with lab.frozen(frozen), lab.second_worker():
        await lab.mend()
        await until(parking.is_sent)  # past the lease
    # The one that was frozen works again, alone: what it had in hand is behind it.
    await other.park(ago(2))
    await until(other.is_sent)
    assert lab.stack.part(WORKER).pid == frozen[0].pid
    (digest,) = await parking.digests()
    assert digest.expired_leases == 1
    assert len(await parking.mails()) == len(await other.mails()) == 1
    assert await parking.ends(parked) == {("sent", "digest")}


async def has_more(lab: Lab, before: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the provider was asked since then."""
    return await lab.requests() != before


async def test_a_worker_killed_after_the_providers_answer_sends_one_digest(
    parking: Parking,
) -> None:
    lab = parking.lab
    async with lab.sql() as connection:
        # The outcome cannot be written down.
        await connection.execute(text("LOCK TABLE notification_events IN SHARE MODE"))
        parking_two = asyncio.create_task(parking.park(ago(2), ago(2)))
        await until(parking.mails)
        assert len((await connection.execute(DIGESTS, {"id": parking.user})).all()) == 1
        lab.stack.part(WORKER).send_signal(signal.SIGKILL)
    parked = await parking_two
    await until(parking.is_sent)
    (digest,) = await parking.digests()
    (mail,) = await parking.mails()
    told = {id_ for id_ in parked if id_ in digest.notification_ids}
    assert told
    assert digest.expired_leases > 0
    assert {tag["name"]: tag["value"] for tag in mail["tags"]}["digest_id"] == str(digest.id)
    assert ("sent", "digest") in await parking.ends([*told])


async def test_slots_that_passed_while_all_were_down_are_one_mail(parking: Parking) -> None:
    lab = parking.lab
    down = [lab.stack.part(WORKER), lab.stack.part(SCHEDULER)]
    for part in down:
        part.suspend()
    latest = ago(2)
    parked = await parking.park(ago(60 * 24), ago(60), latest)
    for part in down:
        part.send_signal(signal.SIGKILL)
    await until(parking.is_sent)
    (digest,) = await parking.digests()
    assert digest.scheduled_for == latest
    assert sorted(digest.notification_ids) == sorted(parked)
    assert len(await parking.mails()) == 1
    assert await parking.ends(parked) == {("sent", "digest")}
