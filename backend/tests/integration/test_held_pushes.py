"""Held pushes: released when quiet time ends, told as one when they are many, dropped when read."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.channels.base import Claim, Deferred, Report, Retry, Sent
from app.config import Settings
from app.errors import NotFound
from app.pipeline.announce import Announcement
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Deliverer
from app.pipeline.draft import Content, Draft
from app.pipeline.receipt import Receipt
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel, DeviceKind, NotificationType, Priority, Reason
from app.policy.routing import Request
from app.ratelimit.user_limits import UserLimits
from app.services.cancel_service import CancelService
from app.services.inbox_changes import InboxChanges
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, Stage
from tests.integration.test_push_queue import Pushes, ToldSender

stage = test_pipeline.stage
pushes = test_push_queue.pushes

PUSH = Request(NotificationType.TASK, Priority.NORMAL, send_email=False)
HIGH = replace(PUSH, priority=Priority.HIGH)
EVENING = START + timedelta(hours=8)  # when the quiet time ends that START lies in
QUIET = {str(START.isoweekday()): [["10:00", "20:00"]]}


@dataclass
class MailSender:
    """Takes every email."""

    channel: ClassVar[Channel] = Channel.EMAIL
    claims: list[Claim] = field(default_factory=list[Claim])

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        for claim in claims:
            self.claims.append(claim)
            report(claim, Sent())


@asynccontextmanager
async def a_worker(
    stage: Stage, *senders: ToldSender | MailSender, **settings: Any
) -> AsyncGenerator[Deliverer]:
    """Another worker; settings are its own."""
    changed: Settings = stage.settings.model_copy(update=settings)
    async with Recorder(stage.database, retry_policy(changed), stage.clock) as recorder:
        yield Deliverer(
            changed, stage.database, senders, reconsiderer(stage, changed), recorder, stage.clock
        )


def reconsiderer(stage: Stage, settings: Settings) -> Reconsiderer:
    audience = Audience(Defaults.from_settings(settings))
    limits = UserLimits(stage.database, audience.defaults.limits)
    return Reconsiderer(stage.database, audience, limits)


async def quiet_user(stage: Stage, quiet: object = QUIET) -> UUID:
    user = await stage.user()
    await stage.rows(
        "UPDATE notification_recipients SET timezone = 'UTC', quiet_hours = CAST(:quiet AS jsonb)"
        " WHERE user_id = :id RETURNING 1",
        id=user,
        quiet=orjson.dumps(quiet).decode(),
    )
    return user


async def post(
    stage: Stage, user: UUID, title: str, request: Request = PUSH, **data: Any
) -> Receipt:
    stage.clock.advance(milliseconds=1)
    content = Content(title, title, f"<p>{title}</p>", data)
    return await stage.groups.store(Draft(uuid7(), user, "tests", request, content, stage.clock()))


async def post_many(
    stage: Stage, user: UUID, number: int, request: Request = PUSH
) -> list[Receipt]:
    return [await post(stage, user, f"title {place}", request) for place in range(number)]


async def states(stage: Stage, stored: Sequence[Receipt]) -> list[tuple[str, str]]:
    """Of the pushes, in the order of creation."""
    rows = await stage.rows(
        "SELECT status, reason FROM notification_deliveries"
        " WHERE notification_id = ANY(:ids) AND channel = 'push' ORDER BY notification_id, id",
        ids=[item.id for item in stored],
    )
    return [(row.status, row.reason) for row in rows]


async def is_empty(stage: Stage) -> bool:
    """Whether nothing is left to be pushed."""
    found = await stage.rows(
        "SELECT 1 FROM notification_deliveries WHERE channel = 'push' AND status = 'pending'"
    )
    return not found


def sent(sender: ToldSender) -> list[tuple[str, int | None]]:
    return [(claim.title, claim.summarises) for claim in sender.claims]


# --- released --------------------------------------------------------------------------------


async def test_three_held_pushes_go_out_each_by_itself(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post_many(stage, user, 3)
    assert await states(stage, stored) == [("pending", "quiet_hours")] * 3
    stage.clock.now = EVENING - timedelta(seconds=1)
    assert await pushes.deliver() == 0
    stage.clock.now = EVENING
    await pushes.deliver()
    assert sent(pushes.sender) == [(f"title {place}", None) for place in range(3)]
    assert await states(stage, stored) == [("sent", "sent_now")] * 3


async def test_more_than_three_become_one(pushes: Pushes, stage: Stage) -> None:
    """The most urgent carries it, of these the newest; it tells of the latest."""
    user = await quiet_user(stage)
    device = await pushes.device(user)
    stored = await post_many(stage, user, 5)
    stored.append(await post(stage, user, "urgent 1", HIGH))
    stored.append(await post(stage, user, "urgent 2", HIGH))
    stored.append(await post(stage, user, "last"))
    stage.clock.now = EVENING
    await pushes.deliver()
    (claim,) = pushes.sender.claims
    assert (claim.title, claim.summarises, claim.unread_count) == ("urgent 2", 8, 8)
    assert claim.titles == ("last", "urgent 1", "title 4", "title 3", "title 2")
    skipped = ("skipped", "summarised")
    assert await states(stage, stored) == [*[skipped] * 6, ("sent", "sent_now"), skipped]
    carrier = stored[6]
    rows = await stage.rows(
        "SELECT notification_id, event, reason, device_id, detail FROM notification_events"
        " WHERE channel = 'push' ORDER BY notification_id, id"
    )
    told = {"summarised_by": str(carrier.id)}
    latest = [str(stored[place].id) for place in (7, 5, 4, 3, 2)]
    assert [tuple(row) for row in rows if row.notification_id != carrier.id] == [
        (item.id, "skipped", "summarised", device, told) for item in stored if item is not carrier
    ]
    assert [tuple(row)[1:] for row in rows if row.notification_id == carrier.id] == [
        ("summary", "quiet_hours", device, {"summarises": 8, "latest": latest}),
        ("sent", "sent_now", device, {"attempt": 1, "provider_id": "p-1"}),
    ]
    counted = await stage.rows(
        "SELECT notification_id FROM notification_deliveries"
        " WHERE channel = 'push' AND counted_at IS NOT NULL"
    )
    assert counted == [(carrier.id,)]
    assert {row.attempts for row in await stage.rows(
        "SELECT attempts FROM notification_deliveries WHERE reason = 'summarised'"
    )} == {0}  # fmt: skip


async def test_each_device_is_told_for_itself(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    first = await pushes.device(user)
    await post_many(stage, user, 2)
    second = await pushes.device(user, DeviceKind.FCM)
    await post_many(stage, user, 3)
    stage.clock.now = EVENING
    await pushes.deliver()
    told = Counter(
        (claim.device.id, claim.summarises) for claim in pushes.sender.claims if claim.device
    )
    assert told == {(first, 5): 1, (second, None): 3}


async def test_users_are_told_for_themselves(pushes: Pushes, stage: Stage) -> None:
    users = [await quiet_user(stage) for _ in range(3)]
    for number, user in enumerate(users, start=3):
        await pushes.device(user)
        await post_many(stage, user, number)
    stage.clock.now = EVENING
    await pushes.deliver()
    told = Counter((claim.user_id, claim.summarises) for claim in pushes.sender.claims)
    assert told == {(users[0], None): 3, (users[1], 4): 1, (users[2], 5): 1}


async def test_a_pause_ends_as_quiet_hours_do(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage, {})
    until = START + timedelta(minutes=5)
    await stage.rows(
        "UPDATE notification_recipients SET pause_until = :until RETURNING 1", until=until
    )
    await pushes.device(user)
    await post_many(stage, user, 4)
    assert await pushes.deliver() == 0
    stage.clock.now = until
    await pushes.deliver()
    assert sent(pushes.sender) == [("title 3", 4)]


async def test_silent_pushes_show_nothing_and_go_out_each(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user, DeviceKind.FCM)
    for place in range(4):
        await post(stage, user, f"silent {place}", replace(PUSH, silent=True), silent=True)
    await post_many(stage, user, 4)
    stage.clock.now = EVENING
    await pushes.deliver()
    assert sent(pushes.sender) == [
        *[(f"silent {place}", None) for place in range(4)], ("title 3", 4)
    ]  # fmt: skip


async def test_critical_is_neither_held_nor_summarised(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    await post_many(stage, user, 4)
    await post(stage, user, "now", replace(PUSH, priority=Priority.CRITICAL))
    await pushes.deliver()
    stage.clock.now = EVENING
    await pushes.deliver()
    assert sent(pushes.sender) == [("now", None), ("title 3", 4)]


async def test_what_goes_on_being_quiet_for_its_type_stays_held(
    pushes: Pushes, stage: Stage
) -> None:
    """Preferences that change make all due, though some of it is quiet still."""
    user = await quiet_user(stage)
    await pushes.device(user)
    tasks = await post_many(stage, user, 2)
    bills = await post_many(stage, user, 3, replace(PUSH, type=NotificationType.BILLING))
    await stage.rows(
        "INSERT INTO notification_preferences (user_id, notification_type, quiet_hours_start,"
        " quiet_hours_end) VALUES (:id, 'billing', '11:00', '14:00') RETURNING 1",
        id=user,
    )
    await stage.rows("UPDATE inbox_state SET choices_version = 1 RETURNING 1")
    await stage.rows("UPDATE notification_recipients SET quiet_hours = NULL RETURNING 1")
    await stage.rows(
        "UPDATE notification_deliveries SET next_attempt_at = :now"
        " WHERE reason = 'quiet_hours' RETURNING 1",
        now=START,
    )
    await pushes.deliver()
    assert await states(stage, tasks) == [("sent", "sent_now")] * 2
    assert await states(stage, bills) == [("pending", "quiet_hours")] * 3
    assert len(pushes.sender.claims) == 2
    stage.clock.advance(hours=2)
    await pushes.deliver()
    assert len(pushes.sender.claims) == 5


async def test_only_the_carrier_uses_up_the_limit(stage: Stage, pushes: Pushes) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    await post_many(stage, user, 20)
    stage.clock.now = EVENING
    async with a_worker(stage, pushes.sender, rate_limit_push_per_hour=2) as worker:
        await worker.deliver()
        assert sent(pushes.sender) == [("title 19", 20)]
        for place in range(2):
            await post(stage, user, f"later {place}")
        await worker.deliver()
    assert [claim.title for claim in pushes.sender.claims[1:]] == ["later 0"]


async def test_a_summary_that_waits_for_the_limit_stays_one(pushes: Pushes, stage: Stage) -> None:
    windows = [["10:00", "19:30"], ["19:31", "20:00"]]
    user = await quiet_user(stage, {str(START.isoweekday()): windows})
    await pushes.device(user)
    async with a_worker(stage, pushes.sender, rate_limit_push_per_hour=1) as worker:

        async def at(hour: int, minute: int) -> None:
            stage.clock.now = START.replace(hour=hour, minute=minute)
            await worker.deliver()

        await at(19, 30)
        await post(stage, user, "first")
        await worker.deliver()
        await at(19, 31)
        await post_many(stage, user, 4)
        await at(20, 0)
        assert await worker.deliver() == 0
        await at(20, 31)
        assert sent(pushes.sender) == [("first", None), ("title 3", 4)]
        assert pushes.sender.claims[1].titles == ("title 2", "title 1", "title 0")


async def test_a_summary_that_is_held_again_is_one_of_the_next(
    pushes: Pushes, stage: Stage
) -> None:
    """When the next quiet time begins before there is room, it counts for what it stands for."""
    windows = [["10:00", "19:40"], ["19:41", "20:00"], ["20:30", "22:00"]]
    user = await quiet_user(stage, {str(START.isoweekday()): windows})
    await pushes.device(user)
    async with a_worker(stage, pushes.sender, rate_limit_push_per_hour=1) as worker:

        async def at(hour: int, minute: int) -> None:
            stage.clock.now = START.replace(hour=hour, minute=minute)
            await worker.deliver()

        await at(19, 40)
        await post(stage, user, "first")
        await worker.deliver()
        await at(19, 50)
        await post_many(stage, user, 4)
        await at(20, 0)
        await at(20, 41)
        await post(stage, user, "last")
        await at(22, 0)
    assert sent(pushes.sender) == [("first", None), ("last", 5)]


# --- left out --------------------------------------------------------------------------------


async def test_what_is_read_or_has_expired_is_not_told_of(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    expiring = replace(PUSH, expires_at=EVENING)
    stored = [
        *await post_many(stage, user, 3),
        *await post_many(stage, user, 2, expiring),
        *await post_many(stage, user, 2),
    ]
    changes = InboxChanges(stage.database, lambda _: None, stage.clock)
    await changes.mark_read(user, stored[5].id)
    await CancelService(stage.database, stage.clock).cancel(stored[6].id, by="tests")
    stage.clock.now = EVENING
    await pushes.deliver()
    assert await states(stage, stored) == [
        *[("sent", "sent_now")] * 3,
        *[("skipped", "expired")] * 2,
        ("skipped", "read_elsewhere"),
        ("cancelled", "cancelled"),
    ]
    assert len(pushes.sender.claims) == 3


async def test_what_is_read_between_claim_and_sending_is_not_told_of(
    pushes: Pushes, stage: Stage
) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post_many(stage, user, 5)
    stage.clock.now = EVENING
    claims = await pushes.deliverer.claim()
    changes = InboxChanges(stage.database, lambda _: None, stage.clock)
    for item in stored[2:]:
        await changes.mark_read(user, item.id)
    await pushes.deliverer.dispatch(claims)
    assert await states(stage, stored) == [
        *[("sent", "sent_now")] * 2, *[("skipped", "read_elsewhere")] * 3
    ]  # fmt: skip


# --- several workers -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_whoever_comes_first_summarises_what_others_have_claimed(
    pushes: Pushes, stage: Stage, order: tuple[int, int]
) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post_many(stage, user, 6)
    stage.clock.now = EVENING
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(a_worker(stage, pushes.sender, delivery_slots=4))
            for _ in range(2)
        ]
        claims = [await worker.claim() for worker in workers]
        assert [len(batch) for batch in claims] == [3, 3]  # a slot is kept for critical ones
        for place in order:
            await workers[place].dispatch(claims[place])
            assert workers[place].lanes.room()[0].free == 4
        while await workers[0].deliver():
            pass
    assert sent(pushes.sender) == [("title 5", 6)]
    assert await states(stage, stored) == [*[("skipped", "summarised")] * 5, ("sent", "sent_now")]
    (carrier,) = await stage.rows(
        "SELECT attempts FROM notification_deliveries WHERE channel = 'push' AND status = 'sent'"
    )
    assert carrier.attempts == 1


@pytest.mark.parametrize("number", [3, 4, 17])
async def test_however_many_workers_race_a_user_is_told_once(
    pushes: Pushes, stage: Stage, number: int
) -> None:
    users = [await quiet_user(stage) for _ in range(4)]
    for user in users:
        await pushes.device(user)
        await post_many(stage, user, number)
    stage.clock.now = EVENING
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(a_worker(stage, pushes.sender, delivery_slots=slots))
            for slots in (3, 3, 4, 8)
        ]

        async def work(worker: Deliverer) -> None:
            while not await is_empty(stage):
                await worker.deliver()

        async with asyncio.timeout(60):
            await asyncio.gather(*map(work, workers))
    told = Counter((claim.user_id, claim.summarises) for claim in pushes.sender.claims)
    one_by_one = number == 3
    assert told == {(user, None if one_by_one else number): 3 if one_by_one else 1
                    for user in users}  # fmt: skip


async def test_what_is_on_its_way_is_not_told_of_again(pushes: Pushes, stage: Stage) -> None:
    """Two go out by themselves, and while they do, three more are due."""
    user = await quiet_user(stage)
    await pushes.device(user)
    await post_many(stage, user, 2)
    stage.clock.now = EVENING
    claims = await pushes.deliverer.claim()
    await reconsiderer(stage, stage.settings).reconsider(claims, EVENING)
    stage.clock.now = START
    await post_many(stage, user, 3)
    stage.clock.now = EVENING
    await pushes.deliver()
    assert sent(pushes.sender) == [(f"title {place}", None) for place in range(3)]


async def test_a_summary_outlives_the_worker_that_made_it(pushes: Pushes, stage: Stage) -> None:
    """It is due again at the lease's end, and tells the same."""
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post_many(stage, user, 5)
    stage.clock.now = EVENING
    claims = await pushes.deliverer.claim()
    found = await reconsiderer(stage, stage.settings).reconsider(claims, EVENING)
    assert [item.claim.summarises for item in found if item.outcome is None] == [5]
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds + 1)
    async with a_worker(stage, pushes.sender) as other:
        assert await other.deliver() == 1
    assert sent(pushes.sender) == [("title 4", 5)]
    assert pushes.sender.claims[0].titles == ("title 3", "title 2", "title 1", "title 0")
    assert await states(stage, stored) == [*[("skipped", "summarised")] * 4, ("sent", "sent_now")]


