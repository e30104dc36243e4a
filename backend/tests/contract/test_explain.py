"""Explaining, previewing and tracing, as callers meet them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.models import Base
from tests.contract.callers import V1, Api, Json, assert_refused, browser, content

EXPLAIN = f"{V1}/internal/notifications/explain"
PREVIEW = f"{V1}/notifications/preferences/preview"
LATER = "2099-01-01T00:00:00Z"
# What is in every table, and in which state it left the inboxes.
ROWS = " UNION ALL ".join(
    f"SELECT '{name}' AS name, count(*) AS count, md5(string_agg(t::text, '' ORDER BY t::text))"
    f" AS content FROM {name} t"
    for name in sorted(Base.metadata.tables)
)


async def explain(api: Api, user_id: UUID, **fields: Any) -> list[Json]:
    body = content(user_id=user_id, **fields)
    answer = await api.client.post(EXPLAIN, json=body, headers=api.internal())
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"channels"}
    return answer.json()["channels"]


async def preview(api: Api, user_id: UUID, **fields: Any) -> list[Json]:
    answer = await api.client.post(PREVIEW, json=fields, headers=api.user(user_id))
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"channels"}
    return answer.json()["channels"]


async def trace(api: Api, user_id: UUID, notification_id: str) -> Json:
    return await api.read(user_id, f"/{notification_id}/trace")


def said(channels: list[Json]) -> dict[str, str]:
    return {item["channel"]: f"{item['action']} {item['reason']}" for item in channels}


async def choose(api: Api, user_id: UUID, kind: str = "global", **columns: str) -> None:
    """Preferences of the user, in SQL's words, as a transaction of the preferences' own."""
    names = ", ".join(columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    await api.rows(
        f"WITH chosen AS (INSERT INTO notification_preferences (id, user_id, notification_type,"
        f" {names}) VALUES (gen_random_uuid(), :user, :kind, {', '.join(columns.values())})"
        f" ON CONFLICT (user_id, notification_type) DO UPDATE SET {changes})"
        " UPDATE inbox_state SET choices_version = choices_version + 1 WHERE user_id = :user"
        " RETURNING 1",
        user=user_id,
        kind=kind,
    )


async def settle(api: Api, user_id: UUID, assignment: str) -> None:
    await api.rows(
        f"UPDATE notification_recipients SET {assignment} WHERE user_id = :id RETURNING 1",
        id=user_id,
    )


class TestExplain:
    async def test_it_answers_for_every_channel_and_says_why(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com", timezone="Europe/Berlin")
        channels = await explain(api, user)
        assert [set(item) for item in channels] == [{"channel", "action", "reason", "until"}] * 3
        assert said(channels) == {
            "push": "skip no_device",
            "in_app": "send sent_now",
            "email": "digest digest",
        }
        push, in_app, email = (item["until"] for item in channels)
        assert (push, in_app) == (None, None)
        slot = datetime.fromisoformat(email)
        assert email.endswith("Z")
        assert timedelta() < slot - datetime.now(UTC) <= timedelta(days=1, hours=1)

    async def test_it_is_what_creating_it_then_decides(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com")
        await api.subscribe(user, browser())
        await settle(api, user, "pause_until = now() + interval '3 days'")
        await choose(api, user, "task", digest_frequency="'weekly'", digest_day="3")
        wanted = {"priority": "high", "expires_at": LATER}
        explained = await explain(api, user, **wanted)
        created = await api.create(user, **wanted)
        decided = (await trace(api, user, created["id"]))["decisions"]
        assert [{name: item[name] for name in explained[0]} for item in decided] == explained
        assert said(explained) == {
            "push": "hold quiet_hours",
            "in_app": "send sent_now",
            "email": "digest digest",
        }

    async def test_it_stores_nothing_and_takes_no_number(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com")
        newcomer = uuid4()
        await api.rows("INSERT INTO users (id) VALUES (:id) RETURNING 1", id=newcomer)
        before = await api.rows(ROWS)
        assert len(before) > 15
        for of in (user, newcomer):
            key = {"idempotency_key": "explained-once"}
            assert await explain(api, of, **key) == await explain(api, of, **key, title="Other")
            await preview(api, of, type="task")
        assert await api.rows(ROWS) == before
        assert (await api.read(user))["seq"] == 0
        stored = await api.create(user, idempotency_key="explained-once")
        assert [item["id"] for item in (await api.read(user))["items"]] == [stored["id"]]

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"type": "weather"}, "type"),
            ({"title": ...}, "title"),
            ({"body": " "}, "body"),
            ({"body": "> " * 3_000 + "x"}, "body"),
            ({"channels": []}, "channels"),
            ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
            ({"expires_at": LATER, "send_at": LATER}, "expires_at"),
            ({"send_at": "2099-01-01T00:00:00"}, "send_at"),
            ({"idempotency_key": "not one"}, "idempotency_key"),
            ({"unknown": 1}, "unknown"),
        ],
    )
    async def test_what_creating_refuses_it_refuses_alike(
        self, api: Api, fields: Json, path: str
    ) -> None:
        body = content(user_id=await api.new_user(), **fields)
        answer = await api.client.post(EXPLAIN, json=body, headers=api.internal())
        details = assert_refused(answer, 422, "validation_error")
        assert [detail["path"] for detail in details] == [path]
        refused = await api.client.post(
            f"{V1}/internal/notifications/send", json=body, headers=api.internal()
        )
        assert assert_refused(refused, 422, "validation_error") == details

    async def test_it_knows_no_unknown_user(self, api: Api) -> None:
        body = content(user_id=uuid4())
        answer = await api.client.post(EXPLAIN, json=body, headers=api.internal())
        assert_refused(answer, 422, "unknown_user")


class TestPreview:
    async def test_it_shows_what_the_users_choices_lead_to(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com")
        await api.subscribe(user, browser())
        await choose(api, user, push_enabled="false")
        await choose(api, user, "billing", digest_frequency="'instant'")
        assert said(await preview(api, user, type="billing", priority="normal")) == {
            "push": "skip preference_off",
            "in_app": "send sent_now",
            "email": "send sent_now",
        }
        assert said(await preview(api, user, type="task", priority="critical")) == {
            "push": "send sent_now",
            "in_app": "send sent_now",
            "email": "send sent_now",
        }

    async def test_it_is_explain_for_oneself(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com", timezone="Asia/Kolkata")
        await api.subscribe(user, browser())
        await settle(api, user, 'quiet_hours = \'{"1": [["00:00", "24:00"]]}\'')
        await choose(api, user, "user", email_enabled="false")
        await choose(api, user, quiet_hours_start="'09:00'", quiet_hours_end="'17:00'")
        for wishes in (
            {"type": "user"},
            {"type": "task", "priority": "low"},
            {"type": "task", "channels": ["email"]},
            {"type": "task", "send_email": True},
            {"type": "system", "send_at": "2098-01-06T00:00:00Z", "expires_at": LATER},
            {"type": "system", "data": {"silent": True}},
        ):
            assert await preview(api, user, **wishes) == await explain(api, user, **wishes)

    async def test_a_user_never_seen_has_nothing_yet(self, api: Api) -> None:
        assert said(await preview(api, uuid4(), type="task", priority="critical")) == {
            "push": "skip no_device",
            "in_app": "send sent_now",
            "email": "skip no_address",
        }

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({}, "type"),
            ({"type": "task", "title": "Hello"}, "title"),
            ({"type": "task", "user_id": str(uuid4())}, "user_id"),
            ({"type": "task", "priority": "urgent"}, "priority"),
            ({"type": "task", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ],
    )
    async def test_what_no_notification_can_be_is_refused(
        self, api: Api, body: Json, path: str
    ) -> None:
        answer = await api.client.post(PREVIEW, json=body, headers=api.user(uuid4()))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == path


class TestTrace:
    async def test_it_has_the_decisions_with_what_they_were_made_from(self, api: Api) -> None:
        user = await api.new_user()
        created = await api.create(user)
        found = await trace(api, user, created["id"])
        assert set(found) == {"id", "decisions", "events"}
        assert found["id"] == created["id"]
        for item in found["decisions"]:
            assert set(item) == {"channel", "action", "reason", "until", "inputs", "at", "stage"}
            assert (item["stage"], item["at"]) == ("create", created["created_at"])
            assert item["inputs"]["recipient"]["has_address"] is False
        assert said(found["decisions"]) == {
            "push": "skip no_device",
            "in_app": "send sent_now",
            "email": "skip no_address",
        }

    async def test_it_follows_what_the_user_does(self, api: Api) -> None:
        user = await api.new_user()
        created = await api.create(user)
        path = f"{V1}/notifications/{created['id']}"
        await api.read(user)
        for method, end in (("PATCH", "/read"), ("DELETE", "")):
            answer = await api.client.request(method, path + end, headers=api.user(user))
            assert answer.is_success
        events = (await trace(api, user, created["id"]))["events"]
        assert [(item["channel"], item["event"]) for item in events] == [
            (None, "created"),
            ("in_app", "sent"),
            ("in_app", "delivered"),
            ("in_app", "read"),
            ("in_app", "deleted"),
        ]
        assert [set(item) for item in events] == [
            {"at", "channel", "event", "reason", "device_id", "detail"}
        ] * 5
        assert events[0]["detail"] == {"service": "tests"}
        instants = [datetime.fromisoformat(item["at"]) for item in events]
        assert instants == sorted(instants)

    async def test_it_has_what_was_parked_and_cancelled(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com")
        created = await api.create(user, send_at="2098-01-06T00:00:00Z")
        path = f"{V1}/internal/notifications/{created['id']}"
        assert (await api.client.delete(path, headers=api.internal())).is_success
        events = (await trace(api, user, created["id"]))["events"]
        assert [(item["channel"], item["event"], item["reason"]) for item in events] == [
            (None, "created", None),
            ("in_app", "held", "scheduled"),
            ("email", "digested", "digest"),
            (None, "cancelled", "cancelled"),
            ("in_app", "cancelled", "cancelled"),
            ("email", "cancelled", "cancelled"),
        ]
        assert events[1]["detail"] == {"next_attempt_at": "2098-01-06T00:00:00+00:00"}
        assert events[-1]["detail"] == {"by": "tests"}

    async def test_it_is_the_users_and_the_operators_alone(self, api: Api) -> None:
        user, other = await api.new_user(), await api.new_user()
        path = f"{V1}/notifications/{(await api.create(user))['id']}/trace"
        own = (await api.client.get(path, headers=api.user(user))).json()
        for headers in (api.admin(), api.internal()):
            assert (await api.client.get(path, headers=headers)).json() == own
        assert_refused(await api.client.get(path, headers=api.user(other)), 404, "not_found")
        nothing = f"{V1}/notifications/{uuid4()}/trace"
        for headers in (api.user(user), api.admin()):
            assert_refused(await api.client.get(nothing, headers=headers), 404, "not_found")

    async def test_it_tells_nothing_of_content_addresses_or_keys(self, api: Api) -> None:
        user = await api.new_user(email="ada@example.com", full_name="Ada Lovelace")
        subscription = browser()
        await api.subscribe(user, subscription)
        created = await api.create(
            user, title="Title-word", body="Body-word", data={"key": "data-word"}
        )
        path = f"{V1}/notifications/{created['id']}/trace"
        told = (await api.client.get(path, headers=api.user(user))).text
        for secret in (
            "ada@example.com",
            "Lovelace",
            "Title-word",
            "Body-word",
            "data-word",
            subscription["endpoint"],
            subscription["keys"]["auth"],
        ):
            assert secret not in told
