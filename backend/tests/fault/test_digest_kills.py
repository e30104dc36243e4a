"""One digest for each user and slot, whatever is frozen or killed in the middle (REQ-016)."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.database import Database
from tests.stack import NOTIFY, STOP_SECONDS, Stack, running_stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stack")]

WORKER, SCHEDULER = "notify worker", "notify scheduler"
ENVIRONMENT = {
    "PROVIDER_TIMEOUT_SECONDS": "2",
    "DELIVERY_LEASE_SECONDS": "4",
    # What the workers record themselves is looked at, before the provider reports anything.
    "SANDBOX_WEBHOOKS": "false",
}
PATIENCE = 100.0

# Slots come round once a day; these have.
PASS = text("""
    UPDATE notification_deliveries SET digest_slot = :slot
    WHERE notification_id = :id AND channel = 'email'
""")


@dataclass
class Scene:
    """An installation, and what happens in it."""

    stack: Stack
    database: Database
    data_dir: Path

    async def park(self, user: UUID, *slots: datetime) -> list[UUID]:
        """Notifications that wait for digests of these slots."""
        parked: list[UUID] = []
        for slot in slots:
            answer = await self.stack.api.post(
                "/api/v1/internal/notifications/send",
                json={"user_id": str(user), "type": "task", "title": "Done", "body": "It is"},
            )
            answer.raise_for_status()
            parked.append(UUID(answer.json()["notification_id"]))
            async with self.database.as_service() as connection:
                await connection.execute(PASS, {"id": parked[-1], "slot": slot})
        return parked

    async def mails(self, user: UUID) -> list[dict[str, Any]]:
        params = {"to": f"{user}@example.com"}
        return (await self.stack.sandbox.get("/mails", params=params)).json()["items"]

    async def requests(self) -> int:
        return (await self.stack.sandbox.get("/arrivals")).json()["requests"]

    async def fail(self, *rules: dict[str, Any]) -> None:
        answer = await self.stack.sandbox.put(
            "/faults", json=[{"provider": "resend", **rule} for rule in rules]
        )
        answer.raise_for_status()

    async def digests(self, user: UUID) -> list[Any]:
        query = text("SELECT * FROM email_digests WHERE user_id = :id")
        async with self.database.as_service() as connection:
            return list((await connection.execute(query, {"id": user})).all())

    async def is_sent(self, user: UUID) -> bool:
        return [row.status for row in await self.digests(user)] == ["sent"]

    async def ends(self, parked: list[UUID]) -> set[tuple[str, str]]:
        query = text(
            "SELECT status, reason FROM notification_deliveries"
            " WHERE notification_id = ANY(:ids) AND channel = 'email'"
        )
        async with self.database.as_service() as connection:
            rows = (await connection.execute(query, {"ids": parked})).all()
        return {(row.status, row.reason) for row in rows}

    @asynccontextmanager
    async def another(self, part: str) -> AsyncGenerator[None]:
        """A second process of a part, beside the supervisor's."""
        with (self.data_dir / "second.log").open("ab") as log:
            process = subprocess.Popen(
                [NOTIFY, part],
                env={**os.environ, **self.stack.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
            )
        try:
            yield
        finally:
            ended = process.poll()
            process.terminate()
            await asyncio.to_thread(process.wait, STOP_SECONDS)
        assert ended is None, (self.data_dir / "second.log").read_text()


@pytest.fixture
async def scene(data_dir: Path) -> AsyncGenerator[Scene]:
    async with running_stack(data_dir, ENVIRONMENT) as stack:
        database = Database(stack.settings)
        yield Scene(stack, database, data_dir)
        await database.close()


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await is_so():
            await asyncio.sleep(0.05)


def ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


async def test_a_frozen_worker_that_comes_back_sends_nothing_twice(scene: Scene) -> None:
    stack = scene.stack
    user, other = await stack.add_user(), await stack.add_user()
    # The provider takes the mail and answers; whoever asked does not hear it.
    await scene.fail({"kind": "delay", "seconds": 1.5})
    before = await scene.requests()
    parked = await scene.park(user, ago(2))

    async def has_it_in_hand() -> bool:
        return await scene.requests() > before

    await until(has_it_in_hand)
    frozen = [stack.part(WORKER), stack.part(SCHEDULER)]
    for part in frozen:
        part.suspend()
    await scene.fail()
    async with scene.another("worker"), scene.another("scheduler"):
        await until(lambda: scene.is_sent(user))  # past the lease
    for part in frozen:
        part.resume()
    # The one that was frozen works again, alone: what it had in hand is behind it.
    await scene.park(other, ago(2))
    await until(lambda: scene.is_sent(other))
    assert stack.part(WORKER).pid == frozen[0].pid
    (digest,) = await scene.digests(user)
    assert digest.expired_leases == 1
    assert len(await scene.mails(user)) == len(await scene.mails(other)) == 1
    assert await scene.ends(parked) == {("sent", "digest")}


async def test_a_worker_killed_after_the_providers_answer_sends_once(scene: Scene) -> None:
    user = await scene.stack.add_user()
    async with scene.database.as_service() as connection:
        # The outcome cannot be written down.
        await connection.execute(text("LOCK TABLE notification_events IN SHARE MODE"))
        query = text("SELECT count(*) FROM email_digests WHERE user_id = :id")
        parking = asyncio.create_task(scene.park(user, ago(2), ago(2)))
        await until(lambda: scene.mails(user))
        assert (await connection.execute(query, {"id": user})).scalar() == 1
        scene.stack.part(WORKER).send_signal(signal.SIGKILL)
    parked = await parking
    await until(lambda: scene.is_sent(user))
    (digest,) = await scene.digests(user)
    (mail,) = await scene.mails(user)
    told = {id_ for id_ in parked if id_ in digest.notification_ids}
    assert told
    assert digest.expired_leases > 0
    assert {tag["name"]: tag["value"] for tag in mail["tags"]}["digest_id"] == str(digest.id)
    assert ("sent", "digest") in await scene.ends([*told])


async def test_slots_that_passed_while_all_were_down_are_one_mail(scene: Scene) -> None:
    stack = scene.stack
    user = await stack.add_user()
    down = [stack.part(WORKER), stack.part(SCHEDULER)]
    for part in down:
        part.suspend()
    latest = ago(2)
    parked = await scene.park(user, ago(60 * 24), ago(60), latest)
    for part in down:
        part.send_signal(signal.SIGKILL)
    await until(lambda: scene.is_sent(user))
    (digest,) = await scene.digests(user)
    assert digest.scheduled_for == latest
    assert sorted(digest.notification_ids) == sorted(parked)
    assert len(await scene.mails(user)) == 1
    assert await scene.ends(parked) == {("sent", "digest")}
