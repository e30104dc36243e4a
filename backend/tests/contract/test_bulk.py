"""What a bulk call means and what its counts say (contract; REQ-005), seen from outside."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from app.worker.main import Worker, open_worker
from tests.contract.callers import V1, Api, Headers, Json, assert_refused, content, open_api

BULK = f"{V1}/notifications/bulk"
START = datetime(2026, 1, 8, 12, tzinfo=UTC)
COUNTS = ("recipient_count", "created", "delivered", "failed", "skipped", "pending", "status")
FEW = 5


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Bulk:
    """An API whose clock stands still, and a worker that works when told to."""

    api: Api
    worker: Worker
    clock: Clock

    async def post(self, headers: Headers | None = None, **fields: Any) -> httpx.Response:
        return await self.api.client.post(
            BULK, json=content(**fields), headers=headers or self.api.service()
        )

    async def send(self, *users: UUID, **fields: Any) -> str:
        """Store a batch for users, or for a segment."""
        if users:
            fields["user_ids"] = [str(user) for user in users]
        answer = await self.post(**fields)
        assert answer.status_code == 202, answer.text
        return answer.json()["batch_id"]

    async def expand(self) -> None:
        while await self.worker.expander.expand_some():
            pass

    async def counts(self, batch_id: str) -> tuple[Any, ...]:
        """The status as a tuple, in the order of `COUNTS`."""
        answer = await self.api.client.get(f"{BULK}/{batch_id}", headers=self.api.service())
        assert answer.status_code == 200
        told: Json = answer.json()
        assert set(told) == {"batch_id", *COUNTS}
        ended = ("delivered", "failed", "skipped", "pending")
        assert told["recipient_count"] == sum(told[name] for name in ended)
        return tuple(told[name] for name in COUNTS)

    async def recipients(self, batch_id: str) -> set[UUID]:
        rows = await self.api.rows(
            "SELECT user_id FROM notification_batch_recipients WHERE batch_id = :id",
            id=UUID(batch_id),
        )
        return {row.user_id for row in rows}

    async def set_deliveries(self, batch_id: str, channel: str, **columns: Any) -> None:
        """Put the batch's deliveries of a channel into a state, as later stages do."""
        values = ", ".join(f"{name} = :{name}" for name in columns)
        rows = await self.api.rows(
            f"UPDATE notification_deliveries d SET {values} FROM notifications n"
            " WHERE n.id = d.notification_id AND n.batch_id = :id AND d.channel = :channel"
            " RETURNING d.id",
            id=UUID(batch_id),
            channel=channel,
            **columns,
        )
        assert rows


@pytest.fixture
async def bulk(fresh_settings: Settings) -> AsyncGenerator[Bulk]:
    clock = Clock()
    settings = fresh_settings.model_copy(update={"notification_max_batch_size": FEW})
    async with open_api(settings, clock) as api, open_worker(settings, clock) as worker:
        yield Bulk(api, worker, clock)


class TestAnswers:
    async def test_a_batch_gets_id_count_and_status(self, api: Api) -> None:
        users = [str(uuid4()) for _ in range(3)]
        body = content(user_ids=[*users, users[0], users[1].upper()], send_email=True)
        answer = await api.client.post(BULK, json=body, headers=api.service())
        assert answer.status_code == 202
        told = answer.json()
        assert set(told) == {"batch_id", "recipient_count", "status", "masked"}
        assert (told["recipient_count"], told["status"]) == (3, "processing")

    async def test_a_full_batch_is_taken_whatever_is_named_twice(self, api: Api) -> None:
        most = api.settings.notification_max_batch_size
        users = [str(UUID(int=number)) for number in range(most)]
        body = content(user_ids=[*users, *users[:100]])
        answer = await api.client.post(BULK, json=body, headers=api.service())
        assert answer.status_code == 202
        assert answer.json()["recipient_count"] == most

    async def test_content_is_cleaned_once_for_all(self, bulk: Bulk) -> None:
        user = await bulk.api.new_user()
        await bulk.send(user, title="<b>T</b>", body="<script>x</script>*b*", data={"a": [1]})
        await bulk.expand()
        (item,) = (await bulk.api.read(user))["items"]
        assert (item["title"], item["data"]) == ("T", {"a": [1]})
        assert "script" not in item["body_html"]

    async def test_what_a_template_needs_is_kept_with_the_content(self, bulk: Bulk) -> None:
        asked: Json = {"template_id": "t", "variables": {"n": [1]}, "locale": "de-AT"}
        batch = await bulk.send(await bulk.api.new_user(), **asked)
        (row,) = await bulk.api.rows(
            "SELECT content -> 'content' AS content FROM notification_batches WHERE id = :id",
            id=UUID(batch),
        )
        assert {name: row.content[name] for name in asked} == asked

    @pytest.mark.parametrize(
        "wrong",
        [{"variables": []}, {"variables": {"a": "x" * 40_000}}, {"locale": "_"}],
        ids=["a list", "too large", "no language"],
    )
    async def test_and_has_its_limits(self, api: Api, wrong: Json) -> None:
        body = content(user_ids=[str(uuid4())], **wrong)
        answer = await api.client.post(BULK, json=body, headers=api.service())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert [detail["path"]] == list(wrong)


