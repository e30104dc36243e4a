"""When digests are due (REQ-015, REQ-016). Pure: time comes in as an argument."""

from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from app.policy.kinds import DigestFrequency

WEEK = 7
EARLIEST: Final = timedelta(seconds=1)  # so that what was stored at the last instant is seen
SPREAD: Final = timedelta(seconds=44)


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


def jitter(user_id: UUID) -> timedelta:
    """How long after their slots a user's digests go out: not all of nine o'clock at once.

    Returns:
        At least 1 s and less than 45 s, to the millisecond, always the same for a user.
    """
    drawn = int.from_bytes(sha256(user_id.bytes).digest()[:8])
    return EARLIEST + timedelta(milliseconds=drawn % (SPREAD // timedelta(milliseconds=1)))
