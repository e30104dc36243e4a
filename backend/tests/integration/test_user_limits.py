"""Limits of users while workers race, and while Redis forgets, hangs or is away (REQ-022)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from app.channels.base import Retry, Sent
from app.channels.email.channel import EmailChannel
from app.config import Settings
from app.db.database import Database
from app.pipeline.commit import GroupCommit
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Deliverer
from app.pipeline.receipt import Receipt
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel, DeviceKind, NotificationType, Priority, Reason
from app.policy.limits import Limit
from app.policy.routing import Request
from app.ratelimit.lines import Line, UserChannel, read_lines
from app.ratelimit.queue_bound import QueueBound
from app.ratelimit.redis_lines import PATIENCE, RedisLines, key_of
from app.ratelimit.user_limits import SOON, Ask, UserLimits
from app.realtime.connection import connect, redis_client, redis_url
from app.services.cancel_service import CancelService
from app.services.inbox_changes import InboxChanges
from app.worker.mail import open_mail
from app.worker.main import open_worker
from faults.proxy import Proxy
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, URGENT_MAIL, Stage
from tests.integration.test_push_queue import PUSH, Pushes, ToldSender
from tests.ports import free_ports

stage, pushes = test_pipeline.stage, test_push_queue.pushes
IN_APP = Request(NotificationType.TASK)
WORKERS = 4
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
INSTANT = timedelta(microseconds=1)
LIMITS = {Channel.PUSH: Limit(10, HOUR), Channel.EMAIL: Limit(20, DAY)}


@dataclass
class Team:
    """Workers that deliver from one queue, each with connections of its own."""

    stage: Stage
    deliverers: list[Deliverer]
    sender: ToldSender

    async def work(self) -> None:
        """Deliver at once what is due."""
        while any(await asyncio.gather(*(one.deliver() for one in self.deliverers))):
            pass

    async def work_until(self, end: datetime) -> None:
        """Deliver each time something is due, until then."""
        clock = self.stage.clock
        while True:
            await self.work()
            ((due,),) = await self.stage.rows(
                "SELECT min(next_attempt_at) FROM notification_deliveries WHERE status = 'pending'"
            )
            if due is None or due > end:
                break
            assert due > clock.now, "what is due was not claimed"
            clock.now = due
        clock.now = end


@asynccontextmanager
async def open_team(
    stage: Stage,
    url: str | None = None,
    *,
    patience: float = PATIENCE,
    workers: int = WORKERS,
    most: int = 10,
) -> AsyncGenerator[Team]:
    """Workers that push by a sender of the tests.

    Args:
        url: of their Redis; default: the tests' own.
        patience: seconds that Redis has to answer.
        most: pushes that a user gets in an hour.
    """
    # A claim takes some only, so that each worker gets its share.
    settings = limited(stage.settings, delivery_slots=8, rate_limit_push_per_hour=most)
    sender, audience = ToldSender(), Audience(Defaults.from_settings(settings))
    deliverers: list[Deliverer] = []
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            database = Database(settings)
            stack.push_async_callback(database.close)
            redis = await stack.enter_async_context(connect(url or redis_url(settings)))
            recorder = Recorder(database, retry_policy(settings), stage.clock)
            await stack.enter_async_context(recorder)
            lines = RedisLines(redis, audience.defaults.limits, patience=patience)
            limits = UserLimits(database, audience.defaults.limits, lines)
            reconsiderer = Reconsiderer(database, audience, limits)
            deliverers.append(
                Deliverer(settings, database, [sender], reconsiderer, recorder, stage.clock)
            )
        yield Team(stage, deliverers, sender)


def limited(settings: Settings, **changes: object) -> Settings:
    """The limits as they are by default."""
    return settings.model_copy(
        update={
            "rate_limit_push_per_hour": 10,
            "rate_limit_in_app_per_hour": 100,
            "rate_limit_email_per_day": 20,
            **changes,
        }
    )


def nowhere() -> str:
    """Where no Redis is."""
    (port,) = free_ports(1)
    return f"redis://127.0.0.1:{port}/0"


async def counted(stage: Stage, user: UUID, channel: Channel) -> list[tuple[datetime, UUID]]:
    """What used up the user's limit, and when."""
    rows = await stage.rows(
        "SELECT counted_at, notification_id FROM notification_deliveries WHERE user_id = :user"
        " AND channel = :channel AND counted_at IS NOT NULL ORDER BY counted_at, notification_id",
        user=user,
        channel=channel.value,
    )
    return [(row.counted_at, row.notification_id) for row in rows]


