"""A listener that remembers what a backplane tells it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.realtime.backplane import Backplane, Change
from app.realtime.hub import cancel
from tests.integration.sockets import eventually


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.gaps = 0

    def on_change(self, change: Change) -> None:
        self.changes.append(change)

    def on_gap(self) -> None:
        self.gaps += 1


@asynccontextmanager
async def listening(backplane: Backplane) -> AsyncGenerator[Listener]:
    listener = Listener()
    task = asyncio.create_task(backplane.listen(listener.on_change, listener.on_gap))
    try:
        await eventually(lambda: backplane.is_listening)
        yield listener
    finally:
        await cancel([task])
