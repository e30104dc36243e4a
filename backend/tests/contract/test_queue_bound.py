"""What is refused while the queue is full, and what never fills it (contract; REQ-022)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from tests.contract.callers import (
    V1,
    Api,
    Headers,
    Json,
    assert_refused,
    browser,
    content,
    open_api,
)
from tests.contract.test_global_limit import behind_a_proxy
from tests.integration.test_pipeline import eventually

MOST = 5
CREATE, BULK = f"{V1}/notifications", f"{V1}/notifications/bulk"
SEND = f"{V1}/internal/notifications/send"
PARKED = 3_000

# Rows of one user, as later stages leave them.
ADD_DELIVERIES = """
    WITH added AS (
        INSERT INTO notifications (
            id, user_id, type, priority, title, body, body_html, data, service, created_at
        )
        SELECT gen_random_uuid(), CAST(:user AS uuid), 'task', 'normal', 'T', 'b', 'b', '{{}}',
               'tests', now()
        FROM generate_series(1, CAST(:count AS int))
        RETURNING id, user_id
    )
    INSERT INTO notification_deliveries (
        notification_id, user_id, channel, urgency, reason, attempts, next_attempt_at, digest_slot,
        lease_token
    )
    SELECT id, user_id, 'email', 2, {values} FROM added
    RETURNING id
