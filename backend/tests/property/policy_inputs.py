"""What the laws of the policy are tried on: calls, users, quiet hours, and instants that matter."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from app.policy.kinds import Channel, DigestFrequency, NotificationType, Priority
from app.policy.preferences import Choices, Preferences
from app.policy.quiet_hours import Schedule, Window
from app.policy.routing import Recipient, Request

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kolkata",
    "Pacific/Kiritimati",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Africa/Cairo",  # its clocks change at midnight
]
DAYS = range(1, 8)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FIRST, LAST = datetime(2025, 1, 1, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)


@cache
def clock_changes(zone: str) -> list[datetime]:
    """When a zone's clocks change, found by looking at them every day, then every hour."""
    days = _changes(zone, FIRST, LAST, DAY)
    return [at for day in days for at in _changes(zone, day - DAY, day, timedelta(hours=1))]


def _changes(zone: str, first: datetime, last: datetime, step: timedelta) -> list[datetime]:
    """The instants, a step apart, at which the offset is another than a step before."""
    timezone, found, instant = ZoneInfo(zone), list[datetime](), first
    while instant < last:
        later = instant + step
        if instant.astimezone(timezone).utcoffset() != later.astimezone(timezone).utcoffset():
            found.append(later)
        instant = later
    return found


def instants_in(zone: str) -> st.SearchStrategy[datetime]:
    """Instants, many of them near a change of the zone's clocks."""
    anywhere = st.datetimes(
        FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), timezones=st.just(UTC)
    )
    if not clock_changes(zone):
        return anywhere
    minutes = st.integers(-90, 90).map(lambda minutes: minutes * MINUTE)
    changes = st.sampled_from(clock_changes(zone))
    near = changes.flatmap(lambda change: minutes.map(lambda by: change + by))
    return near | near | anywhere


instants = st.sampled_from(ZONES).flatmap(instants_in)
# Most clock changes are in the small hours.
times = st.builds(
    time, st.integers(0, 4) | st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 45, 59])
)
windows = st.builds(Window, times, times).filter(
    lambda window: window.start != window.end or window.end == time()
)
schedules: st.SearchStrategy[Schedule] = st.dictionaries(
    st.sampled_from(DAYS), st.lists(windows, max_size=2).map(tuple)
)


