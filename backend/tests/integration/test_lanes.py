"""Slots of channels, leases and due times: nobody waits for another's provider, death or time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from app.pipeline.deliver import CLAIM_OTHERS
from app.pipeline.sweep import Sweeper
from app.policy.kinds import Channel, NotificationType, Priority
from app.policy.routing import Request
from app.worker.main import Worker, open_worker, running
from tests.integration import test_migrations, test_pipeline
from tests.integration.test_pipeline import START, URGENT_MAIL, Stage, eventually

stage = test_pipeline.stage
CRITICAL_MAIL = Request(NotificationType.SECURITY, Priority.CRITICAL)
SLOTS, ORDINARY = 5, 4


@asynccontextmanager
async def small_worker(stage: Stage, **settings: object) -> AsyncGenerator[Worker]:
    """A worker with few slots for each channel."""
    changes = {"delivery_slots": SLOTS, **settings}
    async with open_worker(stage.settings.model_copy(update=changes), stage.clock) as worker:
        yield worker


@asynccontextmanager
async def sweeping(stage: Stage, worker: Worker) -> AsyncGenerator[None]:
    """The worker's sweeper alone, without a doorbell, that gives up on senders soon."""
    sweeper = Sweeper(
        worker.deliverer, worker.expander, worker.expirer, stage.clock, interval=0.1, drain=0.1
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(sweeper.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        async with asyncio.timeout(20):
            await task


async def requests(stage: Stage) -> int:
    return (await stage.sandbox.get("/arrivals")).json()["requests"]


async def emails(stage: Stage) -> list[Any]:
    return await stage.rows("SELECT * FROM notification_deliveries WHERE channel = 'email'")


# --- slots -----------------------------------------------------------------------------------


async def test_a_claim_takes_what_the_lane_has_room_for_and_critical_first(stage: Stage) -> None:
    user = await stage.user()
    await asyncio.gather(*(stage.post(user) for _ in range(12)))
    async with small_worker(stage) as worker:
        ordinary = await worker.deliverer.claim()
        assert [claim.priority for claim in ordinary] == ["high"] * ORDINARY
        await asyncio.gather(*(stage.post(user, CRITICAL_MAIL) for _ in range(3)))
        (critical,) = await worker.deliverer.claim()
        assert critical.priority == "critical"
        assert await worker.deliverer.claim() == []
        await worker.deliverer.dispatch([*ordinary, critical])
        claimed = await worker.deliverer.claim()
        assert [claim.priority for claim in claimed] == ["critical"] * 2 + ["high"] * 3
        await worker.deliverer.dispatch(claimed)


async def test_a_provider_that_hangs_delays_no_other_channel_and_nothing_critical(
    stage: Stage,
) -> None:
    user = await stage.user()
    scheduled = await stage.post(
        user, Request(NotificationType.TASK, send_email=False, send_at=START + timedelta(minutes=1))
    )
    await stage.fault(kind="hang", seconds=60)
    await asyncio.gather(*(stage.post(user) for _ in range(12)))

    async def waiting(count: int) -> bool:
        return await requests(stage) == count

    async def shown() -> bool:
        return (await stage.delivery(scheduled, Channel.IN_APP)).status == "sent"

    patient = {"provider_timeout_seconds": 60.0, "delivery_lease_seconds": 120.0}
    async with small_worker(stage, **patient) as worker, sweeping(stage, worker):
        await eventually(lambda: waiting(1))  # for as many as the lane has room
        stage.clock.advance(minutes=1)
        await eventually(shown)
        assert await requests(stage) == 1
        await stage.post(user, CRITICAL_MAIL)
        await eventually(lambda: waiting(2))
        # Stopped while all of them hang: they are given back.
    states = [
        (row.status, row.lease_token, row.attempts, row.expired_leases)
        for row in await emails(stage)
    ]
    assert states == [("pending", None, 0, 0)] * 13


async def test_a_full_lane_is_filled_again_as_its_slots_come_free(stage: Stage) -> None:
    user = await stage.user()
    await asyncio.gather(*(stage.post(user) for _ in range(30)))

    async def mailed() -> bool:
        return len(await stage.mails()) == 30

    async with small_worker(stage) as worker, sweeping(stage, worker):
        await eventually(mailed)


# --- stopping --------------------------------------------------------------------------------


async def test_stopping_again_and_again_is_no_poison_and_no_attempt(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="hang", seconds=60)
    patient = {"provider_timeout_seconds": 60.0, "delivery_lease_seconds": 120.0}
    for round_ in range(1, 5):  # more often than leases may expire, or attempts be made

        async def asked(count: int = round_) -> bool:
            return await requests(stage) == count

        async with small_worker(stage, **patient) as worker, sweeping(stage, worker):
            await eventually(asked)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.attempts, email.expired_leases) == ("pending", 0, 0)
    assert (email.lease_token, email.next_attempt_at) == (None, START)
    await stage.sandbox.delete("/faults")
    await stage.worker.deliverer.deliver()
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"
    assert len(await stage.mails()) == 1


async def test_what_another_worker_has_taken_over_is_not_given_back(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="hang", seconds=60)
    patient = {"provider_timeout_seconds": 60.0, "delivery_lease_seconds": 120.0}

    async def asked() -> bool:
        return await requests(stage) == 1

    async with small_worker(stage, **patient) as worker:
        sending = asyncio.create_task(worker.deliverer.deliver())
        await eventually(asked)
        stage.clock.advance(seconds=120)
        (taken,) = await stage.worker.deliverer.claim()
        sending.cancel()
        await asyncio.wait([sending])
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.lease_token, email.expired_leases) == (taken.lease_token, 1)


