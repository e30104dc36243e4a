"""One slow template holds up no call with another (REQ-004)."""

import asyncio

from app.rendering.base import CannotRender, Job
from app.rendering.fair import FairRenderer

FAST = Job({"body": "Hello {{ name }}"}, {"name": "Ada"})
SOURCES = {"body": "{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}x"}
ENDLESS = Job(SOURCES, {"n": 9_999})


async def test_slow_templates_wait_for_each_other_alone() -> None:
    async with FairRenderer(seconds=0.4) as renderer:
        for _ in range(2):  # the second time the other process is there
            await renderer.render([ENDLESS])
        waiting = [asyncio.create_task(renderer.render([ENDLESS])) for _ in range(3)]
        await asyncio.sleep(0)
        assert await renderer.render([FAST]) == [{"body": "Hello Ada"}]
        assert not any(task.done() for task in waiting)
        for (answer,) in await asyncio.gather(*waiting):
            assert isinstance(answer, CannotRender)
            assert answer.code == "too_slow"


async def test_a_template_that_was_slow_once_is_rendered_as_before() -> None:
    async with FairRenderer() as renderer:
        for n in (2_000, 1, 1):
            assert await renderer.render([Job(SOURCES, {"n": n}), FAST]) == [
                {"body": "x"},
                {"body": "Hello Ada"},
            ]