@st.composite
def schedules_around(draw: st.DrawFn, now: datetime, zone: str) -> Schedule:
    """Quiet hours that begin or end within hours of an instant, by the clock on the wall."""
    shown = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None, second=0, microsecond=0)
    quarters = st.integers(-8, 8).map(lambda number: number * 15 * MINUTE)
    found: dict[int, tuple[Window, ...]] = {}
    for day in (0, 1):
        start, end = shown + draw(quarters), shown + draw(quarters)
        start, end = (reading.replace(minute=reading.minute // 15 * 15) for reading in (start, end))
        if start.time() != end.time() or end.time() == time():
            weekday = (shown - day * DAY).isoweekday()
            found[weekday] = (Window(start.time(), end.time()),)
    return found


days = st.lists(st.sampled_from(DAYS), unique=True).map(tuple)
frequencies = st.sampled_from(DigestFrequency)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[time | None, time | None]:
    """Start and end of a row's quiet hours: both or neither, and never the same."""
    if draw(st.booleans()):
        return None, None
    window = draw(windows.filter(lambda window: window.start != window.end))
    return window.start, window.end


def _choices(pair: tuple[time | None, time | None], **others: object) -> Choices:
    return Choices(quiet_hours_start=pair[0], quiet_hours_end=pair[1], **others)  # pyright: ignore[reportArgumentType]


choices = st.builds(
    _choices,
    pairs(),
    push_enabled=st.none() | st.booleans(),
    email_enabled=st.none() | st.booleans(),
    digest_frequency=st.none() | frequencies,
    digest_time=st.none() | st.times(),
    digest_day=st.none() | st.integers(1, 7),
    quiet_hours_days=st.none() | days,
)


def _preferences(pair: tuple[time | None, time | None], **others: object) -> Preferences:
    return Preferences(quiet_hours_start=pair[0], quiet_hours_end=pair[1], **others)  # pyright: ignore[reportArgumentType]


preferences = st.builds(
    _preferences,
    pairs(),
    push_enabled=st.booleans(),
    email_enabled=st.booleans(),
    digest_frequency=frequencies,
    digest_time=st.times(),
    digest_day=st.integers(1, 7),
    quiet_hours_days=days,
)


@st.composite
def recipients(draw: st.DrawFn, now: datetime) -> Recipient:
    """A user as they may be when something is decided at `now`."""
    later = st.timedeltas(-DAY, 20 * DAY).map(lambda by: now + by)
    has_phone, zone = draw(st.booleans()), draw(st.sampled_from(ZONES))
    return Recipient(
        has_address=draw(st.booleans()),
        has_device=has_phone or draw(st.booleans()),
        has_phone=has_phone,
        is_suppressed=draw(st.booleans()),
        has_read=draw(st.booleans()),
        timezone=ZoneInfo(zone),
        configured=draw(st.frozensets(st.sampled_from(Channel))) | {Channel.IN_APP},
        preferences=draw(preferences),
        schedule=draw(st.none() | schedules | schedules_around(now, zone)),
        pause_until=draw(st.none() | later),
        frees_at=draw(st.dictionaries(st.sampled_from(Channel), later)),
        in_digest=draw(st.booleans()),
    )


@st.composite
def requests(draw: st.DrawFn, now: datetime) -> Request:
    """A call at `now`, and sometimes a claim long after it."""
    around = st.timedeltas(-DAY, 10 * DAY).map(lambda by: now + by)
    return Request(
        type=draw(st.sampled_from(NotificationType)),
        priority=draw(st.none() | st.sampled_from(Priority)),
        channels=draw(st.none() | st.frozensets(st.sampled_from(Channel), min_size=1)),
        send_email=draw(st.none() | st.booleans()),
        send_at=draw(st.none() | around),
        expires_at=draw(st.none() | around),
        silent=draw(st.booleans()),
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[Request, Recipient, datetime]:
    """All that `decide` is given."""
    now = draw(instants)
    return draw(requests(now)), draw(recipients(now)), now


# --- an oracle ----------------------------------------------------------------------------------
# It knows nothing of folds: it looks at a clock on the wall once a minute and remembers what it
# showed. What the clock skips is taken as shown by the minutes that follow.


@lru_cache(maxsize=64)  # examples come back to the same days
def _shown_on(day: datetime, zone: str) -> dict[datetime, list[datetime]]:
    """What a clock shows in the 24 hours from `day` on: each reading with its instants."""
    timezone, shown = ZoneInfo(zone), dict[datetime, list[datetime]]()
    before = (day - MINUTE).astimezone(timezone).replace(tzinfo=None)
    for passed in range(24 * 60):
        instant = day + passed * MINUTE
        reading = instant.astimezone(timezone).replace(tzinfo=None)
        skipped = (reading - before) // MINUTE - 1
        for late in range(skipped):
            shown.setdefault(before + (late + 1) * MINUTE, []).append(instant + late * MINUTE)
        shown.setdefault(reading, []).append(instant)
        before = reading
    return shown


def _instants_of(reading: datetime, zone: str) -> list[datetime]:
    """When the clock shows that, in order."""
    midnight = datetime(reading.year, reading.month, reading.day, tzinfo=UTC)
    around = (midnight + days * DAY for days in (-2, -1, 0, 1))
    return sorted(at for day in around for at in _shown_on(day, zone).get(reading, ()))


def quiet_spans(
    schedule: Mapping[int, tuple[Window, ...]], zone: str, around: datetime, days_after: int = 1
) -> Iterator[tuple[datetime, datetime]]:
    """First and last instant of each quiet window from two days before to some days after."""
    today = around.astimezone(ZoneInfo(zone)).replace(tzinfo=None, hour=0, minute=0, second=0)
    today = today.replace(microsecond=0, fold=0)
    for offset in range(-2, days_after + 1):
        day = today + offset * DAY
        for window in schedule.get(day.isoweekday(), ()):
            start = day.replace(hour=window.start.hour, minute=window.start.minute)
            end = day.replace(hour=window.end.hour, minute=window.end.minute)
            if end <= start:
                end += DAY
            yield _instants_of(start, zone)[0], _instants_of(end, zone)[-1]


def is_quiet(schedule: Mapping[int, tuple[Window, ...]], zone: str, instant: datetime) -> bool:
    """Whether the clock on the wall is within one of the windows."""
    return any(start <= instant < end for start, end in quiet_spans(schedule, zone, instant))
