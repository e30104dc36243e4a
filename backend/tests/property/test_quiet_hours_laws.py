"""Laws of quiet hours, against a clock on the wall that is looked at once a minute (REQ-019)."""

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from app.policy.kinds import Action, Channel, Priority, Reason
from app.policy.quiet_hours import LONGEST, Schedule, quiet_until
from app.policy.routing import Recipient, Request, decide, effective_priority
from tests.property.policy_inputs import (
    ZONES,
    clock_changes,
    instants_in,
    is_quiet,
    quiet_spans,
    schedules,
    schedules_around,
    situations,
)

CHANGING = [zone for zone in ZONES if clock_changes(zone)]


@st.composite
def nights(draw: st.DrawFn) -> tuple[Schedule, str, datetime]:
    zone = draw(st.sampled_from(ZONES) | st.sampled_from(CHANGING))
    now = draw(instants_in(zone))
    around = schedules_around(now, zone)
    return draw(around | around | schedules), zone, now


@settings(max_examples=150)  # few of them are where a clock change and a window meet
@given(nights())
def test_it_is_quiet_when_the_clock_on_the_wall_says_so(
    night: tuple[Schedule, str, datetime],
) -> None:
    schedule, zone, now = night
    until = quiet_until(now, schedule=schedule, timezone=ZoneInfo(zone))
    assert (until is not None) == is_quiet(schedule, zone, now)


@given(nights())
def test_quiet_lasts_until_the_first_instant_that_is_not(
    night: tuple[Schedule, str, datetime],
) -> None:
    schedule, zone, now = night
    until = quiet_until(now, schedule=schedule, timezone=ZoneInfo(zone))
    if until is None:
        return
    assert now < until <= now + LONGEST
    # No instant between is free: the windows that begin by then leave no gap.
    reached = now
    for start, end in sorted(quiet_spans(schedule, zone, now, days_after=10)):
        if start <= reached < end:
            reached = end
    assert until == min(reached, now + LONGEST)
    if until < now + LONGEST:
        assert not is_quiet(schedule, zone, until)


@given(situations())
def test_nothing_but_critical_is_pushed_in_quiet_hours(
    situation: tuple[Request, Recipient, datetime],
) -> None:
    request, recipient, now = situation
    if request.priority is Priority.LOW:
        request = replace(request, priority=Priority.HIGH)
    # Nothing but time is in its way.
    request = replace(request, channels=None, expires_at=None)
    recipient = replace(
        recipient,
        has_device=True,
        has_phone=True,
        has_read=False,
        configured=frozenset(Channel),
        preferences=replace(recipient.preferences, push_enabled=True),
        frees_at={},
    )
    (push,) = decide(request, recipient, now=now, channels=[Channel.PUSH])
    if effective_priority(request) is Priority.CRITICAL:
        assert push.reason is not Reason.QUIET_HOURS
        return
    assert push.action in (Action.SEND, Action.HOLD)
    schedule = recipient.schedule
    if schedule is None:
        schedule = recipient.preferences.schedule
    if push.action is Action.SEND:
        assert recipient.pause_until is None or recipient.pause_until <= now
        assert not is_quiet(schedule, recipient.timezone.key, now)
    if push.reason is Reason.QUIET_HOURS:
        from_then_on = max(now, request.send_at or now)
        is_paused = recipient.pause_until is not None and recipient.pause_until > from_then_on
        assert is_paused or is_quiet(schedule, recipient.timezone.key, from_then_on)


@given(nights(), st.timedeltas(timedelta(0), timedelta(days=30)))
def test_a_pause_is_quiet_and_what_follows_it_counts_too(
    night: tuple[Schedule, str, datetime], pause: timedelta
) -> None:
    schedule, zone, now = night
    end = now + pause
    until = quiet_until(now, schedule=schedule, timezone=ZoneInfo(zone), pause_until=end)
    if pause:
        assert until is not None
        assert until == (quiet_until(end, schedule=schedule, timezone=ZoneInfo(zone)) or end)
    else:
        assert until == quiet_until(now, schedule=schedule, timezone=ZoneInfo(zone))