class TestSegments:
    async def test_all_is_every_user_that_exists_at_the_call(self, bulk: Bulk) -> None:
        users = {await bulk.api.new_user() for _ in range(3)}
        batch = await bulk.send(segment={"all": True})
        late = await bulk.api.new_user()
        await bulk.expand()
        assert await bulk.recipients(batch) == users
        assert await bulk.counts(batch) == (3, 3, 3, 0, 0, 0, "completed")
        assert (await bulk.api.read(late))["items"] == []

    @pytest.mark.parametrize(
        ("segment", "found"),
        [
            ({"attributes": {"plan": "pro"}}, "abc"),
            ({"attributes": {"plan": "pro", "team": {"id": 7}}}, "a"),
            ({"attributes": {"team": {"id": 7}}}, "ad"),
            ({"attributes": {"tags": ["x"]}}, "b"),
            ({"attributes": {"tags": []}}, "b"),
            ({"attributes": {"plan": None}}, "d"),
            ({"attributes": {"plan": "Pro"}}, ""),
            ({"attributes": {"plan": ["pro"]}}, ""),
            ({"attributes": {"'; --": 1}}, ""),
            ({"locale": "de"}, "ab"),
            ({"locale": "DE"}, "ab"),
            ({"locale": "de-AT"}, "b"),
            ({"locale": "de-at"}, "b"),
            ({"locale": "de-A"}, ""),
            ({"locale": "del"}, "c"),
            ({"locale": "fr"}, ""),
            ({"attributes": {"team": {"id": 7}}, "locale": "de"}, "a"),
            ({"attributes": {"plan": "pro"}, "locale": "de", "all": None}, "ab"),
        ],
    )
    async def test_a_segment_is_who_has_the_attributes_and_the_language(
        self, bulk: Bulk, segment: Json, found: str
    ) -> None:
        users = {
            "a": await bulk.api.new_user(
                locale="de", attributes={"plan": "pro", "team": {"id": 7, "name": "A"}}
            ),
            "b": await bulk.api.new_user(
                locale="de-AT", attributes={"plan": "pro", "tags": ["x", "y"]}
            ),
            "c": await bulk.api.new_user(locale="del", attributes={"plan": "pro"}),
            "d": await bulk.api.new_user(attributes={"plan": None, "team": {"id": 7}}),
        }
        answer = await bulk.post(segment=segment)
        assert answer.status_code == 202, answer.text
        assert answer.json()["recipient_count"] == len(found)
        assert await bulk.recipients(answer.json()["batch_id"]) == {users[name] for name in found}

    async def test_a_segment_of_nobody_is_complete_at_once(self, bulk: Bulk) -> None:
        answer = await bulk.post(segment={"attributes": {"plan": "none"}})
        assert answer.status_code == 202
        told = answer.json()
        assert (told["recipient_count"], told["status"]) == (0, "completed")
        assert await bulk.counts(told["batch_id"]) == (0, 0, 0, 0, 0, 0, "completed")
        assert not await bulk.worker.expander.expand_some()

    @pytest.mark.parametrize("segment", [{"all": True}, {"attributes": {"plan": "pro"}}])
    async def test_a_segment_has_a_batch_s_limit(self, bulk: Bulk, segment: Json) -> None:
        for _ in range(FEW):
            await bulk.api.new_user(attributes={"plan": "pro"})
        assert (await bulk.post(segment=segment)).json()["recipient_count"] == FEW
        await bulk.api.new_user(attributes={"plan": "pro"})
        answer = await bulk.post(bulk.api.service("greedy"), segment=segment)
        assert assert_refused(answer, 400, "too_many_recipients") == []
        assert await bulk.api.stored_by("greedy") == 0
        (left,) = await bulk.api.rows("SELECT count(*) AS n FROM notification_batch_recipients")
        assert left.n == FEW

    @pytest.mark.parametrize(
        ("segment", "path"),
        [
            ({}, "segment"),
            ({"all": False}, "segment.all"),
            ({"all": 1}, "segment.all"),
            ({"all": "true"}, "segment.all"),
            ({"all": None}, "segment"),
            ({"all": True, "locale": "de"}, "segment"),
            ({"all": True, "attributes": {"plan": "pro"}}, "segment"),
            ({"attributes": {}}, "segment.attributes"),
            ({"attributes": []}, "segment.attributes"),
            ({"attributes": "plan"}, "segment.attributes"),
            ({"attributes": {"plan": "x" * 40_000}}, "segment.attributes"),
            ({"attributes": {"plan": "a\0"}}, "segment"),
            ({"locale": "%"}, "segment.locale"),
            ({"locale": ""}, "segment.locale"),
            ({"plan": "pro"}, "segment.plan"),
            ({"all": True, "plan": "pro"}, "segment.plan"),
            ([], "segment"),
            ("all", "segment"),
            (True, "segment"),
        ],
    )
    async def test_a_segment_names_somebody_in_known_words(
        self, api: Api, segment: object, path: str
    ) -> None:
        service = f"tests-{uuid4()}"
        answer = await api.client.post(
            BULK, json=content(segment=segment), headers=api.service(service)
        )
        details = assert_refused(answer, 422, "validation_error")
        assert [detail["path"] for detail in details] == [path]
        assert await api.stored_by(service) == 0

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"user_ids": None},
            {"user_ids": None, "segment": None},
            {"user_ids": [str(uuid4())], "segment": {"all": True}},
            {"user_ids": [], "segment": {"all": True}},
        ],
    )
    async def test_a_batch_has_users_or_a_segment(self, api: Api, fields: Json) -> None:
        answer = await api.client.post(BULK, json=content(**fields), headers=api.service())
        details = assert_refused(answer, 422, "validation_error")
        assert [detail["path"] for detail in details] == ["user_ids"]


