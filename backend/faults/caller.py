"""A service that creates notifications and keeps what it was answered."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Self
from uuid import UUID

import httpx

from tests.http_client import client_of

ACCEPTED = 202
TEMPORARY = (429, 503)
"""What a caller is told to come back for; any other refusal of a valid call is a fault."""

PATIENCE = 40.0  # seconds; longer than the longest stall
PRIORITIES = ("critical", "high", "normal")
TYPES = ("task", "system", "workflow")


@dataclass
class Ledger:
    """What became of each call.

    Args:
        accepted: user by notification, of every 202.
        refused: calls told to come back, by status.
        unanswered: calls whose connection broke: stored or not, nobody knows.
        wrong: answers that no valid call may get.
    """

    accepted: dict[UUID, UUID] = field(default_factory=dict[UUID, UUID])
    refused: Counter[int] = field(default_factory=Counter[int])
    unanswered: int = 0
    wrong: list[str] = field(default_factory=list[str])


class Caller:
    """Calls `POST /internal/notifications/send` for users it picks by seed.

    Args:
        port: where the API, or what stands before it, listens.
        headers: credentials of an internal service.
        random: decides users, kinds and pauses.
    """

    def __init__(
        self, port: int, headers: dict[str, str], users: Sequence[UUID], random: random.Random
    ) -> None:
        self._client = client_of(
            f"http://127.0.0.1:{port}/api/v1/internal",
            headers=headers,
            timeout=PATIENCE,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=50),
        )
        self._users = users
        self._random = random
        self._numbers = count(1)
        self.ledger = Ledger()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def introduce(self, user_id: UUID, address: str) -> None:
        """Give a user an address."""
        answer = await self._client.put(f"/users/{user_id}", json={"email": address})
        answer.raise_for_status()

    async def create(self, user_id: UUID | None = None, **fields: object) -> UUID | None:
        """Create one notification for in-app and email; its id if it was accepted.

        Args:
            fields: of the call that differ.
        """
        user_id = user_id or self._random.choice(self._users)
        body = {
            "user_id": str(user_id),
            "type": self._random.choice(TYPES),
            "priority": self._random.choice(PRIORITIES),
            "title": f"Number {next(self._numbers)}",
            "body": "Under fire",
            "send_email": True,
            **fields,
        }
        try:
            answer = await self._client.post("/notifications/send", json=body)
        except httpx.TransportError:
            self.ledger.unanswered += 1
            return None
        if answer.status_code == ACCEPTED:
            accepted = UUID(answer.json()["notification_id"])
            self.ledger.accepted[accepted] = user_id
            return accepted
        if answer.status_code in TEMPORARY:
            self.ledger.refused[answer.status_code] += 1
        else:
            self.ledger.wrong.append(f"{answer.status_code} {answer.text[:200]}")
        return None

    async def create_many(self, number: int) -> None:
        """Create so many at the same time."""
        await asyncio.gather(*(self.create() for _ in range(number)))

    @asynccontextmanager
    async def creating(self, number: int, *, seconds: float) -> AsyncGenerator[None]:
        """Create so many, spread over about so many seconds, beside what the context does."""
        load = asyncio.create_task(self._create_spread(number, seconds))
        try:
            yield
            await load
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)

    async def _create_spread(self, number: int, seconds: float) -> None:
        async with asyncio.TaskGroup() as calls:
            for _ in range(number):
                calls.create_task(self.create())
                await asyncio.sleep(self._random.expovariate(number / seconds))
