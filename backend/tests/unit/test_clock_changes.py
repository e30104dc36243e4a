"""Quiet hours and digest slots where clocks change (REQ-016, REQ-019): instants written by hand.

Saturday is day 6 and Sunday day 7: the night in which most clocks change.
"""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest

from app.policy.digest_schedule import next_slot
from app.policy.kinds import DigestFrequency
from app.policy.quiet_hours import Window, quiet_until

BERLIN, NEW_YORK, ST_JOHNS = "Europe/Berlin", "America/New_York", "America/St_Johns"
LORD_HOWE, APIA, KOLKATA = "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"


@pytest.mark.parametrize(
    ("zone", "day", "window", "now", "until"),
    [
        # Berlin, 29 March: 02:00 becomes 03:00.
        (BERLIN, 6, "22:00-08:00", "2026-03-28T21:59+01:00", None),
        (BERLIN, 6, "22:00-08:00", "2026-03-28T22:00+01:00", "2026-03-29T08:00+02:00"),
        (BERLIN, 6, "22:00-08:00", "2026-03-29T07:59+02:00", "2026-03-29T08:00+02:00"),
        (BERLIN, 6, "22:00-08:00", "2026-03-29T08:00+02:00", None),
        (BERLIN, 6, "22:00-02:30", "2026-03-29T01:59+01:00", "2026-03-29T03:30+02:00"),
        (BERLIN, 7, "02:30-06:00", "2026-03-29T03:29+02:00", None),
        (BERLIN, 7, "02:30-06:00", "2026-03-29T03:30+02:00", "2026-03-29T06:00+02:00"),
        # Berlin, 25 October: 03:00 becomes 02:00.
        (BERLIN, 6, "22:00-08:00", "2026-10-24T22:00+02:00", "2026-10-25T08:00+01:00"),
        (BERLIN, 6, "22:00-02:30", "2026-10-25T02:15+02:00", "2026-10-25T02:30+01:00"),
        (BERLIN, 6, "22:00-02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
        (BERLIN, 6, "22:00-02:30", "2026-10-25T02:30+01:00", None),
        (BERLIN, 7, "02:30-06:00", "2026-10-25T02:29+02:00", None),
        (BERLIN, 7, "02:30-06:00", "2026-10-25T02:30+02:00", "2026-10-25T06:00+01:00"),
        (BERLIN, 7, "02:30-06:00", "2026-10-25T02:15+01:00", "2026-10-25T06:00+01:00"),
        # New York, 8 March: 02:00 becomes 03:00.
        (NEW_YORK, 6, "22:00-07:00", "2026-03-07T23:00-05:00", "2026-03-08T07:00-04:00"),
        (NEW_YORK, 6, "22:00-02:15", "2026-03-07T23:00-05:00", "2026-03-08T03:15-04:00"),
        (NEW_YORK, 7, "02:00-05:00", "2026-03-08T01:59-05:00", None),
        (NEW_YORK, 7, "02:00-05:00", "2026-03-08T03:00-04:00", "2026-03-08T05:00-04:00"),
        # New York, 1 November: 02:00 becomes 01:00.
        (NEW_YORK, 6, "22:00-07:00", "2026-10-31T22:00-04:00", "2026-11-01T07:00-05:00"),
        (NEW_YORK, 6, "22:00-01:30", "2026-11-01T01:45-04:00", "2026-11-01T01:30-05:00"),
        (NEW_YORK, 7, "01:30-05:00", "2026-11-01T01:00-05:00", "2026-11-01T05:00-05:00"),
        # Lord Howe, 5 April: 02:00 becomes 01:30.
        (LORD_HOWE, 6, "22:00-07:00", "2026-04-04T23:00+11:00", "2026-04-05T07:00+10:30"),
        (LORD_HOWE, 6, "22:00-01:45", "2026-04-05T01:50+11:00", "2026-04-05T01:45+10:30"),
        (LORD_HOWE, 7, "01:45-06:00", "2026-04-05T01:44+11:00", None),
        (LORD_HOWE, 7, "01:45-06:00", "2026-04-05T01:30+10:30", "2026-04-05T06:00+10:30"),
        # Lord Howe, 4 October: 02:00 becomes 02:30.
        (LORD_HOWE, 6, "22:00-07:00", "2026-10-03T23:00+10:30", "2026-10-04T07:00+11:00"),
        (LORD_HOWE, 6, "22:00-02:15", "2026-10-04T01:00+10:30", "2026-10-04T02:45+11:00"),
        (LORD_HOWE, 7, "02:15-06:00", "2026-10-04T02:44+11:00", None),
        (LORD_HOWE, 7, "02:15-06:00", "2026-10-04T02:45+11:00", "2026-10-04T06:00+11:00"),
        # Apia, 2011: Friday, 30 December is left out; what falls into it comes a day later.
        (APIA, 4, "22:00-08:00", "2011-12-29T23:00-10:00", "2011-12-31T08:00+14:00"),
        (APIA, 5, "09:00-17:00", "2011-12-31T08:59+14:00", None),
        (APIA, 5, "09:00-17:00", "2011-12-31T10:00+14:00", "2011-12-31T17:00+14:00"),
        # Apia, 2012: 1 April 04:00 becomes 03:00; 30 September 03:00 becomes 04:00.
        (APIA, 6, "22:00-03:30", "2012-04-01T03:45+14:00", "2012-04-01T03:30+13:00"),
        (APIA, 7, "03:30-06:00", "2012-04-01T03:15+13:00", "2012-04-01T06:00+13:00"),
        (APIA, 6, "22:00-03:30", "2012-09-30T02:00+13:00", "2012-09-30T04:30+14:00"),
        (APIA, 7, "03:30-06:00", "2012-09-30T04:29+14:00", None),
        # Apia since 2021, and Kolkata always: clocks stay as they are.
        (APIA, 6, "22:00-08:00", "2026-04-04T23:00+13:00", "2026-04-05T08:00+13:00"),
        (APIA, 6, "22:00-08:00", "2026-09-26T23:00+13:00", "2026-09-27T08:00+13:00"),
        (KOLKATA, 6, "22:00-08:00", "2026-03-28T22:00+05:30", "2026-03-29T08:00+05:30"),
        (KOLKATA, 6, "22:00-08:00", "2026-10-25T07:59+05:30", "2026-10-25T08:00+05:30"),
        (KOLKATA, 6, "22:00-08:00", "2026-10-25T08:00+05:30", None),
        # St. John's, 8 March: 02:00 becomes 03:00.
        (ST_JOHNS, 6, "22:00-08:00", "2026-03-07T23:00-03:30", "2026-03-08T08:00-02:30"),
        (ST_JOHNS, 6, "22:00-02:30", "2026-03-07T23:00-03:30", "2026-03-08T03:30-02:30"),
        (ST_JOHNS, 7, "02:30-06:00", "2026-03-08T03:29-02:30", None),
        (ST_JOHNS, 7, "02:30-06:00", "2026-03-08T03:30-02:30", "2026-03-08T06:00-02:30"),
        # St. John's, 1 November: 02:00 becomes 01:00.
        (ST_JOHNS, 6, "22:00-08:00", "2026-10-31T23:00-02:30", "2026-11-01T08:00-03:30"),
        (ST_JOHNS, 6, "22:00-01:30", "2026-11-01T01:40-02:30", "2026-11-01T01:30-03:30"),
        (ST_JOHNS, 7, "01:30-06:00", "2026-11-01T01:00-03:30", "2026-11-01T06:00-03:30"),
    ],
)
def test_quiet_hours_go_by_the_clock_on_the_wall(
    zone: str, day: int, window: str, now: str, until: str | None
) -> None:
    start, end = map(time.fromisoformat, window.split("-"))
    found = quiet_until(
        datetime.fromisoformat(now),
        schedule={day: (Window(start, end),)},
        timezone=ZoneInfo(zone),
    )
    assert found == (None if until is None else datetime.fromisoformat(until))
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("zone", "at", "weekday", "now", "slot"),
    [
        (BERLIN, "09:00", None, "2026-03-28T09:00+01:00", "2026-03-29T09:00+02:00"),
        (BERLIN, "09:00", 7, "2026-03-22T09:00+01:00", "2026-03-29T09:00+02:00"),
        (BERLIN, "02:30", None, "2026-03-28T12:00+01:00", "2026-03-29T03:30+02:00"),
        (BERLIN, "02:30", None, "2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"),
        (BERLIN, "02:30", 7, "2026-03-23T12:00+01:00", "2026-03-29T03:30+02:00"),
        (BERLIN, "09:00", None, "2026-10-24T09:00+02:00", "2026-10-25T09:00+01:00"),
        (BERLIN, "02:30", None, "2026-10-24T12:00+02:00", "2026-10-25T02:30+02:00"),
        (BERLIN, "02:30", None, "2026-10-25T02:15+01:00", "2026-10-26T02:30+01:00"),
        (BERLIN, "02:30", 7, "2026-10-25T02:15+01:00", "2026-11-01T02:30+01:00"),
        (NEW_YORK, "02:30", None, "2026-03-07T12:00-05:00", "2026-03-08T03:30-04:00"),
        (NEW_YORK, "01:30", None, "2026-10-31T12:00-04:00", "2026-11-01T01:30-04:00"),
        (NEW_YORK, "01:30", None, "2026-11-01T01:15-05:00", "2026-11-02T01:30-05:00"),
        (LORD_HOWE, "02:15", None, "2026-10-03T12:00+10:30", "2026-10-04T02:45+11:00"),
        (LORD_HOWE, "01:45", None, "2026-04-04T12:00+11:00", "2026-04-05T01:45+11:00"),
        (LORD_HOWE, "01:45", None, "2026-04-05T01:40+10:30", "2026-04-06T01:45+10:30"),
        (APIA, "09:00", None, "2011-12-29T12:00-10:00", "2011-12-31T09:00+14:00"),
        (APIA, "09:00", None, "2011-12-31T09:00+14:00", "2012-01-01T09:00+14:00"),
        (APIA, "09:00", 5, "2011-12-29T12:00-10:00", "2011-12-31T09:00+14:00"),
        (APIA, "09:00", 5, "2011-12-31T09:00+14:00", "2012-01-06T09:00+14:00"),
        (APIA, "09:00", None, "2026-04-04T12:00+13:00", "2026-04-05T09:00+13:00"),
        (KOLKATA, "09:00", None, "2026-03-28T12:00+05:30", "2026-03-29T09:00+05:30"),
        (KOLKATA, "09:00", 1, "2026-10-25T12:00+05:30", "2026-10-26T09:00+05:30"),
        (ST_JOHNS, "02:30", None, "2026-03-07T12:00-03:30", "2026-03-08T03:30-02:30"),
        (ST_JOHNS, "01:30", None, "2026-10-31T12:00-02:30", "2026-11-01T01:30-02:30"),
        (ST_JOHNS, "01:30", None, "2026-11-01T01:10-03:30", "2026-11-02T01:30-03:30"),
    ],
)
def test_digests_come_at_the_users_time_of_day(
    zone: str, at: str, weekday: int | None, now: str, slot: str
) -> None:
    found = next_slot(
        datetime.fromisoformat(now),
        frequency=DigestFrequency.DAILY if weekday is None else DigestFrequency.WEEKLY,
        at=time.fromisoformat(at),
        weekday=weekday or 1,
        timezone=ZoneInfo(zone),
    )
    assert found == datetime.fromisoformat(slot)
