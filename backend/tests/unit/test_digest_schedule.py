from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from app.policy.digest_schedule import next_slot
from app.policy.kinds import DigestFrequency

BERLIN = ZoneInfo("Europe/Berlin")
NINE = time(9)


def slot(
    now: datetime,
    frequency: DigestFrequency = DigestFrequency.DAILY,
    at: time = NINE,
    weekday: int = 1,
    timezone: ZoneInfo = BERLIN,
) -> datetime:
    return next_slot(now, frequency=frequency, at=at, weekday=weekday, timezone=timezone)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2026, 1, 8, 7, 59, tzinfo=UTC), datetime(2026, 1, 8, 8, tzinfo=UTC)),
        (datetime(2026, 1, 8, 8, 0, tzinfo=UTC), datetime(2026, 1, 9, 8, tzinfo=UTC)),
        (datetime(2026, 7, 8, 6, 59, tzinfo=UTC), datetime(2026, 7, 8, 7, tzinfo=UTC)),
        (datetime(2026, 1, 8, 23, 30, tzinfo=UTC), datetime(2026, 1, 9, 8, tzinfo=UTC)),
    ],
    ids=["before", "exactly at the slot means the next", "summer time", "already tomorrow there"],
)
def test_daily_slot_is_the_next_nine_o_clock_of_the_user(now: datetime, expected: datetime) -> None:
    assert slot(now) == expected


def test_weekly_slot_falls_on_the_chosen_day() -> None:
    thursday = datetime(2026, 1, 8, 12, tzinfo=UTC)
    monday = slot(thursday, DigestFrequency.WEEKLY, weekday=1)
    assert monday == datetime(2026, 1, 12, 8, tzinfo=UTC)
    assert slot(monday, DigestFrequency.WEEKLY, weekday=1) == datetime(2026, 1, 19, 8, tzinfo=UTC)


def test_a_time_that_the_spring_change_skips_moves_forward() -> None:
    # On 2026-03-29 Berlin's clocks go from 02:00 to 03:00.
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert slot(before, at=time(2, 30)) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_time_that_the_autumn_change_repeats_comes_once() -> None:
    # On 2026-10-25 Berlin's clocks go from 03:00 back to 02:00.
    first = slot(datetime(2026, 10, 24, 12, tzinfo=UTC), at=time(2, 30))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert slot(first, at=time(2, 30)) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
