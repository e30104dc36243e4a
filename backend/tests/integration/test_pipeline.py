"""From a stored draft to its channels, on real servers and a real mailbox, with a driven clock."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.channels.base import Retry, Sent
from app.config import Settings
from app.db.database import Database
from app.errors import Unavailable, UnknownUser
from app.pipeline.announce import Announcer
from app.pipeline.commit import GroupCommit
from app.pipeline.decide import Audience, Defaults
from app.pipeline.doorbell import STREAM, StreamBroker, StreamDoorbell
from app.pipeline.draft import Content, Draft
from app.pipeline.idempotency import Attempt, claim, release
from app.pipeline.receipt import Receipt
from app.pipeline.track import Recorder
from app.policy.kinds import Channel, NotificationType, Priority, Reason
from app.policy.retry import RetryPolicy
from app.policy.routing import Request
from app.ratelimit.queue_bound import QueueBound
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.schemas.user import UpsertUser
from app.services.user_service import UserService
from app.worker.main import Worker, open_worker, running

START = datetime(2026, 1, 8, 12, tzinfo=UTC)
URGENT_MAIL = Request(NotificationType.TASK, Priority.HIGH, send_email=True)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Stage:
    """The pipeline with its surroundings, and what tests ask of them."""

    settings: Settings
    database: Database
    groups: GroupCommit
    announcer: Announcer
    worker: Worker
    sandbox: httpx.AsyncClient
    clock: Clock
    users: list[UUID] = field(default_factory=list[UUID])

    async def user(self, email: str | None = "ada@example.com") -> UUID:
        user_id = uuid4()
        users = UserService(self.database, Defaults.from_settings(self.settings))
        await users.upsert(user_id, UpsertUser(email=email))
        return user_id

    def draft(self, user_id: UUID, request: Request = URGENT_MAIL) -> Draft:
        content = Content("A title", "A *body*", "<p>A <em>body</em></p>", {})
        return Draft(uuid7(), user_id, "tests", request, content, self.clock())

    async def post(self, user_id: UUID, request: Request = URGENT_MAIL) -> Receipt:
        return await self.groups.store(self.draft(user_id, request))

    async def rows(self, query: str, **parameters: object) -> list[Any]:
        async with self.database.as_service() as connection:
            return list((await connection.execute(text(query), parameters)).all())

    async def delivery(self, stored: Receipt, channel: Channel) -> Any:
        (row,) = await self.rows(
            "SELECT * FROM notification_deliveries"
            " WHERE notification_id = :id AND channel = :channel",
            id=stored.id,
            channel=channel.value,
        )
        return row

    async def events(self, stored: Receipt) -> list[tuple[str, str | None]]:
        rows = await self.rows(
            "SELECT event, reason FROM notification_events WHERE notification_id = :id ORDER BY id",
            id=stored.id,
        )
        return [(row.event, row.reason) for row in rows]

    async def mails(self) -> list[dict[str, Any]]:
        return (await self.sandbox.get("/mails", params={"limit": 1000})).json()["items"]

    async def fault(self, **rule: object) -> None:
        (
            await self.sandbox.put("/faults", json=[{"provider": "resend", **rule}])
        ).raise_for_status()


@pytest.fixture
async def stage(fresh_settings: Settings, sandbox: httpx.AsyncClient) -> AsyncGenerator[Stage]:
    async with AsyncExitStack() as stack:
        settings = fresh_settings.model_copy(
            update={
                "resend_api_key": SecretStr("re_tests"),
                "resend_api_url": f"{sandbox.base_url}/resend",
                "provider_timeout_seconds": 2.0,
                "delivery_max_attempts": 3,
                "delivery_max_expired_leases": 2,
            }
        )
        clock = Clock()
        database = Database(settings)
        stack.push_async_callback(database.close)
        redis = redis_client(settings)
        stack.push_async_callback(redis.aclose)
        await (await redis.at(STREAM)).delete(STREAM)
        broker = StreamBroker(redis_url(settings))
        stack.push_async_callback(broker.shutdown)
        announcer = await stack.enter_async_context(
            Announcer(Backplane(redis), StreamDoorbell(broker))
        )
        bound = await stack.enter_async_context(
            QueueBound(settings.notification_queue_size, database, clock)
        )
        audience = Audience(Defaults.from_settings(settings))
        groups = await stack.enter_async_context(GroupCommit(database, announcer, audience, bound))
        worker = await stack.enter_async_context(open_worker(settings, clock))
        yield Stage(settings, database, groups, announcer, worker, sandbox, clock)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


# --- storing ---------------------------------------------------------------------------------


async def test_a_stored_draft_is_in_the_inbox_and_in_the_queue(stage: Stage) -> None:
    user = await stage.user()
    stored = await stage.post(user)
    assert stored.channels == (Channel.IN_APP, Channel.EMAIL)
    in_app = await stage.delivery(stored, Channel.IN_APP)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (in_app.status, in_app.next_attempt_at) == ("sent", None)
    assert (email.status, email.next_attempt_at, email.attempts) == ("pending", START, 0)
    (inbox,) = await stage.rows("SELECT * FROM inbox_state WHERE user_id = :id", id=user)
    assert (inbox.seq, inbox.unread) == (1, {"task": 1})


async def test_concurrent_drafts_get_positions_without_holes(stage: Stage) -> None:
    users = [await stage.user() for _ in range(3)]
    await asyncio.gather(*(stage.post(users[i % 3]) for i in range(150)))
    for user in users:
        stored = await stage.rows(
            "SELECT position FROM notifications WHERE user_id = :id ORDER BY position", id=user
        )
        assert [row.position for row in stored] == list(range(1, 51))
    rows = await stage.rows("SELECT user_id, seq, unread FROM inbox_state ORDER BY user_id")
    assert [(row.seq, row.unread) for row in rows] == [(50, {"task": 50})] * 3


async def test_a_connection_that_the_server_is_ending_is_no_fault_of_the_caller(
    stage: Stage,
) -> None:
    with pytest.raises(Unavailable):
        async with stage.database.group_as_service():
            raise asyncpg.InternalClientError("cannot switch to state 15")
    await stage.post(await stage.user())


async def test_connections_that_the_server_has_ended_are_replaced(stage: Stage) -> None:
    user = await stage.user()
    end = """
        SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
    """
    assassin = Database(stage.settings)
    for _ in range(5):
        await asyncio.gather(*(stage.post(user) for _ in range(20)))
        async with assassin.as_service() as connection:
            await connection.execute(text("SET LOCAL ROLE NONE"))
            assert (await connection.execute(text(end))).scalar_one() > 0
        assert isinstance(await stage.post(user), Receipt)
    await assassin.close()


async def test_a_locked_key_delays_only_the_calls_that_carry_it(stage: Stage) -> None:
    user = await stage.user()
    held = Attempt("tests", "held", b"", uuid7(), stage.clock())
    async with stage.database.group_as_service() as driver:
        await claim(driver, [held])
        draft = stage.draft(user)
        keyed = replace(draft, attempt=Attempt("tests", "held", b"", draft.id, stage.clock()))
        refused, *stored = await asyncio.gather(
            stage.groups.store(keyed),
            *(stage.post(user) for _ in range(5)),
            return_exceptions=True,
        )
        await release(driver, [held])
    assert getattr(refused, "code", None) == "unavailable"
    assert all(isinstance(item, Receipt) for item in stored)
    assert isinstance(await stage.groups.store(keyed), Receipt)


async def test_an_unknown_user_fails_alone_in_its_group(stage: Stage) -> None:
    user = await stage.user()
    results = await asyncio.gather(
        *(stage.post(user if i % 2 else uuid4()) for i in range(10)), return_exceptions=True
    )
    assert [isinstance(result, UnknownUser) for result in results] == [True, False] * 5


async def test_a_user_of_the_platform_without_an_inbox_gets_one(stage: Stage) -> None:
    newcomers = [uuid4() for _ in range(5)]
    for user in newcomers:
        await stage.rows("INSERT INTO users (id) VALUES (:id) RETURNING id", id=user)
    stored = await asyncio.gather(*(stage.post(newcomers[i % 5]) for i in range(50)))
    assert {item.channels[0] for item in stored} == {Channel.IN_APP}
    (found,) = await stage.rows("SELECT count(*) AS n, sum(seq) AS total FROM inbox_state")
    assert (found.n, found.total) == (5, 50)


async def test_a_locked_inbox_delays_only_its_own_user(stage: Stage) -> None:
    blocked, free = await stage.user(), await stage.user()
    async with stage.database.as_service() as connection:
        await connection.execute(
            text("SELECT * FROM inbox_state WHERE user_id = :id FOR UPDATE"), {"id": blocked}
        )
        waiting = asyncio.gather(stage.post(blocked), stage.post(free), return_exceptions=True)
        stuck, stored = await waiting
    assert getattr(stuck, "code", None) == "unavailable"
    assert isinstance(stored, Receipt)
    assert isinstance(await stage.post(blocked), Receipt)


async def test_a_busy_user_is_waited_for_once_not_for_each_of_their_drafts(stage: Stage) -> None:
    blocked, free = await stage.user(), await stage.user()
    async with stage.database.as_service() as connection:
        await connection.execute(
            text("SELECT * FROM inbox_state WHERE user_id = :id FOR UPDATE"), {"id": blocked}
        )
        drafts = [stage.post(blocked) for _ in range(100)]
        async with asyncio.timeout(20):
            *refused, stored = await asyncio.gather(
                *drafts, stage.post(free), return_exceptions=True
            )
    assert isinstance(stored, Receipt)
    assert {getattr(error, "code", None) for error in refused} == {"unavailable"}


async def test_a_zone_that_is_not_known_here_stops_nobody(stage: Stage) -> None:
    user = await stage.user()
    await stage.rows(
        "UPDATE notification_recipients SET timezone = 'Nope/Zone' WHERE user_id = :id"
        " RETURNING user_id",
        id=user,
    )
    stored = await stage.post(user, Request(NotificationType.TASK))
    email = await stage.delivery(stored, Channel.EMAIL)
    assert email.digest_slot == datetime(2026, 1, 9, 9, tzinfo=UTC)


async def test_the_decision_is_recorded_with_what_it_saw(stage: Stage) -> None:
    stored = await stage.post(await stage.user(email=None))
    (row,) = await stage.rows(
        "SELECT * FROM notification_decisions WHERE notification_id = :id", id=stored.id
    )
    assert row.stage == "create"
    assert row.inputs["recipient"]["has_address"] is False
    assert [(o["channel"], o["action"], o["reason"]) for o in row.outcomes] == [
        ("push", "skip", "no_device"),
        ("in_app", "send", "sent_now"),
        ("email", "skip", "no_address"),
    ]


# --- delivering ------------------------------------------------------------------------------


async def test_a_due_email_is_sent_once_with_its_id_as_key(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    assert await stage.worker.deliverer.deliver() == 1
    assert await stage.worker.deliverer.deliver() == 0
    email = await stage.delivery(stored, Channel.EMAIL)
    (mail,) = await stage.mails()
    assert (email.status, email.sent_at, email.provider_id) == ("sent", START, mail["id"])
    assert mail["idempotency_key"] == str(email.id)
    assert mail["subject"] == "A title"
    assert "<em>body</em>" in mail["html"]
    assert mail["tags"] == [{"name": "notification_id", "value": str(stored.id)}]
    assert await stage.events(stored) == [("sent", "sent_now")]


async def test_a_scheduled_notification_appears_at_its_time(stage: Stage) -> None:
    user = await stage.user()
    later = START + timedelta(hours=1)
    stored = await stage.post(
        user, Request(NotificationType.TASK, Priority.HIGH, send_email=True, send_at=later)
    )
    (held,) = await stage.rows("SELECT position FROM notifications WHERE id = :id", id=stored.id)
    assert held.position is None
    assert await stage.worker.deliverer.deliver() == 0
    await stage.post(user)
    stage.clock.advance(hours=1)
    assert await stage.worker.deliverer.deliver() == 3
    (shown,) = await stage.rows(
        "SELECT position, seq FROM notifications WHERE id = :id", id=stored.id
    )
    assert (shown.position, shown.seq) == (2, 2)
    assert (await stage.delivery(stored, Channel.IN_APP)).status == "sent"
    assert len(await stage.mails()) == 2


async def test_what_expired_meanwhile_is_skipped_with_the_reason(stage: Stage) -> None:
    stored = await stage.post(
        await stage.user(),
        Request(
            NotificationType.TASK,
            send_email=True,
            send_at=START + timedelta(minutes=1),
            expires_at=START + timedelta(minutes=2),
        ),
    )
    stage.clock.advance(minutes=3)
    await stage.worker.deliverer.deliver()
    for channel in (Channel.IN_APP, Channel.EMAIL):
        row = await stage.delivery(stored, channel)
        assert (row.status, row.reason) == ("skipped", "expired")
    assert await stage.mails() == []


async def test_digests_stay_parked_for_their_slot(stage: Stage) -> None:
    stored = await stage.post(await stage.user(), Request(NotificationType.TASK))
    stage.clock.advance(days=3)
    assert await stage.worker.deliverer.deliver() == 0
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason) == ("pending", "digest")
    assert email.digest_slot == datetime(2026, 1, 9, 9, tzinfo=UTC)


async def test_critical_goes_first(stage: Stage) -> None:
    user = await stage.user()
    for priority in (Priority.NORMAL, Priority.HIGH, Priority.CRITICAL):
        await stage.post(user, Request(NotificationType.TASK, priority, send_email=True))
    claims = await stage.worker.deliverer.claim()
    assert [claim.priority for claim in claims] == ["critical", "high", "normal"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "status", "status": 500}, "provider_unavailable"),
        ({"kind": "status", "status": 401}, "provider_rejected"),
        ({"kind": "drop"}, "provider_unavailable"),
        ({"kind": "drop_after"}, "provider_unavailable"),
        ({"kind": "hang"}, "provider_unavailable"),
    ],
    ids=["5xx", "our key", "dropped before", "dropped after it was stored", "hangs"],
)
async def test_what_may_work_later_is_retried_and_mailed_once(
    stage: Stage, fault: dict[str, object], reason: str
) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(**fault, times=1)
    await stage.worker.deliverer.deliver()
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.attempts) == ("pending", reason, 1)
    assert email.lease_token is None
    assert START <= email.next_attempt_at <= START + timedelta(seconds=1)
    stage.clock.advance(seconds=1)
    await stage.worker.deliverer.deliver()
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"
    assert len(await stage.mails()) == 1
    assert await stage.events(stored) == [("retry", reason), ("sent", "sent_now")]


async def test_the_provider_s_wish_to_wait_is_obeyed(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=429, retry_after=90, times=1)
    await stage.worker.deliverer.deliver()
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.reason, email.next_attempt_at) == (
        "provider_limit",
        START + timedelta(seconds=90),
    )


async def test_used_up_attempts_are_dead_letters_with_a_reason(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=503)
    for _ in range(3):
        await stage.worker.deliverer.deliver()
        stage.clock.advance(minutes=1)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.attempts) == ("failed", "attempts_exhausted", 3)
    assert email.error_message.startswith("provider_unavailable: 503")
    assert [event for event, _ in await stage.events(stored)] == ["retry", "retry", "failed"]


async def test_a_definite_refusal_fails_at_once_and_alone(stage: Stage) -> None:
    user = await stage.user()
    first, second = await stage.post(user), await stage.post(user)
    await stage.fault(kind="status", status=422, times=1)
    await stage.worker.deliverer.deliver()
    states = {(await stage.delivery(item, Channel.EMAIL)).status for item in (first, second)}
    assert states == {"failed", "sent"}


# --- leases ----------------------------------------------------------------------------------


async def test_what_a_dead_worker_held_comes_back_after_its_lease(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    assert len(await stage.worker.deliverer.claim()) == 1
    assert await stage.worker.deliverer.claim() == []
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    await stage.worker.deliverer.deliver()
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.attempts, email.expired_leases) == ("sent", 1, 1)


async def test_a_worker_that_wakes_up_late_records_nothing(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    late = await stage.worker.deliverer.claim()
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    held = await stage.worker.deliverer.claim()
    await stage.fault(kind="status", status=422, times=1)
    await stage.worker.deliverer.dispatch(late)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.lease_token) == ("pending", held[0].lease_token)
    await stage.worker.deliverer.dispatch(held)
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"


async def test_a_late_outcome_told_together_with_the_valid_one_is_no_event(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    late = await stage.worker.deliverer.claim()
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    held = await stage.worker.deliverer.claim()
    async with Recorder(
        stage.database, RetryPolicy(base=1, cap=1, max_attempts=3), stage.clock
    ) as recorder:
        # Reported before the writer runs, so both are of one statement.
        recorder.report(late[0], Retry(Reason.PROVIDER_UNAVAILABLE, "late"))
        recorder.report(held[0], Sent())
    assert await stage.events(stored) == [("sent", "sent_now")]


async def test_what_kills_every_worker_becomes_a_dead_letter(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    for _ in range(2):
        assert len(await stage.worker.deliverer.claim()) == 1
        stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    await stage.worker.deliverer.deliver()
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason) == ("failed", "poison")
    assert await stage.mails() == []


async def test_what_died_with_a_killer_is_sent_alone_and_not_given_up(stage: Stage) -> None:
    user = await stage.user()
    posted = [await stage.post(user) for _ in range(5)]
    patient = stage.settings.model_copy(update={"delivery_max_expired_leases": 3})
    async with open_worker(patient, stage.clock) as worker:
        deliverer = worker.deliverer
        for _ in range(2):
            assert len(await deliverer.claim()) == 5
            stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
        assert await deliverer.claim() == []
        (killer,) = await deliverer.claim_suspect()
        assert [await deliverer.deliver() for _ in range(5)] == [1, 1, 1, 1, 0]
        stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
        assert await deliverer.deliver() == 1
    emails = [await stage.delivery(stored, Channel.EMAIL) for stored in posted]
    assert [email.id for email in emails if email.status == "failed"] == [killer.id]
    assert len(await stage.mails()) == 4


async def test_who_records_an_outcome_was_not_killed_by_it(stage: Stage) -> None:
    await stage.post(await stage.user())
    deliverer = stage.worker.deliverer
    await deliverer.claim()
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    await stage.fault(kind="status", status=503, times=1)
    await deliverer.deliver()
    stage.clock.advance(minutes=1)
    assert len(await deliverer.claim()) == 1


async def test_racing_workers_send_each_mail_once(stage: Stage) -> None:
    user = await stage.user()
    await asyncio.gather(*(stage.post(user) for _ in range(120)))
    await asyncio.gather(*(stage.worker.deliverer.deliver() for _ in range(6)))
    await stage.worker.deliverer.deliver()
    arrivals = (await stage.sandbox.get("/arrivals")).json()
    assert len(await stage.mails()) == 120
    assert {entry["requests"] for entry in arrivals["items"]} == {1}


# --- the doorbell and the sweeper ------------------------------------------------------------


async def test_a_running_worker_answers_the_doorbell_and_survives_a_flushed_redis(
    stage: Stage,
) -> None:
    user = await stage.user()

    async def mailed(count: int) -> bool:
        return len(await stage.mails()) == count

    async with redis_client(stage.settings) as client, running(stage.worker):
        redis = await client.at(STREAM)
        await stage.post(user)
        await eventually(lambda: mailed(1))
        await redis.flushall()  # pyright: ignore[reportUnknownMemberType] -- untyped **kwargs
        await stage.post(user)
        await eventually(lambda: mailed(2))
        await eventually(lambda: _acknowledged(redis))


async def _acknowledged(redis: Any) -> bool:
    return await redis.xlen(STREAM) == 0


async def test_rings_of_another_version_stop_no_worker(stage: Stage) -> None:
    user = await stage.user()

    async def mailed() -> bool:
        return len(await stage.mails()) == 1

    async with redis_client(stage.settings) as client, running(stage.worker):
        redis = await client.at(STREAM)
        await redis.xadd(STREAM, {"body": "no field we know"})
        await redis.xadd(STREAM, {"data": b"\xff no message"})
        await eventually(lambda: _acknowledged(redis))
        await stage.post(user)
        await eventually(mailed)


async def test_the_sweeper_delivers_what_nobody_rang_for(stage: Stage) -> None:
    user = await stage.user()
    await stage.post(user)
    async with redis_client(stage.settings) as client:
        redis = await client.at(STREAM)
        await redis.flushall()  # pyright: ignore[reportUnknownMemberType] -- untyped **kwargs
    stopping = asyncio.Event()
    sweeping = asyncio.create_task(stage.worker.sweeper.run(stopping))

    async def mailed() -> bool:
        return len(await stage.mails()) == 1

    await eventually(mailed)
    stopping.set()
    await sweeping
