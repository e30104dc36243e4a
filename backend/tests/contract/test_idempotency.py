"""A create call that is repeated with its key answers what the first one did (contract, 5.1)."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from app.pipeline.deliver import utc_now
from app.pipeline.keyring import Keyring
from app.pipeline.tidy import Tidier
from tests.contract.callers import V1, Api, assert_refused, content, open_api

CREATE = f"{V1}/notifications"
SEND = f"{V1}/internal/notifications/send"


@pytest.fixture
async def ada(api: Api) -> UUID:
    return await api.new_user(email="ada@example.com")


@pytest.fixture
def key() -> str:
    return f"order-{uuid4()}"


async def post(
    api: Api, body: dict[str, Any], key: str | None = None, service: str = "shop"
) -> httpx.Response:
    headers = api.service(service) | ({"Idempotency-Key": key} if key is not None else {})
    return await api.client.post(CREATE, json=body, headers=headers)


async def stored(api: Api, user: UUID) -> int:
    (row,) = await api.rows("SELECT count(*) AS n FROM notifications WHERE user_id = :id", id=user)
    return row.n


class TestRepeats:
    async def test_a_repeat_answers_the_first_answer_and_says_so(
        self, api: Api, ada: UUID, key: str
    ) -> None:
        first = await post(api, content(user_id=ada), key)
        again = await post(api, content(user_id=ada), key)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json() == again.json()
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert await stored(api, ada) == 1
        inbox = await api.client.get(f"{V1}/notifications/unread-count", headers=api.user(ada))
        assert inbox.json()["count"] == 1

    async def test_internal_calls_too(self, api: Api, ada: UUID, key: str) -> None:
        headers = api.internal("shop") | {"Idempotency-Key": key}
        answers = [
            await api.client.post(SEND, json=content(user_id=ada), headers=headers)
            for _ in range(2)
        ]
        assert answers[0].json() == answers[1].json()
        assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]

    async def test_the_body_may_hold_the_key(self, api: Api, ada: UUID, key: str) -> None:
        first = await post(api, content(user_id=ada, idempotency_key=key))
        again = await post(api, content(user_id=ada), key)
        both = await post(api, content(user_id=ada, idempotency_key=key), key)
        assert first.json() == again.json() == both.json()
        assert await stored(api, ada) == 1

    async def test_the_order_of_fields_makes_no_difference(
        self, api: Api, ada: UUID, key: str
    ) -> None:
        body = content(user_id=ada, data={"a": 1, "b": {"c": 2, "d": 3}})
        turned = dict(reversed(body.items())) | {"data": {"b": {"d": 3, "c": 2}, "a": 1}}
        first, again = await post(api, body, key), await post(api, turned, key)
        assert first.json() == again.json()

    async def test_one_that_expired_meanwhile_is_answered_still(
        self, settings: Settings, ada: UUID, key: str
    ) -> None:
        now = datetime.now(UTC)
        body = content(user_id=ada, expires_at=(now + timedelta(hours=1)).isoformat())
        async with open_api(settings, lambda: now) as api:
            first = await post(api, body, key)
        async with open_api(settings, lambda: now + timedelta(hours=2)) as api:
            again = await post(api, body, key)
            assert first.json() == again.json()
            refused = await post(api, body, f"{key}-2")
            (detail,) = assert_refused(refused, 422, "validation_error")
            assert (detail["path"], detail["code"]) == ("expires_at", "in_the_past")

    async def test_a_scheduled_one_stays_scheduled(self, api: Api, ada: UUID, key: str) -> None:
        body = content(user_id=ada, send_at="2199-01-01T00:00:00Z")
        answers = [(await post(api, body, key)).json() for _ in range(2)]
        assert answers[0] == answers[1]
        assert answers[1]["status"] == "scheduled"


class TestBulk:
    async def bulk(self, api: Api, key: str, **fields: Any) -> httpx.Response:
        headers = api.service("shop") | {"Idempotency-Key": key}
        return await api.client.post(
            f"{V1}/notifications/bulk", json=content(**fields), headers=headers
        )

    async def test_a_repeat_makes_no_second_batch(self, api: Api, ada: UUID, key: str) -> None:
        calls = [self.bulk(api, key, user_ids=[str(ada)]) for _ in range(4)]
        answers = await asyncio.gather(*calls)
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["batch_id"] for answer in answers}) == 1
        assert {answer.json()["recipient_count"] for answer in answers} == {1}
        repeats = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
        assert len(repeats) == 3
        other = await self.bulk(api, key, user_ids=[str(ada)], title="Something else")
        assert_refused(other, 409, "idempotency_conflict")

    async def test_a_single_call_is_another_request(self, api: Api, ada: UUID, key: str) -> None:
        await post(api, content(user_id=ada), key)
        answer = await self.bulk(api, key, user_ids=[str(ada)])
        assert_refused(answer, 409, "idempotency_conflict")

    async def test_a_refused_batch_leaves_its_key_free(self, api: Api, ada: UUID, key: str) -> None:
        too_many = [str(uuid4()) for _ in range(api.settings.notification_max_batch_size + 1)]
        answer = await self.bulk(api, key, user_ids=too_many)
        assert_refused(answer, 400, "too_many_recipients")
        assert (await self.bulk(api, key, user_ids=[str(ada)])).status_code == 202


class TestOtherCalls:
    async def test_another_body_is_a_conflict_and_changes_nothing(
        self, api: Api, ada: UUID, key: str
    ) -> None:
        await post(api, content(user_id=ada), key)
        other = await post(api, content(user_id=ada, title="Something else"), key)
        assert_refused(other, 409, "idempotency_conflict")
        assert await stored(api, ada) == 1

    async def test_another_service_has_keys_of_its_own(self, api: Api, ada: UUID, key: str) -> None:
        first = await post(api, content(user_id=ada), key)
        other = await post(api, content(user_id=ada), key, service="billing")
        assert first.json()["id"] != other.json()["id"]

    async def test_a_refused_call_leaves_its_key_free(self, api: Api, key: str) -> None:
        user = uuid4()
        assert_refused(await post(api, content(user_id=user), key), 422, "unknown_user")
        await api.client.put(f"{V1}/internal/users/{user}", json={}, headers=api.internal())
        assert (await post(api, content(user_id=user), key)).status_code == 202

    async def test_a_day_later_the_key_is_free(self, api: Api, ada: UUID, key: str) -> None:
        first = await post(api, content(user_id=ada), key)
        await api.rows(
            "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours'"
            " WHERE key = :key RETURNING key",
            key=key,
        )
        later = await post(api, content(user_id=ada, title="Something else"), key)
        assert later.status_code == 202
        assert later.json()["id"] != first.json()["id"]
        again = await post(api, content(user_id=ada, title="Something else"), key)
        assert again.json() == later.json()

    async def test_header_and_body_must_not_differ(self, api: Api, ada: UUID, key: str) -> None:
        answer = await post(api, content(user_id=ada, idempotency_key=key), f"{key}-2")
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "idempotency_key"

    @pytest.mark.parametrize("bad", ["", " ", "with space", "x" * 256, "tab\there"])
    async def test_keys_are_visible_ascii(self, api: Api, ada: UUID, bad: str) -> None:
        answer = await post(api, content(user_id=ada), bad)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "Idempotency-Key"
        answer = await post(api, content(user_id=ada, idempotency_key=bad))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "idempotency_key"
        assert await stored(api, ada) == 0


@pytest.fixture
async def second_api(settings: Settings) -> AsyncGenerator[Api]:
    """Another API on the same database, with connections and groups of its own."""
    async with open_api(settings) as running:
        yield running


class TestTidying:
    async def test_keys_are_forgotten_when_their_day_is_over(
        self, api: Api, ada: UUID, key: str
    ) -> None:
        for suffix in ("old", "new"):
            await post(api, content(user_id=ada), f"{key}-{suffix}")
        await api.rows(
            "UPDATE idempotency_keys SET created_at = created_at - interval '25 hours'"
            " WHERE key = :key RETURNING key",
            key=f"{key}-old",
        )
        keyring = Keyring(api.settings, api.database, utc_now)
        tidier = Tidier(api.database, keyring, timedelta(days=30), timedelta(days=90), utc_now)
        assert await tidier.tidy() >= 1
        left = await api.rows(
            "SELECT key FROM idempotency_keys WHERE key LIKE :key", key=f"{key}-%"
        )
        assert [row.key for row in left] == [f"{key}-new"]


class TestRaces:
    async def test_identical_calls_at_once_create_one_each(
        self, api: Api, second_api: Api, key: str
    ) -> None:
        users = [await api.new_user() for _ in range(5)]
        dice = random.Random(7)
        calls = [(number, app) for number in range(60) for app in (api, second_api) * 3]
        dice.shuffle(calls)

        async def call(number: int, app: Api) -> tuple[int, httpx.Response]:
            body = content(user_id=users[number % 5], title=f"Order {number}")
            return number, await post(app, body, f"{key}-{number}")

        answers = await asyncio.gather(*(call(*each) for each in calls))
        assert {answer.status_code for _, answer in answers} == {202}
        ids: dict[int, set[str]] = {}
        for number, answer in answers:
            ids.setdefault(number, set()).add(answer.json()["id"])
        assert [len(found) for found in ids.values()] == [1] * 60
        first_answers = Counter(
            number for number, answer in answers if "Idempotent-Replayed" not in answer.headers
        )
        assert first_answers == Counter(range(60))
        assert sum([await stored(api, user) for user in users]) == 60

    async def test_one_key_for_two_bodies_in_one_group(self, api: Api, ada: UUID, key: str) -> None:
        answers = await asyncio.gather(
            *(post(api, content(user_id=ada, title=f"Order {n % 2}"), key) for n in range(10))
        )
        assert Counter(answer.status_code for answer in answers) == {202: 5, 409: 5}
        assert await stored(api, ada) == 1

    async def test_one_key_for_nobody_and_for_somebody(self, api: Api, ada: UUID, key: str) -> None:
        answers = await asyncio.gather(
            post(api, content(user_id=uuid4()), key), post(api, content(user_id=ada), key)
        )
        assert [answer.status_code for answer in answers] == [422, 202]
