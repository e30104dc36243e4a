"""Templates as operators manage them (REQ-004; contract, `/notifications/templates`)."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from app.config import Settings
from tests.contract.callers import V1, Api, Json, assert_refused, open_api

TEMPLATES = f"{V1}/notifications/templates"
STORED = {
    "id", "name", "language", "version", "is_active", "is_shipped", "type", "title_template",
    "body_template", "email_subject_template", "email_html_template", "email_text_template",
    "push_title_template", "push_body_template", "default_priority", "default_channels",
    "variables", "created_at", "updated_at",
}  # fmt: skip
RENDERED = {
    "language", "version", "title", "body", "body_html", "email_subject", "email_html",
    "email_text", "push_title", "push_body",
}  # fmt: skip


def name() -> str:
    return f"order.shipped-{uuid4().hex}"


def template(**fields: Any) -> Json:
    """The body of a create call; fields that are given as ... are left out."""
    body: Json = {
        "name": name(),
        "type": "billing",
        "title_template": "Order {{ number }}",
        "body_template": "Order **{{ number }}** is on its way.",
        "variables": {"number": "string"},
    } | fields
    return {key: value for key, value in body.items() if value is not ...}


async def call(api: Api, method: str, path: str = "", **options: Any) -> httpx.Response:
    return await api.client.request(method, f"{TEMPLATES}{path}", headers=api.admin(), **options)


async def created(api: Api, **fields: Any) -> Json:
    answer = await call(api, "POST", json=template(**fields))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def read(api: Api, path: str, **query: object) -> Json:
    answer = await call(api, "GET", path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def changes(api: Api) -> int:
    (row,) = await api.rows("SELECT version FROM cache_versions WHERE name = 'templates'")
    return row.version


class TestCreating:
    async def test_the_first_version_has_what_was_sent_and_the_defaults(self, api: Api) -> None:
        sent = template()
        answer = await call(api, "POST", json=sent)
        assert answer.status_code == 201
        stored = answer.json()
        assert set(stored) == STORED
        assert stored | sent == stored
        assert (stored["language"], stored["version"], stored["is_active"]) == ("en", 1, True)
        assert (stored["default_priority"], stored["default_channels"]) == ("normal", None)
        assert stored["is_shipped"] is False
        assert stored["push_title_template"] is None
        assert await read(api, f"/{sent['name']}") == stored

    async def test_one_may_do_without_variables(self, api: Api) -> None:
        stored = await created(api, title_template="A", body_template="B", variables=...)
        assert stored["variables"] == {}

    async def test_security_is_critical_unless_it_says_otherwise(self, api: Api) -> None:
        assert (await created(api, type="security"))["default_priority"] == "critical"
        low = await created(api, type="security", default_priority="low")
        assert low["default_priority"] == "low"

    async def test_it_is_there_once_in_a_language(self, api: Api) -> None:
        first = await created(api)
        again = await call(api, "POST", json=template(name=first["name"]))
        assert assert_refused(again, 409, "template_exists") == []
        other = await created(api, name=first["name"], language="pt-BR")
        assert (other["language"], other["version"]) == ("pt-br", 1)

    async def test_of_two_at_once_one_is_told_that_it_is_there(self, api: Api) -> None:
        sent = template()
        answers = await asyncio.gather(*(call(api, "POST", json=sent) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]

    @pytest.mark.parametrize(
        ("fields", "path", "code"),
        [
            ({"title_template": "{{ number"}, "title_template", "syntax_error"),
            ({"push_body_template": "a\n{% if %}"}, "push_body_template", "syntax_error"),
            ({"title_template": "{{ nobody }}"}, "title_template", "undeclared_variable"),
            ({"email_text_template": "{{ range }}{{ x }}"}, "email_text_template",
             "undeclared_variable"),
            ({"body_template": "{% include 'x' %}"}, "body_template", "forbidden"),
            ({"title_template": "{{ number.__class__ }}"}, "title_template", "forbidden"),
            ({"title_template": ...}, "title_template", "missing"),
            ({"title_template": " "}, "title_template", "empty"),
            ({"title_template": "x" * 4_001}, "title_template", "string_too_long"),
            ({"body_template": "ü" * 40_000}, "body_template", "too_large"),
            ({"body_template": None}, "body_template", "string_type"),
            ({"type": "weather"}, "type", "enum"),
            ({"default_priority": "urgent"}, "default_priority", "enum"),
            ({"default_channels": ["sms"]}, "default_channels.0", "enum"),
            ({"default_channels": []}, "default_channels", "too_short"),
            ({"default_channels": ["push", "push"]}, "default_channels", "duplicate_channel"),
            ({"variables": {"number": "list"}}, "variables.number", "invalid_variable"),
            ({"variables": {"number": {"type": "integer", "default": "1"}}}, "variables.number",
             "invalid_variable"),
            ({"variables": {"_number": "string"}}, "variables._number", "invalid_variable"),
            ({"variables": []}, "variables", "dict_type"),
            ({"variables": {f"v{n}": "string" for n in range(101)}}, "variables", "too_long"),
            ({"name": "Shipped"}, "name", "string_pattern_mismatch"),
            ({"name": "a/b"}, "name", "string_pattern_mismatch"),
            ({"name": "x" * 101}, "name", "string_pattern_mismatch"),
            ({"language": "english"}, "language", "string_pattern_mismatch"),
            ({"language": "zh-Hant-TWN"}, "language", "string_too_long"),
            ({"version": 7}, "version", "extra_forbidden"),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_meant_is_refused_with_its_field(
        self, api: Api, fields: Json, path: str, code: str
    ) -> None:
        before = await changes(api)
        answer = await call(api, "POST", json=template(**fields))
        details = assert_refused(answer, 422, "validation_error")
        assert (path, code) in {(detail["path"], detail["code"]) for detail in details}
        assert await changes(api) == before

    async def test_a_syntax_error_tells_its_line(self, api: Api) -> None:
        answer = await call(api, "POST", json=template(body_template="one\n\n{% endif %}"))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert "line 3" in detail["message"]


class TestVersions:
    async def test_what_is_not_sent_stays_and_null_takes_away(self, api: Api) -> None:
        first = await created(api, push_title_template="Shipped", email_text_template="Shipped.")
        path = f"/{first['name']}"
        body = {"title_template": "New: {{ number }}", "push_title_template": None}
        answer = await call(api, "PUT", path, json=body)
        assert answer.status_code == 200, answer.text
        second = answer.json()
        changed = {"id", "version", "created_at", "updated_at", *body}
        assert {key: second[key] for key in STORED - changed} == {
            key: first[key] for key in STORED - changed
        }
        assert (second["version"], second["is_active"]) == (2, True)
        assert second["title_template"] == "New: {{ number }}"
        assert second["push_title_template"] is None
        assert await read(api, path) == second
        former = await read(api, path, version=1)
        assert former | {"updated_at": None} == first | {"is_active": False, "updated_at": None}

    async def test_languages_have_versions_of_their_own(self, api: Api) -> None:
        english = await created(api)
        key = english["name"]
        await created(api, name=key, language="de", title_template="Bestellung {{ number }}")
        by_query = await call(api, "PUT", f"/{key}?language=de", json={"title_template": "B"})
        assert by_query.json()["version"] == 2
        by_body = await call(api, "PUT", f"/{key}", json={"language": "de", "body_template": "B"})
        assert (by_body.json()["version"], by_body.json()["title_template"]) == (3, "B")
        assert await read(api, f"/{key}") == english
        assert (await read(api, f"/{key}", language="DE"))["version"] == 3
        missing = await call(api, "PUT", f"/{key}", json={"language": "fr", "body_template": "B"})
        assert_refused(missing, 404, "not_found")

    async def test_two_changes_at_once_are_two_versions_of_which_one_is_active(
        self, api: Api
    ) -> None:
        key = (await created(api))["name"]
        answers = await asyncio.gather(
            call(api, "PUT", f"/{key}", json={"title_template": "A"}),
            call(api, "PUT", f"/{key}", json={"body_template": "B"}),
            call(api, "PUT", f"/{key}", json={"push_body_template": "C"}),
        )
        assert sorted(answer.json()["version"] for answer in answers) == [2, 3, 4]
        rows = await api.rows(
            "SELECT version, is_active FROM notification_templates WHERE name = :name"
            " ORDER BY version",
            name=key,
        )
        assert [(row.version, row.is_active) for row in rows] == [
            (1, False), (2, False), (3, False), (4, True),
        ]  # fmt: skip
        last = await read(api, f"/{key}")
        texts = [last[f"{field}_template"] for field in ("title", "body", "push_body")]
        assert texts == ["A", "B", "C"]

    async def test_a_change_that_waits_for_the_renderer_holds_up_no_other(self, api: Api) -> None:
        key, *others = [(await created(api))["name"] for _ in range(6)]
        renderers = [
            child
            for child in psutil.Process().children()
            if "app.rendering.process" in child.cmdline()
        ]
        assert renderers
        try:
            for renderer in renderers:
                renderer.suspend()
            change = asyncio.create_task(call(api, "PUT", f"/{key}", json={"body_template": "B"}))
            async with asyncio.timeout(5):  # half of the patience with a renderer
                deleted = [await call(api, "DELETE", f"/{other}") for other in others]
            assert not change.done()
        finally:
            for renderer in renderers:
                renderer.resume()
        assert {answer.status_code for answer in deleted} == {204}
        assert (await change).json()["version"] == 2

    @pytest.mark.parametrize(
        ("body", "path", "code"),
        [
            ({"name": "another"}, "name", "contradiction"),
            ({"language": "fr"}, "language", "contradiction"),
            ({"title_template": None}, "title_template", "null"),
            ({"type": None}, "type", "null"),
            ({"variables": {}}, "title_template", "undeclared_variable"),
            ({"title_template": "{{ price }}"}, "title_template", "undeclared_variable"),
            ({"body_template": "{% for %}"}, "body_template", "syntax_error"),
            ({"is_active": False}, "is_active", "extra_forbidden"),
        ],
    )
    async def test_a_change_that_cannot_be_meant_changes_nothing(
        self, api: Api, body: Json, path: str, code: str
    ) -> None:
        first = await created(api)
        before = await changes(api)
        answer = await call(api, "PUT", f"/{first['name']}?language=en", json=body)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == (path, code)
        assert await read(api, f"/{first['name']}") == first
        assert await changes(api) == before

    async def test_what_is_deleted_is_gone_for_calls_and_stays_for_readers(self, api: Api) -> None:
        first = await created(api)
        key = first["name"]
        await created(api, name=key, language="de")
        assert (await call(api, "DELETE", f"/{key}?language=de")).status_code == 204
        assert_refused(await call(api, "GET", f"/{key}?language=de"), 404, "not_found")
        assert await read(api, f"/{key}") == first
        assert (await call(api, "DELETE", f"/{key}")).status_code == 204
        for method in ("GET", "PUT", "DELETE"):
            answer = await call(api, method, f"/{key}", json={} if method == "PUT" else None)
            assert_refused(answer, 404, "not_found")
        assert (await read(api, f"/{key}", version=1))["is_active"] is False
        # A version that notifications may have been worded with is never another one.
        assert (await created(api, name=key))["version"] == 2

    async def test_every_change_is_counted_for_those_who_remember(self, api: Api) -> None:
        before = await changes(api)
        key = (await created(api))["name"]
        await call(api, "PUT", f"/{key}", json={"title_template": "A"})
        await call(api, "DELETE", f"/{key}")
        assert await changes(api) == before + 3


class TestReading:
    async def test_the_list_is_filtered_and_paged(self, api: Api) -> None:
        key = name()
        for language in ("sv", "da", "fi"):
            await created(api, name=key, language=language)
        await call(api, "PUT", f"/{key}?language=da", json={"title_template": "A"})
        first = await read(api, "", name=key, limit=2)
        assert first["has_more"] is True
        rest = await read(api, "", name=key, limit=2, cursor=first["next_cursor"])
        assert (rest["has_more"], rest["next_cursor"]) == (False, None)
        items = [*first["items"], *rest["items"]]
        assert [(item["language"], item["version"]) for item in items] == [
            ("da", 2), ("fi", 1), ("sv", 1),
        ]  # fmt: skip
        assert all(set(item) == STORED for item in items)
        history = await read(api, "", name=key, all_versions="true")
        assert len(history["items"]) == 4
        (danish,) = (await read(api, "", name=key, language="da"))["items"]
        assert danish == items[0]
        assert (await read(api, "", name=key, type="task"))["items"] == []
        other = {"cursor": first["next_cursor"], "name": name()}
        answer = await call(api, "GET", params=other)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == ("cursor", "invalid_cursor")

    async def test_pages_show_every_shipped_template_once(self, api: Api) -> None:
        seen: list[Json] = []
        query: Json = {"limit": 40, "type": "task"}
        while True:
            page = await read(api, "", **query)
            seen += page["items"]
            if not page["has_more"]:
                break
            query["cursor"] = page["next_cursor"]
        keys = [(item["name"], item["language"]) for item in seen]
        assert len(keys) == len(set(keys))
        shipped = {key for key, item in zip(keys, seen, strict=True) if item["is_shipped"]}
        assert {(name, "ar") for name in ("task", "task_assigned")} <= shipped

    async def test_without_a_language_english_comes_first(self, api: Api) -> None:
        key = (await created(api, language="sv"))["name"]
        assert (await read(api, f"/{key}"))["language"] == "sv"
        await created(api, name=key)
        assert (await read(api, f"/{key}"))["language"] == "en"

    async def test_what_is_not_there_is_not_found(self, api: Api) -> None:
        assert_refused(await call(api, "GET", f"/{name()}"), 404, "not_found")
        shipped = await call(api, "GET", "/task_assigned?version=2147483647")
        assert_refused(shipped, 404, "not_found")
        odd = await call(api, "GET", "/Task%20Assigned")
        assert assert_refused(odd, 422, "validation_error")


class TestPreviewing:
    async def preview(self, api: Api, key: str, **body: Any) -> Json:
        answer = await call(api, "POST", f"/{key}/preview", json=body)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == RENDERED
        return answer.json()

    async def test_it_says_what_a_notification_would(self, api: Api) -> None:
        stored = await created(api, email_html_template="<p onclick='x'>{{ number }}</p>")
        said = await self.preview(api, stored["name"], variables={"number": "7 & <b>8</b>"})
        assert said == {
            "language": "en",
            "version": 1,
            "title": "Order 7 & 8",
            "body": "Order **7 & \\<b\\>8\\</b\\>** is on its way.",
            "body_html": "<p>Order <strong>7 &amp; &lt;b&gt;8&lt;/b&gt;</strong>"
            " is on its way.</p>",
            "email_subject": None,
            "email_html": "<p>7 &amp; &lt;b&gt;8&lt;/b&gt;</p>",
            "email_text": None,
            "push_title": None,
            "push_body": None,
        }

    async def test_it_falls_back_as_calls_do(self, api: Api) -> None:
        values = {"task_title": "Review"}
        for asked, found in (("de-AT", "de"), ("ar", "ar"), ("nl", "en")):
            said = await self.preview(api, "task_assigned", variables=values, language=asked)
            assert said["language"] == found
        only = await created(api, language="sv")
        answer = await call(api, "POST", f"/{only['name']}/preview", json={"language": "de"})
        assert_refused(answer, 404, "not_found")

    async def test_dates_are_the_readers(self, api: Api) -> None:
        body = {
            "title_template": "{{ at|time }} {{ at|date }}",
            "body_template": "{{ 1234.5|number }}",
            "variables": {"at": "2026-01-08T23:30:00Z"},
        }
        said = await self.preview(api, name(), **body, language="de", timezone="Europe/Berlin")
        assert (said["title"], said["body"]) == ("00:30 09.01.2026", "1.234,5")
        assert (said["language"], said["version"]) == ("de", None)

    async def test_texts_that_are_not_saved_stand_in(self, api: Api) -> None:
        stored = await created(api, push_title_template="Shipped")
        key = stored["name"]
        said = await self.preview(
            api, key, title_template="{{ number }} by {{ carrier }}", push_title_template=None,
            variables={"number": "7", "carrier": "rail"},
        )  # fmt: skip
        assert (said["title"], said["push_title"], said["version"]) == ("7 by rail", None, 1)
        assert await read(api, f"/{key}") == stored

    async def test_the_requirements_own_example_has_words(self, api: Api) -> None:
        values: Json = {
            "task_id": str(uuid4()),
            "action_url": "/tasks/uuid",
            "actions": [{"label": "Dismiss", "action": "dismiss"}],
        }
        said = await self.preview(api, "task_assigned", variables=values)
        assert said["title"] == "New Task Assigned"
        assert all(said.values())

    @pytest.mark.parametrize(
        ("body", "path", "code"),
        [
            ({}, "variables.number", "missing"),
            ({"variables": {"number": 7}}, "variables.number", "wrong_type"),
            ({"body_template": "{{ other }}"}, "body_template", "undeclared_variable"),
            ({"body_template": "{% if %}"}, "body_template", "syntax_error"),
            ({"title_template": "{{ 1 / 0 }}"}, "title_template", "failed"),
            ({"title_template": "{{ 'a' * 10**9 }}"}, "title_template", "too_large"),
            ({"title_template": "{% if 0 %}x{% endif %}"}, "title_template", "unusable"),
            ({"body_template": "> " * 200 + "x"}, "body_template", "unusable"),
            ({"email_html_template": "<b>" * 200}, "email_html_template", "unusable"),
            ({"timezone": "Mars/Base"}, "timezone", "value_error"),
        ],
    )
    async def test_what_cannot_be_rendered_is_refused_with_its_field(
        self, api: Api, body: Json, path: str, code: str
    ) -> None:
        key = (await created(api))["name"]
        sent = {"variables": {"number": "7"}} if body else {}
        answer = await call(api, "POST", f"/{key}/preview", json=sent | body)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == (path, code)

    async def test_a_new_one_needs_title_and_body(self, api: Api) -> None:
        answer = await call(api, "POST", f"/{name()}/preview", json={"title_template": "A"})
        assert_refused(answer, 404, "not_found")


async def test_templates_are_no_notifications_id(api: Api) -> None:
    user = await api.new_user()
    answer = await api.client.get(TEMPLATES, headers=api.user(user))
    assert_refused(answer, 403, "forbidden")


async def test_what_another_process_changed_is_read_here(api: Api, settings: Settings) -> None:
    key = (await created(api))["name"]
    async with open_api(settings) as other:
        await call(other, "PUT", f"/{key}", json={"title_template": "Changed"})
    said = await call(api, "POST", f"/{key}/preview", json={"variables": {"number": "7"}})
    assert said.json()["title"] == "Changed"
