"""Laws of the policy, held for all inputs."""

from dataclasses import replace
from datetime import datetime, timedelta

import orjson
from hypothesis import assume, given

from app.db.database import dumps
from app.policy.kinds import Action, Channel, Priority, Reason
from app.policy.quiet_hours import LONGEST
from app.policy.replay import inputs_of, outcomes_of, replayed
from app.policy.routing import Recipient, Request, decide, effective_priority
from tests.property.policy_inputs import situations

Situation = tuple[Request, Recipient, datetime]
HOLDS_AT_MOST = 8  # a schedule, a pause, a limit, and quiet hours after each
NIGHTS = timedelta(days=9, hours=2)  # eight days of windows or the next digest, over a clock change


def is_expired(request: Request, now: datetime) -> bool:
    return request.expires_at is not None and request.expires_at <= now


@given(situations())
def test_every_channel_is_decided_once_and_the_same_again(situation: Situation) -> None:
    request, recipient, now = situation
    decisions = decide(request, recipient, now=now)
    assert [decision.channel for decision in decisions] == list(Channel)
    assert decide(request, recipient, now=now) == decisions


@given(situations())
def test_channels_are_decided_apart_as_together(situation: Situation) -> None:
    request, recipient, now = situation
    apart = [decide(request, recipient, now=now, channels=[channel]) for channel in Channel]
    assert [decision for (decision,) in apart] == list(decide(request, recipient, now=now))


@given(situations())
def test_a_run_is_made_again_from_its_record(situation: Situation) -> None:
    request, recipient, now = situation
    stored = orjson.loads(dumps(inputs_of(request, recipient, now)))
    again, seen, then = replayed(stored)
    assert then == now
    decisions = decide(request, recipient, now=now)
    assert decide(again, seen, now=then) == decisions
    assert inputs_of(again, seen, then) == stored
    assert orjson.loads(dumps(outcomes_of(decisions))) == outcomes_of(decisions)


@given(situations())
def test_in_app_is_never_lost_unless_it_expired_or_was_silent(situation: Situation) -> None:
    request, recipient, now = situation
    in_app = decide(request, recipient, now=now)[1]
    assert in_app.delivers == (not is_expired(request, now) and not request.silent)
    assert in_app.action is not Action.DIGEST


@given(situations())
def test_critical_goes_out_wherever_it_can_and_says_what_is_missing(situation: Situation) -> None:
    request, recipient, now = situation
    request = replace(request, priority=Priority.CRITICAL)
    decisions = decide(request, recipient, now=now)
    if is_expired(request, now):
        assert {decision.reason for decision in decisions} == {Reason.EXPIRED}
        return
    missing = {
        Channel.PUSH: [
            (not recipient.has_device, Reason.NO_DEVICE),
            (request.silent and not recipient.has_phone, Reason.SILENT_NEEDS_FCM),
        ],
        Channel.IN_APP: [(request.silent, Reason.SILENT)],
        Channel.EMAIL: [
            (request.silent, Reason.SILENT),
            (not recipient.has_address, Reason.NO_ADDRESS),
            (recipient.is_suppressed, Reason.ADDRESS_SUPPRESSED),
        ],
    }
    waits = request.send_at is not None and request.send_at > now
    for decision in decisions:
        unconfigured = decision.channel not in recipient.configured
        causes = [*missing[decision.channel], (unconfigured, Reason.CHANNEL_NOT_CONFIGURED)]
        stopped = [reason for is_so, reason in causes if is_so]
        if stopped:
            assert (decision.action, decision.reason) == (Action.SKIP, stopped[0])
        elif decision.channel is Channel.EMAIL and recipient.in_digest:
            assert (decision.action, decision.reason) == (Action.SEND, Reason.DIGEST)
        elif waits:
            assert (decision.action, decision.reason) == (Action.HOLD, Reason.SCHEDULED)
            assert decision.until == request.send_at
        else:
            assert (decision.action, decision.reason) == (Action.SEND, Reason.SENT_NOW)


@given(situations())
def test_nothing_that_users_choose_touches_critical(situation: Situation) -> None:
    request, recipient, now = situation
    request = replace(request, priority=Priority.CRITICAL)
    neutral = Recipient(
        has_address=recipient.has_address,
        has_device=recipient.has_device,
        has_phone=recipient.has_phone,
        is_suppressed=recipient.is_suppressed,
        in_digest=recipient.in_digest,
        configured=recipient.configured,
        timezone=recipient.timezone,
    )
    plain = replace(request, channels=None, send_email=None)
    assert decide(request, recipient, now=now) == decide(plain, neutral, now=now)


@given(situations())
def test_waiting_has_an_end_that_lies_ahead(situation: Situation) -> None:
    request, recipient, now = situation
    for decision in decide(request, recipient, now=now):
        waits = decision.action in (Action.HOLD, Action.DIGEST)
        assert (decision.until is not None) == waits
        if decision.until is None:
            continue
        assert decision.until > now
        turn = recipient.frees_at.get(decision.channel)
        earliest = max(now, request.send_at or now, recipient.pause_until or now, turn or now)
        assert decision.until - earliest <= NIGHTS


@given(situations())
def test_holding_ends(situation: Situation) -> None:
    request, recipient, now = situation
    for channel in Channel:
        instant, holds = now, 0
        while True:
            (decision,) = decide(request, recipient, now=instant, channels=[channel])
            if decision.action is not Action.HOLD:
                break
            assert decision.until is not None
            # Who lets no instant of any week be free is held for ever, and looked at each week.
            assume(decision.until - instant < LONGEST or decision.reason is not Reason.QUIET_HOURS)
            instant, holds = decision.until, holds + 1
            assert holds <= HOLDS_AT_MOST


@given(situations())
def test_what_expires_is_neither_sent_nor_parked_beyond_its_time(situation: Situation) -> None:
    request, recipient, now = situation
    if is_expired(request, now):
        decisions = decide(request, recipient, now=now)
        assert {decision.reason for decision in decisions} == {Reason.EXPIRED}
    (email,) = decide(request, recipient, now=now, channels=[Channel.EMAIL])
    if email.action is Action.DIGEST and request.expires_at is not None:
        assert email.until is not None
        assert email.until < request.expires_at


@given(situations())
def test_low_priority_disturbs_nobody(situation: Situation) -> None:
    request, recipient, now = situation
    low = replace(request, priority=Priority.LOW)
    push, _, email = decide(low, recipient, now=now)
    assert push.action is Action.SKIP
    assert email.action in (Action.SKIP, Action.DIGEST) or email.reason is Reason.DIGEST


@given(situations())
def test_what_was_read_bothers_nobody_any_more(situation: Situation) -> None:
    request, recipient, now = situation
    if effective_priority(request) is Priority.CRITICAL:
        return
    push, _, email = decide(request, replace(recipient, has_read=True), now=now)
    assert (push.action, email.action) == (Action.SKIP, Action.SKIP)


@given(situations())
def test_silent_data_goes_to_phones_alone(situation: Situation) -> None:
    request, recipient, now = situation
    push, in_app, email = decide(replace(request, silent=True), recipient, now=now)
    assert not in_app.delivers
    assert not email.delivers
    assert recipient.has_phone or not push.delivers
