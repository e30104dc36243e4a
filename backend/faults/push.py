"""VAPID keys that rotate, and workers that are killed while they push.

Every user has two devices; what reached each is counted at the sandbox.
"""

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import TextClause, text

from faults.devices import Device, Devices, Key
from faults.lab import Lab
from faults.trial import Scenario, Trial
from tests.stack import NOTIFY

HOST = "127.0.0.1"
WORKER = "notify worker"
PLATFORMS = ("android", "ios")

SETTLING_SECONDS = 60.0

ROTATIONS = 3
CREATES_PER_SECOND = 12
DEVICES_OF_A_USER = 2
SLOWEST_CREATE = timedelta(seconds=3)  # from its instant to the look at the user's devices

PENDING = text("""
    SELECT count(*) FROM notification_deliveries
    WHERE user_id = ANY(CAST(:users AS uuid[])) AND status = 'pending'
      AND coalesce(device_id <> ALL(CAST(:but AS uuid[])), true)
""")
CREATED = text("""
    SELECT id, created_at FROM notifications WHERE user_id = ANY(CAST(:users AS uuid[]))
""")
REVIVED = text("""
    SELECT count(*) FROM notification_events
    WHERE user_id = ANY(CAST(:users AS uuid[])) AND channel = 'push' AND event = 'retried'
      AND reason = 'device_gone'
""")
REPEATED_RECEIPTS = text("""
    SELECT count(*) FROM (
        SELECT FROM notification_events
        WHERE user_id = ANY(CAST(:users AS uuid[])) AND channel = 'push' AND event = 'delivered'
        GROUP BY detail ->> 'delivery_id' HAVING count(*) > 1
    ) AS repeated
""")


# --- VAPID keys that rotate ------------------------------------------------------------------


async def rotation(trial: Trial) -> None:
    """Keys rotate under load; some browsers follow each time, others keep the key they had."""
    lab, devices = trial.lab, Devices(trial.lab.stack)
    first = await newest_key(lab)
    moving = [await devices.browser(user, "moves", first, host=HOST) for user in trial.users]
    staying = [
        await devices.browser(user, "stays", first, host=HOST, tells_key=bool(index % 2))
        for index, user in enumerate(trial.users)
    ]
    moves: dict[UUID, list[tuple[datetime, datetime]]] = {user: [] for user in trial.users}

    async def move(device: Device, key: Key) -> None:
        await asyncio.sleep(trial.random.uniform(0, 1))
        since = datetime.now(UTC)
        subscription = await devices.take(device, key)
        await asyncio.sleep(trial.random.uniform(0, 1))  # while its old endpoint answers 410
        await devices.succeed(device, subscription)
        moves[device.user_id].append((since, datetime.now(UTC)))

    keys = [first]
    async with creating(trial):
        for _ in range(ROTATIONS):
            await asyncio.sleep(trial.random.uniform(1, 3))
            await vapid(lab, "rotate")
            keys.append(await newest_key(lab))
            await asyncio.gather(*(move(device, keys[-1]) for device in moving))
    await ended(trial, SETTLING_SECONDS)
    last = {await trial.caller.create(user) for user in trial.users}
    await ended(trial, SETTLING_SECONDS)

    await expect_at_least_once(trial, devices, staying)
    away = await expect_at_least_once(trial, devices, moving, moves)
    for device, key in [*((device, keys[-1]) for device in moving), *((d, first) for d in staying)]:
        signed = {a.signed_by for a in await devices.arrivals(device) if a.notification_id in last}
        assert signed == {key.public}, "a push was signed with another key than its browser's"
    listed = {key["key_id"]: key for key in await vapid_keys(lab)}
    assert len({key.id for key in keys}) == ROTATIONS + 1, "the key did not rotate"
    assert listed[keys[-1].id]["state"] == "newest", "the last key is not the newest"
    for key, wanted in ((first, len(staying)), (keys[-1], len(moving))):
        known = listed[key.id]
        assert known["state"] != "retired", "a key that is used has retired"
        assert known["subscriptions"] >= wanted, f"{wanted} browsers need a key, it is not known"
    revived = await count(trial, REVIVED)
    assert revived, "no push met an endpoint that was gone"
    trial.notes.append(
        f"{ROTATIONS} rotations, browsers moved {sum(map(len, moves.values()))} times; {revived}"
        f" pushes found the old endpoint gone and went to the new one, {away} created in between"
    )


