"""When a user wants no push (REQ-019). Pure: time comes in as an argument.

A schedule gives each weekday, 1 (Monday) to 7, the windows that start on it. A window that ends at
or before its start ends on the next day and belongs to the day it starts. By the clock on the
wall: a start that an autumn change repeats means its first occurrence and an end its last, and
what a spring change skips moves forward by the gap.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
LONGEST = timedelta(days=8)
"""What is held is looked at again by then, however the windows follow each other."""


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a day, from `start` until before `end`, in local time.

    Args:
        end: of the next day when it is not after the start; midnight is the day's end.
    """

    start: time
    end: time


Schedule = Mapping[int, tuple[Window, ...]]


def quiet_until(
    now: datetime, *, schedule: Schedule, timezone: ZoneInfo, pause_until: datetime | None = None
) -> datetime | None:
    """The end of the quiet time that `now` lies in.

    Args:
        now: an aware instant.
        schedule: the user's windows, by weekday.
        timezone: the user's.
        pause_until: aware instant until which it is quiet whatever the schedule says.

    Returns:
        The first instant after `now`, in UTC, at which it is not quiet; None if it is not quiet
        now. Windows that follow each other count as one, for eight days at most.
    """
    if not schedule and pause_until is None:
        return None
    reached = now
    if pause_until is not None and pause_until > now:
        reached = pause_until
    last = reached + LONGEST
    while reached < last:
        ends = [
            end for start, end in _around(reached, schedule, timezone) if start <= reached < end
        ]
        if not ends:
            break
        reached = max(ends)
    return None if reached == now else min(reached, last).astimezone(UTC)


def _around(
    now: datetime, schedule: Schedule, timezone: ZoneInfo
) -> Iterator[tuple[datetime, datetime]]:
    """All windows that `now` may lie in."""
    today = now.astimezone(timezone).date()
    for day in (today - 2 * DAY, today - DAY, today, today + DAY):
        for window in schedule.get(day.isoweekday(), ()):
            over_night = window.end <= window.start
            yield (
                _instant(day, window.start, timezone),
                _end(day + DAY if over_night else day, window.end, timezone),
            )


def _instant(day: date, at: time, timezone: ZoneInfo) -> datetime:
    return datetime.combine(day, at, timezone).astimezone(UTC)


def _end(day: date, at: time, timezone: ZoneInfo) -> datetime:
    return max(_instant(day, at, timezone), _instant(day, at.replace(fold=1), timezone))
