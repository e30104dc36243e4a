"""A provider's limits are obeyed, and critical letters go first (CHANNELS: Email)."""

import asyncio

import pytest

from app.channels.breaker import NotNow
from app.channels.email.allowance import Allowance


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


async def turn(allowance: Allowance, **changes: object) -> None:
    wanted = {"until": 100.0, "is_critical": False, "is_patient": True, **changes}
    await allowance.turn(**wanted)  # pyright: ignore[reportArgumentType]


def said(limit: int, left: int, reset: float) -> dict[str, str]:
    return {
        "ratelimit-limit": str(limit),
        "ratelimit-remaining": str(left),
        "ratelimit-reset": str(reset),
    }


async def test_a_provider_that_said_nothing_yet_is_asked_sparingly(time: Time) -> None:
    allowance = Allowance(ticks=time)
    assert allowance.has_plenty_for(2)
    assert not allowance.has_plenty_for(3)
    for _ in range(5):
        await turn(allowance)
    with pytest.raises(NotNow) as refused:
        await turn(allowance)
    assert refused.value.after == pytest.approx(1.0)
    time.now += 1
    await turn(allowance, until=time.now)


async def test_what_it_says_counts_less_what_is_on_its_way(time: Time) -> None:
    allowance = Allowance(ticks=time)
    allowance.sent()
    allowance.sent()
    allowance.answered(said(10, 4, 3))
    assert not allowance.has_plenty_for(2)  # 3 are left
    assert allowance.has_plenty_for(1)
    for _ in range(3):
        await turn(allowance)
    with pytest.raises(NotNow) as refused:
        await turn(allowance)
    assert refused.value.after == pytest.approx(3.0)
    time.now += 3
    assert allowance.has_plenty_for(5)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ratelimit-limit": "0", "ratelimit-remaining": "0"},
        {"ratelimit-limit": "many", "ratelimit-remaining": "some"},
        {"ratelimit-limit": "nan", "ratelimit-remaining": "1"},
    ],
)
async def test_what_makes_no_sense_changes_nothing(time: Time, headers: dict[str, str]) -> None:
    allowance = Allowance(ticks=time)
    allowance.sent()
    allowance.answered(headers)
    assert allowance.has_plenty_for(2)


async def test_a_pause_is_waited_for_only_by_the_patient(time: Time) -> None:
    allowance = Allowance(ticks=time)
    allowance.pause(30)
    allowance.pause(10)  # a shorter one shortens nothing
    assert allowance.refuses
    assert not allowance.has_plenty_for(1)
    with pytest.raises(NotNow) as refused:
        await turn(allowance, until=1_000.0, is_patient=False)
    assert refused.value.after == pytest.approx(30.0)
    time.now += 30
    await turn(allowance, until=time.now)


async def test_critical_ones_go_before_those_that_waited_longer() -> None:
    allowance = Allowance(limit=1)
    loop = asyncio.get_running_loop()
    await turn(allowance, until=loop.time() + 60)
    order: list[str] = []

    async def go(name: str, *, is_critical: bool) -> None:
        await turn(allowance, until=loop.time() + 60, is_critical=is_critical)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(go("ordinary", is_critical=False))
        await asyncio.sleep(0)
        group.create_task(go("critical", is_critical=True))
    assert order == ["critical", "ordinary"]


async def test_a_provider_without_limits_has_plenty(time: Time) -> None:
    allowance = Allowance(limit=None, ticks=time)
    for _ in range(1_000):
        await turn(allowance)
    assert allowance.has_plenty_for(1_000)