async def expect_at_least_once(
    trial: Trial,
    devices: Devices,
    wanted: Sequence[Device],
    moves: Mapping[UUID, Sequence[tuple[datetime, datetime]]] | None = None,
) -> int:
    """Each device got each of its user's notifications, at one of its addresses.

    Args:
        moves: when each user's device was between two addresses, so that it could be unknown.

    Returns:
        How many were created while their device was unknown.
    """
    accepted, at = trial.caller.ledger.accepted, await created(trial)
    pushes = Counter(
        row["notification_id"]
        for row in (await trial.books()).deliveries
        if row["channel"] == "push"
    )
    lost = unknown = 0
    for device in wanted:
        got = {arrival.notification_id for arrival in await devices.arrivals(device)}
        for item in (item for item, user in accepted.items() if user == device.user_id):
            if item in got:
                continue
            was_away = any(
                since - SLOWEST_CREATE < at[item] < until
                for since, until in (moves or {}).get(device.user_id, ())
            )
            if was_away and pushes[item] < DEVICES_OF_A_USER:
                unknown += 1
            else:
                lost += 1
    assert not lost, f"{lost} pushes never arrived"
    return unknown


# --- workers that are killed -----------------------------------------------------------------


async def worker_killed(trial: Trial) -> None:
    """Workers die before the services answer, after that, and before it is recorded."""
    lab, devices = trial.lab, Devices(trial.lab.stack)
    key = await newest_key(lab)
    targets = [await devices.browser(user, "browser", key, host=HOST) for user in trial.users]
    targets += [
        await devices.phone(user, PLATFORMS[index % 2]) for index, user in enumerate(trial.users)
    ]
    kinds: tuple[Mapping[str, object], ...] = (
        {"kind": "hang", "seconds": 60},
        {"kind": "delay", "seconds": 1.2},
    )
    receipts: set[tuple[UUID, UUID]] = set()
    for fault in kinds:
        await fail_both(lab, fault)
        calls = asyncio.create_task(trial.caller.create_many(40))
        await asked(lab, 15)
        await lab.stack.kill(WORKER)
        await calls
        await lab.mend()
        receipts |= await acknowledge_some(devices, targets)
        await ended(trial, SETTLING_SECONDS)
    await fail_both(lab, {"kind": "delay", "seconds": 1})
    calls = asyncio.create_task(trial.caller.create_many(40))
    await asked(lab, 15)
    async with lab.holding("notification_deliveries", trial.users):
        await lab.blocked()
        await lab.stack.kill(WORKER)
    await calls
    await lab.mend()
    receipts |= await acknowledge_some(devices, targets)
    await ended(trial, SETTLING_SECONDS)

    await expect_at_least_once(trial, devices, targets)
    await expect_redelivered_alone(trial, devices, targets)
    await expect_receipts_kept(trial, receipts)


async def fail_both(lab: Lab, fault: Mapping[str, object]) -> None:
    """Let the push service and FCM fail alike."""
    await lab.fail_provider(*({**fault, "provider": provider} for provider in ("push", "fcm")))


async def asked(lab: Lab, number: int) -> None:
    """Wait until each rule has hit so many requests."""
    async with asyncio.timeout(SETTLING_SECONDS):
        while min(await lab.hits()) < number:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def creating(trial: Trial) -> AsyncGenerator[None]:
    """Create steadily for as long as the context lasts, and let every call be answered."""
    done = asyncio.Event()

    async def create() -> None:
        async with asyncio.TaskGroup() as calls:
            while not done.is_set():
                calls.create_task(trial.caller.create())
                await asyncio.sleep(trial.random.expovariate(CREATES_PER_SECOND))

    load = asyncio.create_task(create())
    try:
        yield
    finally:
        done.set()
        await load


