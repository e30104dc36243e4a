"""Laws of the policy, held for all inputs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from app.policy.kinds import Action, Channel, DigestFrequency, NotificationType, Priority
from app.policy.preferences import Preferences
from app.policy.routing import Recipient, Request, decide, effective_priority

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati", "Australia/Lord_Howe"]
instants = st.datetimes(
    min_value=datetime(2025, 1, 1),  # noqa: DTZ001 -- Hypothesis takes naive bounds
    max_value=datetime(2028, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
requests = st.builds(
    Request,
    type=st.sampled_from(NotificationType),
    priority=st.none() | st.sampled_from(Priority),
    channels=st.none() | st.frozensets(st.sampled_from(Channel), min_size=1),
    send_email=st.none() | st.booleans(),
    send_at=st.none() | instants,
    expires_at=st.none() | instants,
    silent=st.booleans(),
)
recipients = st.builds(
    Recipient,
    has_address=st.booleans(),
    has_device=st.booleans(),
    has_phone=st.booleans(),
    timezone=st.sampled_from(ZONES).map(ZoneInfo),
    configured=st.frozensets(st.sampled_from(Channel)).map(lambda found: found | {Channel.IN_APP}),
    preferences=st.builds(
        Preferences,
        digest_frequency=st.sampled_from(DigestFrequency),
        digest_time=st.times(),
        digest_day=st.integers(1, 7),
    ),
)


@given(requests, recipients, instants)
def test_every_channel_is_decided_once_and_the_same_again(
    request: Request, recipient: Recipient, now: datetime
) -> None:
    decisions = decide(request, recipient, now=now)
    assert [decision.channel for decision in decisions] == list(Channel)
    assert decide(request, recipient, now=now) == decisions


@given(requests, recipients, instants)
def test_in_app_is_never_lost_unless_it_expired_or_was_silent(
    request: Request, recipient: Recipient, now: datetime
) -> None:
    in_app = decide(request, recipient, now=now)[1]
    expired = request.expires_at is not None and request.expires_at <= now
    assert in_app.delivers == (not expired and not request.silent)


@given(requests, recipients, instants)
def test_critical_goes_out_wherever_it_can(
    request: Request, recipient: Recipient, now: datetime
) -> None:
    if effective_priority(request) is not Priority.CRITICAL:
        return
    if request.expires_at is not None and request.expires_at <= now:
        return
    push, _, email = decide(request, recipient, now=now)
    reachable = recipient.has_device and (recipient.has_phone or not request.silent)
    assert push.delivers == (reachable and Channel.PUSH in recipient.configured)
    if request.silent:
        return
    assert email.delivers == (recipient.has_address and Channel.EMAIL in recipient.configured)
    assert email.action is not Action.DIGEST


@given(requests, recipients, instants)
def test_waiting_has_an_end_that_lies_ahead(
    request: Request, recipient: Recipient, now: datetime
) -> None:
    for decision in decide(request, recipient, now=now):
        waits = decision.action in (Action.HOLD, Action.DIGEST)
        assert (decision.until is not None) == waits
        if decision.until is not None:
            assert decision.until > now
            earliest = max(now, request.send_at or now)
            assert decision.until - earliest <= timedelta(days=8, hours=2)


@given(requests, recipients, instants)
def test_narrowing_never_widens(request: Request, recipient: Recipient, now: datetime) -> None:
    if effective_priority(request) is Priority.CRITICAL or request.channels is None:
        return
    for decision in decide(request, recipient, now=now):
        if decision.channel is not Channel.IN_APP and decision.delivers:
            assert decision.channel in request.channels


@given(requests, recipients, instants)
def test_silent_data_goes_to_phones_alone(
    request: Request, recipient: Recipient, now: datetime
) -> None:
    push, in_app, email = decide(replace(request, silent=True), recipient, now=now)
    assert not in_app.delivers
    assert not email.delivers
    assert recipient.has_phone or not push.delivers
