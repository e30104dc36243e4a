"""Lets a week happen on a pipeline where everything is real but time and the providers."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, ClassVar
from uuid import UUID

import orjson
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.channels.base import Claim, Report, Sent
from app.channels.in_app import InAppChannel
from app.config import Settings
from app.db.database import Database
from app.errors import NotFound
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.commit import GroupCommit
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Deliverer
from app.pipeline.doorbell import StreamBroker, StreamDoorbell
from app.pipeline.draft import Content, Draft
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel
from app.ratelimit.queue_bound import QueueBound
from app.ratelimit.user_limits import UserLimits
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.services.inbox_changes import InboxChanges
from tests.integration.test_pipeline import Clock
from tests.integration.week import FROM, Person, Post, Reading, people, posts, readings

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIMITS = {Channel.PUSH: (4, HOUR), Channel.IN_APP: (10, HOUR), Channel.EMAIL: (6, DAY)}

ADD_RECIPIENT = text("""
    INSERT INTO notification_recipients (user_id, email, timezone, quiet_hours, pause_until)
    VALUES (:id, :email, :zone, CAST(:schedule AS jsonb), :pause_until)
""")
ADD_ROW = text("""
    INSERT INTO notification_preferences (
        user_id, notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
        digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days
    ) VALUES (:id, :of, :push, :email, :frequency, :time, :day, :start, :end, CAST(:days AS jsonb))
""")
ADD_DEVICE = text("""
    INSERT INTO push_subscriptions (id, user_id, kind, endpoint, p256dh_key, auth_key)
    VALUES (:device, :id, 'web', :endpoint, 'key', 'secret')
""")


@dataclass(frozen=True)
class Got:
    """What a provider got."""

    at: datetime
    id: UUID
    device: UUID | None
    summarises: int | None


@dataclass
class RecordingSender:
    """Takes everything."""

    clock: Clock
    got: list[Got] = field(default_factory=list[Got])

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        for claim in claims:
            device = None if claim.device is None else claim.device.id
            self.got.append(Got(self.clock(), claim.notification_id, device, claim.summarises))
            report(claim, Sent())


class PushSender(RecordingSender):
    channel: ClassVar[Channel] = Channel.PUSH


class EmailSender(RecordingSender):
    channel: ClassVar[Channel] = Channel.EMAIL


@dataclass
class Week:
    """What happened.

    Args:
        posts: by the notification's id, in the order of creation.
        read: when a notification was read or taken out.
        deliveries: the rows as they are in the end.
        events: of each delivery, in order.
        decided: what was said of each notification when it was created, by channel.
        said: until when it was held, whenever it was claimed.
    """

    posts: dict[UUID, Post] = field(default_factory=dict[UUID, Post])
    read: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    got: dict[Channel, list[Got]] = field(default_factory=dict[Channel, list[Got]])
    deliveries: list[Any] = field(default_factory=list[Any])
    events: dict[tuple[UUID, str, UUID | None], list[Any]] = field(
        default_factory=dict[tuple[UUID, str, UUID | None], list[Any]]
    )
    decided: dict[UUID, dict[str, Any]] = field(default_factory=dict[UUID, dict[str, Any]])
    said: dict[tuple[UUID, str], list[tuple[datetime, str | None]]] = field(
        default_factory=lambda: defaultdict[tuple[UUID, str], list[tuple[datetime, str | None]]](
            list
        )
    )

    counting: dict[Channel, dict[UUID, dict[UUID, datetime]]] = field(
        default_factory=dict[Channel, dict[UUID, dict[UUID, datetime]]]
    )

    def of(self, channel: Channel) -> Iterator[tuple[Any, Post, list[Any]]]:
        """The deliveries of a channel, each with its notification and its events."""
        for of_user in self._by_user[channel].values():
            yield from of_user

    @cached_property
    def _by_user(self) -> dict[Channel, dict[UUID, list[tuple[Any, Post, list[Any]]]]]:
        found: dict[Channel, dict[UUID, list[tuple[Any, Post, list[Any]]]]]
        found = {channel: defaultdict(list) for channel in Channel}
        for row in self.deliveries:
            key = row.notification_id, row.channel, row.device_id
            post = self.posts[row.notification_id]
            found[Channel(row.channel)][post.to.id].append((row, post, self.events.get(key, [])))
        return found

    def was_limited(self, row: Any, events: Sequence[Any]) -> bool:
        """Whether it had to wait for the user's limit."""
        at_first = self.decided[row.notification_id][row.channel]["reason"]
        return "user_limit" in (at_first, *(event.reason for event in events))

    def told(self, row: Any, before: datetime) -> datetime:
        """When it was last said to go out, by an instant; at first when it was created."""
        first = self.decided[row.notification_id][row.channel]["until"]
        said = [(self.posts[row.notification_id].at, first)]
        said += self.said[row.notification_id, row.channel]
        return max(datetime.fromisoformat(until) for at, until in said if until and at < before)

    def line(self, channel: Channel, user: UUID, at: datetime) -> set[UUID]:
        """What uses up a user's limit at an instant, or waits for it then."""
        _, window = LIMITS[channel]
        used = {
            id_ for id_, sent in self.went_out(channel)[user].items() if at - window < sent <= at
        }
        return used | {
            row.notification_id
            for row, post, events in self._by_user[channel].get(user, ())
            if post.at <= at
            and self.was_limited(row, events)
            and (row.sent_at is None or row.sent_at > at)
        }

    def went_out(self, channel: Channel) -> dict[UUID, dict[UUID, datetime]]:
        """When each user got which notification that counts."""
        if channel not in self.counting:
            self.counting[channel] = self._counting(channel)
        return self.counting[channel]

    def _counting(self, channel: Channel) -> dict[UUID, dict[UUID, datetime]]:
        found: dict[UUID, dict[UUID, datetime]] = defaultdict(dict)
        if channel is Channel.IN_APP:
            shown = ((row.notification_id, row.sent_at) for row, _, _ in self.of(channel))
        else:
            shown = ((got.id, got.at) for got in self.got[channel])
        for id_, at in shown:
            if at is not None and not self.posts[id_].is_critical:
                found[self.posts[id_].to.id].setdefault(id_, at)
        return found