async def acknowledge_some(devices: Devices, targets: Sequence[Device]) -> set[tuple[UUID, UUID]]:
    """Say of every other push that arrived that it was shown.

    Returns:
        Their notifications, each with the device it was shown on.
    """
    told: set[tuple[UUID, UUID]] = set()
    for device in targets:
        for arrival in (await devices.arrivals(device))[::2]:
            await devices.acknowledge(arrival)
            told.add((arrival.notification_id, device.id))
    return told


async def expect_redelivered_alone(
    trial: Trial, devices: Devices, targets: Sequence[Device]
) -> None:
    """What arrived twice was sent twice, because nobody knew of the first time."""
    rows = {
        (row["notification_id"], row["device_id"]): row
        for row in (await trial.books()).deliveries
        if row["channel"] == "push"
    }
    again = unexplained = 0
    for device in targets:
        got = Counter(arrival.notification_id for arrival in await devices.arrivals(device))
        for item, number in got.items():
            row = rows[item, device.id]
            again += number - 1
            unexplained += number > row["attempts"] + row["expired_leases"]
    orphaned = sum(row["expired_leases"] > 0 for row in rows.values())
    trial.notes.append(f"{orphaned} of {len(rows)} pushes taken over, {again} arrived again")
    assert orphaned, "no worker was killed between claim and outcome"
    assert not unexplained, f"{unexplained} pushes arrived more often than they were sent"


async def expect_receipts_kept(trial: Trial, receipts: set[tuple[UUID, UUID]]) -> None:
    """What a device acknowledged stays delivered, whatever a worker said of it afterwards."""
    assert receipts, "nothing was acknowledged"
    rows = {
        (row["notification_id"], row["device_id"]): row["status"]
        for row in (await trial.books()).deliveries
    }
    kept = Counter(rows[receipt] for receipt in receipts)
    assert kept.keys() == {"delivered"}, f"receipts were forgotten: {dict(kept)}"
    assert not await count(trial, REPEATED_RECEIPTS), "a receipt was recorded more than once"


async def ended(trial: Trial, seconds: float, but: Sequence[Device] = ()) -> None:
    """Wait until no delivery is pending, but those for some devices."""
    async with asyncio.timeout(seconds):
        while await pending(trial, but):
            await asyncio.sleep(0.5)


async def pending(trial: Trial, but: Sequence[Device] = ()) -> int:
    """Deliveries that have not ended, but those for some devices."""
    return await count(trial, PENDING, but=[device.id for device in but])


async def count(trial: Trial, query: TextClause, **more: object) -> int:
    """What a query counts of these users."""
    async with trial.lab.sql() as connection:
        found = await connection.execute(query, {"users": list(trial.users), **more})
        return found.scalar_one()


async def created(trial: Trial) -> Mapping[UUID, datetime]:
    """When each notification was created."""
    async with trial.lab.sql() as connection:
        rows = await connection.execute(CREATED, {"users": list(trial.users)})
        return {row.id: row.created_at for row in rows}


async def newest_key(lab: Lab) -> Key:
    """The key that browsers are to subscribe with, as operators are shown it."""
    newest = (await vapid_keys(lab))[0]
    return Key(newest["key_id"], newest["public_key"])


async def vapid_keys(lab: Lab) -> list[dict[str, Any]]:
    """All keys, newest first."""
    return [orjson.loads(line) for line in (await vapid(lab, "show", "--json")).splitlines()]


async def vapid(lab: Lab, *arguments: str) -> str:
    """What `notify vapid` says, run beside the installation as an operator does."""
    process = await asyncio.create_subprocess_exec(
        NOTIFY,
        "vapid",
        *arguments,
        env={**os.environ, **lab.stack.environment},
        cwd=lab.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()[-300:]
    return said.decode()


SCENARIOS = (
    Scenario(
        "push-rotation",
        "the VAPID key rotates three times under load; some browsers follow, some do not",
        rotation,
        # What was stored for both of a browser's endpoints goes to one; what the other had is over.
        may_die=frozenset({"no_device", "device_gone"}),
        longest=300,
    ),
    Scenario(
        "push-worker-killed",
        "workers killed -9 while pushes are on their way, answered, and not yet recorded",
        worker_killed,
    ),
)