async def test_what_a_dead_worker_had_claimed_is_told_of(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    await post_many(stage, user, 6)
    stage.clock.now = EVENING
    async with a_worker(stage, pushes.sender, delivery_slots=4) as dead:
        assert len(await dead.claim()) == 3
    while await pushes.deliver():
        pass
    assert sent(pushes.sender) == [("title 5", 6)]
    stage.clock.advance(hours=1)
    assert await pushes.deliver() == 0


async def test_a_suspect_goes_alone(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    await post_many(stage, user, 3)
    suspect = await post(stage, user, "suspect", HIGH)
    await stage.rows(
        "UPDATE notification_deliveries SET expired_leases = 2, urgency = urgency + 4"
        " WHERE notification_id = :id AND channel = 'push' RETURNING 1",
        id=suspect.id,
    )
    stage.clock.now = EVENING
    async with a_worker(stage, pushes.sender, delivery_max_expired_leases=3) as worker:
        while await worker.deliver():
            pass
    assert sent(pushes.sender) == [
        *[(f"title {place}", None) for place in range(3)], ("suspect", None)
    ]  # fmt: skip


async def test_a_summary_that_fails_is_tried_again_as_one(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    device = await pushes.device(user)
    await post_many(stage, user, 4)
    stage.clock.now = EVENING
    pushes.sender.outcomes[device] = Retry(Reason.PROVIDER_UNAVAILABLE, "503")
    await pushes.deliver()
    del pushes.sender.outcomes[device]
    stage.clock.advance(hours=1)
    await pushes.deliver()
    assert sent(pushes.sender) == [("title 3", 4)] * 2
    assert len({claim.titles for claim in pushes.sender.claims}) == 1


async def test_a_busy_inbox_puts_off_and_loses_nothing(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post_many(stage, user, 4)
    stage.clock.now = EVENING
    async with stage.database.as_service() as connection:
        await connection.execute(text("SELECT FROM inbox_state FOR UPDATE"))
        await pushes.deliver()
        assert await states(stage, stored) == [("pending", "quiet_hours")] * 4
    stage.clock.advance(seconds=2)
    await pushes.deliver()
    assert sent(pushes.sender) == [("title 3", 4)]
    assert await stage.events(stored[3]) == [("summary", "quiet_hours"), ("sent", "sent_now")]


async def test_a_stuck_inbox_puts_off_nobody_else(pushes: Pushes, stage: Stage) -> None:
    stuck, other = await quiet_user(stage), await quiet_user(stage)
    for user in (stuck, other):
        await pushes.device(user)
        await post_many(stage, user, 4)
    stage.clock.now = EVENING
    async with holding_inbox(stage, stuck):
        await pushes.deliver()
        assert [claim.user_id for claim in pushes.sender.claims] == [other]
    stage.clock.advance(seconds=2)
    await pushes.deliver()
    assert sent(pushes.sender) == [("title 3", 4)] * 2


async def test_outcomes_wait_for_no_inbox(pushes: Pushes, stage: Stage) -> None:
    """What went out is recorded before its lease ends, whoever else it was claimed with."""
    stuck, other = await quiet_user(stage, {}), await stage.user()
    for user in (stuck, other):
        await pushes.device(user)
    held = await post(stage, stuck, "held")
    went = await post(stage, other, "went")
    await stage.rows(
        "UPDATE notification_recipients SET pause_until = :until WHERE user_id = :id RETURNING 1",
        until=EVENING,
        id=stuck,
    )
    async with holding_inbox(stage, stuck), asyncio.timeout(20):
        assert await pushes.deliver() == 2
        assert await states(stage, [held, went]) == [
            ("pending", "quiet_hours"), ("sent", "sent_now")
        ]  # fmt: skip
    # Who held the inbox may have been choosing: it is asked again soon, and held for the pause.
    stage.clock.advance(seconds=1)
    assert await pushes.deliver() == 1
    due = await stage.rows(
        "SELECT next_attempt_at FROM notification_deliveries WHERE status = 'pending'"
    )
    assert due == [(EVENING,)]


@asynccontextmanager
async def holding_inbox(stage: Stage, user: UUID) -> AsyncGenerator[None]:
    """Somebody who does not let go of a user's inbox."""
    async with stage.database.as_service() as connection:
        await connection.execute(
            text("SELECT FROM inbox_state WHERE user_id = :id FOR UPDATE"), {"id": user}
        )
        yield


@pytest.mark.parametrize("ends", ["read", "cancelled", "expired"])
async def test_a_summary_that_does_not_go_out_leaves_the_others_to_be_told_of(
    pushes: Pushes, stage: Stage, ends: str
) -> None:
    user = await quiet_user(stage)
    device = await pushes.device(user)
    stored = await post_many(stage, user, 5)
    brief = replace(PUSH, priority=Priority.HIGH, expires_at=EVENING + timedelta(minutes=10))
    carrier = await post(stage, user, "brief", brief)
    stage.clock.now = EVENING
    pushes.sender.outcomes[device] = Deferred(Reason.PROVIDER_UNAVAILABLE, "ill", 900.0)
    await pushes.deliver()
    assert sent(pushes.sender) == [("brief", 6)]
    assert await states(stage, stored) == [("skipped", "summarised")] * 5
    del pushes.sender.outcomes[device]
    match ends:
        case "read":
            changes = InboxChanges(stage.database, stage.announcer.announce, stage.clock)
            await changes.mark_read(user, carrier.id)
        case "cancelled":
            await CancelService(stage.database, stage.clock).cancel(carrier.id, by="tests")
        case _:
            stage.clock.now = EVENING + timedelta(minutes=15)
            await pushes.deliver()
    while await pushes.deliver():
        pass
    assert sent(pushes.sender)[1:] == [("title 4", 5)]
    assert await states(stage, stored) == [("skipped", "summarised")] * 4 + [("sent", "sent_now")]
    assert await is_empty(stage)


# --- read before it goes out -----------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How a user reads, and which session asks for it."""

    name: str
    read: Callable[[InboxChanges, UUID, UUID], Any]


READINGS = [
    Reading("one", lambda changes, user, id_: changes.mark_read(user, id_)),
    Reading("all", lambda changes, user, _: changes.mark_all_read(user)),
    Reading(
        "all of a type",
        lambda changes, user, _: changes.mark_all_read(user, notification_type="task"),
    ),
    Reading("delete", lambda changes, user, id_: changes.delete(user, id_)),
]


@dataclass(frozen=True)
class Wait:
    """What a notification is held for.

    Args:
        held: reason of the push and of the email.
        until: when it would go out.
    """

    request: Request
    held: tuple[str, str]
    until: datetime
    quiet: object = field(default_factory=dict[str, object])


WAITS = {
    "quiet hours, digest": Wait(
        replace(PUSH, send_email=None), ("quiet_hours", "digest"), EVENING, QUIET
    ),
    "limits": Wait(
        replace(PUSH, send_email=True), ("user_limit", "user_limit"), START + timedelta(days=1)
    ),
    "send_at within quiet hours": Wait(
        replace(PUSH, send_at=START + timedelta(hours=1)), ("quiet_hours", "-"), EVENING, QUIET
    ),
}


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.name)
@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
async def test_reading_anywhere_drops_what_is_held(
    pushes: Pushes, stage: Stage, wait: Wait, reading: Reading
) -> None:
    user = await quiet_user(stage, wait.quiet)
    await pushes.device(user)
    mails = MailSender()
    limits = {"rate_limit_push_per_hour": 1, "rate_limit_email_per_day": 1}
    async with a_worker(stage, pushes.sender, mails, **limits) as worker:
        if wait.held[0] == "user_limit":
            await post(stage, user, "used up", wait.request)
        stored = await post(stage, user, "held", wait.request)
        await worker.deliver()
        if wait.request.send_at is not None:
            stage.clock.now = wait.request.send_at
            await stage.worker.deliverer.deliver()  # which shows it in the inbox
        before = {row.channel: row.reason for row in await held(stage, stored)}
        assert before == {
            channel: reason
            for channel, reason in zip(("push", "email"), wait.held, strict=True)
            if reason != "-"
        }
        told: list[Announcement] = []
        await reading.read(InboxChanges(stage.database, told.append, stage.clock), user, stored.id)
        assert [change.user_id for item in told for change in item.changes] == [user]
        assert await held(stage, stored) == []
        sent_before = len(pushes.sender.claims), len(mails.claims)
        stage.clock.now = wait.until + timedelta(days=2)
        while await worker.deliver():
            pass
    assert (len(pushes.sender.claims), len(mails.claims)) == sent_before
    events = await stage.rows(
        "SELECT channel, event, reason FROM notification_events"
        " WHERE notification_id = :id AND channel <> 'in_app' AND event <> 'held' ORDER BY channel",
        id=stored.id,
    )
    assert [tuple(row) for row in events] == [
        (channel, "skipped", "read_elsewhere") for channel in sorted(before)
    ]


async def held(stage: Stage, stored: Receipt) -> list[Any]:
    return await stage.rows(
        "SELECT channel, reason FROM notification_deliveries"
        " WHERE notification_id = :id AND channel <> 'in_app' AND status = 'pending'",
        id=stored.id,
    )


async def test_what_is_scheduled_is_not_there_to_be_read(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage, {})
    await pushes.device(user)
    send_at = START + timedelta(hours=1)
    stored = await post(stage, user, "later", replace(PUSH, send_at=send_at))
    changes = InboxChanges(stage.database, lambda _: None, stage.clock)
    with pytest.raises(NotFound):
        await changes.mark_read(user, stored.id)
    await changes.mark_all_read(user)
    assert await states(stage, [stored]) == [("pending", "scheduled")]
    stage.clock.now = send_at
    await pushes.deliver()
    assert sent(pushes.sender) == [("later", None)]


async def test_what_expires_while_it_is_held_says_so(pushes: Pushes, stage: Stage) -> None:
    user = await quiet_user(stage)
    await pushes.device(user)
    stored = await post(stage, user, "short", replace(PUSH, expires_at=START + timedelta(hours=1)))
    stage.clock.now = EVENING
    await pushes.deliver()
    assert await states(stage, [stored]) == [("skipped", "expired")]
    assert await stage.events(stored) == [("skipped", "expired")]
