"""A user's client on the socket: it comes back after every fault and says where it stood."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import websockets
from websockets.exceptions import WebSocketException

from tests.integration.mirror import Mirror
from tests.stack import as_json

# Seconds before it comes back: full jitter below a bound that doubles.
FIRST_PAUSE = 0.4
LONGEST_PAUSE = 4.0
PATH = "/api/v1/notifications/ws"


class Session:
    """Keeps an inbox from frames alone, through any number of connections.

    Args:
        port: of the gateway, or of the API, which serves the socket path too.
        user_id: has nothing yet.
        token: access token of the user.
    """

    def __init__(self, port: int, user_id: UUID, token: str) -> None:
        self.user_id = user_id
        self.mirror = Mirror()
        self.shown: Counter[UUID] = Counter()
        self.shown_at: dict[UUID, datetime] = {}
        self.connections = 0
        self._url = f"ws://127.0.0.1:{port}{PATH}?token={token}"
        self._ready = asyncio.Event()
        self._failures = 0
        self._luck = random.Random(user_id.int)

    @property
    def problems(self) -> list[str]:
        """Promises of the protocol that were broken."""
        return self.mirror.problems

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Stay connected while the context lasts; entered once the first connection is live."""
        task = asyncio.create_task(self._stay())
        try:
            await self._ready.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _stay(self) -> None:
        while True:
            url = f"{self._url}&since={self.mirror.since}"
            try:
                async with websockets.connect(url, open_timeout=15, compression=None) as socket:
                    async for raw in socket:
                        self._take(as_json(raw))
            except (OSError, TimeoutError, WebSocketException):
                pass
            bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
            self._failures += 1
            await asyncio.sleep(self._luck.uniform(0, bound))

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "notification" and message["data"]["id"] not in self.mirror.items:
            item = UUID(message["data"]["id"])
            self.shown[item] += 1
            self.shown_at.setdefault(item, datetime.now(UTC))
        self.mirror.take(message)
        if kind == "sync_complete":
            self.connections += 1
            self._failures = 0
            self._ready.set()
