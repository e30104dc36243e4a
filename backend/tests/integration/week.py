"""A week of people in many zones, what they want, and what is posted to them.

Nothing here knows of the policy. When somebody wants quiet, and when a digest is due, is read off
the clock on their wall, five minutes at a time; every time in here is a whole number of those.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, cached_property
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

from app.policy.kinds import Channel, NotificationType, Priority
from app.policy.routing import Request

FROM = datetime(2026, 3, 28, 18, tzinfo=UTC)
"""In the week that follows Europe's clocks go forward and Australia's go back."""
WEEK = timedelta(days=7)
TICK = timedelta(minutes=5)
TICKS = 12 * 24 * 12  # until all that is held or paused has been released
SLOT = timedelta(minutes=40)  # so that what an hour frees falls between two of them
QUARTER = timedelta(minutes=15)

ZONES = (
    "Europe/Berlin", "Australia/Adelaide", "America/New_York", "Asia/Kolkata", "Europe/London",
    "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "Pacific/Chatham", "UTC",
    "Pacific/Kiritimati", "Pacific/Marquesas", "Africa/Casablanca", "Australia/Sydney",
)  # fmt: skip
STARTS = (time(20), time(21, 30), time(22), time(22, 45), time(23, 30))
# No clock of these zones skips one of them; the first is repeated in three of them.
ENDS = (time(5), time(6, 30), time(7), time(8, 15), time(9))
REPEATED = time(2, 30)
BY_DAY = ((time(9), time(17)), (time(12), time(13, 30)), (time(18, 15), time(0)))

Window = tuple[time, time]
Windows = dict[int, list[Window]]


@dataclass(frozen=True)
class Row:
    """A row of preferences; what is None inherits."""

    push_enabled: bool | None = None
    email_enabled: bool | None = None
    digest_frequency: str | None = None
    digest_time: time | None = None
    digest_day: int | None = None
    window: Window | None = None
    quiet_hours_days: list[int] | None = None


NOTHING = Row()
DEFAULTS = Row(True, True, "daily", time(9), 1, None, [1, 2, 3, 4, 5])


@dataclass(frozen=True)
class Person:
    """A user, and what they want.

    Args:
        rows: by type, and `global`.
        schedule: by weekday; None where it is not set.
    """

    id: UUID
    zone: ZoneInfo
    has_address: bool
    devices: Sequence[UUID]
    rows: dict[str, Row]
    schedule: Windows | None
    pause_until: datetime | None
    quiet: dict[str, list[bool]] = field(default_factory=dict[str, list[bool]])

    def wants(self, of: str, what: str) -> Any:
        """What holds for a type."""
        found = (getattr(row, what) for row in (*self._rows(of), DEFAULTS))
        return next(value for value in found if value is not None)

    def is_on(self, of: str, what: str) -> bool:
        """Whether a channel is on; one that is off for all is off for each."""
        vetoed = getattr(self.rows.get("global", NOTHING), what) is False
        return not vetoed and self.wants(of, what)

    def is_quiet(self, of: str, at: datetime) -> bool:
        """Whether they want no push."""
        windows = self._windows(of)
        key = repr(windows)
        if key not in self.quiet:
            self.quiet[key] = self._ticks(windows)
        return self.quiet[key][(at - FROM) // TICK]

    def release(self, of: str, at: datetime) -> datetime:
        """When they first want a push again; `at` where that is so now."""
        while self.is_quiet(of, at):
            at = FROM + ((at - FROM) // TICK + 1) * TICK
        return at

    def slot(self, of: str, after: datetime) -> datetime:
        """When their next digest is due; a low one comes with those of people who have none."""
        weekly = self.wants(of, "digest_frequency") == "weekly"
        at = FROM + ((after - FROM) // QUARTER + 1) * QUARTER
        while True:
            wall = at.astimezone(self.zone)
            if (
                wall.time() == self.wants(of, "digest_time")
                and not wall.fold
                and (not weekly or wall.isoweekday() == self.wants(of, "digest_day"))
            ):
                return at
            at += QUARTER

    def _rows(self, of: str) -> tuple[Row, Row]:
        return self.rows.get(of, NOTHING), self.rows.get("global", NOTHING)

    def _windows(self, of: str) -> Windows:
        if self.schedule is not None:
            return self.schedule
        window = next((row.window for row in self._rows(of) if row.window is not None), None)
        if window is None:
            return {}
        return {day: [window] for day in self.wants(of, "quiet_hours_days")}

    def _ticks(self, windows: Windows) -> list[bool]:
        found: list[bool] = []
        for number in range(TICKS):
            at = FROM + number * TICK
            wall = _wall(self.zone, at)
            # Of what the clock shows twice, the end of a window means the second.
            second = _second(self.zone, at)
            found.append(
                (self.pause_until is not None and at < self.pause_until)
                or _is_within(windows, wall)
                or (second is not None and _is_within(windows, second))
            )
        return found


@dataclass(frozen=True)
class Post:
    """A notification to somebody."""

    at: datetime
    to: Person
    request: Request

    @property
    def type(self) -> str:
        return self.request.type.value

    @property
    def is_critical(self) -> bool:
        return self.request.priority is Priority.CRITICAL

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return list(Priority).index(self.request.priority or Priority.NORMAL)

    @property
    def base(self) -> datetime:
        """Before which nothing goes out."""
        return max(self.at, self.request.send_at or self.at)

    @cached_property
    def push_at(self) -> datetime:
        """When a push goes out, if the limit lets it."""
        return self.base if self.is_critical else self.to.release(self.type, self.base)

    def due_on(self, channel: Channel) -> datetime:
        """When it goes out on a channel, if the limit lets it."""
        return self.push_at if channel is Channel.PUSH else self.base

    def slot_on(self, channel: Channel) -> datetime | None:
        """The digest that it goes with."""
        return self.slot if channel is Channel.EMAIL else None

    def has(self, channel: Channel) -> bool:
        """Whether it takes a channel, now or later."""
        request, to = self.request, self.to
        if channel is Channel.IN_APP:
            return True
        is_reachable = bool(to.devices) if channel is Channel.PUSH else to.has_address
        if self.is_critical or not is_reachable:
            return is_reachable
        if request.channels is not None and channel not in request.channels:
            return False
        if channel is Channel.PUSH:
            return request.priority is not Priority.LOW and to.is_on(self.type, "push_enabled")
        if request.channels is None and request.send_email is False:
            return False
        if to.wants(self.type, "digest_frequency") == "never":
            return False
        if not to.is_on(self.type, "email_enabled"):
            return False
        slot, ends = self.slot, request.expires_at
        return slot is None or ends is None or slot < ends

    @cached_property
    def slot(self) -> datetime | None:
        """The digest that its email goes with, None where it goes by itself."""
        request = self.request
        is_low = request.priority is Priority.LOW
        is_instant = self.to.wants(self.type, "digest_frequency") == "instant"
        if self.is_critical or (not is_low and (request.send_email or is_instant)):
            return None
        return self.to.slot(self.type, self.base)


@dataclass(frozen=True)
class Reading:
    """Somebody reads one of what they got, takes it out, or reads all.

    Args:
        post: its place among the posts.
    """

    at: datetime
    how: str
    post: int


@cache
def _wall(zone: ZoneInfo, at: datetime) -> tuple[date, time]:
    wall = at.astimezone(zone)
    return wall.date(), wall.time()


@cache
def _second(zone: ZoneInfo, at: datetime) -> tuple[date, time] | None:
    """What the clock shows when it is set back, while it first shows what it will show again."""
    wall = at.astimezone(zone)
    back = wall.replace(fold=1)
    if wall.fold or wall.utcoffset() == back.utcoffset():
        return None
    while not (wall := at.astimezone(zone)).fold:
        at += TICK
    return wall.date(), wall.time()


def _is_within(windows: Windows, wall: tuple[date, time]) -> bool:
    day, now = wall
    today, before = day.isoweekday(), (day - timedelta(days=1)).isoweekday()
    return any(
        start <= now and (now < end or end <= start) for start, end in windows.get(today, ())
    ) or any(end <= start and now < end for start, end in windows.get(before, ()))


def people(draw: random.Random, number: int) -> list[Person]:
    """People with quiet hours of every kind, and some with none."""
    return [_person(draw, ZoneInfo(ZONES[place % len(ZONES)]), place) for place in range(number)]


def _person(draw: random.Random, zone: ZoneInfo, place: int) -> Person:
    kind = place % 5
    rows: dict[str, Row] = {}
    if draw.random() < 0.7:
        rows["global"] = _row(draw, vetoes=place % 10 == 9)
    for of in draw.sample(list(NotificationType), 3):
        rows[of.value] = _row(draw)
    if kind in (0, 1):
        rows["global"] = replace(rows.get("global", NOTHING), window=_window(draw, zone))
        for of in draw.sample(list(NotificationType), 2 * kind):
            rows[of.value] = replace(
                rows.get(of.value, NOTHING),
                window=_window(draw, zone),
                quiet_hours_days=draw.choice([None, [1, 2, 3, 4, 5, 6, 7], [6, 7], []]),
            )
    paused = FROM + draw.randrange(6, 100) * QUARTER
    return Person(
        id=uuid4(),
        zone=zone,
        has_address=place % 8 != 7,
        devices=[uuid4() for _ in range((1, 1, 2, 1, 0, 2, 1)[place % 7])],
        rows=rows,
        schedule=_schedule(draw, zone) if kind in (2, 3) else None,
        pause_until=paused if kind in (3, 4) else None,
    )


def _row(draw: random.Random, *, vetoes: bool = False) -> Row:
    return Row(
        push_enabled=False if vetoes else draw.choice([None, None, True, True, False]),
        email_enabled=draw.choice([None, True, True, False]),
        digest_frequency=draw.choice([None, "instant", "instant", "daily", "weekly", "never"]),
        digest_time=draw.choice([None, time(8), time(17, 30)]),
        digest_day=draw.choice([None, 3, 7]),
    )


def _window(draw: random.Random, zone: ZoneInfo) -> Window:
    if draw.random() < 0.25:
        return draw.choice(BY_DAY)
    ends = (*ENDS, REPEATED, REPEATED) if "Australia" in zone.key else ENDS
    return draw.choice(STARTS), draw.choice(ends)


def _schedule(draw: random.Random, zone: ZoneInfo) -> Windows:
    days = draw.sample(range(1, 8), draw.randint(3, 7))
    return {day: [_window(draw, zone) for _ in range(draw.randint(0, 2))] for day in sorted(days)}


def posts(draw: random.Random, to: Sequence[Person]) -> list[Post]:
    """What is posted in the week, in its order; now and then somebody gets a lot at once."""
    found: list[Post] = []
    for number in range(WEEK // SLOT):
        at = FROM + number * SLOT
        receivers = [draw.choice(to) for _ in range(draw.randint(2, 6))]
        if draw.random() < 0.35:
            asleep = [one for one in to if one.is_quiet("task", at)]
            receivers += [draw.choice(draw.choice([to, asleep or to]))] * draw.randint(6, 18)
        found += [Post(at, person, _request(draw, at)) for person in receivers]
    return found


def _request(draw: random.Random, at: datetime) -> Request:
    send_at = at + draw.randrange(1, 60) * SLOT if draw.random() < 0.1 else None
    expires_at = None
    if draw.random() < 0.1:
        expires_at = (send_at or at) + draw.randrange(1, 20) * SLOT
    channels = None
    if draw.random() < 0.15:
        channels = frozenset(draw.sample(list(Channel), draw.randint(1, 3)))
    (priority,) = draw.choices(list(Priority), weights=[5, 20, 60, 15])
    return Request(
        draw.choice(list(NotificationType)),
        priority,
        channels,
        draw.choice([None, None, None, True, True, False]),
        send_at,
        expires_at,
    )


def readings(draw: random.Random, of: Sequence[Post]) -> list[Reading]:
    """What is read in the week, in its order."""
    found: list[Reading] = []
    for place in draw.sample(range(len(of)), len(of) // 8):
        at = of[place].base + draw.choice([1, 1, 5, 15]) * SLOT
        how = draw.choice(["one", "one", "one", "delete", "all"])
        found.append(Reading(at, how, place))
    return sorted(found, key=lambda reading: (reading.at, reading.post))