async def sent(stage: Stage, user: UUID, channel: Channel) -> dict[UUID, list[datetime]]:
    """When each of the user's notifications went out, in the order they were created."""
    rows = await stage.rows(
        "SELECT notification_id, array_agg(sent_at) AS at FROM notification_deliveries"
        " WHERE user_id = :user AND channel = :channel AND status = 'sent'"
        " GROUP BY notification_id ORDER BY notification_id",
        user=user,
        channel=channel.value,
    )
    return {row.notification_id: row.at for row in rows}


async def known_to_redis(stage: Stage, user: UUID) -> int:
    """How many of the user's pushes count there."""
    key = key_of((user, Channel.PUSH))
    async with redis_client(stage.settings) as client:
        return await (await client.at(key)).zcard(key)


async def assert_never_more(stage: Stage, user: UUID, channel: Channel, limit: Limit) -> None:
    """No window of time has more notifications than the limit, wherever it ends."""
    events = await counted(stage, user, channel)
    for end, _ in events:
        within = {id_ for at, id_ in events if end - limit.window < at <= end}
        assert len(within) <= limit.most


def assert_in_order(times: dict[UUID, list[datetime]]) -> None:
    """What was held went out in the order it was created."""
    held = [min(at) for at in times.values() if min(at) > START + HOUR / 2]
    assert held == sorted(held)


async def post_pushes(stage: Stage, user: UUID, number: int) -> list[Receipt]:
    return [await stage.post(user, PUSH) for _ in range(number)]


# --- pushes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_away", [False, True], ids=["redis", "no redis"])
async def test_the_eleventh_push_goes_out_exactly_when_the_window_frees(
    pushes: Pushes, stage: Stage, is_away: bool
) -> None:
    user = await stage.user()
    await pushes.device(user)
    stage.clock.advance(microseconds=123_457)
    first_at = stage.clock.now
    # One worker: of two, each might claim one of the last, and not know that the other one waits.
    redis = nowhere() if is_away else None
    async with open_team(stage, redis, patience=30, workers=1) as team:
        for _ in range(10):
            await stage.post(user, PUSH)
            await team.work()
            stage.clock.advance(minutes=1, microseconds=1)
        eleventh, twelfth = await post_pushes(stage, user, 2)
        await team.work()
        push = await stage.delivery(eleventh, Channel.PUSH)
        assert (push.status, push.reason, push.attempts) == ("pending", "user_limit", 0)
        assert push.next_attempt_at == first_at + HOUR
        assert push.counted_at is None
        last = await stage.delivery(twelfth, Channel.PUSH)
        assert last.next_attempt_at == first_at + HOUR + timedelta(minutes=1, microseconds=1)
        assert await known_to_redis(stage, user) == (0 if is_away else 10)
        stage.clock.now = first_at + HOUR - INSTANT
        await team.work()
        assert len(team.sender.claims) == 10
        stage.clock.now = first_at + HOUR
        await team.work()
        assert [claim.notification_id for claim in team.sender.claims[10:]] == [eleventh.id]
    assert await stage.events(eleventh) == [("held", "user_limit"), ("sent", "sent_now")]
    await assert_never_more(stage, user, Channel.PUSH, LIMITS[Channel.PUSH])


async def keep_flushing(_: Proxy, server: Any) -> None:
    while True:
        await server.flushall()
        await server.script_flush()
        await asyncio.sleep(0.002)


async def stop(proxy: Proxy, _: Any) -> None:
    proxy.refuse()


async def hang(proxy: Proxy, _: Any) -> None:
    proxy.stall()


async def come_and_go(proxy: Proxy, _: Any) -> None:
    while True:
        proxy.refuse()
        await asyncio.sleep(0.01)
        proxy.mend()
        await asyncio.sleep(0.01)


async def nothing(_: Proxy, __: Any) -> None:
    pass


