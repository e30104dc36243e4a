"""One ill origin costs the others nothing (CHANNELS: Web Push; section 8.4)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.breaker import (
    FAULTS_ALLOWED,
    LONGEST_OPEN,
    ORIGINS_KNOWN,
    Breaker,
    Breakers,
    NotNow,
    Place,
)

ORIGIN = "https://push.example"
OTHER = "https://other.example"


class Time:
    """Seconds, told by the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breakers(time: Time) -> Breakers:
    return Breakers(2, time, lambda: 0.5, line=0.05)


async def fail(breakers: Breakers, times: int = 1) -> list[float | None]:
    said: list[float | None] = []
    for _ in range(times):
        async with breakers.place(ORIGIN) as place:
            said.append(place.failed())
    return said


async def refusal(breakers: Breakers, origin: str = ORIGIN) -> float:
    with pytest.raises(NotNow) as refused:
        async with breakers.place(origin):
            pass
    return refused.value.after


@asynccontextmanager
async def filled(breakers: Breakers) -> AsyncGenerator[list[Place]]:
    """Both places of the origin are taken."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(breakers.place(ORIGIN)) for _ in range(2)]


async def test_it_opens_after_five_faults_in_a_row(breakers: Breakers) -> None:
    await fail(breakers, FAULTS_ALLOWED - 1)
    async with breakers.place(ORIGIN) as place:
        place.answered()
    assert await fail(breakers, FAULTS_ALLOWED) == [None] * FAULTS_ALLOWED
    assert await refusal(breakers) > 0
    async with breakers.place(OTHER) as place:  # whose health is its own
        place.answered()


async def test_it_is_open_for_twice_as_long_each_time(breakers: Breakers, time: Time) -> None:
    await fail(breakers, FAULTS_ALLOWED)
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        time.now += 0.99 * seconds
        await refusal(breakers)
        time.now += 0.02 * seconds
        (put_off,) = await fail(breakers)  # the probe, which is no attempt
        assert put_off is not None
    time.now += LONGEST_OPEN * 1.01
    async with breakers.place(ORIGIN) as place:
        place.answered()
    assert await fail(breakers) == [None]


async def test_there_is_one_probe(breakers: Breakers, time: Time) -> None:
    await fail(breakers, FAULTS_ALLOWED)
    time.now += 2
    async with breakers.place(ORIGIN) as probe:
        await refusal(breakers)
        await refusal(breakers)
        probe.answered()
        async with breakers.place(ORIGIN) as place:
            assert not place.is_probe


async def test_a_probe_that_was_not_sent_leaves_it_to_the_next(
    breakers: Breakers, time: Time
) -> None:
    await fail(breakers, FAULTS_ALLOWED)
    time.now += 2
    for _ in range(2):
        async with breakers.place(ORIGIN) as place:
            assert place.is_probe


async def test_what_was_in_flight_when_it_opened_is_put_off(breakers: Breakers) -> None:
    async with breakers.place(ORIGIN) as early:
        await fail(breakers, FAULTS_ALLOWED)
        put_off = early.failed()
    assert put_off is not None
    assert put_off > 0


async def test_an_answer_to_what_was_in_flight_closes_it(breakers: Breakers) -> None:
    async with breakers.place(ORIGIN) as early:
        await fail(breakers, FAULTS_ALLOWED)
        early.answered()
    async with breakers.place(ORIGIN) as place:
        assert not place.is_probe


async def test_those_put_off_come_back_after_it_and_spread() -> None:
    time, lucks = Time(), iter([0.5, *(n / 10 for n in range(10))])
    breakers = Breakers(2, time, lambda: next(lucks))
    await fail(breakers, FAULTS_ALLOWED)
    waits = [await refusal(breakers) for _ in range(10)]
    assert len(set(waits)) == 10
    assert min(waits) >= 1


async def test_who_waits_in_line_gets_the_next_place(breakers: Breakers) -> None:
    breakers.line = 60
    entered = asyncio.Event()

    async def wait() -> None:
        async with breakers.place(ORIGIN):
            entered.set()

    async with filled(breakers):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not entered.is_set()
    async with asyncio.timeout(20):
        await waiting


async def test_nobody_waits_for_long(breakers: Breakers) -> None:
    async with filled(breakers):
        assert await refusal(breakers) > 0


async def test_nobody_waits_where_nothing_is_answered(breakers: Breakers, time: Time) -> None:
    breakers.line = 60
    async with filled(breakers), asyncio.timeout(20):
        time.now += 61
        assert await refusal(breakers) >= 60
        async with breakers.place(OTHER):
            pass
    async with breakers.place(ORIGIN) as place:
        place.answered()


async def test_who_waited_while_it_fell_ill_is_put_off_without_a_call(breakers: Breakers) -> None:
    breakers.line = 60
    async with filled(breakers) as places:
        waiting = asyncio.create_task(refusal(breakers))
        await asyncio.sleep(0)
        for _ in range(FAULTS_ALLOWED):
            places[0].failed()
    async with asyncio.timeout(20):
        assert await waiting > 0


async def test_who_gives_up_leaves_no_place_taken(breakers: Breakers) -> None:
    breakers.line = 60
    async with filled(breakers):
        waiting = asyncio.create_task(refusal(breakers))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with filled(breakers):
        pass


async def test_only_so_many_origins_are_remembered(breakers: Breakers) -> None:
    await fail(breakers, FAULTS_ALLOWED)
    async with breakers.place(OTHER) as used:
        for number in range(ORIGINS_KNOWN + 1):
            async with breakers.place(f"https://{number}.example") as place:
                place.answered()
        async with breakers.place(ORIGIN) as forgotten:
            assert not forgotten.is_probe
        for _ in range(FAULTS_ALLOWED):
            used.failed()
        await refusal(breakers, OTHER)  # in use, it was kept


steps = st.lists(
    st.tuples(st.sampled_from(["call", "answer", "fault", "lost", "wait"]), st.floats(0, 90)),
    max_size=60,
)


@given(steps, st.lists(st.floats(0, 1, exclude_max=True), min_size=1))
def test_laws(told: list[tuple[str, float]], lucks: list[float]) -> None:
    """However calls end, at most one probe is out, and no closed breaker refuses."""
    drawn = iter(lucks * 1_000)
    breaker = Breaker(lambda: next(drawn))
    now = 0.0
    out: list[object] = []
    for step, seconds in told:
        if step == "wait":
            now += seconds
        elif step == "call":
            after = breaker.refusal(now)
            if after is None:
                assert breaker.probe is None
                out.append(object())
                breaker.starts(out[-1])
            else:
                assert breaker.is_ill
                assert after > 0
        elif out:
            call = out.pop(0)
            if step == "answer":
                breaker.answered()
                assert not breaker.is_ill
            elif step == "fault":
                was_ill = breaker.is_ill
                assert (breaker.failed(call, now) is not None) == was_ill
            breaker.ended(call)
        assert breaker.probe is None or (breaker.is_ill and breaker.probe in out)
        assert breaker.open_seconds <= LONGEST_OPEN
        if not breaker.is_ill:
            assert breaker.refusal(now) is None
            assert breaker.faults < FAULTS_ALLOWED
