from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.policy.kinds import (
    Action,
    Channel,
    DigestFrequency,
    NotificationType,
    Priority,
    Reason,
)
from app.policy.preferences import Preferences
from app.policy.routing import Recipient, Request, decide, effective_priority

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)
NEXT_SLOT = datetime(2026, 1, 9, 9, tzinfo=UTC)
READY = Recipient(has_address=True, has_device=True, timezone=ZoneInfo("UTC"))


def outcome(request: Request, recipient: Recipient = READY) -> dict[str, str]:
    decisions = decide(request, recipient, now=NOW)
    return {str(d.channel): f"{d.action} {d.reason}" for d in decisions}


@pytest.mark.parametrize(
    ("priority", "push", "email"),
    [
        (Priority.CRITICAL, "send sent_now", "send sent_now"),
        (Priority.HIGH, "send sent_now", "digest digest"),
        (Priority.NORMAL, "send sent_now", "digest digest"),
        (Priority.LOW, "skip priority_rule", "digest digest"),
    ],
)
def test_channels_follow_the_priority(priority: Priority, push: str, email: str) -> None:
    request = Request(NotificationType.TASK, priority)
    assert outcome(request) == {"push": push, "in_app": "send sent_now", "email": email}


@pytest.mark.parametrize("kind", list(NotificationType))
def test_security_is_critical_by_itself_and_all_others_are_normal(kind: NotificationType) -> None:
    expected = Priority.CRITICAL if kind is NotificationType.SECURITY else Priority.NORMAL
    assert effective_priority(Request(kind)) is expected
    assert effective_priority(Request(kind, Priority.LOW)) is Priority.LOW


@pytest.mark.parametrize(
    ("priority", "email"),
    [
        (Priority.HIGH, "send sent_now"),
        (Priority.NORMAL, "send sent_now"),
        (Priority.LOW, "digest digest"),
    ],
)
def test_send_email_sends_now_but_for_low_priority(priority: Priority, email: str) -> None:
    request = Request(NotificationType.TASK, priority, send_email=True)
    assert outcome(request)["email"] == email


def test_channels_narrow_and_win_over_send_email() -> None:
    request = Request(
        NotificationType.TASK,
        Priority.HIGH,
        channels=frozenset({Channel.PUSH}),
        send_email=True,
    )
    assert outcome(request) == {
        "push": "send sent_now",
        "in_app": "send sent_now",
        "email": "skip not_requested",
    }


def test_critical_passes_narrowing_and_preferences() -> None:
    request = Request(
        NotificationType.SECURITY, channels=frozenset({Channel.IN_APP}), send_email=False
    )
    recipient = replace(READY, preferences=Preferences(digest_frequency=DigestFrequency.NEVER))
    assert set(outcome(request, recipient).values()) == {"send sent_now"}


def test_what_is_missing_is_said() -> None:
    request = Request(NotificationType.SECURITY)
    without = replace(READY, has_address=False, has_device=False)
    assert outcome(request, without) == {
        "push": "skip no_device",
        "in_app": "send sent_now",
        "email": "skip no_address",
    }
    unconfigured = replace(READY, configured=frozenset({Channel.IN_APP}))
    assert outcome(request, unconfigured) == {
        "push": "skip channel_not_configured",
        "in_app": "send sent_now",
        "email": "skip channel_not_configured",
    }


def test_digest_frequency_decides_about_email() -> None:
    request = Request(NotificationType.USER)
    instant = replace(READY, preferences=Preferences(digest_frequency=DigestFrequency.INSTANT))
    never = replace(READY, preferences=Preferences(digest_frequency=DigestFrequency.NEVER))
    assert outcome(request, instant)["email"] == "send sent_now"
    assert outcome(request, never)["email"] == "skip preference_off"
    assert outcome(replace(request, send_email=True), never)["email"] == "skip preference_off"


def test_a_schedule_holds_everything_and_digests_come_after_it() -> None:
    later = NOW + timedelta(days=2)
    decisions = decide(Request(NotificationType.TASK, Priority.HIGH, send_at=later), READY, now=NOW)
    by_channel = {decision.channel: decision for decision in decisions}
    for channel in (Channel.PUSH, Channel.IN_APP):
        assert by_channel[channel].action is Action.HOLD
        assert by_channel[channel].reason is Reason.SCHEDULED
        assert by_channel[channel].until == later
    assert by_channel[Channel.EMAIL].until == datetime(2026, 1, 11, 9, tzinfo=UTC)


def test_a_digest_that_comes_too_late_is_skipped() -> None:
    request = Request(NotificationType.TASK, expires_at=NEXT_SLOT)
    assert outcome(request)["email"] == "skip expired"
    assert (
        outcome(replace(request, expires_at=NEXT_SLOT + timedelta(seconds=1)))["email"]
        == "digest digest"
    )
