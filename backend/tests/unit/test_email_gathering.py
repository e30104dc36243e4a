"""How letters find company (REQ-014)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from app.channels.email.allowance import Allowance
from app.channels.email.gathering import AT_ONCE, FULL, Gathering, Waiting
from tests.unit.test_email_lines import letter


@dataclass
class Scene:
    """A provider whose requests are done when the test says so, at an instant that lasts."""

    allowance: Allowance = field(default_factory=lambda: Allowance(limit=None))
    has_other: bool = False
    requests: list[tuple[int, asyncio.Event]] = field(
        default_factory=list[tuple[int, asyncio.Event]]
    )

    def __post_init__(self) -> None:
        self.gathering = Gathering(
            self.allowance, self.hand_on, lambda: 0.0, has_other=self.has_other
        )

    def hand_on(self, letters: list[Waiting]) -> asyncio.Task[None]:
        done = asyncio.Event()
        self.requests.append((len(letters), done))

        async def make() -> None:
            await done.wait()

        return asyncio.create_task(make())

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.gathering.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def come(self, *groups: int) -> list[int]:
        """Let letters come, so many at the same time; returns the sizes of all requests so far."""
        for count in groups:
            for _ in range(count):
                outcome = asyncio.get_running_loop().create_future()
                self.gathering.add(Waiting(letter(), 0.0, 9.0, outcome))
            await settle()
        return [size for size, _ in self.requests]

    async def answer(self, index: int) -> list[int]:
        self.requests[index][1].set()
        await settle()
        return [size for size, _ in self.requests]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_few_letters_go_at_once_each_by_itself() -> None:
    scene = Scene()
    async with scene.running():
        assert await scene.come(1, 2, 1) == [1] * AT_ONCE


async def test_what_comes_faster_than_requests_are_done_goes_together() -> None:
    scene = Scene()
    alone = [1] * AT_ONCE
    async with scene.running():
        assert await scene.come(*alone, *[1] * 30) == alone
        assert await scene.answer(2) == [*alone, 30]
        assert await scene.come(7, 8) == [*alone, 30]
        assert await scene.answer(AT_ONCE) == [*alone, 30, 15]
        assert await scene.answer(0) == [*alone, 30, 15]
        assert await scene.come(1) == [*alone, 30, 15, 1]


async def test_a_crowd_goes_together_at_once() -> None:
    scene = Scene()
    async with scene.running():
        assert await scene.come(50) == [50]


async def test_a_full_request_waits_for_no_other() -> None:
    scene = Scene()
    async with scene.running():
        assert await scene.come(*[1] * AT_ONCE, FULL - 1) == [1] * AT_ONCE
        assert await scene.come(1) == [*[1] * AT_ONCE, FULL]


@pytest.mark.parametrize("has_other", [True, False])
async def test_a_provider_that_refuses_is_waited_for_unless_there_is_another(
    has_other: bool,
) -> None:
    scene = Scene(has_other=has_other)
    scene.allowance.pause(60)
    async with scene.running():
        assert await scene.come(1) == ([1] if has_other else [])
