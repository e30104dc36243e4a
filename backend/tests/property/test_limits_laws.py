"""Laws of users' limits, against a simulation that knows nothing of how they are kept (REQ-022)."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.policy.limits import Limit
from app.ratelimit.lines import Line

START = datetime(2026, 1, 8, 12, tzinfo=UTC)
WINDOW = 60  # minutes
arrivals = st.lists(st.integers(0, 4 * WINDOW), min_size=1, max_size=40).map(sorted)
limits = st.integers(1, 5).map(lambda most: Limit(most, timedelta(minutes=WINDOW)))


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def minute_of(instant: datetime) -> float:
    return (instant - START) / timedelta(minutes=1)


@dataclass
class Use:
    """One user's use of a channel, as rows of a database would hold it."""

    limit: Limit
    went_out: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    waits: set[UUID] = field(default_factory=set[UUID])

    def ask(self, id_: UUID, now: datetime) -> datetime | None:
        """Ask for room, with a line as it is read from the rows."""
        since = now - self.limit.window
        counted = {known: then for known, then in self.went_out.items() if then > since}
        turn = Line(counted, set(self.waits)).admit(id_, self.limit, now)
        if turn is None:
            self.went_out[id_] = now
            self.waits.discard(id_)
        else:
            self.waits.add(id_)
        return turn


def simulated(minutes: Sequence[int], limit: Limit, again: Sequence[int] = ()) -> Use:
    """Notifications arrive, and those that wait ask again when they were told it is their turn.

    Args:
        again: for the first ones, after how many minutes they go out once more.
    """
    use = Use(limit)
    ids = [UUID(int=number) for number in range(len(minutes))]
    queue = [(at(minute), id_) for minute, id_ in zip(minutes, ids, strict=True)]
    heapq.heapify(queue)
    repeats = dict(zip(ids, again, strict=False))
    asked = 0
    while queue:
        now, id_ = heapq.heappop(queue)
        turn = use.ask(id_, now)
        asked += 1
        assert asked < 10_000
        if turn is not None:
            assert turn > now
            heapq.heappush(queue, (turn, id_))
        elif id_ in repeats:
            heapq.heappush(queue, (now + timedelta(minutes=repeats.pop(id_)), id_))
    assert not use.waits
    return use


def in_turn(minutes: Sequence[int], most: int) -> list[float]:
    """When each goes out if nobody overtakes and no room stands idle: minute by minute."""
    out: list[float] = []
    minute = 0
    while len(out) < len(minutes):
        room = most - sum(1 for then in out if then > minute - WINDOW)
        while room and len(out) < len(minutes) and minutes[len(out)] <= minute:
            out.append(minute)
            room -= 1
        minute += 1
    return out


@given(arrivals, limits)
def test_all_go_out_in_turn_and_no_room_stands_idle(minutes: list[int], limit: Limit) -> None:
    use = simulated(minutes, limit)
    went_out = [minute_of(use.went_out[UUID(int=number)]) for number in range(len(minutes))]
    assert went_out == in_turn(minutes, limit.most)


@given(arrivals, limits, st.lists(st.integers(1, 3 * WINDOW), max_size=10))
def test_no_window_has_more_than_the_most(
    minutes: list[int], limit: Limit, again: list[int]
) -> None:
    went_out = sorted(simulated(minutes, limit, again).went_out.values())
    assert len(went_out) == len(minutes)
    for first in went_out:
        within = [then for then in went_out if first <= then < first + limit.window]
        assert len(within) <= limit.most


@given(arrivals, limits)
def test_the_turn_that_is_told_is_the_turn_that_comes(minutes: list[int], limit: Limit) -> None:
    use = Use(limit)
    told: list[datetime] = []
    for number in range(len(minutes)):  # all at once, at the last one's time
        turn = use.ask(UUID(int=number), at(minutes[-1]))
        told.append(turn or at(minutes[-1]))
    assert [minute_of(turn) for turn in told] == in_turn([minutes[-1]] * len(minutes), limit.most)


@given(
    st.lists(st.integers(-2 * WINDOW, 0) | st.just(-WINDOW), max_size=20),
    st.integers(0, 12),
    limits,
)
def test_a_limit_that_was_lowered_is_waited_for_too(
    counted: list[int], ahead: int, limit: Limit
) -> None:
    frees_at = limit.frees_at([at(minute) for minute in counted], START, ahead=ahead)
    # Who goes out at the first minute with room, one after the other, behind those that did.
    out, minute, left = list[int](counted), 0, ahead
    while True:
        used = sum(1 for then in out if then > minute - WINDOW)
        if used < limit.most:
            if not left:
                break
            out.append(minute)
            left -= 1
        else:
            minute += 1
    assert frees_at == (at(minute) if minute else None)
