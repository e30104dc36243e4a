"""Pushes in the queue of record: one for each device, and what they show of devices."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.channels.base import (
    Claim,
    Deferred,
    Device,
    DeviceFate,
    Failed,
    Outcome,
    Report,
    Retry,
    Sent,
)
from app.db.database import Database
from app.errors import Unavailable
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Deliverer
from app.pipeline.receipt import Receipt
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel, DeviceKind, NotificationType, Priority, Reason
from app.policy.routing import Request
from app.ratelimit.user_limits import UserLimits
from app.services.cancel_service import CancelService
from tests.integration import test_pipeline
from tests.integration.test_pipeline import START, Stage
from tests.ports import free_ports

stage = test_pipeline.stage
PUSH = Request(NotificationType.TASK, Priority.HIGH, send_email=False)
REFUSED = Failed(Reason.DEVICE_REFUSED, "400", DeviceFate.COUNT)
GONE = Failed(Reason.DEVICE_GONE, "410", DeviceFate.REMOVE)


@dataclass
class ToldSender:
    """Ends each push as it is told to for its device; `Sent` where nothing was said."""

    channel: ClassVar[Channel] = Channel.PUSH
    outcomes: dict[UUID, Outcome] = field(default_factory=dict[UUID, Outcome])
    claims: list[Claim] = field(default_factory=list[Claim])

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        for claim in claims:
            assert claim.device is not None
            self.claims.append(claim)
            report(claim, self.outcomes.get(claim.device.id, Sent("p-1")))


@dataclass
class Pushes:
    """The queue with that sender, and what tests ask of it."""

    stage: Stage
    sender: ToldSender
    deliverer: Deliverer

    async def device(self, user: UUID, kind: DeviceKind = DeviceKind.WEB) -> UUID:
        device = uuid4()
        web = kind is DeviceKind.WEB
        await self.stage.rows(
            "INSERT INTO push_subscriptions (id, user_id, kind, endpoint, p256dh_key, auth_key,"
            " fcm_token, fcm_token_hash, device_info) VALUES (:id, :user, :kind,"
            " CAST(:endpoint AS text), CAST(:p256dh AS text), CAST(:auth AS text),"
            " CAST(:token AS bytea), CAST(:hash AS bytea),"
            """ '{"platform": "ios"}') RETURNING id""",
            id=device,
            user=user,
            kind=kind.value,
            endpoint=f"https://push.example/{device}" if web else None,
            p256dh="key" if web else None,
            auth="secret" if web else None,
            token=None if web else b"token",
            hash=None if web else device.bytes,
        )
        return device

    async def deliver(self) -> int:
        return await self.deliverer.deliver()

    async def devices(self) -> dict[UUID, tuple[int, bool]]:
        rows = await self.stage.rows("SELECT id, failure_count, is_active FROM push_subscriptions")
        return {row.id: (row.failure_count, row.is_active) for row in rows}

    async def rows(self, stored: Receipt) -> list[tuple[UUID | None, str, str]]:
        rows = await self.stage.rows(
            "SELECT device_id, status, reason FROM notification_deliveries"
            " WHERE notification_id = :id AND channel = 'push' ORDER BY id",
            id=stored.id,
        )
        return [(row.device_id, row.status, row.reason) for row in rows]


@pytest.fixture
async def pushes(stage: Stage) -> AsyncGenerator[Pushes]:
    sender = ToldSender()
    policy = retry_policy(stage.settings)
    async with Recorder(stage.database, policy, stage.clock) as recorder:
        audience = Audience(Defaults.from_settings(stage.settings))
        limits = UserLimits(stage.database, audience.defaults.limits)
        reconsiderer = Reconsiderer(stage.database, audience, limits)
        deliverer = Deliverer(
            stage.settings, stage.database, [sender], reconsiderer, recorder, stage.clock
        )
        yield Pushes(stage, sender, deliverer)


# --- what is queued --------------------------------------------------------------------------


async def test_every_device_has_a_delivery_of_its_own(pushes: Pushes, stage: Stage) -> None:
    user, other = await stage.user(), await stage.user()
    browser = await pushes.device(user)
    phone = await pushes.device(user, DeviceKind.FCM)
    await pushes.device(other)
    stored = await stage.post(user, PUSH)
    assert stored.channels == (Channel.PUSH, Channel.IN_APP)
    assert await pushes.rows(stored) == [
        (browser, "pending", "sent_now"),
        (phone, "pending", "sent_now"),
    ]
    assert await pushes.deliver() == 2
    devices = {claim.device.id: claim.device for claim in pushes.sender.claims if claim.device}
    assert devices == {
        browser: Device(
            browser,
            DeviceKind.WEB,
            endpoint=f"https://push.example/{browser}",
            p256dh="key",
            auth="secret",
            vapid_key_id=None,
            fcm_token=None,
            platform="ios",
        ),
        phone: Device(phone, DeviceKind.FCM, None, None, None, None, b"token", "ios"),
    }
    assert {row[1] for row in await pushes.rows(stored)} == {"sent"}


async def test_the_badge_is_the_whole_inbox_when_the_push_goes_out(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    await pushes.device(user)
    await stage.post(user, PUSH)
    await stage.post(user, replace(PUSH, type=NotificationType.BILLING))
    await pushes.deliver()
    assert [claim.unread_count for claim in pushes.sender.claims] == [2, 2]


async def test_without_a_device_nothing_is_queued(pushes: Pushes, stage: Stage) -> None:
    stored = await stage.post(await stage.user(), PUSH)
    assert stored.channels == (Channel.IN_APP,)
    assert await pushes.rows(stored) == []


async def test_a_disabled_device_gets_nothing(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    stored = await stage.post(user, PUSH)
    await stage.rows("UPDATE push_subscriptions SET is_active = false RETURNING id")
    await pushes.deliver()
    assert await pushes.rows(stored) == [(device, "skipped", "no_device")]
    assert (await stage.post(user, PUSH)).channels == (Channel.IN_APP,)


async def test_a_device_that_goes_meanwhile_is_skipped(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    await pushes.device(user)
    stored = await stage.post(user, PUSH)
    await stage.rows("DELETE FROM push_subscriptions RETURNING id")
    await pushes.deliver()
    assert await pushes.rows(stored) == [(None, "skipped", "no_device")]


async def test_creating_while_devices_come_and_go_never_fails(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()

    async def come_and_go() -> None:
        for _ in range(40):
            device = await pushes.device(user)
            await stage.rows(
                "DELETE FROM push_subscriptions WHERE id = :id RETURNING id", id=device
            )

    async def create() -> None:
        for _ in range(40):
            await stage.post(user, PUSH)

    await asyncio.gather(*(come_and_go() for _ in range(3)), *(create() for _ in range(3)))
    assert await stage.rows("SELECT count(*) FROM notifications") == [(120,)]


# --- silent ----------------------------------------------------------------------------------


async def test_a_silent_push_goes_to_apps_alone_and_is_in_no_inbox(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    await pushes.device(user)
    phone = await pushes.device(user, DeviceKind.FCM)
    stored = await stage.post(user, replace(PUSH, silent=True))
    assert stored.channels == (Channel.PUSH,)
    assert await pushes.rows(stored) == [(phone, "pending", "sent_now")]
    assert await stage.rows("SELECT seq, unread FROM inbox_state") == [(0, {})]


async def test_a_silent_push_to_browsers_alone_says_why_it_goes_nowhere(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    await pushes.device(user)
    stored = await stage.post(user, replace(PUSH, silent=True))
    assert stored.channels == ()
    ((outcomes,),) = await stage.rows("SELECT outcomes FROM notification_decisions")
    assert [item["reason"] for item in outcomes] == ["silent_needs_fcm", "silent", "silent"]


# --- what pushes show of devices -------------------------------------------------------------


async def test_a_gone_device_is_removed_at_once_and_delays_no_other(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    gone, alive = await pushes.device(user), await pushes.device(user)
    pushes.sender.outcomes[gone] = GONE
    stored = await stage.post(user, PUSH)
    await pushes.deliver()
    assert await pushes.devices() == {alive: (0, True)}
    assert await pushes.rows(stored) == [
        (None, "failed", "device_gone"),
        (alive, "sent", "sent_now"),
    ]


async def test_the_third_refusal_in_a_row_removes(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    counts: list[int | None] = []
    for outcome in (REFUSED, REFUSED, Sent(), REFUSED, REFUSED, REFUSED):
        pushes.sender.outcomes[device] = outcome
        await stage.post(user, PUSH)
        await pushes.deliver()
        found = (await pushes.devices()).get(device)
        counts.append(None if found is None else found[0])
    assert counts == [1, 2, 0, 1, 2, None]


async def test_refusals_that_are_recorded_together_count_each(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    pushes.sender.outcomes[device] = REFUSED
    for _ in range(3):
        await stage.post(user, PUSH)
    assert await pushes.deliver() == 3
    assert await pushes.devices() == {}


async def test_faults_of_the_service_never_count(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    pushes.sender.outcomes[device] = Retry(Reason.PROVIDER_UNAVAILABLE, "503")
    await stage.post(user, PUSH)
    for _ in range(3):
        await pushes.deliver()
        stage.clock.advance(hours=2)
    assert await pushes.devices() == {device: (0, True)}


async def test_a_device_of_another_project_is_disabled(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user, DeviceKind.FCM)
    pushes.sender.outcomes[device] = Failed(Reason.DEVICE_REFUSED, "x", DeviceFate.DISABLE)
    await stage.post(user, PUSH)
    await pushes.deliver()
    assert await pushes.devices() == {device: (0, False)}


async def test_a_sent_push_shows_that_its_device_is_used_and_its_key(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    pushes.sender.outcomes[device] = Sent("p-1", vapid_key_id="key-2")
    stored = await stage.post(user, PUSH)
    await pushes.deliver()
    assert await stage.rows("SELECT last_used_at, vapid_key_id FROM push_subscriptions") == [
        (START, "key-2")
    ]
    push = await stage.delivery(stored, Channel.PUSH)
    assert (push.status, push.provider_id, push.sent_at) == ("sent", "p-1", START)


async def test_devices_are_locked_in_the_order_in_which_they_are_removed(
    pushes: Pushes, stage: Stage
) -> None:
    """Or storing for many users, and removing many devices, would wait for each other."""
    users = sorted([await stage.user(), await stage.user()])
    ids = sorted([uuid4(), uuid4()])
    for user, wanted in zip(reversed(users), ids, strict=True):
        made = await pushes.device(user)
        move = "UPDATE push_subscriptions SET id = :to WHERE id = :id RETURNING id"
        await stage.rows(move, id=made, to=wanted)
    lock = text("SELECT FROM push_subscriptions WHERE id = :id FOR UPDATE NOWAIT")
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"

    async def store() -> None:
        async with stage.database.group_as_service() as driver:
            audience = Audience(Defaults.from_settings(stage.settings))
            await audience.lock(driver, [stage.draft(user) for user in users])

    async with stage.database.as_service() as connection:
        await connection.execute(lock, {"id": ids[0]})
        storing = asyncio.create_task(store())
        async with asyncio.timeout(10):
            while not storing.done() and not await stage.rows(waits):
                await asyncio.sleep(0.01)
        await connection.execute(lock, {"id": ids[1]})
    await asyncio.gather(storing, return_exceptions=True)


# --- deferring -------------------------------------------------------------------------------


async def test_a_deferral_waits_exactly_and_is_no_attempt(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    stored = await stage.post(user, PUSH)
    pushes.sender.outcomes[device] = Deferred(Reason.PROVIDER_LIMIT, "429", after=61)
    for number in range(1, 21):  # far more often than there are attempts
        assert await pushes.deliver() == 1
        push = await stage.delivery(stored, Channel.PUSH)
        assert (push.status, push.attempts, push.reason) == ("pending", 0, "provider_limit")
        assert push.next_attempt_at == START + timedelta(seconds=61 * number)
        stage.clock.advance(seconds=60)
        assert await pushes.deliver() == 0
        stage.clock.advance(seconds=1)
    pushes.sender.outcomes[device] = Sent()
    await pushes.deliver()
    assert (await stage.delivery(stored, Channel.PUSH)).attempts == 1
    assert await stage.events(stored) == [("deferred", "provider_limit"), ("sent", "sent_now")]


async def test_a_sender_knows_since_when_it_could_go_out(pushes: Pushes, stage: Stage) -> None:
    user, send_at = await stage.user(), START + timedelta(days=3)
    await pushes.device(user)
    await stage.post(user, replace(PUSH, send_at=send_at))
    stage.clock.advance(seconds=3 * 86_400)
    await pushes.deliver()
    assert [claim.send_at for claim in pushes.sender.claims] == [send_at]


async def test_what_is_cancelled_while_it_is_put_off_ends(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    stored = await stage.post(user, PUSH)
    pushes.sender.outcomes[device] = Deferred(Reason.PROVIDER_UNAVAILABLE, "ill", after=1)
    (claim,) = await pushes.deliverer.claim()
    await CancelService(stage.database, stage.clock).cancel(stored.id, by="tests")
    await pushes.deliverer.dispatch([replace(claim)])
    assert await pushes.rows(stored) == [(device, "cancelled", "cancelled")]


async def test_what_cannot_be_decided_for_now_is_no_attempt_and_no_death(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    await pushes.device(user)
    stored = await stage.post(user, PUSH)
    (port,) = free_ports(1)
    nowhere = SecretStr(f"postgresql://nobody@127.0.0.1:{port}/nothing")
    away = Database(stage.settings.model_copy(update={"database_url": nowhere}))
    audience = Audience(Defaults.from_settings(stage.settings))
    limits = UserLimits(away, audience.defaults.limits)
    async with Recorder(stage.database, retry_policy(stage.settings), stage.clock) as recorder:
        deliverer = Deliverer(
            stage.settings,
            stage.database,
            [pushes.sender],
            Reconsiderer(away, audience, limits),
            recorder,
            stage.clock,
        )
        for _ in range(stage.settings.delivery_max_expired_leases + 1):
            with pytest.raises(Unavailable):
                await deliverer.deliver()
            stage.clock.advance(seconds=1)
    await away.close()
    row = await stage.delivery(stored, Channel.PUSH)
    assert (row.status, row.attempts, row.expired_leases) == ("pending", 0, 0)
    await pushes.deliver()
    assert [claim.attempts for claim in pushes.sender.claims] == [1]


# --- acknowledged while it was being sent ----------------------------------------------------


@pytest.mark.parametrize("outcome", [Sent("p-1"), Retry(Reason.PROVIDER_UNAVAILABLE, "no answer")])
async def test_what_its_device_acknowledged_first_stays_delivered(
    pushes: Pushes, stage: Stage, outcome: Outcome
) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    stored = await stage.post(user, PUSH)
    claims = await pushes.deliverer.claim()
    await stage.rows(
        "UPDATE notification_deliveries SET status = 'delivered', delivered_at = :now,"
        " next_attempt_at = NULL WHERE channel = 'push' RETURNING id",
        now=START,
    )
    pushes.sender.outcomes[device] = outcome
    await pushes.deliverer.dispatch(claims)
    push = await stage.delivery(stored, Channel.PUSH)
    assert (push.status, push.lease_token, push.next_attempt_at) == ("delivered", None, None)
    assert (push.sent_at, push.failed_at) == (START, None)
