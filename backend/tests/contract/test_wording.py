"""Calls with templates: create, bulk and explain, as callers meet them (REQ-004; the contract)."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from app.worker.main import Worker, open_worker
from tests.contract.callers import V1, Api, Json, assert_refused, content, open_api
from tests.wording import drop_template, new_name, put_template

CREATE, BULK = f"{V1}/notifications", f"{V1}/notifications/bulk"
EXPLAIN = f"{V1}/internal/notifications/explain"
ABSENT: Json = {"title": ..., "body": ...}


@pytest.fixture
async def ada(api: Api) -> UUID:
    return await api.new_user(email="ada@example.com")


async def post(api: Api, user_id: UUID, /, key: str = "", **fields: Any) -> httpx.Response:
    headers = api.service() | ({"Idempotency-Key": key} if key else {})
    body = content(user_id=user_id, **fields)
    return await api.client.post(CREATE, json=body, headers=headers)


async def stored(api: Api, notification_id: str) -> Any:
    (row,) = await api.rows(
        "SELECT title, body, body_html, data, template_id, template_version, language, texts,"
        " priority, channels, masked FROM notifications WHERE id = :id",
        id=UUID(notification_id),
    )
    return row


async def created(api: Api, user_id: UUID, **fields: Any) -> Any:
    return await stored(api, (await api.create(user_id, **fields))["id"])


class TestLanguages:
    async def test_a_template_is_found_in_the_language_else_its_base_else_english(
        self, api: Api
    ) -> None:
        name = new_name()
        for tag in ("en", "de", "pt-br"):
            await put_template(api.database, name, language=tag, title=f"In {tag}")
        said: dict[str | None, str] = {}
        for locale in (None, "de", "de-AT", "DE", "pt-BR", "pt", "fr", "en-GB"):
            user = await api.new_user(locale=locale)
            said[locale] = (await created(api, user, template_id=name)).title
        assert said == {
            None: "In en",
            "de": "In de",
            "de-AT": "In de",
            "DE": "In de",
            "pt-BR": "In pt-br",
            "pt": "In en",
            "fr": "In en",
            "en-GB": "In en",
        }

    async def test_the_language_of_the_call_wins_over_the_users(self, api: Api) -> None:
        name = new_name()
        for tag in ("en", "de"):
            await put_template(api.database, name, language=tag, title=f"In {tag}")
        user = await api.new_user(locale="en")
        row = await created(api, user, template_id=name, locale="de-CH")
        assert (row.title, row.language, row.template_id, row.template_version) == (
            "In de",
            "de",
            name,
            1,
        )

    async def test_dates_and_numbers_are_in_the_users_manner_and_timezone(self, api: Api) -> None:
        name = new_name()
        await put_template(
            api.database,
            name,
            title="{{ due | date }}",
            body="{{ due | time }} {{ n | number }}",
            variables={"due": "datetime", "n": "number"},
        )
        user = await api.new_user(locale="en-GB", timezone="Asia/Kolkata")
        values = {"due": "2026-03-01T22:30:00Z", "n": 1234.5}
        row = await created(api, user, template_id=name, variables=values)
        assert (row.title, row.body) == ("2 Mar 2026", "04:00 1,234.5")


class TestWhoseWords:
    async def test_a_found_template_wins_with_all_it_says(self, api: Api, ada: UUID) -> None:
        name = new_name()
        await put_template(
            api.database,
            name,
            title="<b>{{ who }}</b> asks\nyou",
            body="**{{ who }}** asks <script>x</script>",
            email_subject="{{ who }}\r\nBcc: x@example.com",
            email_html="<p onclick='x'>{{ html }}</p>",
            email_text="Dear Ada <ada@example.com>,\n{{ who }} asks.\n",
            push_title="{{ who }}",
            push_body="",
            variables={"who": "string", "html": "string"},
        )
        values = {"who": "Bob", "html": "<i>"}
        row = await created(api, ada, template_id=name, data=values)
        assert (row.title, row.body) == ("Bob asks you", "**Bob** asks <script>x</script>")
        assert row.body_html == "<p><strong>Bob</strong> asks </p>"
        assert row.texts == {
            "email_subject": "Bob Bcc: x@example.com",
            "email_html": "<p>&lt;i&gt;</p>",
            "email_text": "Dear Ada <ada@example.com>,\nBob asks.",
            "push_title": "Bob",
        }
        assert row.data == values

    async def test_one_that_is_not_there_leaves_the_calls_own(self, api: Api, ada: UUID) -> None:
        name = new_name()
        await put_template(api.database, name, language="fr", title="Bonjour")
        for asked in (name, new_name()):
            row = await created(api, ada, template_id=asked, title="Own", body="*own*")
            assert (row.title, row.body) == ("Own", "*own*")
            assert (row.template_id, row.template_version, row.language) == (asked, None, None)
            assert row.texts is None

    async def test_variables_lie_over_data_and_only_declared_names_are_there(
        self, api: Api, ada: UUID
    ) -> None:
        name = new_name()
        await put_template(
            api.database,
            name,
            title="{{ a }}{{ b }}{{ c }}{{ d }}",
            body="{{ undeclared is defined }}",
            variables={
                "a": "string",
                "b": "integer",
                "c": {"type": "string", "default": "C"},
                "d": {"type": "string", "required": False},
            },
        )
        row = await created(
            api,
            ada,
            template_id=name,
            data={"a": "data", "b": 1, "undeclared": 1},
            variables={"a": "A"},
        )
        assert (row.title, row.body) == ("A1C", "False")

    async def test_what_is_too_long_is_shortened(self, api: Api, ada: UUID) -> None:
        name = new_name()
        await put_template(api.database, name, title="{{ 'a' * 300 }}")
        row = await created(api, ada, template_id=name)
        assert row.title == "a" * 254 + "…"

    async def test_secrets_are_masked_in_values_and_in_what_is_made_of_them(
        self, api: Api, ada: UUID
    ) -> None:
        name = new_name()
        await put_template(
            api.database,
            name,
            title="{{ api_key }}",
            body="password={{ word }}",
            variables={"api_key": "string", "word": "string"},
        )
        told = await api.create(
            ada, template_id=name, variables={"api_key": "k-1234", "word": "hunter2"}
        )
        row = await stored(api, told["id"])
        assert (row.title, row.body) == ("[masked]", "password=[masked]")
        assert [place["path"] for place in told["masked"]] == ["body", "variables.api_key"]

    async def test_priority_and_channels_are_the_templates_where_the_call_says_nothing(
        self, api: Api, ada: UUID
    ) -> None:
        name = new_name()
        await put_template(api.database, name, priority="high", channels=["in_app"])
        row = await created(api, ada, template_id=name)
        assert (row.priority, row.channels) == ("high", ["in_app"])
        row = await created(api, ada, template_id=name, priority="low", channels=["email"])
        assert (row.priority, row.channels) == ("low", ["email"])
        row = await created(api, ada, template_id=name, send_email=True)
        assert (row.priority, row.channels) == ("high", None)

    async def test_a_type_keeps_its_priority_where_a_template_has_none(
        self, api: Api, ada: UUID
    ) -> None:
        name = new_name()
        await put_template(api.database, name, type="security")
        assert (await created(api, ada, type="security", template_id=name)).priority == "critical"


class TestRefusals:
    async def test_a_missing_or_ill_typed_variable_is_named(self, api: Api, ada: UUID) -> None:
        name = new_name()
        variables = {"a": "string", "b": "integer", "c": "boolean"}
        await put_template(api.database, name, variables=variables)
        answer = await post(api, ada, template_id=name, data={"b": True, "c": True})
        told = assert_refused(answer, 422, "validation_error")
        assert [(item["path"], item["code"]) for item in told] == [
            ("variables.a", "missing"),
            ("variables.b", "wrong_type"),
        ]

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ({"title": "{{ missing }}"}, "title cannot be rendered: line 1: missing is undefined"),
            ({"push_title": "{{ ''.__class__ }}"}, "push_title cannot be rendered"),
            ({"body": "{{ 'a' * 10**9 }}"}, "(too_large)"),
            ({"email_html": "{{ 2 ** (10 ** 9) }}"}, "(too_large)"),
            ({"title": "{{ '' }}"}, "title cannot be rendered: the text is empty"),
            ({"body": " "}, "body cannot be rendered: the text is empty"),
            ({"body": "{{ 'ä' * 60000 }}"}, "the text has more than 64 KiB"),
            ({"body": "> " * 200 + "a"}, "nests more than 100 levels deep"),
            ({"email_html": "{{ '' }}" + "<div>" * 200}, "nests more than 100 levels deep"),
        ],
    )
    async def test_one_that_cannot_be_rendered_stores_nothing(
        self, api: Api, texts: Json, message: str
    ) -> None:
        user, name = await api.new_user(), new_name()
        await put_template(api.database, name, **texts)
        (detail,) = assert_refused(await post(api, user, template_id=name), 422, "validation_error")
        assert (detail["path"], detail["code"]) == ("template_id", "template_failed")
        assert message in detail["message"]
        assert (await api.read(user))["items"] == []

    @pytest.mark.parametrize("missing", [["title"], ["body"], ["title", "body"]])
    async def test_title_and_body_may_be_absent_with_a_template_alone(
        self, api: Api, ada: UUID, missing: list[str]
    ) -> None:
        absent: Json = dict.fromkeys(missing, ...)
        null: Json = dict.fromkeys(missing)
        bodies: list[Json] = [absent, {**absent, "template_id": None}, null]
        for fields in bodies:
            told = assert_refused(await post(api, ada, **fields), 422, "validation_error")
            assert [(item["path"], item["code"]) for item in told] == [
                (name, "missing") for name in missing
            ]

    async def test_an_unknown_user_is_told_as_ever(self, api: Api) -> None:
        name = new_name()
        await put_template(api.database, name)
        assert_refused(await post(api, uuid4(), template_id=name), 422, "unknown_user")


@dataclass
class World:
    """An API of its own, whose default templates a test may put, and a worker."""

    api: Api
    worker: Worker

    async def send(self, *users: UUID, **fields: Any) -> httpx.Response:
        body = content(user_ids=[str(user) for user in users], **fields)
        return await self.api.client.post(BULK, json=body, headers=self.api.service())

    async def expanded(self, *users: UUID, **fields: Any) -> dict[UUID, Any]:
        """What each user got of a batch."""
        answer = await self.send(*users, **fields)
        assert answer.status_code == 202, answer.text
        while await self.worker.expander.expand_some():
            pass
        rows = await self.api.rows(
            "SELECT user_id, title, body, language, template_id, template_version, texts, priority"
            " FROM notifications WHERE batch_id = :id",
            id=UUID(answer.json()["batch_id"]),
        )
        assert {row.user_id for row in rows} == {*users}
        return {row.user_id: row for row in rows}


@pytest.fixture
async def world(fresh_settings: Settings) -> AsyncGenerator[World]:
    async with open_api(fresh_settings) as api, open_worker(fresh_settings) as worker:
        await api.rows("DELETE FROM notification_templates RETURNING 1")
        yield World(api, worker)


class TestDefaultTemplates:
    async def test_the_types_fills_only_what_is_absent(self, world: World) -> None:
        api, user = world.api, await world.api.new_user()
        variables = {"n": {"type": "integer", "default": 7}}
        await put_template(
            api.database, "task", title="T{{ n }}", body="B{{ n }}", push_title="P",
            variables=variables,
        )  # fmt: skip
        row = await created(api, user, template_id="none", **ABSENT)
        assert (row.title, row.body, row.texts) == ("T7", "B7", {"push_title": "P"})
        assert (row.template_id, row.template_version, row.language) == ("task", 1, "en")
        row = await created(api, user, template_id="none", title=..., data={"n": 8})
        assert (row.title, row.body, row.texts) == ("T8", "Review **PR #123**.", None)
        row = await created(api, user, template_id="none", body=...)
        assert (row.title, row.body, row.texts) == ("New Task Assigned", "B7", None)

    async def test_without_it_the_call_is_told_what_is_absent(self, world: World) -> None:
        api, user = world.api, await world.api.new_user()
        cases: list[tuple[Json, str]] = [(ABSENT, "title and body"), ({"title": ...}, "title")]
        for absent, words in cases:
            for answer in (
                await post(api, user, template_id="none", **absent),
                await world.send(user, template_id="none", **absent),
            ):
                (detail,) = assert_refused(answer, 422, "validation_error")
                assert (detail["path"], detail["code"]) == ("template_id", "template_not_found")
                assert f"no {words}, " in detail["message"]
        assert (await api.read(user))["items"] == []


class TestBulk:
    async def test_each_recipient_is_told_in_their_language(self, world: World) -> None:
        database = world.api.database
        for tag in ("de", "fr"):
            await put_template(
                database, "news", language=tag, title=f"{tag} {{{{ n | number }}}}",
                push_title=f"push {tag}", variables={"n": "number"},
            )  # fmt: skip
        await put_template(database, "task", language="pt", title="default pt", body="pt")
        await put_template(database, "task", language="fr", title="default fr", body="fr")
        locales = ["de-AT", "fr", "pt-BR", "sv", None]
        users = [await world.api.new_user(locale=locale) for locale in locales]
        fields: Json = {"template_id": "news", "variables": {"n": 1234.5}}
        got = await world.expanded(*users, **fields)
        assert [(got[user].title, got[user].language) for user in users] == [
            ("de 1.234,5", "de"),
            ("fr 1\u202f234,5", "fr"),
            ("New Task Assigned", None),
            ("New Task Assigned", None),
            ("New Task Assigned", None),
        ]
        assert got[users[0]].texts == {"push_title": "push de"}
        assert [got[user].template_version for user in users] == [1, 1, None, None, None]
        # Without words of its own, the call gets those of the type.
        await put_template(database, "task", title="default en", body="en")
        got = await world.expanded(*users, **fields, **ABSENT)
        assert [got[user].title for user in users] == [
            "de 1.234,5",
            "fr 1\u202f234,5",
            "default pt",
            "default en",
            "default en",
        ]
        got = await world.expanded(*users, **fields, locale="de")
        assert {row.title for row in got.values()} == {"de 1.234,5"}

    async def test_the_words_are_those_of_the_call_whatever_becomes_of_the_template(
        self, world: World
    ) -> None:
        database = world.api.database
        user = await world.api.new_user(locale="de")
        await put_template(database, "news", language="de", title="before", priority="high")
        answer = await world.send(user, template_id="news")
        await drop_template(database, "news")
        got = await world.expanded(user, template_id="news")
        assert got[user].title == "New Task Assigned"
        (row,) = await world.api.rows(
            "SELECT title, priority, template_version FROM notifications WHERE batch_id = :id",
            id=UUID(answer.json()["batch_id"]),
        )
        assert (row.title, row.priority, row.template_version) == ("before", "high", 1)

    async def test_one_language_that_fails_fails_the_call(self, world: World) -> None:
        user = await world.api.new_user()
        await put_template(world.api.database, "news")
        await put_template(world.api.database, "news", language="de", body="{{ nothing }}")
        answer = await world.send(user, template_id="news")
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["code"] == "template_failed"
        assert await world.api.stored_by("tests") == 0


class TestExplaining:
    async def test_it_says_what_creating_does(self, api: Api, ada: UUID) -> None:
        name = new_name()
        await put_template(
            api.database, name, priority="critical", channels=["email"], variables={"n": "integer"}
        )
        for fields in (
            {"variables": {"n": 1}},
            {"variables": {"n": 1}, "priority": "low"},
            {"variables": {"n": 1}, "send_email": False},
        ):
            body = content(user_id=ada, template_id=name, **ABSENT, **fields)
            answer = await api.client.post(EXPLAIN, json=body, headers=api.internal())
            assert answer.status_code == 200, answer.text
            told = await api.create(ada, template_id=name, **ABSENT, **fields)
            explained = answer.json()["channels"]
            assert [item["channel"] for item in explained if item["action"] != "skip"] == told[
                "channels"
            ]
        body = content(user_id=ada, template_id=name)
        answer = await api.client.post(EXPLAIN, json=body, headers=api.internal())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "variables.n"


class TestRepeats:
    async def test_a_repeat_is_answered_though_the_template_has_changed(
        self, api: Api, ada: UUID
    ) -> None:
        name, key = new_name(), uuid4().hex
        await put_template(api.database, name)
        first = await post(api, ada, key, template_id=name, **ABSENT)
        await put_template(api.database, name, variables={"n": "integer"})
        again = await post(api, ada, key, template_id=name, **ABSENT)
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await post(api, ada, key, template_id=name, priority="low", **ABSENT)
        assert_refused(other, 409, "idempotency_conflict")
        new = await post(api, ada, uuid4().hex, template_id=name, **ABSENT)
        assert_refused(new, 422, "validation_error")

    async def test_so_is_a_repeated_batch(self, world: World) -> None:
        user = await world.api.new_user()
        await put_template(world.api.database, "news")
        fields: Json = {"template_id": "news", "idempotency_key": "k"}
        first = await world.send(user, **fields)
        await put_template(world.api.database, "news", title="{{ nothing }}")
        again = await world.send(user, **fields)
        assert (again.status_code, again.json()) == (202, first.json())
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await world.send(user, **fields, priority="low")
        assert_refused(other, 409, "idempotency_conflict")


async def test_many_calls_at_once_each_get_their_own_words(api: Api) -> None:
    name = new_name()
    await put_template(api.database, name, title="For {{ n }}", variables={"n": "integer"})
    users = [await api.new_user() for _ in range(20)]
    rows = await asyncio.gather(
        *(
            created(api, user, template_id=name, variables={"n": number})
            for number, user in enumerate(users)
        )
    )
    assert [row.title for row in rows] == [f"For {number}" for number in range(20)]
