"""On a cluster of real servers that move, hang and die (section 8.3, REQ-010, 8.4).

What the backplane promises on one server and a cluster alike is in `test_backplane`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from redis.exceptions import RedisError
from taskiq import AckableMessage

from app.config import Settings
from app.db.database import Database
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.doorbell import STREAM, StreamBroker, StreamDoorbell
from app.policy.kinds import Channel
from app.ratelimit.redis_lines import key_of
from app.realtime.backplane import BUCKETS, CHANNELS, Backplane, Change
from app.realtime.connection import connect
from app.realtime.hub import cancel
from faults.session import Session
from tests.cluster import LocalCluster, Node, until
from tests.integration import test_pipeline, test_push_queue
from tests.integration.listening import listening
from tests.integration.sockets import (
    PATIENCE,
    QUICK,
    Inboxes,
    eventually,
    running_gateway,
    statements,
)
from tests.integration.test_pipeline import START
from tests.integration.test_push_queue import PUSH, Pushes
from tests.integration.test_user_limits import (
    HOUR,
    LIMITS,
    assert_never_more,
    open_team,
    sent,
)
from tests.stack import Stack, running_stack

stage, pushes = test_pipeline.stage, test_push_queue.pushes

pytestmark = pytest.mark.timeout(240)

# Every bucket's user, and a change for each.
EVERYWHERE = [Change(UUID(int=bucket), 1, (b"{}",)) for bucket in range(BUCKETS)]


def channel_of(user_id: UUID) -> str:
    return CHANNELS[user_id.int % BUCKETS]


async def users_of_each_master(cluster: LocalCluster, inboxes: Inboxes) -> list[UUID]:
    """Users whose buckets are on different masters, one for each."""
    users: dict[int, UUID] = {}
    while len(users) < 3:
        user_id = await inboxes.user()
        users[(await cluster.owner(channel_of(user_id))).port] = user_id
    return list(users.values())


# On a busy machine a frame may be late; here none is to come from PostgreSQL for that.
PATIENT = replace(QUICK, hole_wait=2 * PATIENCE)


async def test_two_gateways_hear_every_frame_through_all_masters(
    cluster: LocalCluster, settings: Settings, database: Database
) -> None:
    inboxes = Inboxes(database)
    users = await users_of_each_master(cluster, inboxes)
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                running_gateway(
                    settings,
                    database,
                    await stack.enter_async_context(connect(cluster.url)),
                    timing=PATIENT,
                )
            )
            for _ in range(2)
        ]
        sessions = {
            user_id: [await stack.enter_async_context(at.live(user_id)) for at in (one, two)]
            for user_id in users
        }
        changes = [[await inboxes.add(user_id) for user_id in users] for _ in range(20)]
        with statements(database) as executed:
            for number, round_ in enumerate(changes):
                await (one, two)[number % 2].publish(*round_)
            for clients in sessions.values():
                for client in clients:
                    messages = await client.receive_through(20)
                    shown = [part["seq"] for part in messages if part["type"] == "notification"]
                    assert shown == list(range(1, 21))
        told = [statement for statement in executed if "FROM notifications n" in statement]
        assert told == [], "a session was told by PostgreSQL"


async def test_a_channel_that_moves_is_followed(cluster: LocalCluster) -> None:
    """The listener is told by the server it leaves, the publisher by its refusal."""
    source = await cluster.owner(CHANNELS[0])
    target = await cluster.owner(channel_elsewhere(await owners(cluster), source))
    async with connect(cluster.url) as here, connect(cluster.url) as there:
        backplane, publisher = Backplane(here), Backplane(there)
        try:
            async with listening(backplane) as listener:
                await publisher.publish(EVERYWHERE, timeout=PATIENCE)
                await eventually(lambda: len(listener.changes) == BUCKETS)
                told = listener.gaps
                await cluster.move(CHANNELS[0], target)
                await eventually(lambda: listener.gaps > told and backplane.is_listening)
                listener.changes.clear()
                await publisher.publish(EVERYWHERE, timeout=PATIENCE)
                await eventually(lambda: channels_of(listener.changes) == set(CHANNELS))
        finally:
            await cluster.move(CHANNELS[0], source)


async def test_a_master_that_hangs_costs_its_own_channels_only(cluster: LocalCluster) -> None:
    victim, replica = await cluster.shard(CHANNELS[0])
    others = {channel for channel, node in (await owners(cluster)).items() if node is not victim}
    async with connect(cluster.url) as client:
        backplane = Backplane(client, keepalive=0.5)
        async with listening(backplane) as listener:
            with victim.frozen():
                with replica.frozen(), pytest.raises((TimeoutError, RedisError, OSError)):
                    await backplane.publish(EVERYWHERE, timeout=0.5)
                await eventually(lambda: channels_of(listener.changes) >= others)
                listener.changes.clear()
                await until(lambda: everybody_is_told(backplane))
                await eventually(lambda: backplane.is_listening)
                await until(lambda: everybody_is_told(backplane))
                await eventually(lambda: channels_of(listener.changes) == set(CHANNELS))


async def test_a_cluster_that_was_away_altogether_is_found_again(cluster: LocalCluster) -> None:
    async with connect(cluster.url) as client:
        backplane = Backplane(client)
        async with listening(backplane) as listener:
            for node in cluster.nodes:
                node.kill()
            await eventually(lambda: not backplane.is_listening)
            with pytest.raises((RedisError, OSError)):
                await client.ping()
            await cluster.whole()
            await eventually(lambda: backplane.is_listening)
            await until(lambda: everybody_is_told(backplane))
            await eventually(lambda: channels_of(listener.changes) == set(CHANNELS))


async def test_a_cluster_is_ready_when_every_master_answers(cluster: LocalCluster) -> None:
    async with connect(cluster.url) as client:
        await client.ping()
        for node in await cluster.shard(CHANNELS[0]):
            node.kill()
        with pytest.raises((RedisError, OSError)):
            await client.ping()
        await cluster.whole()

        async def is_ready() -> bool:
            await client.ping()
            return True

        await until(is_ready)


async def test_one_server_that_is_no_cluster_is_not_taken_for_one(settings: Settings) -> None:
    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value()
    async with connect(url.replace("redis://", "redis-cluster://")) as client:
        with pytest.raises(RedisError, match="no server of the cluster answers"):
            await client.ping()


async def test_the_bell_rings_again_after_the_master_of_its_stream_died(
    cluster: LocalCluster,
) -> None:
    worker, api = StreamBroker(cluster.url), StreamBroker(cluster.url)
    rung: list[AckableMessage] = []

    async def answer() -> None:
        async for message in worker.listen():
            rung.append(message)
            await message.ack()  # pyright: ignore[reportGeneralTypeIssues] -- may be synchronous

    async def ring() -> bool:
        await StreamDoorbell(api).ring([uuid4()])
        return True

    answering = asyncio.create_task(answer())
    try:
        await until(ring)
        await eventually(lambda: len(rung) > 0)
        (await cluster.owner(STREAM)).kill()
        told = len(rung)
        await until(ring)
        await eventually(lambda: len(rung) > told)
        # A heir that never had the key has no consumer group either.
        async with connect(cluster.url) as client:
            await (await client.at(STREAM)).delete(STREAM)
        told = len(rung)
        await until(ring)
        await eventually(lambda: len(rung) > told)
    finally:
        await cancel([answering])
        await worker.shutdown()
        await api.shutdown()


async def test_frames_without_a_master_do_not_silence_the_bell(cluster: LocalCluster) -> None:
    bell = await cluster.owner(STREAM)
    channel = channel_elsewhere(await owners(cluster), bell)
    change = Change(UUID(int=CHANNELS.index(channel)), 1, (b"{}",))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(cluster.url))
        broker = StreamBroker(cluster.url)
        stack.push_async_callback(broker.shutdown)
        server = await client.at(STREAM)
        await server.delete(STREAM)
        announcer = Announcer(Backplane(client), StreamDoorbell(broker))
        await stack.enter_async_context(announcer)
        with (await cluster.owner(channel)).frozen():

            async def has_rung() -> bool:
                # A ring on a busy machine may take longer than it is given; the next one follows.
                announcer.announce(Announcement(changes=(change,), delivery_ids=(uuid4(),)))
                return await server.xlen(STREAM) > 0

            await until(has_rung)


async def test_limits_of_users_stay_exact_while_a_master_dies(
    cluster: LocalCluster, pushes: Pushes, stage: test_pipeline.Stage
) -> None:
    """Each master has the limits of some users; those of the dead one are PostgreSQL's."""
    users: dict[int, UUID] = {}
    while len(users) < 3:
        user = await stage.user()
        users[(await cluster.owner(limit_of(user))).port] = user
    for user in users.values():
        await pushes.device(user)

    async def post() -> None:
        await asyncio.gather(*(stage.post(user, PUSH) for user in users.values() for _ in range(8)))

    async with open_team(stage, cluster.url, patience=PATIENCE) as team:
        await post()
        await team.work()
        assert {len(await known_to(cluster, user)) for user in users.values()} == {8}
        orphan, *others = users.values()
        stage.clock.now = START + HOUR / 2
        await post()
        # Claimed while all is well, and settled by who is left.
        claims = [await one.claim() for one in team.deliverers]
        (await cluster.owner(limit_of(orphan))).kill()
        await asyncio.gather(
            *(one.dispatch(taken) for one, taken in zip(team.deliverers, claims, strict=True))
        )
        await team.work()
        for user in users.values():
            assert len(await sent(stage, user, Channel.PUSH)) == 10
        assert {len(await known_to(cluster, user)) for user in others} == {10}
        await team.work_until(START + 3 * HOUR)
    for user in users.values():
        assert len(await sent(stage, user, Channel.PUSH)) == 16
        await assert_never_more(stage, user, Channel.PUSH, LIMITS[Channel.PUSH])


