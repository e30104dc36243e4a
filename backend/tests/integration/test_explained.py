"""Explanations are what is decided, and records of decisions lead to them again (REQ-002).

Fifteen hundred generated notifications of users of every kind: each is explained, then created at
the same instant, and what was recorded must be what was explained. Then days pass, workers claim
what is due, and each recorded run of the policy is made again from its record.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.channels.base import Claim, Report, Sent
from app.channels.in_app import InAppChannel
from app.config import Settings
from app.db.database import Database, dumps
from app.pipeline.announce import Announcer
from app.pipeline.commit import GroupCommit
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Deliverer
from app.pipeline.doorbell import StreamBroker, StreamDoorbell
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.templates import Templates
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel, NotificationType, Priority
from app.policy.replay import outcomes_of, replayed
from app.policy.routing import decide
from app.ratelimit.queue_bound import QueueBound
from app.ratelimit.user_limits import UserLimits
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.rendering.renderer import ProcessRenderer
from app.schemas.explain import Explanation
from app.schemas.notification import CreateNotification
from app.services.explain_service import ExplainService
from app.services.inbox_changes import InboxChanges
from app.services.notification_service import NotificationService
from app.services.wording import Wording
from tests.integration.test_pipeline import Clock

USERS, ROUNDS = 250, 6
ZONES = [None, "UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Pacific/Kiritimati"]
LIMITS = {
    "rate_limit_push_per_hour": 3,
    "rate_limit_in_app_per_hour": 3,
    "rate_limit_email_per_day": 3,
}
# What the cases must have come upon; a generator that misses one proves nothing about it.
EXPLAINED = {
    "sent_now",
    "digest",
    "quiet_hours",
    "user_limit",
    "scheduled",
    "expired",
    "no_device",
    "no_address",
    "preference_off",
    "priority_rule",
    "not_requested",
    "silent",
    "silent_needs_fcm",
}
CLAIMED = {
    "sent_now",
    "quiet_hours",
    "user_limit",
    "expired",
    "no_device",
    "no_address",
    "preference_off",
    "read_elsewhere",
    "digest",
}

ADD_USERS = """
    WITH made AS (
        INSERT INTO users (id) SELECT unnest($1::uuid[])
    ), opened AS (
        INSERT INTO inbox_state (user_id) SELECT unnest($1::uuid[])
    )
    INSERT INTO notification_recipients (user_id, email, timezone)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[])
"""
ADD_BROWSERS = """
    INSERT INTO push_subscriptions (id, user_id, kind, endpoint, p256dh_key, auth_key, is_active)
    SELECT id, user_id, 'web', 'https://push.example/' || id, 'key', 'secret', is_active
    FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS d (id, user_id, is_active)
"""
ADD_PHONES = """
    INSERT INTO push_subscriptions (id, user_id, kind, fcm_token, fcm_token_hash)
    SELECT id, user_id, 'fcm', uuid_send(id), uuid_send(id)
    FROM unnest($1::uuid[], $2::uuid[]) AS d (id, user_id)
"""
SET_UP = """
    UPDATE notification_recipients r
    SET quiet_hours = v.quiet_hours::jsonb, pause_until = v.pause_until, email = v.email
    FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[])
        AS v (user_id, quiet_hours, pause_until, email)
    WHERE r.user_id = v.user_id
"""
CHOOSE = """
    WITH chosen AS (
        INSERT INTO notification_preferences (
            id, user_id, notification_type, push_enabled, email_enabled, digest_frequency,
            digest_time, digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days
        )
        SELECT gen_random_uuid(), user_id, kind, push, email, frequency, digest_at::time, day,
               starts::time, ends::time, days::jsonb
        FROM unnest(
            $1::uuid[], $2::text[], $3::boolean[], $4::boolean[], $5::text[], $6::text[],
            $7::int[], $8::text[], $9::text[], $10::text[]
        ) AS v (user_id, kind, push, email, frequency, digest_at, day, starts, ends, days)
        ON CONFLICT (user_id, notification_type) DO UPDATE SET
            push_enabled = excluded.push_enabled, email_enabled = excluded.email_enabled,
            digest_frequency = excluded.digest_frequency, digest_time = excluded.digest_time,
            digest_day = excluded.digest_day, quiet_hours_start = excluded.quiet_hours_start,
            quiet_hours_end = excluded.quiet_hours_end, quiet_hours_days = excluded.quiet_hours_days
    )
    UPDATE inbox_state SET choices_version = choices_version + 1 WHERE user_id = ANY($1::uuid[])