# --- leases ----------------------------------------------------------------------------------


async def test_poison_is_never_sent_again_after_so_many_expired_leases(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    innocent = await stage.post(await stage.user(), Request(NotificationType.TASK))
    for _ in range(stage.settings.delivery_max_expired_leases):
        assert len(await stage.worker.deliverer.claim()) == 1
        stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    assert await stage.worker.deliverer.deliver() == 1
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.attempts) == ("failed", "poison", 1)
    assert email.error_message == "Workers died while sending it, 2 times."
    assert await stage.events(stored) == [("failed", "poison")]
    assert await requests(stage) == 0
    assert (await stage.delivery(innocent, Channel.EMAIL)).expired_leases == 0


async def test_a_worker_s_death_uses_up_no_attempt(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.worker.deliverer.claim()
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    await stage.fault(kind="status", status=503, times=2)
    for _ in range(stage.settings.delivery_max_attempts):
        await stage.worker.deliverer.deliver()
        stage.clock.advance(minutes=1)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.attempts, email.expired_leases) == ("sent", 3, 1)


async def test_failed_attempts_are_no_expired_leases(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=503, times=2)
    for _ in range(3):
        await stage.worker.deliverer.deliver()
        stage.clock.advance(minutes=1)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.expired_leases) == ("sent", 0)


# --- showing what was held -------------------------------------------------------------------


async def scheduled_in_app(stage: Stage) -> Any:
    later = START + timedelta(minutes=1)
    stored = await stage.post(
        await stage.user(), Request(NotificationType.TASK, send_email=False, send_at=later)
    )
    stage.clock.advance(minutes=1)
    return stored


async def shown(stage: Stage, stored: Any) -> tuple[int | None, int, str]:
    (row,) = await stage.rows(
        "SELECT n.position, i.seq, d.status FROM notifications n"
        " JOIN inbox_state i USING (user_id)"
        " JOIN notification_deliveries d ON d.notification_id = n.id"
        " WHERE n.id = :id AND d.channel = 'in_app'",
        id=stored.id,
    )
    return row.position, row.seq, row.status


async def test_a_late_worker_shows_nothing_that_another_has_taken_over(stage: Stage) -> None:
    stored = await scheduled_in_app(stage)
    late = await stage.worker.deliverer.claim()
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    held = await stage.worker.deliverer.claim()
    await stage.worker.deliverer.dispatch(late)
    assert await shown(stage, stored) == (None, 0, "pending")
    await stage.worker.deliverer.dispatch(held)
    assert await shown(stage, stored) == (1, 1, "sent")
    assert await stage.events(stored) == [("sent", "sent_now")]