"""
SOON, AGO = "now() + interval '1 hour'", "now() - interval '1 second'"
WAITING = {
    "digest": f"'digest', 0, NULL, {SOON}, NULL",
    "digest of long ago": f"'digest', 0, NULL, {AGO}, NULL",
    "scheduled": f"'scheduled', 0, {SOON}, NULL, NULL",
    "held": f"'quiet_hours', 0, {SOON}, NULL, NULL",
    "over a limit": f"'user_limit', 0, {SOON}, NULL, NULL",
    "being sent": f"'sent_now', 1, {SOON}, NULL, gen_random_uuid()",
    "retried": f"'provider_unavailable', 3, {AGO}, NULL, NULL",
    "put off": f"'provider_unavailable', 0, {AGO}, NULL, NULL",
    "told to come back": f"'provider_limit', 0, {AGO}, NULL, NULL",
}
DUE = {
    "new": f"'sent_now', 0, {AGO}, NULL, NULL",
    "released": f"'quiet_hours', 0, {AGO}, NULL, NULL",
    "whose time has come": f"'scheduled', 0, {AGO}, NULL, NULL",
    "without a reason": f"NULL, 0, {AGO}, NULL, NULL",
}


@pytest.fixture
def small(fresh_settings: Settings) -> Settings:
    return fresh_settings.model_copy(update={"notification_queue_size": MOST})


@dataclass
class Scene:
    """An API whose queue holds few, a user with an address, and no worker."""

    api: Api
    user: UUID

    async def post(self, path: str = CREATE, **fields: Any) -> httpx.Response:
        headers = self.api.internal() if path == SEND else self.api.service()
        body = content(user_id=self.user, send_email=True, **fields)
        return await self.api.client.post(path, json=body, headers=headers)

    async def fill(self) -> None:
        """Let more be due than the queue holds."""
        for _ in range(MOST + 1):
            if (answer := await self.post()).status_code != 202:
                assert_full(answer)
                return

    async def add(self, count: int, values: str) -> None:
        await self.api.rows(ADD_DELIVERIES.format(values=values), user=self.user, count=count)

    async def deliver(self) -> None:
        """What a worker does to all that is due."""
        await self.api.rows(
            "UPDATE notification_deliveries SET status = 'sent' WHERE status = 'pending'"
            " RETURNING id"
        )

    async def stored(self) -> int:
        (row,) = await self.api.rows("SELECT count(*) AS n FROM notifications")
        return row.n


@pytest.fixture
async def scene(small: Settings) -> AsyncGenerator[Scene]:
    async with open_api(small) as api:
        yield Scene(api, await api.new_user(email="ada@example.com"))


def assert_full(answer: httpx.Response) -> None:
    assert assert_refused(answer, 429, "queue_full") == []
    assert int(answer.headers["Retry-After"]) >= 1


class TestFull:
    @pytest.mark.parametrize("path", [CREATE, SEND])
    @pytest.mark.parametrize("priority", ["high", "normal", "low"])
    async def test_creates_are_refused_and_nothing_is_stored(
        self, scene: Scene, path: str, priority: str
    ) -> None:
        await scene.fill()
        for fields in ({}, {"channels": ["in_app"]}, {"send_at": "2999-01-01T00:00:00Z"}):
            assert_full(await scene.post(path, priority=priority, **fields))
        assert await scene.stored() == MOST + 1
        inbox = await scene.api.read(scene.user, "/unread-count")
        assert inbox["count"] == MOST + 1

    @pytest.mark.parametrize("urgent", [{"priority": "critical"}, {"type": "security"}])
    async def test_what_is_critical_passes(self, scene: Scene, urgent: Json) -> None:
        await scene.fill()
        answers = await asyncio.gather(
            *(scene.post(path, **fields) for path in (CREATE, SEND) for fields in (urgent, {}))
        )
        assert [answer.status_code for answer in answers] == [202, 429, 202, 429]
        passed = await scene.api.client.post(
            BULK, json=content(user_ids=[str(scene.user)], **urgent), headers=scene.api.service()
        )
        assert passed.status_code == 202

    async def test_bulk_is_refused_whole(self, scene: Scene) -> None:
        await scene.fill()
        headers: Headers = {**scene.api.service(), "Idempotency-Key": "bulk"}
        body = content(user_ids=[str(scene.user), str(uuid4())])
        refused = await scene.api.client.post(BULK, json=body, headers=headers)
        assert_full(refused)
        assert refused.headers["X-RateLimit-Remaining"] == refused.headers["X-RateLimit-Limit"]
        (row,) = await scene.api.rows("SELECT count(*) AS n FROM notification_batches")
        assert row.n == 0
        await scene.deliver()
        await self.accepted_again(lambda: scene.api.client.post(BULK, json=body, headers=headers))

    async def test_a_test_of_a_device_is_refused(self, scene: Scene) -> None:
        device = await scene.api.subscribe(scene.user, browser())
        await scene.fill()
        path = f"{V1}/notifications/push/subscriptions/{device['id']}/test"
        assert_full(await scene.api.client.post(path, headers=scene.api.user(scene.user)))

    async def test_a_repeat_is_answered_as_the_first_time(self, scene: Scene) -> None:
        keyed: Json = {"idempotency_key": "before"}
        first = await scene.post(**keyed)
        batch = content(user_ids=[str(scene.user)], idempotency_key="bulk-before")
        headers = scene.api.service()
        stored = await scene.api.client.post(BULK, json=batch, headers=headers)
        await scene.fill()
        assert (await scene.post(**keyed)).json() == first.json()
        again = await scene.api.client.post(BULK, json=batch, headers=headers)
        assert (stored.status_code, again.status_code) == (202, 202)
        assert again.json() == stored.json()

    async def test_the_key_of_one_that_was_refused_stays_free(self, scene: Scene) -> None:
        await scene.fill()
        keyed: Json = {"idempotency_key": "late"}
        refused = await asyncio.gather(*(scene.post(**keyed) for _ in range(3)))
        for answer in refused:
            assert_full(answer)
        await scene.deliver()
        await self.accepted_again(lambda: scene.post(**keyed))

    async def test_other_calls_that_are_wrong_are_told_so(self, scene: Scene) -> None:
        await scene.fill()
        expired = await scene.post(expires_at="2001-01-01T00:00:00Z")
        assert_refused(expired, 422, "validation_error")

    async def test_another_process_refuses_too(self, scene: Scene, small: Settings) -> None:
        await scene.fill()
        async with open_api(small) as other:
            assert_full(await Scene(other, scene.user).post())

    async def test_without_postgresql_nobody_is_refused_for_it(self, small: Settings) -> None:
        async with behind_a_proxy(small) as (settings, proxy), open_api(settings) as api:
            scene = Scene(api, await api.new_user(email="ada@example.com"))
            await scene.fill()
            assert_full(await scene.post())
            proxy.refuse()

            async def is_away() -> bool:
                answer = await scene.post()
                return answer.status_code == 503

            await eventually(is_away)

    async def accepted_again(self, post: Callable[[], Awaitable[httpx.Response]]) -> None:
        """Soon after the queue was emptied the call is accepted, as a first one."""

        async def accepted() -> bool:
            answer = await post()
            assert answer.status_code in {202, 429}
            assert "Idempotent-Replayed" not in answer.headers
            return answer.status_code == 202

        await eventually(accepted)


class TestWhatCounts:
    @pytest.mark.parametrize("kind", WAITING)
    async def test_what_waits_for_something_else_blocks_nobody(
        self, scene: Scene, kind: str
    ) -> None:
        await scene.add(PARKED, WAITING[kind])
        for _ in range(MOST + 1):
            assert (await scene.post()).status_code == 202
        assert_full(await scene.post())

    @pytest.mark.parametrize("kind", DUE)
    async def test_what_is_due_and_was_never_attempted_does(self, scene: Scene, kind: str) -> None:
        await scene.add(MOST, DUE[kind])
        assert (await scene.post()).status_code == 202
        assert_full(await scene.post())

    async def test_what_goes_to_nobody_but_the_inbox_waits_for_nobody(self, scene: Scene) -> None:
        for _ in range(2 * MOST):
            assert (await scene.post(channels=["in_app"])).status_code == 202
