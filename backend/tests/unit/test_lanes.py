"""Slots of a channel: how many are free, and for whom."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from app.channels.base import Claim
from app.pipeline.lanes import Lanes, Room
from app.policy.kinds import Channel, NotificationType
from app.policy.routing import Request

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)


def claims(count: int, channel: Channel = Channel.EMAIL) -> list[Claim]:
    return [
        Claim(
            id=uuid4(),
            lease_token=uuid4(),
            notification_id=uuid4(),
            user_id=uuid4(),
            channel=channel,
            attempts=1,
            expired_leases=0,
            type="task",
            priority="normal",
            title="A title",
            body="A body",
            body_html="<p>A body</p>",
            data={},
            created_at=NOW,
            expires_at=None,
            cancelled_at=None,
            email=None,
            full_name=None,
            request=Request(NotificationType.TASK),
        )
        for _ in range(count)
    ]


def room(lanes: Lanes, channel: Channel = Channel.EMAIL) -> Room | None:
    return next((room for room in lanes.room() if room.channel is channel), None)


def test_a_fifth_is_kept_for_critical_deliveries() -> None:
    lanes = Lanes(10)
    assert room(lanes) == Room(Channel.EMAIL, free=10, ordinary=8)
    lanes.occupy(claims(8))
    assert room(lanes) == Room(Channel.EMAIL, free=2, ordinary=0)
    lanes.occupy(claims(2))
    assert room(lanes) is None


def test_a_lane_of_one_slot_serves_everything() -> None:
    assert room(Lanes(1)) == Room(Channel.EMAIL, free=1, ordinary=1)


def test_channels_take_nothing_from_each_other() -> None:
    lanes = Lanes(5)
    lanes.occupy(claims(5, Channel.EMAIL))
    assert [item.channel for item in lanes.room()] == [Channel.PUSH, Channel.IN_APP]
    assert room(lanes, Channel.PUSH) == Room(Channel.PUSH, free=5, ordinary=4)


async def test_a_slot_is_given_back_once() -> None:
    lanes = Lanes(5)
    first, second = claims(2)
    lanes.occupy([first, second])
    assert lanes.holds(first)
    lanes.release([first])
    lanes.release([first])
    assert (lanes.holds(first), lanes.holds(second)) == (False, True)
    assert room(lanes) == Room(Channel.EMAIL, free=4, ordinary=3)


async def test_the_bell_rings_when_a_full_lane_has_room_again() -> None:
    lanes = Lanes(5)
    held = claims(4)
    lanes.occupy(held)
    lanes.release(held[:1])
    async with asyncio.timeout(20):
        await lanes.bell.wait()
