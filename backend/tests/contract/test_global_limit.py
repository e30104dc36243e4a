"""What bulk calls are told of the global limit, and where it ends (contract; REQ-023)."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from app.config import Settings
from app.main import create_app
from faults.proxy import Proxy
from tests.contract.callers import V1, Api, Headers, Json, assert_refused, content, open_api
from tests.contract.test_bulk import BULK, Clock
from tests.integration.test_pipeline import eventually

PER_MINUTE, BURST = 60, 100  # one recipient a second
NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
Standing = tuple[int, int, int]


@pytest.fixture
def settings_of_few(fresh_settings: Settings) -> Settings:
    return fresh_settings.model_copy(
        update={"rate_limit_global_per_minute": PER_MINUTE, "notification_max_batch_size": BURST}
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def few(settings_of_few: Settings, clock: Clock) -> AsyncGenerator[Api]:
    """An API that takes few bulk recipients a minute, and whose clock stands still."""
    async with open_api(settings_of_few, clock) as api:
        yield api


def users(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def send(
    api: Api,
    recipients: int | Sequence[str] | None,
    headers: Headers | None = None,
    **fields: Any,
) -> httpx.Response:
    """Post a batch for new users, for these, or for a segment."""
    named = users(recipients) if isinstance(recipients, int) else recipients
    body = content(user_ids=... if named is None else list(named), **fields)
    return await api.client.post(BULK, json=body, headers=headers or api.service())


async def sent(api: Api, recipients: int, **fields: Any) -> Json:
    answer = await send(api, recipients, **fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def standing(answer: httpx.Response) -> Standing:
    """What the headers say: limit, remaining, seconds until reset; each is there once."""
    values = [answer.headers.get_list(name) for name in NAMES]
    ((limit,), (remaining,), (reset,)) = values
    return int(limit), int(remaining), int(reset)


@asynccontextmanager
async def behind_a_proxy(settings: Settings) -> AsyncGenerator[tuple[Settings, Proxy]]:
    """The settings with a proxy between the API and PostgreSQL."""
    assert settings.database_url is not None
    url = make_url(settings.database_url.get_secret_value())
    assert url.port is not None
    async with Proxy(url.port) as proxy:
        through = url.set(host="127.0.0.1", port=proxy.port)
        secret = SecretStr(through.render_as_string(hide_password=False))
        yield settings.model_copy(update={"database_url": secret}), proxy


class TestHeaders:
    async def test_an_unused_limit_is_whole(self, few: Api) -> None:
        answer = await few.client.get(f"{BULK}/{uuid4()}", headers=few.service())
        assert standing(answer) == (PER_MINUTE, BURST, 0)

    async def test_a_batch_uses_up_as_much_as_it_has_recipients(
        self, few: Api, clock: Clock
    ) -> None:
        twice = users(7)
        assert standing(await send(few, [*twice, *twice])) == (PER_MINUTE, BURST - 7, 7)
        clock.advance(seconds=2.5)
        assert standing(await send(few, 1)) == (PER_MINUTE, BURST - 6, 6)
        clock.advance(minutes=1)
        assert standing(await send(few, None, segment={"all": True})) == (
            PER_MINUTE,
            BURST,
            0,
        )

    async def test_a_segment_uses_up_as_much_as_it_finds(self, few: Api) -> None:
        for plan in ("pro", "pro", "free"):
            await few.new_user(attributes={"plan": plan})
        answer = await send(few, None, segment={"attributes": {"plan": "pro"}})
        assert answer.json()["recipient_count"] == 2
        assert standing(answer) == (PER_MINUTE, BURST - 2, 2)

    async def test_every_answer_says_how_the_limit_stands(self, few: Api) -> None:
        key = {**few.service(), "Idempotency-Key": "first"}
        asked = users(30)
        batch = (await send(few, asked, key)).json()["batch_id"]
        expected = (PER_MINUTE, BURST - 30, 30)
        user = few.user(uuid4())
        large = content(user_ids=users(1), data={"text": "x" * 2_000_000})
        answers = {
            202: await send(few, asked, key),  # which is a repeat
            200: await few.client.get(f"{BULK}/{batch}", headers=few.service()),
            400: await send(few, BURST + 1),
            401: await few.client.post(BULK, json=content(user_ids=users(1))),
            403: await send(few, 1, user),
            404: await few.client.get(f"{BULK}/{uuid4()}", headers=few.service()),
            409: await send(few, 2, key),
            413: await few.client.post(BULK, json=large, headers=few.service()),
            422: await send(few, []),
            429: await send(few, BURST - 29),
        }
        assert {status: answer.status_code for status, answer in answers.items()} == {
            status: status for status in answers
        }
        more = [
            await few.client.get(f"{BULK}/{batch}"),
            await few.client.get(f"{BULK}/{batch}", headers=user),
            await few.client.get(f"{BULK}/no-id", headers=few.service()),
            await few.client.post(BULK, content=b"{", headers=few.service()),
            await send(few, 1, override=True),
        ]
        assert [answer.status_code for answer in more] == [401, 403, 422, 422, 403]
        for answer in (*answers.values(), *more):
            assert standing(answer) == expected, answer.text

    async def test_other_answers_do_not(self, few: Api) -> None:
        user = await few.new_user()
        created = await few.client.post(
            f"{V1}/notifications", json=content(user_id=user), headers=few.service()
        )
        listed = await few.client.get(f"{V1}/notifications", headers=few.user(user))
        for answer in (created, listed):
            assert answer.is_success
            assert not set(NAMES) & set(answer.headers)

    async def test_without_postgresql_they_say_what_was_known(
        self, settings_of_few: Settings, clock: Clock
    ) -> None:
        async with (
            behind_a_proxy(settings_of_few) as (settings, proxy),
            open_api(settings, clock) as api,
        ):
            await sent(api, 30)
            proxy.refuse()
            clock.advance(seconds=10)
            refused = await send(api, 10)
            assert_refused(refused, 503, "unavailable")
            assert standing(refused) == (PER_MINUTE, BURST - 20, 20)

    async def test_who_has_no_credentials_costs_no_query(self, settings_of_few: Settings) -> None:
        async with (
            behind_a_proxy(settings_of_few) as (settings, proxy),
            open_api(settings) as api,
        ):
            await sent(api, 1)
            asked: list[int] = []
            proxy.watch = lambda _, port: not asked.append(port)
            began = monotonic()
            for _ in range(100):
                assert (await api.client.get(f"{BULK}/{uuid4()}")).status_code == 401
            looks = 1 + int(monotonic() - began)
            assert len(asked) <= 10 * looks

    async def test_what_another_process_used_up_is_seen_soon(
        self, few: Api, settings_of_few: Settings, clock: Clock
    ) -> None:
        async with open_api(settings_of_few, clock) as other:
            await other.client.get(f"{BULK}/{uuid4()}")  # it knows of an unused limit
            await sent(few, 40)

            async def seen() -> bool:
                answer = await other.client.get(f"{BULK}/{uuid4()}")
                return standing(answer) == (PER_MINUTE, BURST - 40, 40)

            await eventually(seen)

    def test_openapi_documents_them(self, settings: Settings) -> None:
        paths = create_app(settings).openapi()["paths"]
        operations = [paths[BULK]["post"], paths[f"{BULK}/{{batch_id}}"]["get"]]
        for operation in operations:
            assert set(operation["responses"]) > {"422", "default"}
            for answer in operation["responses"].values():
                assert set(NAMES) <= set(answer["headers"])
        assert "headers" not in paths[f"{V1}/notifications"]["post"]["responses"]["202"]


class TestPastTheLimit:
    async def test_what_does_not_fit_is_refused_until_it_does(self, few: Api, clock: Clock) -> None:
        await sent(few, BURST - 10)
        clock.advance(seconds=0.5)
        headers = {**few.service("late"), "Idempotency-Key": "later"}
        asked = users(30)
        refused = await send(few, asked, headers)
        assert assert_refused(refused, 429, "rate_limited") == []
        assert refused.headers["Retry-After"] == "20"
        assert standing(refused) == (PER_MINUTE, 10, 90)
        assert await few.stored_by("late") == 0
        (left,) = await few.rows("SELECT count(*) AS n FROM notification_batch_recipients")
        assert left.n == BURST - 10

        clock.advance(seconds=19)
        assert (await send(few, asked, headers)).headers["Retry-After"] == "1"
        clock.advance(seconds=1)
        accepted = await send(few, asked, headers)
        assert (accepted.status_code, accepted.json()["recipient_count"]) == (202, 30)
        assert "Idempotent-Replayed" not in accepted.headers
        assert standing(accepted) == (PER_MINUTE, 0, 100)

    async def test_what_is_smaller_still_fits(self, few: Api) -> None:
        await sent(few, BURST - 10)
        assert (await send(few, 11)).status_code == 429
        assert (await send(few, 10)).status_code == 202

    async def test_a_segment_that_does_not_fit_is_refused(self, few: Api) -> None:
        for _ in range(3):
            await few.new_user(locale="de")
        await sent(few, BURST - 2)
        answer = await send(few, None, few.service("late"), segment={"locale": "de"})
        assert_refused(answer, 429, "rate_limited")
        assert answer.headers["Retry-After"] == "1"
        assert await few.stored_by("late") == 0

    async def test_a_repeat_is_answered_and_costs_nothing(self, few: Api) -> None:
        asked, headers = users(60), {**few.service(), "Idempotency-Key": "once"}
        first = await send(few, asked, headers)
        await sent(few, BURST - 60)
        again = await send(few, asked, headers)
        assert again.json() == first.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        assert standing(again) == (PER_MINUTE, 0, 100)

    async def test_what_is_refused_otherwise_costs_nothing(self, few: Api) -> None:
        past = "2026-01-08T11:00:00Z"
        assert (await send(few, 1, expires_at=past)).status_code == 422
        assert (await send(few, BURST + 1)).status_code == 400
        assert standing(await send(few, 1)) == (PER_MINUTE, BURST - 1, 1)

    async def test_operators_override_with_what_is_critical(self, few: Api) -> None:
        await sent(few, BURST)
        urgent: Json = {"priority": "critical"}
        assert_refused(await send(few, 1, few.admin(), **urgent), 429, "rate_limited")
        for headers in (few.admin(), few.internal()):
            passed = await send(few, BURST, headers, override=True, **urgent)
            assert passed.status_code == 202
            assert standing(passed) == (PER_MINUTE, 0, 100)
        assert_refused(await send(few, 1, override=True, **urgent), 403, "forbidden")

    async def test_ordinary_creates_take_no_part(self, few: Api) -> None:
        user = await few.new_user()
        await sent(few, BURST)
        await few.create(user)
        assert len((await few.read(user))["items"]) == 1


class TestSeveralProcesses:
    async def test_together_they_take_no_more_than_the_limit(
        self, settings_of_few: Settings
    ) -> None:
        """A driven minute of concurrent calls to two APIs whose clocks differ."""
        chance = random.Random(23)
        ahead, behind = Clock(), Clock()
        behind.advance(seconds=-5)
        async with AsyncExitStack() as stack:
            apis = [
                await stack.enter_async_context(open_api(settings_of_few, clock))
                for clock in (ahead, behind)
            ]
            accepted, refused = (await sent(apis[0], 1))["recipient_count"], 0
            for second in range(0, 61, 10):
                answers = await asyncio.gather(
                    *(send(api, chance.randint(1, 40)) for api in apis for _ in range(6))
                )
                for answer in answers:
                    if answer.status_code == 202:
                        accepted += answer.json()["recipient_count"]
                    else:
                        assert_refused(answer, 429, "rate_limited")
                        refused += 1
                assert accepted <= BURST + second
                assert int(answers[-1].headers["X-RateLimit-Remaining"]) <= BURST
                ahead.advance(seconds=10)
                behind.advance(seconds=10)
            assert refused
            # Whatever fits is taken: what is left over is less than the largest batch.
            assert accepted > BURST + 60 - 40
            (row,) = await apis[0].rows("SELECT tokens FROM rate_buckets WHERE name = 'bulk'")
            assert row.tokens == pytest.approx(BURST + 60 - accepted)
            (row,) = await apis[0].rows("SELECT count(*) AS n FROM notification_batch_recipients")
            assert row.n == accepted

    async def test_calls_that_race_for_the_first_tokens_share_them(
        self, settings_of_few: Settings, clock: Clock
    ) -> None:
        async with (
            open_api(settings_of_few, clock) as one,
            open_api(settings_of_few, clock) as other,
        ):
            answers = await asyncio.gather(
                *(send(api, 60) for api in (one, other) for _ in range(4))
            )
        assert sorted(answer.status_code for answer in answers) == [202] + 7 * [429]
        assert {
            answer.headers["Retry-After"] for answer in answers if answer.status_code == 429
        } == {"20"}


async def test_a_batch_whose_commit_is_lost_uses_nothing_up(
    settings_of_few: Settings, clock: Clock
) -> None:
    """The answer to a commit never comes: stored and charged, or neither."""
    async with (
        behind_a_proxy(settings_of_few) as (settings, proxy),
        open_api(settings, clock) as api,
        open_api(settings_of_few, clock) as watching,
    ):
        await sent(api, 1)

        def cut(sent: bytes, _: int) -> bool:
            return b"COMMIT" not in sent

        proxy.watch = cut
        assert (await send(api, 50)).status_code == 503
        proxy.mend()
        answer = await send(watching, 1)
        assert standing(answer) == (PER_MINUTE, BURST - 2, 2)
        stored = await watching.rows("SELECT recipient_count AS n FROM notification_batches")
        assert [row.n for row in stored] == [1, 1]