@dataclass
class Stage:
    """The pipeline with what drives it."""

    database: Database
    groups: GroupCommit
    deliverer: Deliverer
    changes: InboxChanges
    clock: Clock

    async def set_up(self, persons: Sequence[Person]) -> None:
        async with self.database.as_service() as connection:

            async def add(query: str, values: list[dict[str, Any]]) -> None:
                await connection.execute(text(query), values)

            await add("INSERT INTO users (id) VALUES (:id)", [{"id": one.id} for one in persons])
            await connection.execute(
                ADD_RECIPIENT,
                [
                    {
                        "id": one.id,
                        "email": f"{one.id}@example.com" if one.has_address else None,
                        "zone": one.zone.key,
                        "schedule": _schedule(one),
                        "pause_until": one.pause_until,
                    }
                    for one in persons
                ],
            )
            await connection.execute(
                ADD_ROW,
                [
                    {
                        "id": one.id,
                        "of": of,
                        "push": row.push_enabled,
                        "email": row.email_enabled,
                        "frequency": row.digest_frequency,
                        "time": row.digest_time,
                        "day": row.digest_day,
                        "start": row.window and row.window[0],
                        "end": row.window and row.window[1],
                        "days": _json(row.quiet_hours_days),
                    }
                    for one in persons
                    for of, row in one.rows.items()
                ],
            )
            await add(
                "INSERT INTO inbox_state (user_id, choices_version) VALUES (:id, :version)",
                [{"id": one.id, "version": int(bool(one.rows))} for one in persons],
            )
            await connection.execute(
                ADD_DEVICE,
                [
                    {"id": one.id, "device": device, "endpoint": f"https://push.example/{device}"}
                    for one in persons
                    for device in one.devices
                ],
            )

    async def run(self, posted: Sequence[Post], to_read: Sequence[Reading], week: Week) -> None:
        """Let everything happen at its time, and go on until nothing waits any more."""
        ids = [uuid7() for _ in posted]
        post_at: dict[datetime, list[int]] = defaultdict(list)
        read_at: dict[datetime, list[Reading]] = defaultdict(list)
        for place, post in enumerate(posted):
            post_at[post.at].append(place)
        for reading in to_read:
            read_at[reading.at].append(reading)
        times = sorted({*post_at, *read_at}, reverse=True)
        while True:
            due = await self.deliverer.next_due()
            if due is None and not times:
                return
            self.clock.now = min([*times[-1:], *([] if due is None else [due])])
            if times and times[-1] == self.clock.now:
                now = times.pop()
                for reading in read_at[now]:
                    await self._read(reading, posted, ids, week)
                week.posts |= {ids[place]: posted[place] for place in post_at[now]}
                await asyncio.gather(
                    *(self._store(ids[place], posted[place]) for place in post_at[now])
                )
            while await self.deliverer.deliver():
                pass

    async def _store(self, id_: UUID, post: Post) -> None:
        content = Content("A title", "A body", "<p>A body</p>", {})
        await self.groups.store(Draft(id_, post.to.id, "tests", post.request, content, post.at))

    async def _read(
        self, reading: Reading, posted: Sequence[Post], ids: Sequence[UUID], week: Week
    ) -> None:
        user = posted[reading.post].to.id
        with suppress(NotFound):  # not shown yet, or expired
            match reading.how:
                case "all":
                    await self.changes.mark_all_read(user)
                case "delete":
                    await self.changes.delete(user, ids[reading.post])
                case _:
                    await self.changes.mark_read(user, ids[reading.post])