@pytest.mark.parametrize("disturb", [nothing, stop, hang, come_and_go, keep_flushing])
async def test_four_workers_never_push_more_than_ten_in_an_hour(
    pushes: Pushes, stage: Stage, disturb: Callable[[Proxy, Any], Awaitable[None]]
) -> None:
    user = await stage.user()
    for kind in DeviceKind:
        await pushes.device(user, kind)
    async with redis_client(stage.settings) as client:
        server = await client.at("")
        port = server.connection_pool.connection_kwargs["port"]
        url = redis_url(stage.settings)
        async with (
            Proxy(port) as proxy,
            open_team(stage, url.replace(f":{port}", f":{proxy.port}")) as team,
        ):
            await post_pushes(stage, user, 30)
            disturbing = asyncio.create_task(disturb_soon(stage, disturb(proxy, server)))
            await team.work_until(START + HOUR / 2)
            at_once = await sent(stage, user, Channel.PUSH)
            assert len(at_once) == 10
            await team.work_until(START + 4 * HOUR)
            while not disturbing.done():  # its client may take one for a timeout
                disturbing.cancel()
                await asyncio.wait([disturbing], timeout=0.1)
            proxy.mend()
    times = await sent(stage, user, Channel.PUSH)
    assert {len(at) for at in times.values()} == {2}
    assert len(times) == 30
    await assert_never_more(stage, user, Channel.PUSH, LIMITS[Channel.PUSH])
    assert_in_order(times)


async def disturb_soon(stage: Stage, disturbance: Awaitable[None]) -> None:
    """In the middle of it."""
    while not await stage.rows(
        "SELECT 1 FROM notification_deliveries WHERE counted_at IS NOT NULL LIMIT 1"
    ):
        await asyncio.sleep(0)
    await disturbance


