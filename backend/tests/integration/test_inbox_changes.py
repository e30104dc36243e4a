"""Changes of inboxes: what they drop, what sessions are told, expiry, and locks (REQ-012)."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.errors import Busy, NotFound
from app.pipeline.announce import Announcement
from app.pipeline.deliver import utc_now
from app.pipeline.expire import Expirer
from app.realtime.connection import redis_client as connect_redis
from app.services.inbox_changes import InboxChanges
from tests.integration.sockets import Inboxes, Json, RunningGateway, id_of, running_gateway

HELD, DIGEST = "2099-01-01T00:00:00Z", "2099-01-02T09:00:00Z"


@pytest.fixture
def expirer(database: Database, told: list[Announcement]) -> Expirer:
    return Expirer(database, told.append, utc_now)


@pytest.fixture(scope="module")
async def here(settings: Settings, database: Database) -> AsyncGenerator[RunningGateway]:
    async with (
        connect_redis(settings) as redis,
        running_gateway(settings, database, redis) as running,
    ):
        yield running


async def rows(database: Database, query: str, **parameters: object) -> list[Any]:
    async with database.as_service() as connection:
        return list((await connection.execute(text(query), parameters)).all())


def frames(told: list[Announcement]) -> list[Json]:
    return [
        orjson.loads(frame)
        for announcement in told
        for change in announcement.changes
        for frame in change.frames
    ]


def sooner(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


class TestHeld:
    """Who has read it need not be told of it elsewhere."""

    WAITING: tuple[dict[str, object], ...] = (
        {"channel": "push", "next_attempt_at": HELD},
        {"channel": "email", "digest_slot": DIGEST},
    )
    ON_ITS_WAY: tuple[dict[str, object], ...] = (
        {"channel": "in_app", "next_attempt_at": HELD},
        {"channel": "email", "next_attempt_at": sooner(5)},  # due, and not claimed yet
        {"channel": "email", "next_attempt_at": HELD, "lease_token": uuid4(), "attempts": 1},
        {"channel": "email", "next_attempt_at": HELD, "attempts": 1},  # tried again later
        {"channel": "push", "status": "sent"},
    )

    async def add(self, database: Database, inboxes: Inboxes, user: UUID) -> UUID:
        notification_id = id_of(await inboxes.add(user))
        async with database.as_service() as connection:
            for delivery in (*self.WAITING, *self.ON_ITS_WAY):
                values: dict[str, object] = {
                    "status": "pending", "next_attempt_at": None, "digest_slot": None,
                    "lease_token": None, "attempts": 0, **delivery,
                }  # fmt: skip
                for name in ("next_attempt_at", "digest_slot"):
                    if isinstance(value := values[name], str):
                        values[name] = datetime.fromisoformat(value)
                await connection.execute(
                    text(
                        "INSERT INTO notification_deliveries (notification_id, user_id, channel,"
                        " status, next_attempt_at, digest_slot, lease_token, attempts)"
                        " VALUES (:id, :user, :channel, :status, :next_attempt_at, :digest_slot,"
                        " :lease_token, :attempts)"
                    ),
                    {"id": notification_id, "user": user, **values},
                )
        return notification_id

    @pytest.mark.parametrize("how", ["read", "delete", "read_all"])
    async def test_what_is_held_for_push_and_email_is_dropped(
        self, database: Database, inboxes: Inboxes, user: UUID, changes: InboxChanges, how: str
    ) -> None:
        other = await self.add(database, inboxes, await inboxes.user())
        notification_id = await self.add(database, inboxes, user)
        match how:
            case "read":
                await changes.mark_read(user, notification_id)
            case "delete":
                await changes.delete(user, notification_id)
            case _:
                await changes.mark_all_read(user)
        dropped = await rows(
            database,
            "SELECT channel, status, next_attempt_at FROM notification_deliveries"
            " WHERE notification_id = :id AND reason = 'read_elsewhere' ORDER BY channel",
            id=notification_id,
        )
        assert dropped == [("email", "skipped", None), ("push", "skipped", None)]
        events = await rows(
            database,
            "SELECT channel, event, reason FROM notification_events WHERE notification_id = :id"
            " ORDER BY channel",
            id=notification_id,
        )
        assert events == [
            ("email", "skipped", "read_elsewhere"),
            ("push", "skipped", "read_elsewhere"),
        ]
        untouched = await rows(
            database,
            "SELECT count(*) FROM notification_deliveries"
            " WHERE notification_id IN (:id, :other) AND reason IS NULL",
            id=notification_id,
            other=other,
        )
        assert untouched == [(2 * len(self.ON_ITS_WAY) + 2 + len(self.WAITING),)]


class TestSessions:
    async def test_every_session_is_told_of_what_one_asks_for(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        known = [id_of(await inboxes.add(user, kind=kind)) for kind in ("task", "task", "billing")]
        async with here.live(user) as one, here.live(user) as two:
            await one.send({"type": "mark_read", "notification_id": str(known[0])})
            for client in (one, two):
                read, counts = await client.receive_through(4)
                assert read["type"] == "read_status_updated"
                assert read["notification_id"] == str(known[0])
                assert read["read_at"].endswith("Z")
                assert (read["seq"], read["unread_count"]) == (4, 2)
                assert counts == {
                    "type": "unread_count", "seq": 4, "count": 2,
                    "by_type": {"task": 1, "billing": 1},
                }  # fmt: skip
            await two.send({"type": "mark_unread", "notification_id": str(known[0])})
            for client in (one, two):
                read, _ = await client.receive_through(5)
                assert (read["read_at"], read["seq"], read["unread_count"]) == (None, 5, 3)
            await one.send({"type": "mark_all_read", "up_to": 2, "notification_type": "task"})
            for client in (one, two):
                read, counts = await client.receive_through(6)
                assert read["notification_id"] is None
                assert (read["up_to"], read["notification_type"]) == (2, "task")
                assert (read["seq"], read["unread_count"]) == (6, 1)
                assert counts["by_type"] == {"billing": 1}

    async def test_who_asks_for_what_is_the_case_is_told_so_alone(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        known = id_of(await inboxes.add(user))
        async with here.live(user) as one, here.live(user) as two:
            await one.send({"type": "mark_unread", "notification_id": str(known)})
            answer = await one.receive()
            assert (answer["type"], answer["read_at"], answer["seq"]) == (
                "read_status_updated", None, 1,
            )  # fmt: skip
            await one.send({"type": "mark_all_read", "up_to": 0})
            answer = await one.receive()
            assert (answer["notification_id"], answer["up_to"], answer["seq"]) == (None, 0, 1)
            assert (await two.ping())["seq"] == 1

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            ({"type": "mark_read", "notification_id": str(uuid4())}, "NOT_FOUND"),
            ({"type": "mark_unread", "notification_id": str(uuid4())}, "NOT_FOUND"),
            ({"type": "mark_read"}, "INVALID_MESSAGE"),
            ({"type": "mark_read", "notification_id": 7}, "INVALID_MESSAGE"),
            ({"type": "mark_unread", "notification_id": "x"}, "INVALID_MESSAGE"),
            ({"type": "mark_all_read", "up_to": -1}, "INVALID_MESSAGE"),
            ({"type": "mark_all_read", "notification_type": "nothing"}, "INVALID_MESSAGE"),
            ({"type": "mark_all_read", "notification_type": ["task"]}, "INVALID_MESSAGE"),
        ],
    )
    async def test_what_cannot_be_done_is_said(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID, message: Json, code: str
    ) -> None:
        await inboxes.add(user)
        async with here.live(user) as client:
            await client.send(message)
            assert (await client.receive())["code"] == code
            assert (await client.ping())["seq"] == 1

    async def test_anothers_notification_is_not_found(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        theirs = id_of(await inboxes.add(await inboxes.user()))
        await inboxes.add(user)
        async with here.live(user) as client:
            await client.send({"type": "mark_read", "notification_id": str(theirs)})
            assert (await client.receive())["code"] == "NOT_FOUND"

    async def test_a_busy_inbox_keeps_its_socket(
        self, here: RunningGateway, database: Database, inboxes: Inboxes, user: UUID
    ) -> None:
        known = id_of(await inboxes.add(user))
        async with here.live(user) as client:
            async with database.as_service() as connection:
                await connection.execute(
                    text("SELECT FROM inbox_state WHERE user_id = :user FOR UPDATE"), {"user": user}
                )
                await client.send({"type": "mark_read", "notification_id": str(known)})
                assert (await client.receive())["code"] == "RATE_LIMITED"
            await client.send({"type": "mark_read", "notification_id": str(known)})
            assert (await client.receive())["seq"] == 2


class TestExpiry:
    async def test_each_expiry_is_a_change_with_its_number(
        self,
        database: Database,
        inboxes: Inboxes,
        changes: InboxChanges,
        expirer: Expirer,
        told: list[Announcement],
    ) -> None:
        ada, eve = await inboxes.user(), await inboxes.user()
        lasting = id_of(await inboxes.add(ada))
        first = id_of(await inboxes.add(ada, expires_at=sooner(20)))
        read = id_of(await inboxes.add(ada, expires_at=sooner(10)))
        await inboxes.read(ada, read)
        hers = id_of(await inboxes.add(eve, kind="billing", expires_at=sooner(5)))
        later = id_of(await inboxes.add(eve, expires_at=datetime.now(UTC) + timedelta(hours=1)))
        while await expirer.expire_some():
            pass
        gone = {
            message["notification_id"]: (message["seq"], message["unread_count"])
            for message in frames(told)
            if message["type"] == "notification_deleted"
        }
        assert gone[str(first)] == (5, 1)
        assert gone[str(read)] == (6, 1)
        assert gone[str(hers)] == (2 + 1, 1)
        assert not {str(lasting), str(later)} & gone.keys()
        states = await rows(
            database,
            "SELECT user_id, seq, unread FROM inbox_state WHERE user_id IN (:ada, :eve)",
            ada=ada,
            eve=eve,
        )
        assert {row.user_id: (row.seq, row.unread) for row in states} == {
            ada: (6, {"task": 1}),
            eve: (3, {"task": 1}),
        }
        with pytest.raises(NotFound):
            await changes.mark_read(ada, first)

    async def test_an_inbox_that_is_held_delays_no_other(
        self, database: Database, inboxes: Inboxes, user: UUID, expirer: Expirer,
        told: list[Announcement],
    ) -> None:  # fmt: skip
        other = await inboxes.user()
        held = id_of(await inboxes.add(user, expires_at=sooner(60)))
        free = id_of(await inboxes.add(other, expires_at=sooner(50)))
        async with database.as_service() as connection:
            await connection.execute(
                text("SELECT FROM inbox_state WHERE user_id = :user FOR UPDATE"), {"user": user}
            )
            await expirer.expire_some()
            seen = {message.get("notification_id") for message in frames(told)}
            assert str(free) in seen
            assert str(held) not in seen
        await expirer.expire_some()
        assert str(held) in {message.get("notification_id") for message in frames(told)}

    async def test_what_is_overdue_expires_before_anything_else_is_done(
        self, inboxes: Inboxes, user: UUID, changes: InboxChanges, told: list[Announcement]
    ) -> None:
        kept = id_of(await inboxes.add(user))
        gone = id_of(await inboxes.add(user, expires_at=sooner(1)))
        await changes.mark_all_read(user)
        deleted, _, read, _ = frames(told)
        assert (deleted["type"], deleted["notification_id"], deleted["seq"]) == (
            "notification_deleted", str(gone), 3,
        )  # fmt: skip
        assert (read["seq"], read["unread_count"]) == (4, 0)
        with pytest.raises(NotFound):
            await changes.mark_unread(user, gone)
        assert (await changes.mark_unread(user, kept)).seq == 5


async def test_a_change_that_fails_undoes_all_of_its_transaction(
    inboxes: Inboxes, user: UUID, changes: InboxChanges, told: list[Announcement]
) -> None:
    known = id_of(await inboxes.add(user))

    async def read_and_fail() -> None:
        async with changes.editing(user) as edit:
            await edit.read(known)
            await edit.delete(uuid4())

    with pytest.raises(NotFound):
        await read_and_fail()
    assert told == []
    assert (await changes.mark_read(user, known)).seq == 2


async def test_an_inbox_that_stays_locked_is_busy(
    database: Database, inboxes: Inboxes, user: UUID, changes: InboxChanges
) -> None:
    known = id_of(await inboxes.add(user))
    async with database.as_service() as connection:
        await connection.execute(
            text("SELECT FROM inbox_state WHERE user_id = :user FOR UPDATE"), {"user": user}
        )
        with pytest.raises(Busy):
            await changes.mark_read(user, known)
    assert (await changes.mark_read(user, known)).seq == 2


async def test_changes_of_one_inbox_wait_for_each_other(
    database: Database, inboxes: Inboxes, user: UUID, changes: InboxChanges
) -> None:
    *known, gone = [id_of(await inboxes.add(user)) for _ in range(9)]
    deleting = asyncio.create_task(changes.delete(user, gone))
    done = await asyncio.gather(*(changes.mark_read(user, each) for each in known))
    await deleting
    (state,) = await rows(
        database, "SELECT seq, unread FROM inbox_state WHERE user_id = :user", user=user
    )
    assert (state.seq, state.unread) == (18, {})
    assert len({status.seq for status in done}) == 8
