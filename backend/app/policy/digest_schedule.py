"""When digests are due (REQ-015, REQ-016). Pure: time comes in as an argument."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from app.policy.kinds import DigestFrequency

WEEK = 7


def next_slot(
    now: datetime, *, frequency: DigestFrequency, at: time, weekday: int, timezone: ZoneInfo
) -> datetime:
    """The first digest instant strictly after `now`.

    Args:
        now: an aware instant.
        frequency: `daily` or `weekly`.
        at: the user's wall-clock time. One that a spring change skips moves forward by the gap;
            one that an autumn change repeats means its first occurrence.
        weekday: 1 (Monday) to 7, for weekly digests.
        timezone: the user's.

    Returns:
        The slot as a UTC instant; the same for every caller between two slots.
    """
    local = now.astimezone(timezone)
    step = WEEK if frequency is DigestFrequency.WEEKLY else 1
    ahead = (weekday - local.isoweekday()) % WEEK if frequency is DigestFrequency.WEEKLY else 0
    day = local.date() + timedelta(days=ahead)
    while True:
        slot = datetime.combine(day, at, timezone).astimezone(UTC)
        if slot > now:
            return slot
        day += timedelta(days=step)
