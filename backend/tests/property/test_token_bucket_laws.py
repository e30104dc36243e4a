"""Laws of the token bucket: it never gives more than it had and was given, and keeps its word."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.policy.token_bucket import PARTS, Level, TokenBucket

START = datetime(2026, 1, 8, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

buckets = st.builds(TokenBucket, per_minute=st.integers(1, 100_000), burst=st.integers(1, 100_000))
# A clock that is set back, or another process's that is behind, is among them.
steps = st.timedeltas(min_value=-timedelta(seconds=5), max_value=timedelta(seconds=90))
forward = st.timedeltas(min_value=timedelta(), max_value=timedelta(seconds=90))


@st.composite
def levels(draw: st.DrawFn) -> tuple[TokenBucket, Level]:
    bucket = draw(buckets)
    return bucket, Level(draw(st.integers(0, bucket.burst * PARTS)), START)


@given(buckets, st.lists(st.tuples(steps, st.integers(0, 100_000)), max_size=40))
def test_no_more_is_taken_than_the_burst_and_what_was_added(
    bucket: TokenBucket, asks: list[tuple[timedelta, int]]
) -> None:
    level, now, last, given_out = bucket.full(START), START, START, 0
    for step, tokens in asks:
        now += step
        last = max(last, now)
        taken = bucket.taken(level, tokens, now)
        if taken is not None:
            assert taken.at >= level.at
            level, given_out = taken, given_out + tokens
        added = (last - START) * bucket.per_minute / MINUTE
        assert given_out <= bucket.burst + added + 1e-6


@given(buckets, st.lists(st.tuples(forward, st.integers(0, 2_000)), max_size=40))
def test_what_is_not_taken_is_there(bucket: TokenBucket, asks: list[tuple[timedelta, int]]) -> None:
    """Each token that was there, or added without running over, can be taken."""
    level, now, parts = bucket.full(START), START, bucket.burst * PARTS
    for step, tokens in asks:
        now += step
        added = step // timedelta(microseconds=1) * bucket.per_minute
        parts = min(bucket.burst * PARTS, parts + added)
        taken = bucket.taken(level, tokens, now)
        assert (taken is not None) == (tokens * PARTS <= parts)
        if taken is not None:
            level, parts = taken, parts - tokens * PARTS
            assert level.parts == parts


@given(levels(), st.data(), steps)
def test_who_waits_as_long_as_was_said_gets_it_and_a_second_less_does_not(
    filled: tuple[TokenBucket, Level], data: st.DataObject, step: timedelta
) -> None:
    bucket, level = filled
    tokens, now = data.draw(st.integers(0, bucket.burst)), START + step
    wait = bucket.seconds_until(level, tokens, now)
    assert wait >= 0
    assert bucket.taken(level, tokens, now + timedelta(seconds=wait)) is not None
    if wait:
        assert bucket.taken(level, tokens, now + timedelta(seconds=wait - 1)) is None


@given(levels(), steps)
def test_it_is_full_when_that_was_said(filled: tuple[TokenBucket, Level], step: timedelta) -> None:
    bucket, level = filled
    now = START + step
    full_at = now + timedelta(seconds=bucket.seconds_until_full(level, now))
    assert bucket.refilled(level, full_at).tokens == bucket.burst


@given(levels(), steps, steps)
def test_looking_changes_nothing(
    filled: tuple[TokenBucket, Level], first: timedelta, second: timedelta
) -> None:
    """Refilled in between or not: clocks that run apart add what the one ahead adds."""
    bucket, level = filled
    between = bucket.refilled(level, START + first)
    last = max(first, second)
    assert bucket.refilled(between, START + second) == bucket.refilled(level, START + last)


@given(levels())
def test_a_bucket_that_was_made_smaller_overflows(filled: tuple[TokenBucket, Level]) -> None:
    bucket, level = filled
    smaller = replace(bucket, burst=1)
    assert smaller.taken(level, 2, START) is None
    assert smaller.refilled(level, START).parts <= PARTS
