"""Work that arrives together is done together: the basis of group commit."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Hands items to `process` in groups, without waiting for a group to fill.

    While one group is being processed the next gathers, so groups grow with the load and a lone
    item is never delayed. Use it as an asynchronous context manager.

    Args:
        process: does a group; returns one result, or the exception to raise, for each item in
            order. An exception it raises goes to every item of the group.
        limit: the most items of one group.
        workers: groups processed at the same time.
    """

    def __init__(
        self,
        process: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int,
        workers: int = 1,
    ) -> None:
        self._process = process
        self._limit = limit
        self._workers = workers
        self._queue: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what was submitted, then stop."""
        await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def waiting(self) -> int:
        """Items that no group has taken yet."""
        return self._queue.qsize()

    async def submit(self, item: Item) -> Result:
        """The item's result, once its group is done; raises what `process` says of it."""
        return await self.submit_nowait(item)

    def submit_nowait(self, item: Item) -> asyncio.Future[Result]:
        """Queue the item; the future is its result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return future

    async def _work(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < self._limit and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._settle(group)
            finally:
                for _ in group:
                    self._queue.task_done()

    async def _settle(self, group: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._process([item for item, _ in group])
        except asyncio.CancelledError:
            for _, future in group:
                future.cancel()
            raise
        except Exception as error:
            results = [error] * len(group)
        for (_, future), result in zip(group, results, strict=True):
            if future.done():  # its caller went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
