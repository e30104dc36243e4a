"""A week of fifty people with a driven clock, judged by the clocks on their walls.

Everything is real but time and the providers. What providers got is what is judged, beside what the
trace says of it (REQ-014 to REQ-019, REQ-022).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from app.config import Settings
from app.policy.kinds import Channel
from tests.integration.week import Post
from tests.integration.week_run import LIMITS, Week, happened

pytestmark = pytest.mark.timeout(300)  # the week itself, when others use the machine too

HELD = ("held", "quiet_hours")
A_STEP = timedelta(seconds=2)  # after which is asked again for what others may be sending


@pytest.fixture(scope="module")
def limited_settings(clone_database: Callable[[], Settings]) -> Settings:
    return clone_database().model_copy(
        update={
            "resend_api_key": SecretStr("re_tests"),
            "rate_limit_push_per_hour": LIMITS[Channel.PUSH][0],
            "rate_limit_in_app_per_hour": LIMITS[Channel.IN_APP][0],
            "rate_limit_email_per_day": LIMITS[Channel.EMAIL][0],
        }
    )


@pytest.fixture(scope="module")
async def week(limited_settings: Settings) -> Week:
    return await happened(limited_settings)


def test_it_was_a_week_worth_judging(week: Week) -> None:
    """Everything that may happen did."""
    assert len(week.posts) > 1_400
    reasons = Counter((row.channel, row.status, row.reason) for row in week.deliveries)
    assert {
        ("push", "sent", "sent_now"), ("push", "skipped", "summarised"),
        ("push", "skipped", "read_elsewhere"), ("push", "skipped", "expired"),
        ("in_app", "sent", "sent_now"), ("email", "sent", "sent_now"),
        ("email", "pending", "digest"), ("email", "skipped", "read_elsewhere"),
    } <= reasons.keys()  # fmt: skip
    for channel in Channel:
        limited = [row for row, _, events in week.of(channel) if week.was_limited(row, events)]
        assert len(limited) > 20, channel
    summaries = [got for got in week.got[Channel.PUSH] if got.summarises is not None]
    assert len(summaries) > 20


def test_nobody_is_pushed_in_their_quiet_time_but_for_what_is_critical(week: Week) -> None:
    disturbed = [
        (got, week.posts[got.id])
        for got in week.got[Channel.PUSH]
        if not (post := week.posts[got.id]).is_critical and post.to.is_quiet(post.type, got.at)
    ]
    assert disturbed == []


@pytest.mark.parametrize("channel", LIMITS)
def test_no_limit_is_passed_in_any_window(week: Week, channel: Channel) -> None:
    most, window = LIMITS[channel]
    reached = 0
    for of_user in week.went_out(channel).values():
        times = sorted(of_user.values())
        for earlier, later in zip(times, times[most:], strict=False):
            assert later - earlier >= window
        spans = zip(times, times[most - 1 :], strict=False)
        reached += any(later - earlier < window for earlier, later in spans)
    assert reached > 5


def test_what_is_decided_at_first_is_what_the_wall_clock_says(week: Week) -> None:
    for id_, post in week.posts.items():
        for channel in Channel:
            said = week.decided[id_][channel.value]
            assert (said["action"] != "skip") is post.has(channel), (post, said)
            if post.has(channel):
                until = None if said["until"] is None else datetime.fromisoformat(said["until"])
                found = said["action"], said["reason"], until
                assert found in _expected(channel, post, until), (post, said)


def _expected(
    channel: Channel, post: Post, until: datetime | None
) -> Sequence[tuple[str, str, datetime | None]]:
    if channel is Channel.EMAIL and post.slot is not None:
        return [("digest", "digest", post.slot)]
    if channel is Channel.PUSH and post.push_at > post.base:
        return [("hold", "quiet_hours", post.push_at)]
    if post.base > post.at:
        return [("hold", "scheduled", post.base)]
    now = [("send", "sent_now", None)]
    # Whether that was so is judged by what went out.
    return [*now, ("hold", "user_limit", until)] if channel is Channel.IN_APP else now


def test_every_digest_waits_for_its_slot(week: Week) -> None:
    waiting = [(row, post) for row, post, _ in week.of(Channel.EMAIL) if row.digest_slot]
    assert [row for row, post in waiting if row.digest_slot != post.slot] == []
    assert {row.status for row, _ in waiting} == {"pending", "skipped"}
    for row, post, _ in week.of(Channel.EMAIL):
        if post.slot is not None and row.status == "pending":
            assert row.notification_id not in week.read
            assert row.digest_slot == post.slot


def test_nothing_is_lost(week: Week) -> None:
    """Every channel that was decided for has ended, once for each device, with a reason."""
    ends = Counter((row.notification_id, row.channel) for row in week.deliveries)
    assert ends == {
        (id_, channel.value): len(post.to.devices) if channel is Channel.PUSH else 1
        for id_, post in week.posts.items()
        for channel in Channel
        if post.has(channel)
    }
    got = Counter((item.id, item.device) for each in week.got.values() for item in each)
    for row in week.deliveries:
        post, key = week.posts[row.notification_id], (row.notification_id, row.device_id)
        read, expires = week.read.get(row.notification_id), post.request.expires_at
        last = week.events[(*key[:1], row.channel, row.device_id)][-1] if (
            row.status == "skipped" or row.channel != "in_app"
        ) and row.status != "pending" else None  # fmt: skip
        match row.status, row.reason:
            case "pending", "digest":
                assert row.digest_slot == post.slot
            case "sent" | "delivered", "sent_now":
                assert row.channel == "in_app" or got[key] == 1
            case "skipped", "read_elsewhere":
                assert read is not None
                assert last is not None
                assert last.at >= read
            case "skipped", "expired":
                assert expires is not None
                assert last is not None
                assert last.at >= expires
            case "skipped", "summarised":
                assert last is not None
                assert got[UUID(last.detail["summarised_by"]), row.device_id] == 1
            case _:
                pytest.fail(f"{row}")


@pytest.mark.parametrize("channel", LIMITS)
def test_what_is_held_goes_out_when_its_time_comes(week: Week, channel: Channel) -> None:
    most, window = LIMITS[channel]
    went_out = week.went_out(channel)
    for row, post, events in week.of(channel):
        if row.sent_at is None or post.slot_on(channel) is not None:
            continue
        due = post.due_on(channel)
        assert row.sent_at >= due
        if row.sent_at <= due + A_STEP:
            continue
        assert not post.is_critical
        assert week.was_limited(row, events)
        before = week.line(channel, post.to.id, due)
        assert len(before - {row.notification_id}) >= most
        others = [at for id_, at in went_out[post.to.id].items() if id_ != row.notification_id]
        has_freed = sum(row.sent_at - window <= at <= row.sent_at for at in others) >= most
        assert has_freed or timedelta(0) <= row.sent_at - week.told(row, row.sent_at) <= A_STEP


@pytest.mark.parametrize("channel", LIMITS)
def test_who_waits_for_a_limit_is_not_overtaken(week: Week, channel: Channel) -> None:
    """By none that was created later, once it is the time that was told."""
    went_out = week.went_out(channel)
    for row, post, events in week.of(channel):
        if row.sent_at is None or not week.was_limited(row, events):
            continue
        due = post.due_on(channel)
        overtaking = [
            id_
            for id_, at in went_out[post.to.id].items()
            if id_ > row.notification_id and due < at < row.sent_at - A_STEP
        ]
        assert overtaking == []


def test_more_than_three_that_are_released_become_one(week: Week) -> None:
    """Those of a device that nobody has read, and that have not expired, at that instant."""
    released: dict[tuple[UUID, datetime], list[tuple[Any, Post, list[Any]]]] = defaultdict(list)
    for row, post, events in week.of(Channel.PUSH):
        held = [event.at for event in events if (event.event, event.reason) == HELD]
        if post.push_at > post.base:
            held.append(post.base)
        for at in {post.to.release(post.type, at) for at in held}:
            read, expires = week.read.get(row.notification_id), post.request.expires_at
            if (read is None or read > at) and (expires is None or expires > at):
                released[row.device_id, at].append((row, post, events))
    numbers: Counter[bool] = Counter()
    for (_, at), of_device in released.items():
        number = sum(_stands_for(events, at) for _, _, events in of_device)
        told = {
            row.notification_id: (event.event, event.detail)
            for row, _, events in of_device
            for event in events
            if event.at == at and (event.event == "summary" or event.reason == "summarised")
        }
        numbers[number > 3] += 1
        if number <= 3 or len(of_device) == 1:
            assert told == {}
            continue
        carrier, *others = sorted(
            (
                (post.rank, -row.notification_id.int, row.notification_id)
                for row, post, _ in of_device
            )
        )
        assert told.pop(carrier[-1])[1]["summarises"] == number
        by = ("skipped", {"summarised_by": str(carrier[-1])})
        assert told == {other[-1]: by for other in others}
    assert min(numbers[True], numbers[False]) > 20


def _stands_for(events: Sequence[Any], at: datetime) -> int:
    """How many a push stands for before an instant."""
    before = [event for event in events if event.event == "summary" and event.at < at]
    return before[-1].detail["summarises"] if before else 1
