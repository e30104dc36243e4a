"""Users who read, and keep what they were answered."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx

from faults.caller import PATIENCE, TEMPORARY
from tests.http_client import client_of

PAUSE = 0.02  # seconds between two changes


class State(StrEnum):
    """How a notification was left."""

    READ = "read"
    UNREAD = "unread"
    DELETED = "deleted"


CHANGES: Mapping[State, tuple[str, str]] = {
    State.READ: ("PATCH", "/read"),
    State.UNREAD: ("PATCH", "/unread"),
    State.DELETED: ("DELETE", ""),
}
WEIGHTS = {State.READ: 6, State.UNREAD: 3, State.DELETED: 1}


class Reader:
    """Changes the notifications of some users through the API.

    Args:
        port: where the API, or what stands before it, listens.
        token: makes a user's access token.
        users: who read.
        known: notifications there are, with their users.
    """

    def __init__(
        self,
        port: int,
        token: Callable[[UUID], str],
        users: Sequence[UUID],
        known: Mapping[UUID, UUID],
        random: random.Random,
    ) -> None:
        self._client = client_of(f"http://127.0.0.1:{port}/api/v1/notifications", timeout=PATIENCE)
        self._token = token
        self._users = users
        self._known = known
        self._random = random
        self.answered = 0
        self.refused: Counter[int] = Counter()
        self.unanswered = 0
        self.wrong: list[str] = []
        # What was answered last; None once a call went without an answer: it may still be coming.
        self.left: dict[UUID, State | None] = {}

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """Change one notification after the other, beside what the context does."""
        task = asyncio.create_task(self._read_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def problems(self, items: Mapping[UUID, Mapping[str, Any]], user_id: UUID) -> list[str]:
        """Answered changes that a user's center does not show.

        Args:
            items: what the center lists, by id.
        """
        lost = Counter(
            state.value
            for item, state in self.left.items()
            if state is not None and self._known[item] == user_id
            if state is not _state(items.get(item))
        )
        return [f"{number} were {state} and are not" for state, number in lost.items()]

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            mine = [item for item, user in self._known.items() if user in self._users]
            if mine:
                await self._change(self._random.choice(mine))

    async def _change(self, item: UUID) -> None:
        (state,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        before, self.left[item] = self.left.get(item, State.UNREAD), None
        method, path = CHANGES[state]
        headers = {"Authorization": f"Bearer {self._token(self._known[item])}"}
        try:
            answer = await self._client.request(method, f"/{item}{path}", headers=headers)
        except httpx.TransportError:
            self.unanswered += 1
            return
        if answer.is_success:
            self.answered += 1
            self.left[item] = before and state
        elif answer.status_code == HTTPStatus.NOT_FOUND and before in (State.DELETED, None):
            self.left[item] = before
        elif answer.status_code in TEMPORARY:
            self.refused[answer.status_code] += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text[:200]}")


def _state(item: Mapping[str, Any] | None) -> State:
    if item is None:
        return State.DELETED
    return State.READ if item["read_at"] else State.UNREAD