async def test_a_position_and_its_outcome_are_committed_as_one(stage: Stage) -> None:
    stored = await scheduled_in_app(stage)
    table = "ALTER TABLE notification_deliveries"
    await test_migrations.run(
        stage.settings, f"{table} ADD CONSTRAINT broken CHECK (status <> 'sent') NOT VALID"
    )
    await stage.worker.deliverer.deliver()
    assert await shown(stage, stored) == (None, 0, "pending")
    await test_migrations.run(stage.settings, f"{table} DROP CONSTRAINT broken")
    stage.clock.advance(minutes=1)
    await stage.worker.deliverer.deliver()
    assert await shown(stage, stored) == (1, 1, "sent")
    assert await stage.events(stored) == [("retry", "internal_error"), ("sent", "sent_now")]


# --- time ------------------------------------------------------------------------------------


async def test_thousands_of_waiting_rows_are_not_read_to_find_one_that_is_due(
    stage: Stage,
) -> None:
    user = await stage.user()
    waiting = await stage.post(user, Request(NotificationType.TASK, send_email=False))
    # Held ones of every channel and urgency, and some that are parked for a digest.
    await stage.rows(
        "INSERT INTO notification_deliveries"
        " (notification_id, user_id, channel, urgency, next_attempt_at, digest_slot)"
        " SELECT :id, :user, (ARRAY['push', 'in_app', 'email'])[1 + n % 3], n % 4,"
        " CAST(:later AS timestamptz) + n * interval '1 second',"
        " CASE WHEN n % 5 = 0 THEN CAST(:now AS timestamptz) END"
        " FROM generate_series(1, 10000) n RETURNING 1",
        id=waiting.id,
        user=user,
        later=START + timedelta(hours=1),
        now=START - timedelta(hours=1),
    )
    await test_migrations.run(stage.settings, "ANALYZE notification_deliveries")
    due = await stage.post(await stage.user())

    scans = [scan async for scan in scans_of_a_claim(stage)]

    assert {scan["Index Name"] for scan in scans} == {
        "idx_notification_deliveries_due",
        "notification_deliveries_pkey",
    }
    # Found once, locked once; rows are told as a mean of the loops.
    assert round(sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans)) == 2
    assert all(scan.get("Rows Removed by Filter", 0) == 0 for scan in scans)
    assert await stage.worker.deliverer.next_due() == START
    (claim,) = await stage.worker.deliverer.claim()
    assert claim.notification_id == due.id


async def scans_of_a_claim(stage: Stage) -> AsyncGenerator[dict[str, Any]]:
    """The nodes of the claim's plan, as it ran, that read deliveries."""
    rooms = stage.worker.deliverer.lanes.room()
    parameters = {
        "channels": [room.channel.value for room in rooms],
        "free": [room.free for room in rooms],
        "ordinary": [room.ordinary for room in rooms],
        "limit": None,
        "now": START,
        "token": "00000000-0000-0000-0000-000000000001",
        "lease_until": START + timedelta(seconds=30),
    }
    explain = text(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) {CLAIM_OTHERS.text}")
    async with stage.database.as_service() as connection:
        plan: Any = (await connection.execute(explain, parameters)).scalar()
        await connection.rollback()
    nodes: list[dict[str, Any]] = [plan[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node.get("Relation Name") == "notification_deliveries" and "Scan" in node["Node Type"]:
            yield node


async def test_a_schedule_outlives_the_worker_and_fires_not_before_its_time(stage: Stage) -> None:
    stage.clock.now = datetime.now(UTC)
    send_at = stage.clock.now + timedelta(seconds=2)
    user = await stage.user()
    async with open_worker(stage.settings) as worker, running(worker):
        stored = await stage.post(
            user, Request(NotificationType.TASK, Priority.HIGH, send_email=True, send_at=send_at)
        )

    async def mailed() -> bool:
        return len(await stage.mails()) == 1

    async with open_worker(stage.settings) as worker, running(worker):
        await eventually(mailed)
    (mail,) = await stage.mails()
    assert datetime.fromisoformat(mail["received_at"]) >= send_at
    assert await shown(stage, stored) == (1, 1, "sent")


async def test_a_stage_without_anything_due_waits(stage: Stage) -> None:
    assert await stage.worker.deliverer.next_due() is None
    stored = await stage.post(
        await stage.user(),
        Request(
            URGENT_MAIL.type,
            URGENT_MAIL.priority,
            send_email=True,
            send_at=START + timedelta(days=1),
        ),
    )
    assert await stage.worker.deliverer.next_due() == START + timedelta(days=1)
    assert await stage.worker.deliverer.deliver() == 0
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "pending"
