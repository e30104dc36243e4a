"""What holds for a type, from what was chosen for it and for all types (REQ-017 to REQ-019)."""

from datetime import time
from typing import Any

import pytest

from app.policy.kinds import DigestFrequency
from app.policy.preferences import WEEKDAYS, Choices, Preferences, effective
from app.policy.quiet_hours import Window

DEFAULTS = Preferences(digest_time=time(9), digest_day=1)
NEVER, WEEKLY, INSTANT = DigestFrequency.NEVER, DigestFrequency.WEEKLY, DigestFrequency.INSTANT
NIGHT: dict[str, Any] = {"quiet_hours_start": time(22), "quiet_hours_end": time(8)}
NOON: dict[str, Any] = {"quiet_hours_start": time(12), "quiet_hours_end": time(13)}
NO_WINDOW: dict[str, Any] = {"quiet_hours_start": None, "quiet_hours_end": None}


@pytest.mark.parametrize(
    ("of_type", "of_all", "expected"),
    [
        ({}, {}, {"push_enabled": True, "email_enabled": True, "digest_time": time(9)}),
        # A channel: the type's choice, else that for all, else on; off for all vetoes.
        ({"push_enabled": False}, {}, {"push_enabled": False, "email_enabled": True}),
        ({"push_enabled": False}, {"push_enabled": True}, {"push_enabled": False}),
        ({"push_enabled": True}, {"push_enabled": False}, {"push_enabled": False}),
        ({}, {"push_enabled": False}, {"push_enabled": False, "email_enabled": True}),
        ({"email_enabled": True}, {"email_enabled": False}, {"email_enabled": False}),
        ({"email_enabled": False}, {"push_enabled": True}, {"email_enabled": False}),
        # The rhythm is inherited and not vetoed, each part on its own.
        ({}, {"digest_frequency": NEVER}, {"digest_frequency": NEVER}),
        (
            {"digest_frequency": INSTANT},
            {"digest_frequency": NEVER},
            {"digest_frequency": INSTANT, "email_enabled": True},
        ),
        (
            {"digest_day": 5},
            {"digest_frequency": WEEKLY, "digest_day": 3, "digest_time": time(7, 30)},
            {"digest_frequency": WEEKLY, "digest_day": 5, "digest_time": time(7, 30)},
        ),
        # Quiet hours: start and end of one row; days on their own, Monday to Friday by default.
        ({}, {}, {**NO_WINDOW, "quiet_hours_days": WEEKDAYS}),
        ({}, NIGHT, {**NIGHT, "quiet_hours_days": WEEKDAYS}),
        (NOON, NIGHT, {**NOON, "quiet_hours_days": WEEKDAYS}),
        (NOON, {**NIGHT, "quiet_hours_days": (6, 7)}, {**NOON, "quiet_hours_days": (6, 7)}),
        ({"quiet_hours_days": (1,)}, NIGHT, {**NIGHT, "quiet_hours_days": (1,)}),
        ({**NOON, "quiet_hours_days": ()}, NIGHT, {**NOON, "quiet_hours_days": ()}),
    ],
)
def test_what_holds(
    of_type: dict[str, Any], of_all: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = effective(Choices(**of_type), Choices(**of_all), DEFAULTS)
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_veto_overwrites_nothing() -> None:
    of_type = Choices(push_enabled=True, email_enabled=False)
    vetoed = effective(of_type, Choices(push_enabled=False, email_enabled=False), DEFAULTS)
    assert (vetoed.push_enabled, vetoed.email_enabled) == (False, False)
    # The veto is taken back, in either way: each channel is as it was chosen for the type.
    for of_all in (Choices(), Choices(push_enabled=True, email_enabled=True)):
        kept = effective(of_type, of_all, DEFAULTS)
        assert (kept.push_enabled, kept.email_enabled) == (True, False)


def test_the_schedule_has_the_window_on_its_days() -> None:
    night = (Window(time(22), time(8)),)
    chosen = effective(Choices(**NIGHT, quiet_hours_days=(5, 6)), Choices(), DEFAULTS)
    assert chosen.schedule == {5: night, 6: night}
    assert effective(Choices(), Choices(**NIGHT), DEFAULTS).schedule == dict.fromkeys(
        WEEKDAYS, night
    )
    assert effective(Choices(**NIGHT, quiet_hours_days=()), Choices(), DEFAULTS).schedule == {}
    assert effective(Choices(), Choices(), DEFAULTS).schedule == {}