class TestOverride:
    @pytest.mark.parametrize("urgent", [{"priority": "critical"}, {"type": "security"}])
    async def test_operators_override_with_critical_announcements(
        self, bulk: Bulk, urgent: Json
    ) -> None:
        user = await bulk.api.new_user()
        for headers in (bulk.api.admin(), bulk.api.internal()):
            fields = {"user_ids": [str(user)], "override": True, **urgent}
            assert (await bulk.post(headers, **fields)).status_code == 202
        await bulk.expand()
        assert [item["priority"] for item in (await bulk.api.read(user))["items"]] == [
            "critical",
            "critical",
        ]

    async def test_operators_may_send_ordinary_batches(self, bulk: Bulk) -> None:
        user = await bulk.api.new_user()
        for headers in (bulk.api.admin(), bulk.api.internal()):
            answer = await bulk.post(headers, user_ids=[str(user)], override=False)
            assert answer.status_code == 202

    async def test_services_may_not_override(self, api: Api) -> None:
        body = content(user_ids=[str(uuid4())], override=True, priority="critical")
        answer = await api.client.post(BULK, json=body, headers=api.service("pushy"))
        assert_refused(answer, 403, "forbidden")
        assert await api.stored_by("pushy") == 0

    @pytest.mark.parametrize("priority", [None, "high", "normal", "low"])
    async def test_only_what_is_critical_overrides(self, api: Api, priority: str | None) -> None:
        body = content(user_ids=[str(uuid4())], override=True, priority=priority)
        answer = await api.client.post(BULK, json=body, headers=api.admin())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "override"

    @pytest.mark.parametrize("wrong", [None, 1, "true", {}])
    async def test_override_is_true_or_false(self, api: Api, wrong: object) -> None:
        body = content(user_ids=[str(uuid4())], override=wrong, priority="critical")
        answer = await api.client.post(BULK, json=body, headers=api.admin())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "override"