def _json(value: object) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _schedule(one: Person) -> str | None:
    if one.schedule is None:
        return None
    clock = "{:%H:%M}".format
    return _json(
        {
            str(day): [
                [clock(start), "24:00" if end == end.min else clock(end)] for start, end in windows
            ]
            for day, windows in one.schedule.items()
        }
    )


async def happened(settings: Settings) -> Week:
    """The week of fifty people.

    Args:
        settings: with the limits, and a database that nobody else uses.
    """
    draw = random.Random(2026)
    persons = people(draw, 34)
    posted = posts(draw, persons)
    clock = Clock(FROM)
    push, email = PushSender(clock), EmailSender(clock)
    found = Week(got={Channel.PUSH: push.got, Channel.EMAIL: email.got})
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
        audience = Audience(Defaults.from_settings(settings))
        limits = audience.defaults.limits
        bound = await stack.enter_async_context(
            QueueBound(settings.notification_queue_size, database, clock)
        )
        groups = await stack.enter_async_context(GroupCommit(database, announcer, audience, bound))
        recorder = await stack.enter_async_context(
            Recorder(database, retry_policy(settings), clock)
        )
        in_app = InAppChannel(
            database,
            limits[Channel.IN_APP],
            clock,
            lambda changes: announcer.announce(Announcement(changes=changes)),
            recorder.record,
        )
        deliverer = Deliverer(
            settings,
            database,
            [push, in_app, email],
            Reconsiderer(database, audience, UserLimits(database, limits)),
            recorder,
            clock,
        )
        changes = InboxChanges(database, announcer.announce, clock)
        happening = Stage(database, groups, deliverer, changes, clock)
        await happening.set_up(persons)
        await happening.run(posted, readings(draw, posted), found)
        await _look_back(database, found)
    return found


async def _look_back(database: Database, week: Week) -> None:
    async with database.as_service() as connection:

        async def rows(query: str) -> Sequence[Any]:
            return (await connection.execute(text(query))).all()

        week.deliveries += await rows("SELECT * FROM notification_deliveries ORDER BY id")
        for row in await rows(
            "SELECT id, least(read_at, deleted_at) AS at FROM notifications"
            " WHERE coalesce(read_at, deleted_at) IS NOT NULL"
        ):
            week.read[row.id] = row.at
        for row in await rows("SELECT * FROM notification_events ORDER BY id"):
            key = row.notification_id, row.channel, row.device_id
            week.events.setdefault(key, []).append(row)
        for row in await rows("SELECT * FROM notification_decisions ORDER BY id"):
            outcomes = {item["channel"]: item for item in row.outcomes}
            if row.stage == "create":
                week.decided[row.notification_id] = outcomes
                continue
            for channel, item in outcomes.items():
                week.said[row.notification_id, channel].append((row.decided_at, item["until"]))
