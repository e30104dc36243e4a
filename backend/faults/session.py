"""A user's client on the socket: it comes back after every fault and says where it stood."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import websockets
from websockets.exceptions import WebSocketException

from tests.stack import as_json

PAUSE = 0.2  # seconds before it comes back
PATH = "/api/v1/notifications/ws"


class Session:
    """Counts the notifications it is shown, by id, through any number of connections.

    Args:
        port: of the gateway, or of the API, which serves the socket path too.
        token: access token of the user.
    """

    def __init__(self, port: int, user_id: UUID, token: str) -> None:
        self.user_id = user_id
        self.shown: Counter[UUID] = Counter()
        self.problems: list[str] = []
        self._url = f"ws://127.0.0.1:{port}{PATH}?token={token}"
        self._ready = asyncio.Event()
        self._since: int | None = None

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
            url = self._url if self._since is None else f"{self._url}&since={self._since}"
            try:
                async with websockets.connect(url, open_timeout=15) as socket:
                    async for raw in socket:
                        self._take(as_json(raw))
            except (OSError, TimeoutError, WebSocketException):
                pass
            await asyncio.sleep(PAUSE)

    def _take(self, message: dict[str, Any]) -> None:
        kind, seq = message["type"], message.get("seq")
        if kind == "authenticated" and self._since is not None and not message["recovered"]:
            self.problems.append(f"a session's position {self._since} was not recovered")
        if kind == "sync_complete":
            self._ready.set()
        if kind == "notification":
            self._show(message)
        if kind in {"notification", "sync_complete"} and isinstance(seq, int):
            self._since = max(self._since or 0, seq)

    def _show(self, message: dict[str, Any]) -> None:
        seq = message["seq"]
        if seq <= (self._since or 0):
            self.problems.append(f"a session was shown {seq} after {self._since}")
        self.shown[UUID(message["data"]["id"])] += 1
