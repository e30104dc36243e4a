"""Laws of preferences: switching off never adds anything (REQ-017, REQ-018)."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy.kinds import Channel, DigestFrequency, Priority
from app.policy.preferences import NOTHING_CHOSEN, Choices, Preferences, effective
from app.policy.routing import Recipient, Request, decide, effective_priority
from tests.property.policy_inputs import choices, preferences, situations

OFF = {
    "push": {"push_enabled": False},
    "email": {"email_enabled": False},
    "digest": {"digest_frequency": DigestFrequency.NEVER},
}


def reached(request: Request, recipient: Recipient, now: datetime) -> set[Channel]:
    return {item.channel for item in decide(request, recipient, now=now) if item.delivers}


@pytest.mark.parametrize("change", OFF)
@pytest.mark.parametrize("row", ["type", "global"])
@given(situations(), choices, choices, preferences)
def test_switching_off_never_adds_a_channel_and_touches_no_other(
    row: str,
    change: str,
    situation: tuple[Request, Recipient, datetime],
    of_type: Choices,
    of_all: Choices,
    defaults: Preferences,
) -> None:
    request, recipient, now = situation
    before = effective(of_type, of_all, defaults)
    if row == "type":
        after = effective(replace(of_type, **OFF[change]), of_all, defaults)
    else:
        after = effective(of_type, replace(of_all, **OFF[change]), defaults)
    was = reached(request, replace(recipient, preferences=before), now)
    now_is = reached(request, replace(recipient, preferences=after), now)
    switched = Channel.PUSH if change == "push" else Channel.EMAIL
    assert was - {switched} <= now_is <= was


@given(choices, choices, preferences)
def test_what_is_off_for_all_is_off_for_each(
    of_type: Choices, of_all: Choices, defaults: Preferences
) -> None:
    none = replace(of_all, push_enabled=False, email_enabled=False)
    found = effective(of_type, none, defaults)
    assert not found.push_enabled
    assert not found.email_enabled
    # Nothing was overwritten: with the veto gone, the type's own choices are back.
    back = effective(of_type, replace(none, push_enabled=None, email_enabled=None), defaults)
    for name in ("push_enabled", "email_enabled"):
        chosen = getattr(of_type, name)
        assert getattr(back, name) == (getattr(defaults, name) if chosen is None else chosen)


@given(choices, preferences)
def test_who_chooses_nothing_gets_the_defaults(of_all: Choices, defaults: Preferences) -> None:
    nothing = effective(NOTHING_CHOSEN, NOTHING_CHOSEN, defaults)
    assert nothing == replace(defaults, quiet_hours_start=None, quiet_hours_end=None)
    # For a type without choices of its own those for all types hold.
    assert effective(NOTHING_CHOSEN, of_all, defaults) == effective(of_all, of_all, defaults)


@given(choices, choices, preferences)
def test_quiet_hours_are_one_rows_window(
    of_type: Choices, of_all: Choices, defaults: Preferences
) -> None:
    found = effective(of_type, of_all, defaults)
    window = (found.quiet_hours_start, found.quiet_hours_end)
    assert (window[0] is None) == (window[1] is None)
    row = of_type if of_type.quiet_hours_start is not None else of_all
    assert window == (row.quiet_hours_start, row.quiet_hours_end)


@given(situations(), st.sampled_from(Channel))
def test_narrowing_takes_one_channel_and_leaves_the_others_as_they_are(
    situation: tuple[Request, Recipient, datetime], left_out: Channel
) -> None:
    request, recipient, now = situation
    if request.channels is None:
        request = replace(request, channels=frozenset(Channel))
    assert request.channels is not None
    narrower = replace(request, channels=request.channels - {left_out})
    before = decide(request, recipient, now=now)
    after = decide(narrower, recipient, now=now)
    for was, is_now in zip(before, after, strict=True):
        if was.channel is not left_out:
            assert is_now == was
        else:
            assert was.delivers or not is_now.delivers


@given(situations())
def test_what_was_not_asked_for_is_not_reached(
    situation: tuple[Request, Recipient, datetime],
) -> None:
    request, recipient, now = situation
    if effective_priority(request) is Priority.CRITICAL or request.channels is None:
        return
    assert reached(request, recipient, now) <= request.channels | {Channel.IN_APP}


@given(situations())
def test_a_list_of_channels_never_reaches_more_than_none(
    situation: tuple[Request, Recipient, datetime],
) -> None:
    request, recipient, now = situation
    if request.send_email is False:  # a list that names email after all wins over it
        return
    assert reached(request, recipient, now) <= reached(
        replace(request, channels=None), recipient, now
    )


@given(situations())
def test_asking_for_no_email_never_adds_anything(
    situation: tuple[Request, Recipient, datetime],
) -> None:
    request, recipient, now = situation
    neutral = reached(replace(request, send_email=None), recipient, now)
    assert reached(replace(request, send_email=False), recipient, now) <= neutral
    # Asking for one changes when it goes, not whether.
    now_please = reached(replace(request, send_email=True), recipient, now)
    assert neutral - {Channel.EMAIL} == now_please - {Channel.EMAIL}
