"""Acknowledgements of many sockets, written together."""

import asyncio
from uuid import UUID

import structlog

from app.errors import Unavailable
from app.realtime.reader import InboxReader
from app.realtime.timing import Timing

log = structlog.get_logger()


class Acknowledgements:
    """Gathers how far users have got and marks it as delivered, one statement for all.

    What a kill loses of it is acknowledged again by the next session.
    """

    def __init__(self, inbox: InboxReader, timing: Timing) -> None:
        self._inbox = inbox
        self._timing = timing
        self._reached: dict[UUID, int] = {}
        self._writer: asyncio.Task[None] | None = None

    def note(self, user_id: UUID, seq: int) -> None:
        """The user was shown everything up to `seq`."""
        self._reached[user_id] = max(seq, self._reached.get(user_id, 0))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what is gathered; give up what PostgreSQL does not take."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await self._write()

    async def _write_all(self) -> None:
        try:
            pause = self._timing.acknowledge_after
            while self._reached:
                await asyncio.sleep(pause)
                written = await self._write()
                pause = self._timing.acknowledge_after if written else self._timing.retry_after
        finally:
            self._writer = None

    async def _write(self) -> bool:
        reached, self._reached = self._reached, {}
        if not reached:
            return True
        try:
            await self._inbox.acknowledge(reached)
        except Exception as error:
            if not isinstance(error, Unavailable):
                log.exception("not_acknowledged")
            for user_id, seq in reached.items():
                self._reached[user_id] = max(seq, self._reached.get(user_id, 0))
            return False
        return True