class TestCounts:
    async def test_unknown_users_fail_and_the_others_get_it(self, bulk: Bulk) -> None:
        known = [await bulk.api.new_user(email="ada@example.com"), await bulk.api.new_user()]
        batch = await bulk.send(*known, uuid4(), known[0])
        assert await bulk.counts(batch) == (3, 0, 0, 0, 0, 3, "processing")
        assert (await bulk.api.read(known[0]))["items"] == []
        await bulk.expand()
        assert await bulk.counts(batch) == (3, 2, 2, 1, 0, 0, "partially_failed")
        for user in known:
            (item,) = (await bulk.api.read(user))["items"]
            assert item["title"] == "New Task Assigned"

    async def test_a_batch_of_unknown_users_ends_too(self, bulk: Bulk) -> None:
        batch = await bulk.send(uuid4(), uuid4())
        await bulk.expand()
        assert await bulk.counts(batch) == (2, 0, 0, 2, 0, 0, "partially_failed")

    async def test_a_batch_that_cannot_be_read_fails_whom_it_has_left(self, bulk: Bulk) -> None:
        batch = await bulk.send(uuid4(), uuid4())
        await bulk.api.rows("UPDATE notification_batches SET content = '{}' RETURNING id")
        await bulk.expand()
        assert await bulk.counts(batch) == (2, 0, 0, 2, 0, 0, "partially_failed")

    async def test_a_digest_does_not_delay_the_end(self, bulk: Bulk) -> None:
        batch = await bulk.send(await bulk.api.new_user(email="ada@example.com"))
        await bulk.expand()
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")
        bulk.clock.advance(days=2)  # the digest is late
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")

    async def test_an_email_that_goes_now_does(self, bulk: Bulk) -> None:
        batch = await bulk.send(
            await bulk.api.new_user(email="ada@example.com"), priority="critical"
        )
        await bulk.expand()
        assert await bulk.counts(batch) == (1, 1, 0, 0, 0, 1, "processing")
        await bulk.set_deliveries(batch, "email", status="sent")
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")
        await bulk.set_deliveries(batch, "email", status="delivered")
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")

    async def test_a_retry_is_waited_for_and_a_lease_too(self, bulk: Bulk) -> None:
        batch = await bulk.send(
            await bulk.api.new_user(email="ada@example.com"), priority="critical"
        )
        await bulk.expand()
        later = bulk.clock() + timedelta(hours=1)
        await bulk.set_deliveries(
            batch, "email", next_attempt_at=later, reason="provider_unavailable", attempts=1
        )
        assert (await bulk.counts(batch))[-1] == "processing"
        await bulk.set_deliveries(batch, "email", reason="quiet_hours")
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")
        await bulk.set_deliveries(batch, "email", lease_token=uuid4())
        assert (await bulk.counts(batch))[-1] == "processing"

    @pytest.mark.parametrize("status", ["failed", "bounced"])
    async def test_one_failed_channel_fails_the_recipient_until_it_is_sent_again(
        self, bulk: Bulk, status: str
    ) -> None:
        users = [await bulk.api.new_user(email="ada@example.com"), await bulk.api.new_user()]
        batch = await bulk.send(*users, priority="critical")
        await bulk.expand()
        await bulk.set_deliveries(batch, "email", status=status, next_attempt_at=None)
        assert await bulk.counts(batch) == (2, 2, 1, 1, 0, 0, "partially_failed")
        # an operator retries the dead letter
        await bulk.set_deliveries(batch, "email", status="pending", next_attempt_at=bulk.clock())
        assert await bulk.counts(batch) == (2, 2, 1, 0, 0, 1, "processing")
        await bulk.set_deliveries(batch, "email", status="sent", next_attempt_at=None)
        assert await bulk.counts(batch) == (2, 2, 2, 0, 0, 0, "completed")

    async def test_what_was_cancelled_is_skipped(self, bulk: Bulk) -> None:
        users = [await bulk.api.new_user() for _ in range(2)]
        send_at = (bulk.clock() + timedelta(hours=1)).isoformat()
        batch = await bulk.send(*users, send_at=send_at)
        await bulk.expand()
        await bulk.set_deliveries(batch, "in_app", status="cancelled", next_attempt_at=None)
        assert await bulk.counts(batch) == (2, 2, 0, 0, 2, 0, "completed")

    async def test_what_is_scheduled_is_pending_and_complete(self, bulk: Bulk) -> None:
        user = await bulk.api.new_user()
        batch = await bulk.send(
            user, uuid4(), send_at=(bulk.clock() + timedelta(hours=1)).isoformat()
        )
        await bulk.expand()
        assert await bulk.counts(batch) == (2, 1, 0, 1, 0, 1, "partially_failed")
        assert (await bulk.api.read(user))["items"] == []
        bulk.clock.advance(hours=1)
        assert (await bulk.counts(batch))[-1] == "processing"
        await bulk.worker.deliverer.deliver()
        assert await bulk.counts(batch) == (2, 1, 1, 1, 0, 0, "partially_failed")
        assert len((await bulk.api.read(user))["items"]) == 1

    async def test_what_expires_before_it_is_expanded_is_skipped_and_never_seen(
        self, bulk: Bulk
    ) -> None:
        user = await bulk.api.new_user(email="ada@example.com")
        expires_at = (bulk.clock() + timedelta(minutes=1)).isoformat()
        batch = await bulk.send(user, uuid4(), expires_at=expires_at, priority="critical")
        bulk.clock.advance(minutes=1)
        await bulk.expand()
        assert await bulk.counts(batch) == (2, 1, 0, 1, 1, 0, "partially_failed")
        page = await bulk.api.read(user)
        assert (page["items"], page["unread_count"], page["seq"]) == ([], 0, 0)
        (decided,) = await bulk.api.rows(
            "SELECT d.outcomes FROM notification_decisions d"
            " JOIN notifications n ON n.id = d.notification_id WHERE n.batch_id = :id",
            id=UUID(batch),
        )
        assert {item["reason"] for item in decided.outcomes} == {"expired"}

    async def test_a_batch_whose_time_passed_before_it_was_expanded_goes_out(
        self, bulk: Bulk
    ) -> None:
        user = await bulk.api.new_user()
        batch = await bulk.send(user, send_at=(bulk.clock() + timedelta(minutes=1)).isoformat())
        bulk.clock.advance(hours=1)
        await bulk.expand()
        assert await bulk.counts(batch) == (1, 1, 1, 0, 0, 0, "completed")

    async def test_a_read_and_deleted_inbox_changes_no_count(self, bulk: Bulk) -> None:
        users = [await bulk.api.new_user() for _ in range(3)]
        batch = await bulk.send(*users)
        await bulk.expand()
        await bulk.api.rows(
            "UPDATE notifications SET read_at = now(), deleted_at = now() WHERE user_id = :id"
            " RETURNING id",
            id=users[0],
        )
        await bulk.api.read(users[1])  # listing delivers
        assert await bulk.counts(batch) == (3, 3, 3, 0, 0, 0, "completed")

    async def test_expanding_at_once_creates_nothing_twice(self, bulk: Bulk) -> None:
        users = [await bulk.api.new_user() for _ in range(FEW)]
        batch = await bulk.send(*users)
        await asyncio.gather(*(bulk.expand() for _ in range(4)))
        await bulk.expand()
        assert await bulk.counts(batch) == (FEW, FEW, FEW, 0, 0, 0, "completed")
        for user in users:
            page = await bulk.api.read(user)
            assert (len(page["items"]), page["unread_count"], page["seq"]) == (1, 1, 1)