async def test_four_workers_without_redis_are_as_exact(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    for kind in DeviceKind:
        await pushes.device(user, kind)
    await post_pushes(stage, user, 30)
    async with open_team(stage, nowhere()) as team:
        await team.work_until(START + HOUR / 2)
        assert len(await sent(stage, user, Channel.PUSH)) == 10
        await team.work_until(START + 4 * HOUR)
    times = await sent(stage, user, Channel.PUSH)
    assert [len(at) for at in times.values()] == [2] * 30
    await assert_never_more(stage, user, Channel.PUSH, LIMITS[Channel.PUSH])
    assert_in_order(times)


async def test_a_push_that_is_tried_again_uses_up_nothing_more(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    async with open_team(stage) as team:
        team.sender.outcomes[device] = Retry(Reason.PROVIDER_UNAVAILABLE, "503")
        await post_pushes(stage, user, 10)
        await team.work()
        stage.clock.advance(minutes=5)
        team.sender.outcomes[device] = Sent()
        await team.work()
    assert len(await sent(stage, user, Channel.PUSH)) == 10
    # They count from when they were sent.
    assert {at for at, _ in await counted(stage, user, Channel.PUSH)} == {stage.clock.now}


async def test_who_comes_later_does_not_overtake_those_that_wait(
    pushes: Pushes, stage: Stage
) -> None:
    user = await stage.user()
    await pushes.device(user)
    async with open_team(stage) as team:
        await post_pushes(stage, user, 5)
        await team.work()
        stage.clock.advance(minutes=30)
        await post_pushes(stage, user, 12)  # seven of which wait
        await team.work()
        stage.clock.now = START + HOUR
        newest = await stage.post(user, replace(PUSH, priority=Priority.NORMAL))
        # Only the newest is in hand: there is room for five, and seven wait before it.
        hands = [(one, claim) for one in team.deliverers for claim in await one.claim()]
        (mine,) = [item for item in hands if item[1].notification_id == newest.id]
        await mine[0].dispatch([mine[1]])
        push = await stage.delivery(newest, Channel.PUSH)
        assert (push.status, push.reason) == ("pending", "user_limit")
        # Two of those go when what was sent half an hour ago counts no more, and it goes with them.
        assert push.next_attempt_at == START + 1.5 * HOUR
        hands.remove(mine)
        await asyncio.gather(*(one.dispatch([claim]) for one, claim in hands))
        await team.work_until(START + 2 * HOUR)
    times = await sent(stage, user, Channel.PUSH)
    assert len(times) == 18
    assert_in_order(times)
    await assert_never_more(stage, user, Channel.PUSH, LIMITS[Channel.PUSH])


async def test_critical_passes_every_limit_and_uses_up_none(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    await pushes.device(user)
    settings = limited(
        stage.settings,
        rate_limit_push_per_hour=2,
        rate_limit_in_app_per_hour=2,
        rate_limit_email_per_day=2,
    )
    audience = Audience(Defaults.from_settings(settings))
    normal = Request(NotificationType.TASK, Priority.HIGH, send_email=True)
    critical = replace(normal, priority=Priority.CRITICAL)
    async with (
        QueueBound(settings.notification_queue_size, stage.database, stage.clock) as bound,
        GroupCommit(stage.database, stage.announcer, audience, bound) as groups,
        open_mail(settings, stage.database, stage.clock) as mail,
        Recorder(stage.database, retry_policy(settings), stage.clock) as recorder,
        redis_client(settings) as redis,
    ):
        assert mail is not None
        limits = UserLimits(
            stage.database, audience.defaults.limits, RedisLines(redis, audience.defaults.limits)
        )
        pusher = Deliverer(
            settings,
            stage.database,
            [
                pushes.sender,
                EmailChannel(mail.composer, mail.mailer),
            ],
            Reconsiderer(stage.database, audience, limits),
            recorder,
            stage.clock,
        )
        stored: list[Receipt] = []
        for request in (normal, critical, critical, critical, normal, normal):
            stored.append(await groups.store(stage.draft(user, request)))
            await pusher.deliver()
    for channel in Channel:
        found = [await stage.delivery(one, channel) for one in stored]
        assert [row.status for row in found] == ["sent"] * 5 + ["pending"]
        assert [row.counted_at is None for row in found] == [False, *[True] * 3, False, True]
        assert found[5].reason == "user_limit"


async def test_a_held_push_that_is_read_elsewhere_is_skipped(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    await pushes.device(user)
    async with open_team(stage) as team:
        posted = await post_pushes(stage, user, 12)
        await team.work()
        went_out = await sent(stage, user, Channel.PUSH)
        read, other = (receipt for receipt in posted if receipt.id not in went_out)
        changes = InboxChanges(stage.database, stage.announcer.announce, stage.clock)
        await changes.mark_read(user, read.id)
        await team.work_until(START + HOUR)
    push = await stage.delivery(read, Channel.PUSH)
    assert (push.status, push.reason) == ("skipped", "read_elsewhere")
    assert (await stage.delivery(other, Channel.PUSH)).status == "sent"


async def test_who_leaves_the_line_makes_room_for_the_next(pushes: Pushes, stage: Stage) -> None:
    user = await stage.user()
    await pushes.device(user)
    changes = InboxChanges(stage.database, stage.announcer.announce, stage.clock)
    first, second, third, fourth, fifth = await post_pushes(stage, user, 5)
    expiring = replace(PUSH, expires_at=START + 1.5 * HOUR)
    async with open_team(stage, workers=1, most=1) as team:
        await team.work()
        last = await stage.delivery(fifth, Channel.PUSH)
        assert last.next_attempt_at == START + 4 * HOUR
        await changes.mark_read(user, second.id)
        await CancelService(stage.database, stage.clock).cancel(third.id, by="tests")
        sixth, seventh = await stage.post(user, expiring), await stage.post(user, PUSH)
        await team.work_until(START + 6 * HOUR)
    times = await sent(stage, user, Channel.PUSH)
    assert times == {
        first.id: [START],
        fourth.id: [START + HOUR],
        fifth.id: [START + 2 * HOUR],
        seventh.id: [START + 3 * HOUR],
    }
    assert (await stage.delivery(sixth, Channel.PUSH)).reason == "expired"


# --- emails ----------------------------------------------------------------------------------


async def test_four_workers_mail_twenty_a_day_and_the_rest_the_next(stage: Stage) -> None:
    user = await stage.user()
    settings = limited(stage.settings, delivery_slots=6)
    for _ in range(25):
        await stage.post(user, URGENT_MAIL)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(open_worker(settings, stage.clock))
            for _ in range(WORKERS)
        ]
        team = Team(stage, [worker.deliverer for worker in workers], ToldSender())
        await team.work_until(START + HOUR)
        assert len(await stage.mails()) == 20
        stage.clock.now = START + DAY - INSTANT
        await team.work()
        assert len(await stage.mails()) == 20
        await team.work_until(START + DAY + HOUR)
    assert len(await stage.mails()) == 25
    await assert_never_more(stage, user, Channel.EMAIL, LIMITS[Channel.EMAIL])


# --- in-app ----------------------------------------------------------------------------------


async def test_the_inbox_shows_a_hundred_in_an_hour_however_many_write_to_it(stage: Stage) -> None:
    user = await stage.user(email=None)
    settings = limited(stage.settings, delivery_slots=20)
    async with AsyncExitStack() as stack:
        groups: list[GroupCommit] = []
        for _ in range(3):
            database = Database(settings)
            stack.push_async_callback(database.close)
            audience = Audience(Defaults.from_settings(settings))
            bound = await stack.enter_async_context(
                QueueBound(settings.notification_queue_size, database, stage.clock)
            )
            group = GroupCommit(database, stage.announcer, audience, bound)
            groups.append(await stack.enter_async_context(group))
        workers = [
            await stack.enter_async_context(open_worker(settings, stage.clock))
            for _ in range(WORKERS)
        ]
        team = Team(stage, [worker.deliverer for worker in workers], ToldSender())

        async def post(number: int) -> None:
            drafts = [stage.draft(user, IN_APP) for _ in range(number)]
            await asyncio.gather(
                *(groups[place % 3].store(draft) for place, draft in enumerate(drafts))
            )

        async def visible() -> int:
            rows = await stage.rows("SELECT id FROM notifications WHERE position IS NOT NULL")
            return len(rows)

        await post(99)
        assert await visible() == 99
        await post(1)
        await post(1)
        assert await visible() == 100
        (held,) = await stage.rows(
            "SELECT next_attempt_at, reason FROM notification_deliveries WHERE status = 'pending'"
        )
        assert tuple(held) == (START + HOUR, "user_limit")
        stage.clock.now = START + HOUR - INSTANT
        await asyncio.gather(post(60), team.work())
        assert await visible() == 100
        stage.clock.now = START + HOUR
        await asyncio.gather(post(60), team.work())
        assert await visible() == 200
        await team.work_until(START + 4 * HOUR)
        assert await visible() == 221
    await assert_never_more(stage, user, Channel.IN_APP, Limit(100, HOUR))
    shown = await stage.rows(
        "SELECT position FROM notifications WHERE id IN (SELECT notification_id"
        " FROM notification_deliveries WHERE counted_at > :start) ORDER BY position",
        start=START,
    )
    assert [row.position for row in shown] == list(range(101, 222))


# --- one limiter beside another --------------------------------------------------------------


@dataclass
class Asking:
    """Deliveries of one user that are in hand, to be asked for out of turn."""

    stage: Stage
    user: UUID
    asks: list[Ask]

    @property
    def line(self) -> UserChannel:
        return self.user, Channel.PUSH

    async def lines(self) -> dict[UserChannel, Line]:
        async with self.stage.database.group_as_service() as driver:
            return await read_lines(driver, [self.line], LIMITS, self.stage.clock())


@pytest.fixture
async def asking(pushes: Pushes, stage: Stage) -> Asking:
    """Twelve pushes, as workers have claimed them."""
    user = await stage.user()
    await pushes.device(user)
    await post_pushes(stage, user, 12)
    claims = await pushes.deliverer.claim()
    asks = [Ask(user, Channel.PUSH, claim.notification_id, (claim.id,)) for claim in claims]
    return Asking(stage, user, sorted(asks, key=lambda ask: ask.notification_id))


async def test_what_was_admitted_counts_before_its_outcome_is_known(
    asking: Asking, stage: Stage
) -> None:
    """Whatever Redis has forgotten, and however old is what the next one has read."""
    async with redis_client(stage.settings) as redis:
        limits = UserLimits(stage.database, LIMITS, RedisLines(redis, LIMITS))
        old = await asking.lines()
        admitted = await limits.admit(asking.asks[:10], old, stage.clock())
        assert set(admitted.values()) == {None}
        await (await redis.at("")).flushall()  # pyright: ignore[reportUnknownMemberType] -- untyped **kwargs
        refused = await limits.admit(asking.asks[10:], old, stage.clock())
    assert list(refused.values()) == [START + HOUR] * 2
    assert len(await counted(stage, asking.user, Channel.PUSH)) == 10


async def test_both_ways_see_each_other(asking: Asking, stage: Stage) -> None:
    async with redis_client(stage.settings) as redis:
        old = await asking.lines()
        by_redis = UserLimits(stage.database, LIMITS, RedisLines(redis, LIMITS))
        by_postgres = UserLimits(stage.database, LIMITS)
        first = await by_redis.admit(asking.asks[:4], old, stage.clock())
        second = await by_postgres.admit(asking.asks[4:9], old, stage.clock())
        third = await by_redis.admit(asking.asks[9:], old, stage.clock())
    assert [*first.values(), *second.values()] == [None] * 9
    assert list(third.values()) == [None, START + HOUR, START + HOUR]


async def test_who_admits_too_many_at_the_same_moment_agrees_on_ten(
    asking: Asking, stage: Stage
) -> None:
    """Each with a Redis that knows of nobody else's."""
    async with AsyncExitStack() as stack:
        old = await asking.lines()
        rivals: list[UserLimits] = []
        for number in range(3):
            url = f"{redis_url(stage.settings).rpartition('/')[0]}/{number + 1}"
            client = await stack.enter_async_context(connect(url))
            rivals.append(UserLimits(stage.database, LIMITS, RedisLines(client, LIMITS)))
        found = await asyncio.gather(
            *(
                rival.admit(asking.asks[place * 4 : place * 4 + 4], old, stage.clock())
                for place, rival in enumerate(rivals)
            )
        )
    answers = [turn for of_one in found for turn in of_one.values()]
    assert sorted(answers, key=str) == [*[START + HOUR] * 2, *[None] * 10]
    assert len(await counted(stage, asking.user, Channel.PUSH)) == 10


async def test_a_user_whose_lock_is_held_delays_no_other(asking: Asking, stage: Stage) -> None:
    free = await stage.user()
    delivery = (await stage.post(free, URGENT_MAIL)).id
    email = await stage.rows(
        "SELECT id FROM notification_deliveries WHERE notification_id = :id AND channel = 'email'",
        id=delivery,
    )
    other = Ask(free, Channel.EMAIL, delivery, (email[0].id,))
    limits = UserLimits(stage.database, LIMITS)
    async with stage.database.as_service() as connection:
        await connection.execute(
            text("SELECT FROM inbox_state WHERE user_id = :id FOR UPDATE"), {"id": asking.user}
        )
        found = await limits.admit([asking.asks[0], other], {}, stage.clock())
    assert found == {asking.asks[0]: START + SOON, other: None}
    assert await limits.admit(asking.asks[:1], {}, stage.clock()) == {asking.asks[0]: None}


# --- a Redis that is not well ----------------------------------------------------------------


async def test_a_redis_that_hangs_is_waited_for_once_in_a_while(stage: Stage) -> None:
    line, id_ = (uuid4(), Channel.PUSH), uuid4()
    async with redis_client(stage.settings) as direct:
        server: Redis = await direct.at("")
        port = server.connection_pool.connection_kwargs["port"]
        async with (
            Proxy(port) as proxy,
            connect(redis_url(stage.settings).replace(f":{port}", f":{proxy.port}")) as client,
        ):
            patient = RedisLines(client, LIMITS, pause=3600)
            again = RedisLines(client, LIMITS, pause=0, patience=30)
            proxy.stall()
            assert await patient.admit({line: [id_]}, {line: Line()}, START) == {}
            proxy.mend()
            assert await again.admit({line: [id_]}, {line: Line()}, START) == {line: {id_: None}}
            assert await patient.admit({line: [id_]}, {line: Line()}, START) == {}
        assert await server.zscore(key_of(line), str(id_)) == START.timestamp() * 1_000_000
