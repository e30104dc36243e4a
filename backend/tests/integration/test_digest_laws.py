"""Laws of digests, for any history: all that is parked ends once, and in few mails (REQ-015)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import time, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import NotFound
from app.pipeline.receipt import Receipt
from app.policy.kinds import NotificationType, Priority
from app.policy.routing import Request
from app.schemas.settings import UpdateSettings
from tests.integration import test_digests, test_pipeline
from tests.integration.test_digests import Post

stage, post = test_pipeline.stage, test_digests.post

TYPES = (NotificationType.TASK, NotificationType.BILLING)
ZONES = ("UTC", "Asia/Kolkata", "Pacific/Apia", "America/New_York")
USERS = 2
ENDS = {
    ("sent", "digest"),
    ("skipped", "read_elsewhere"),
    ("skipped", "preference_off"),
    ("skipped", "expired"),
    ("cancelled", "cancelled"),
    ("failed", "attempts_exhausted"),
}


@dataclass
class History:
    """What happens to some users, a step at a time."""

    post: Post
    users: list[UUID]
    stored: list[tuple[UUID, Receipt]] = field(default_factory=list[tuple[UUID, Receipt]])

    async def create(
        self, who: int, kind: NotificationType, priority: Priority, hours: int | None
    ) -> None:
        expires = None if hours is None else self.post.stage.clock() + timedelta(hours=hours)
        user, request = self.users[who], Request(kind, priority, expires_at=expires)
        self.stored.append((user, await self.post.stage.post(user, request)))

    async def cancel(self, place: int) -> None:
        for _, which in self._one(place):
            await self.post.cancellation.cancel(which.id, by="tests")

    async def read(self, place: int) -> None:
        for whose, which in self._one(place):
            with suppress(NotFound):  # deleted or expired before
                await self.post.inbox.mark_read(whose, which.id)

    async def delete(self, place: int) -> None:
        for whose, which in self._one(place):
            with suppress(NotFound):
                await self.post.inbox.delete(whose, which.id)

    async def choose(
        self, who: int, kind: NotificationType, frequency: str, hour: int, day: int
    ) -> None:
        chosen = {"digest_frequency": frequency, "digest_day": day}
        at = time(hour).isoformat()
        await self.post.choose(self.users[who], kind, **chosen, digest_time=at)

    async def move(self, who: int, zone: str) -> None:
        wanted = UpdateSettings.model_validate({"timezone": zone})
        await self.post.settings.update(self.users[who], wanted)

    async def wait(self, hours: int) -> None:
        """Unseen; the clock may go back, too."""
        self.post.stage.clock.advance(hours=hours)

    async def sweep(self) -> None:
        await self.post.sweep()

    async def refuse(self) -> None:
        await self.post.stage.fault(kind="status", status=429, retry_after=5, times=1)

    def _one(self, place: int) -> list[tuple[UUID, Receipt]]:
        return [self.stored[place % len(self.stored)]] if self.stored else []


Step = Callable[[History], Awaitable[None]]


def step(do: Callable[..., Awaitable[None]], **drawn: st.SearchStrategy[Any]) -> Any:
    """A step with what is drawn for it."""
    return st.fixed_dictionaries(drawn).map(lambda given: partial(do, **given))


who, place, kind = st.integers(0, USERS - 1), st.integers(0, 30), st.sampled_from(TYPES)
steps: st.SearchStrategy[Step] = st.one_of(
    step(
        History.create,
        who=who,
        kind=kind,
        priority=st.sampled_from([Priority.NORMAL, Priority.LOW]),
        hours=st.none() | st.integers(1, 80),
    ),
    step(History.read, place=place),
    step(History.delete, place=place),
    step(History.cancel, place=place),
    step(
        History.choose,
        who=who,
        kind=kind,
        frequency=st.sampled_from(["instant", "daily", "weekly", "never"]),
        hour=st.integers(0, 23),
        day=st.integers(1, 7),
    ),
    step(History.move, who=who, zone=st.sampled_from(ZONES)),
    step(History.wait, hours=st.integers(-3, 60)),
    step(History.sweep),
    step(History.refuse),
)


@pytest.mark.timeout(300)
async def test_all_that_is_parked_ends_once_whatever_happens(post: Post) -> None:
    loop = asyncio.get_running_loop()

    @settings(
        max_examples=12, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(st.lists(steps, min_size=4, max_size=20))
    def run(history: list[Step]) -> None:
        asyncio.run_coroutine_threadsafe(_live(post, history), loop).result()

    await asyncio.to_thread(run)


async def _live(post: Post, history: list[Step]) -> None:
    users = [await post.user() for _ in range(USERS)]
    happening = History(post, users)
    for do in history:
        await do(happening)
    (await post.stage.sandbox.delete("/faults")).raise_for_status()
    # Ten days later everybody has had their digest, whatever they had chosen.
    for _ in range(10):
        post.stage.clock.advance(days=1)
        await post.sweep()
        await post.sweep(post.stage.clock() + timedelta(minutes=1))

    rows = await post.stage.rows(
        "SELECT notification_id, status, reason, lease_token FROM notification_deliveries"
        " WHERE user_id = ANY(:users) AND channel = 'email'",
        users=users,
    )
    assert {(row.status, row.reason) for row in rows} <= ENDS
    assert {row.lease_token for row in rows} <= {None}
    digests = await post.stage.rows(
        "SELECT * FROM email_digests WHERE user_id = ANY(:users)", users=users
    )
    assert {row.status for row in digests} <= {"sent", "skipped", "failed"}
    told = Counter(id_ for row in digests if row.status == "sent" for id_ in row.notification_ids)
    assert told == Counter(row.notification_id for row in rows if row.status == "sent")
    events = await post.stage.rows(
        "SELECT notification_id FROM notification_events WHERE user_id = ANY(:users)"
        " AND channel = 'email' AND event IN ('sent', 'skipped', 'cancelled', 'failed')",
        users=users,
    )
    assert Counter(row.notification_id for row in events) == Counter(
        row.notification_id for row in rows
    )
    mails = [mail for user in users for mail in await post.mails(user)]
    assert sorted(mail["idempotency_key"] for mail in mails) == sorted(
        str(row.id) for row in digests if row.status == "sent"
    )