def limit_of(user_id: UUID) -> str:
    return key_of((user_id, Channel.PUSH))


async def known_to(cluster: LocalCluster, user_id: UUID) -> list[str]:
    """The user's pushes that count on the master that has them."""
    master = await cluster.owner(limit_of(user_id))
    return await master.ask("ZRANGE", limit_of(user_id), 0, -1)


class TestFailover:
    """The whole program, on a cluster that loses the master that has a user's frames."""

    @pytest.fixture
    async def stack(self, cluster: LocalCluster, data_dir: Path) -> AsyncGenerator[Stack]:
        environment = {
            "REDIS_URL": cluster.url,
            "RATE_LIMIT_IN_APP_PER_HOUR": "1000000",
            "RATE_LIMIT_EMAIL_PER_DAY": "1000000",
        }
        async with running_stack(data_dir, environment) as running:
            yield running

    async def test_nothing_is_lost_refused_or_told_twice(
        self, stack: Stack, cluster: LocalCluster
    ) -> None:
        user_id = await stack.add_user()
        victim = await cluster.owner(channel_of(user_id))
        token = stack.user_token(user_id)
        sessions = [
            Session(port, user_id, token) for port in (stack.ws_port, stack.settings.api_port)
        ]
        async with sessions[0].listening(), sessions[1].listening():
            created = [await stack.send(user_id, send_email=True) for _ in range(20)]
            victim.kill()
            created += [
                notification_id
                for _ in range(20)
                for notification_id in await asyncio.gather(
                    *(stack.send(user_id, send_email=True) for _ in range(5))
                )
            ]

            async def has_heir() -> bool:
                return await cluster.owner(channel_of(user_id)) is not victim

            await until(has_heir)
            created += [await stack.send(user_id, send_email=True) for _ in range(20)]

            async def told_all() -> bool:
                return all(session.shown.keys() >= set(created) for session in sessions)

            await until(told_all)
            await until(lambda: mailed(stack, created))
            await until(lambda: is_whole(stack))
        for session in sessions:
            assert session.problems == []
            assert session.shown == Counter(created)


async def mailed(stack: Stack, created: Sequence[UUID]) -> bool:
    """Whether each notification was mailed once."""
    mails = (await stack.sandbox.get("/mails", params={"limit": 1000})).json()["items"]
    assert len(mails) <= len(created)
    return len(mails) == len(created)


async def is_whole(stack: Stack) -> bool:
    """Whether no part misses Redis."""
    gateway = f"http://127.0.0.1:{stack.ws_port}/readyz"
    answers = [await stack.api.get(address) for address in ("/readyz", gateway)]
    return not any(answer.json()["degraded"] for answer in answers)


async def owners(cluster: LocalCluster) -> dict[str, Node]:
    """Each channel's master."""
    return {channel: await cluster.owner(channel) for channel in CHANNELS}


def channel_elsewhere(owners: dict[str, Node], source: Node) -> str:
    return next(channel for channel, node in owners.items() if node is not source)


def channels_of(changes: Sequence[Change]) -> set[str]:
    return {channel_of(change.user_id) for change in changes}


async def everybody_is_told(backplane: Backplane) -> bool:
    await backplane.publish(EVERYWHERE)
    return True
