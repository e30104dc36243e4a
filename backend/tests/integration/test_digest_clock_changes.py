"""When digests go out where clocks change (REQ-015, REQ-016): lived through, and kept as a file.

`tests/goldens/digests.txt` has every mail of twenty people in the days around each clock change of
their year. `WRITE_GOLDENS=1` writes it anew. The oracle looks at the clock on the wall, minute by
minute.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from app.policy.kinds import NotificationType
from app.policy.routing import Request
from tests.integration import test_digests, test_pipeline
from tests.integration.test_digests import Post

stage, post = test_pipeline.stage, test_digests.post

GOLDEN = Path(__file__).parents[1] / "goldens" / "digests.txt"
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
WITHIN = timedelta(seconds=45)
POSTED_EVERY = timedelta(hours=12)
NIGHT = time(2, 30)


@dataclass(frozen=True)
class Zone:
    """A timezone, and what is special there.

    Args:
        skipped: a time of day that the clocks leave out once.
        repeated: one that they show twice.
        changes: the days on which they do.
    """

    name: str
    skipped: time
    repeated: time
    changes: tuple[date, ...]

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.name)


ZONES = (
    # On 30 December 2011 a whole Friday was left out.
    Zone(
        "Pacific/Apia",
        time(3, 30),
        time(3, 30),
        (date(2011, 12, 30), date(2012, 4, 1), date(2012, 9, 30)),
    ),
    Zone("America/New_York", NIGHT, time(1, 30), (date(2026, 3, 8), date(2026, 11, 1))),
    Zone("Asia/Kolkata", NIGHT, NIGHT, (date(2026, 3, 8), date(2026, 11, 1))),
    Zone("Australia/Lord_Howe", time(2, 15), time(1, 45), (date(2026, 4, 5), date(2026, 10, 4))),
)


@dataclass(frozen=True)
class Wish:
    """When somebody wants digests.

    Args:
        weekday: None for daily ones.
    """

    zone: Zone
    at: time
    weekday: int | None

    @property
    def name(self) -> str:
        how = "daily" if self.weekday is None else f"weekly on {self.weekday}"
        return f"{self.zone.name} {how} {self.at:%H:%M}"

    def slots(self, first: datetime, last: datetime) -> list[datetime]:
        """All slots after `first`, up to `last` and one more; read off the clock on the wall."""
        found: list[datetime] = []
        for shown, instant in _clock(self.zone.zone, first - 2 * DAY, last + 8 * DAY):
            if shown.time() != self.at or self.weekday not in (None, shown.isoweekday()):
                continue
            if instant > first and instant not in found:
                found.append(instant)
                if instant > last:
                    break
        return found


@cache
def _clock(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """What `_shown` tells, for all whose clock it is."""
    return list(_shown(zone, start, end))


def _shown(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Each reading of a clock for the first time, with its instant.

    What it skips is taken as shown by the minutes that follow, or by the first that may be.
    """
    seen: set[datetime] = set()
    length = (end - start) // MINUTE
    readings = [
        ((start + n * MINUTE).astimezone(zone).replace(tzinfo=None), start + n * MINUTE)
        for n in range(length)
    ]
    pending: list[tuple[datetime, datetime]] = []
    for (before, _), (now, instant) in pairwise(readings):
        for late in range((now - before) // MINUTE - 1):
            pending.append((before + (late + 1) * MINUTE, instant + late * MINUTE))
        while pending and pending[0][1] <= instant:
            yield pending.pop(0)
        if now not in seen:
            seen.add(now)
            yield now, instant


def wishes(zone: Zone) -> list[Wish]:
    """Each at the usual time and at those that are special; and weekly, on the day of a change."""
    times = dict.fromkeys([time(9), zone.skipped, zone.repeated, NIGHT])
    return [
        *(Wish(zone, at, None) for at in times),
        Wish(zone, time(9), zone.changes[0].isoweekday()),
    ]


@pytest.mark.timeout(240)
async def test_digests_come_at_the_same_time_of_day_all_year(post: Post) -> None:
    expected: dict[tuple[str, datetime], None] = {}
    users: dict[UUID, Wish] = {}
    for zone in ZONES:
        people: dict[UUID, Wish] = {}
        for wish in wishes(zone):
            user = await post.user(timezone=zone.name)
            frequency = "daily" if wish.weekday is None else "weekly"
            await post.choose_for_all(
                user,
                default_digest_frequency=frequency,
                default_digest_time=wish.at.isoformat(),
                **({} if wish.weekday is None else {"default_digest_day": wish.weekday}),
            )
            people[user] = wish
        for change in zone.changes:
            first = datetime.combine(change, time(), UTC) - 3 * DAY
            last = await _live(post, list(people), first, first + 6 * DAY)
            for wish in people.values():
                expected |= dict.fromkeys((wish.name, at) for at in wish.slots(first, last))
        users |= people

    digests = await post.stage.rows("SELECT * FROM email_digests ORDER BY scheduled_for, user_id")
    assert {row.status for row in digests} == {"sent"}
    assert all(timedelta() < row.sent_at - row.scheduled_for < WITHIN for row in digests)
    sent = [(users[row.user_id].name, row.scheduled_for) for row in digests]
    assert sorted(sent) == sorted(expected)
    keys = [mail["idempotency_key"] for mail in await post.stage.mails()]
    assert sorted(keys) == sorted(str(row.id) for row in digests)
    for row in digests:
        wish = users[row.user_id]
        assert wish.weekday is None or row.frequency == "weekly"
    _compare("".join(sorted(_line(users[row.user_id], row.scheduled_for) for row in digests)))


async def _live(post: Post, users: list[UUID], first: datetime, until: datetime) -> datetime:
    """Post to people twice a day, let everything happen at its time; returns the last post's."""
    clock, at = post.stage.clock, first
    clock.now = first
    while True:
        waiting = await post.waiting()
        if at < until and (not waiting or at <= waiting[0]):
            clock.now, at = at, at + POSTED_EVERY
            for user in users:
                await post.stage.post(user, Request(NotificationType.TASK))
        elif waiting:
            await post.sweep(waiting[0])
        else:
            return at - POSTED_EVERY


def _line(wish: Wish, at: datetime) -> str:
    wall = at.astimezone(wish.zone.zone)
    return f"{wish.name:38} {at:%Y-%m-%dT%H:%MZ}  {wall:%a %Y-%m-%d %H:%M %z}\n"


def _compare(found: str) -> None:
    if os.environ.get("WRITE_GOLDENS"):
        GOLDEN.write_text(found)
    assert found == GOLDEN.read_text()
