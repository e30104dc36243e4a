"""Lets slow templates wait for each other alone (REQ-004)."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from app.rendering.base import CannotRender, Checked, Job, Rendered
from app.rendering.process import PROCESSOR_SECONDS
from app.rendering.renderer import ProcessRenderer

SLOW_SECONDS: Final = 0.1
"""Of processor time; a template of the ordinary kind takes a hundredth of it."""

MOST_REMEMBERED: Final = 1_000

Sources = frozenset[tuple[str, str]]


class FairRenderer:
    """Renders in two processes; use it as an asynchronous context manager.

    A process does one job after the other. Templates that took long when they were rendered last
    are left to the second, so that a call with any other does not have to wait for them. The
    second is started when there is something for it.

    Args:
        seconds: processor time that a job may take.
    """

    def __init__(self, seconds: float = PROCESSOR_SECONDS) -> None:
        self._slow: dict[Sources, None] = {}
        self._first = ProcessRenderer(took=self._took, seconds=seconds)
        self._second = ProcessRenderer(took=self._took, seconds=seconds)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for renderer in (self._first, self._second):
            await self._open.enter_async_context(renderer)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes, and see them end."""
        await self._open.aclose()

    async def render(self, jobs: Sequence[Job]) -> list[Rendered]:
        """The text of each field of each job, or why there is none.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        is_slow = bool(self._slow) and any(_sources(job) in self._slow for job in jobs)
        return await (self._second if is_slow else self._first).render(jobs)

    async def check(self, sources: Mapping[str, str]) -> Checked | CannotRender:
        """Compile sources without rendering them.

        Raises:
            Unavailable: the process that renders cannot be started.
        """
        return await self._first.check(sources)

    def _took(self, job: Job, seconds: float) -> None:
        self._slow.pop(_sources(job), None)
        if seconds < SLOW_SECONDS:
            return
        self._slow[_sources(job)] = None
        if len(self._slow) > MOST_REMEMBERED:
            del self._slow[next(iter(self._slow))]


def _sources(job: Job) -> Sources:
    return frozenset(job.sources.items())