"""
LOSE = "DELETE FROM push_subscriptions WHERE user_id = ANY($1::uuid[])"


class Accepting:
    """A channel whose provider takes everything; what is sent is not what this is about."""

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        for claim in claims:
            report(claim, Sent())


class Pushes(Accepting):
    channel: ClassVar[Channel] = Channel.PUSH


class Mails(Accepting):
    channel: ClassVar[Channel] = Channel.EMAIL


@dataclass
class World:
    """An API's services and a worker's, as in processes of their own, and the same clock."""

    settings: Settings
    database: Database
    defaults: Defaults
    wording: Wording
    notifications: NotificationService
    changes: InboxChanges
    deliverer: Deliverer
    clock: Clock
    luck: random.Random = field(default_factory=lambda: random.Random(20260108))

    # --- users --------------------------------------------------------------------------------

    def maybe(self, probability: float, value: Any) -> Any:
        return value if self.luck.random() < probability else None

    def is_so(self, probability: float) -> bool:
        return self.luck.random() < probability

    def time(self) -> str:
        return f"{self.luck.randrange(24):02}:{self.luck.choice([0, 15, 30, 59]):02}"

    def window(self) -> tuple[str, str]:
        start, end = self.time(), self.time()
        return (start, end) if start != end else ("22:00", "08:00")

    def quiet_hours(self) -> str | None:
        """Settings' own schedule: none, an empty one, or some windows."""
        if self.is_so(0.7):
            return None
        days = self.luck.sample(range(1, 8), self.luck.choice([0, 2, 7]))
        return dumps({str(day): [self.window()] for day in sorted(days)})

    async def execute(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        if columns := [list(column) for column in zip(*rows, strict=True)]:
            async with self.database.group_as_service() as driver:
                await driver.execute(query, *columns)

    async def people(self) -> list[UUID]:
        """Users of every kind."""
        luck = self.luck
        users = [UUID(int=luck.getrandbits(128), version=4) for _ in range(USERS)]
        await self.execute(
            ADD_USERS, [(u, self.maybe(0.8, f"{u}@example.com"), luck.choice(ZONES)) for u in users]
        )
        browsers = [(uuid4(), user, self.is_so(0.8)) for user in users if self.is_so(0.6)]
        await self.execute(ADD_BROWSERS, browsers)
        await self.execute(ADD_PHONES, [(uuid4(), user) for user in users if self.is_so(0.4)])
        await self.change_settings(users)
        await self.choose(users)
        return users

    async def change_settings(self, users: Sequence[UUID]) -> None:
        pauses = [self.clock() + timedelta(hours=self.luck.randint(-5, 40)) for _ in users]
        await self.execute(
            SET_UP,
            [
                (u, self.quiet_hours(), self.maybe(0.2, end), self.maybe(0.8, f"{u}@example.com"))
                for u, end in zip(users, pauses, strict=True)
            ],
        )

    async def choose(self, users: Sequence[UUID]) -> None:
        """Preferences for some types and for all, as a transaction of the preferences' own."""
        kinds = [*NotificationType, "global"]
        for _ in range(3):
            some = [user for user in users if self.is_so(0.6)]
            await self.execute(CHOOSE, [self.choices(u, self.luck.choice(kinds)) for u in some])

    def choices(self, user: UUID, kind: str) -> tuple[Any, ...]:
        luck = self.luck
        start, end = self.window() if self.is_so(0.4) else (None, None)
        days = sorted(luck.sample(range(1, 8), luck.randint(0, 7)))
        return (
            user,
            str(kind),
            self.maybe(0.4, self.is_so(0.6)),
            self.maybe(0.4, self.is_so(0.6)),
            self.maybe(0.5, luck.choice(["instant", "instant", "daily", "weekly", "never"])),
            self.maybe(0.4, self.time()),
            self.maybe(0.4, luck.randint(1, 7)),
            start,
            end,
            self.maybe(0.5, dumps(days)),
        )

    # --- notifications --------------------------------------------------------------------------

    def notification(self, user: UUID) -> CreateNotification:
        luck, now = self.luck, self.clock()
        send_at = self.maybe(0.15, now + timedelta(minutes=luck.randint(-60, 3 * 24 * 60)))
        begins = now if send_at is None else max(now, send_at)
        fields: dict[str, Any] = {
            "user_id": user,
            "type": luck.choice([*NotificationType]),
            "priority": luck.choices([None, *Priority], [6, 1, 4, 4, 2])[0],
            "title": "A title",
            "body": "A *body*",
            "channels": self.maybe(0.2, luck.sample([*Channel], luck.randint(1, 3))),
            "send_email": luck.choices([None, True, False], [5, 4, 1])[0],
            "send_at": send_at and send_at.isoformat(),
            "expires_at": self.maybe(
                0.2, (begins + timedelta(minutes=luck.randint(1, 2 * 24 * 60))).isoformat()
            ),
            "data": {"silent": True} if self.is_so(0.08) else {},
        }
        return CreateNotification.model_validate(fields)

    async def explain_and_create(
        self, wanted: Sequence[CreateNotification]
    ) -> dict[UUID, Explanation]:
        """What was explained of each, by the id it then got; each is of another user."""
        # A process that has just begun remembers nothing of anybody; the one that creates does.
        explaining = ExplainService(
            self.database, Audience(self.defaults), self.wording, self.clock
        )
        explained: list[Explanation] = []
        at_once = self.settings.database_pool_size
        for start in range(0, len(wanted), at_once):
            some = wanted[start : start + at_once]
            explained += await asyncio.gather(*(explaining.explain(item) for item in some))
        receipts = await asyncio.gather(
            *(self.notifications.create("tests", item) for item in wanted)
        )
        return {receipt.id: item for receipt, item in zip(receipts, explained, strict=True)}

    async def claim_all(self) -> None:
        """Claim all that is due, and what that makes due."""
        while await self.deliverer.deliver():
            pass

    async def let_time_pass(self) -> None:
        """Days, until nothing is left but digests; at least an hour at a time."""
        for _ in range(1_000):
            await self.claim_all()
            due = await self.deliverer.next_due()
            if due is None:
                return
            self.clock.now = max(due, self.clock() + timedelta(hours=1))
        raise AssertionError("holding does not end")

    async def rows(self, query: str) -> list[Any]:
        async with self.database.as_service() as connection:
            return list((await connection.execute(text(query))).all())


@pytest.fixture
async def world(fresh_settings: Settings) -> AsyncGenerator[World]:
    settings = fresh_settings.model_copy(
        update={**LIMITS, "resend_api_key": SecretStr("re_tests"), "delivery_slots": 200}
    )
    clock = Clock()
    async with AsyncExitStack() as stack:
        database = Database(settings)
        stack.push_async_callback(database.close)
        redis = redis_client(settings)
        stack.push_async_callback(redis.aclose)
        broker = StreamBroker(redis_url(settings))
        stack.push_async_callback(broker.shutdown)
        announcer = await stack.enter_async_context(
            Announcer(Backplane(redis), StreamDoorbell(broker))
        )
        defaults = Defaults.from_settings(settings)
        creator, worker = Audience(defaults), Audience(defaults)  # of processes of their own
        bound = await stack.enter_async_context(
            QueueBound(settings.notification_queue_size, database, clock)
        )
        groups = await stack.enter_async_context(GroupCommit(database, announcer, creator, bound))
        recorder = await stack.enter_async_context(
            Recorder(database, retry_policy(settings), clock)
        )
        limits = defaults.limits
        in_app = InAppChannel(
            database, limits[Channel.IN_APP], clock, lambda _: None, recorder.record
        )
        senders = [in_app, Pushes(), Mails()]
        reconsiderer = Reconsiderer(database, worker, UserLimits(database, limits))
        templates = await stack.enter_async_context(Templates(database))
        renderer = await stack.enter_async_context(ProcessRenderer())
        wording = Wording(templates, renderer, defaults.timezone.key)
        yield World(
            settings,
            database,
            defaults,
            wording,
            NotificationService(groups, wording, clock),
            InboxChanges(database, announcer.announce, clock),
            Deliverer(settings, database, senders, reconsiderer, recorder, clock),
            clock,
        )


def recorded(outcomes: Iterable[dict[str, Any]]) -> list[tuple[str, str, str, datetime | None]]:
    return [
        (
            item["channel"],
            item["action"],
            item["reason"],
            None if item["until"] is None else datetime.fromisoformat(item["until"]),
        )
        for item in outcomes
    ]


def said(explanation: Explanation) -> list[tuple[str, str, str, datetime | None]]:
    return [(c.channel, c.action, c.reason, c.until) for c in explanation.channels]


async def test_what_is_explained_is_decided_and_what_is_recorded_leads_there_again(
    world: World,
) -> None:
    users = await world.people()
    explained: dict[UUID, Explanation] = {}
    for number in range(ROUNDS):
        explained |= await world.explain_and_create([world.notification(user) for user in users])
        world.clock.advance(minutes=world.luck.randint(1, 25))
        some = [user for user in users if world.is_so(0.2)]
        if number % 2:
            # Some of it is due already, and is decided with that in mind.
            await asyncio.gather(*(world.changes.mark_all_read(user) for user in some[:10]))
            await world.claim_all()
        else:
            await world.change_settings(some)
            await world.choose(some)
            await world.execute(LOSE, [(user,) for user in some[:3]])
    assert len(explained) == USERS * ROUNDS

    await world.let_time_pass()
    left = await world.rows(
        "SELECT DISTINCT channel, reason FROM notification_deliveries"
        " WHERE status = 'pending' OR lease_token IS NOT NULL"
    )
    assert [(row.channel, row.reason) for row in left] == [("email", "digest")]

    runs = await world.rows("SELECT * FROM notification_decisions")
    created = {run.notification_id: run for run in runs if run.stage == "create"}
    assert created.keys() == explained.keys()
    for notification_id, explanation in explained.items():
        assert said(explanation) == recorded(created[notification_id].outcomes)
    for run in runs:
        request, recipient, now = replayed(run.inputs)
        channels = [Channel(outcome["channel"]) for outcome in run.outcomes]
        again = decide(request, recipient, now=now, channels=channels)
        assert outcomes_of(again) == run.outcomes
    reasons = {
        stage: Counter(o["reason"] for run in runs if run.stage == stage for o in run.outcomes)
        for stage in ("create", "claim")
    }
    assert reasons["create"].keys() >= EXPLAINED
    assert reasons["claim"].keys() >= CLAIMED
