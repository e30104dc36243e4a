"""What content may hold, seen from outside (contract; SEC-001, REQ-003, REQ-013)."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.pipeline.expand import stored_content
from app.schemas.base import MAX_BODY_BYTES, MAX_DATA_BYTES, MAX_TITLE
from tests.contract.callers import Api, Json, assert_refused, content
from tests.contract.test_bad_input import CREATE, Route, assert_field_refused, json_bytes, post

TOKEN = f"ghp_{'a1' * 18}"
PASSWORD = "hunter2-and-more"
LINK = f"https://example.com/reset?token={TOKEN}"
MEBIBYTE = 1024 * 1024


async def send(api: Api, route: Route, user: UUID, **fields: Any) -> Json:
    """Create by any of the routes, and the answer."""
    to: Json = {"user_ids": [user]} if route.is_bulk else {"user_id": user}
    body = content(**(to | fields))
    if route.is_bulk:
        body["user_ids"] = [str(user)]
    answer = await post(api, route, json_bytes(body))
    assert answer.status_code == 202, answer.text
    return answer.json()


async def stored(api: Api, route: Route, told: Json) -> Json:
    """Title, body, data and masked as they were stored."""
    if route.is_bulk:
        query = "SELECT content->'content' AS said FROM notification_batches WHERE id = :id"
        (row,) = await api.rows(query, id=UUID(told["batch_id"]))
        return row.said
    query = "SELECT title, body, body_html, data, masked FROM notifications WHERE id = :id"
    (row,) = await api.rows(query, id=UUID(told.get("id", told.get("notification_id"))))
    return dict(row._mapping)


class TestSecrets:
    @pytest.mark.parametrize("route", CREATE)
    async def test_they_are_masked_before_anything_is_stored_and_listed(
        self, api: Api, route: str
    ) -> None:
        user = await api.new_user()
        told = await send(
            api,
            CREATE[route],
            user,
            title=f"Key {TOKEN}",
            body=f"password={PASSWORD} and <b>{TOKEN}</b> at {LINK}",
            data={"id": str(user), "action_url": LINK, "deploy": [{"api_key": PASSWORD}]},
        )
        places = [
            {"path": "title", "kind": "github_token"},
            {"path": "body", "kind": "named_secret"},
            {"path": "body", "kind": "github_token"},
            {"path": "data.deploy.0.api_key", "kind": "named_secret"},
        ]
        assert told["masked"] == places
        said = await stored(api, CREATE[route], told)
        assert said["title"] == "Key [masked]"
        assert said["body"] == f"password=[masked] and <b>[masked]</b> at {LINK}"
        assert said["data"] == {
            "id": str(user),
            "action_url": LINK,
            "deploy": [{"api_key": "[masked]"}],
        }
        assert said["masked"] == places
        assert PASSWORD not in said["body_html"]
        assert f"<b>{TOKEN}" not in said["body_html"]

    @pytest.mark.parametrize("route", CREATE)
    async def test_without_any_the_list_is_empty(self, api: Api, route: str) -> None:
        told = await send(api, CREATE[route], await api.new_user(), data={"link": LINK})
        assert told["masked"] == []
        assert (await stored(api, CREATE[route], told))["masked"] == []

    async def test_they_reach_no_reader_and_no_long_text_hides_them(self, api: Api) -> None:
        user = await api.new_user()
        filler = "lorem ipsum " * 5_000
        created = await api.create(user, body=f"{filler}\n\napi_key={PASSWORD}")
        item = await api.read(user, f"/{created['id']}")
        assert PASSWORD not in json.dumps(item)
        assert item["body"].endswith("api_key=[masked]")
        assert item["body_html"].endswith("api_key=[masked]</p>")

    async def test_a_link_with_credentials_still_leads_there(self, api: Api) -> None:
        user = await api.new_user()
        created = await api.create(user, body=f"[repo](https://ada:{PASSWORD}@example.com/x)")
        item = await api.read(user, f"/{created['id']}")
        assert 'href="https://example.com/x"' in item["body_html"]
        assert created["masked"] == [{"path": "body", "kind": "url_credentials"}]

    async def test_a_title_stays_short_enough(self, api: Api) -> None:
        user = await api.new_user()
        title = ("api_key=abc " * 30)[:MAX_TITLE].rstrip()
        created = await api.create(user, title=title)
        item = await api.read(user, f"/{created['id']}")
        assert len(item["title"]) <= MAX_TITLE
        assert "abc" not in item["title"]

    @pytest.mark.parametrize("route", CREATE)
    async def test_an_error_never_repeats_a_value(self, api: Api, route: str) -> None:
        wanted = CREATE[route]
        for fields in (
            {name: TOKEN}
            for name in ("type", "priority", "data", "channels", "send_email", "send_at",
                         "expires_at", "user_id", "user_ids")
        ):  # fmt: skip
            answer = await post(api, wanted, json_bytes(wanted.valid(**fields)))
            assert_refused(answer, 422, "validation_error")
            assert TOKEN not in answer.text
        for fields in (
            {TOKEN: 1},
            {"title": {TOKEN: TOKEN}},
            {"data": {"actions": [{"label": TOKEN, "url": f"javascript:{TOKEN}"}]}},
            {"data": {"action_url": f"https://{TOKEN}@example.com"}},
        ):
            answer = await post(api, wanted, json_bytes(wanted.valid(**fields)))
            assert_refused(answer, 422, "validation_error")
            assert TOKEN not in answer.text


def action(**fields: Any) -> Json:
    return {"label": "View"} | fields


BAD_DATA: dict[str, tuple[object, str, str]] = {
    "actions is an object": ({"actions": {}}, "data.actions", "list_type"),
    "actions is text": ({"actions": "view"}, "data.actions", "list_type"),
    "eleven actions": (
        {"actions": [action(url="/x")] * 11}, "data.actions", "too_long"),
    "an action is null": ({"actions": [None]}, "data.actions.0", "object_expected"),
    "an action is text": (
        {"actions": [action(url="/x"), "x"]}, "data.actions.1", "object_expected"),
    "no label": ({"actions": [{"url": "/x"}]}, "data.actions.0.label", "missing"),
    "label is a number": (
        {"actions": [action(label=1, url="/x")]}, "data.actions.0.label", "string_type"),
    "label is empty": (
        {"actions": [action(label=" <b>\n</b>", url="/x")]}, "data.actions.0.label", "value_error"),
    "label is long": (
        {"actions": [action(label="a" * 101, url="/x")]}, "data.actions.0.label", "value_error"),
    "neither url nor action": ({"actions": [action()]}, "data.actions.0", "url_or_action"),
    "both url and action": (
        {"actions": [action(url="/x", action="view")]}, "data.actions.0", "url_or_action"),
    "both are null": (
        {"actions": [action(url=None, action=None)]}, "data.actions.0", "url_or_action"),
    "action is a number": (
        {"actions": [action(action=1)]}, "data.actions.0.action", "string_type"),
    "a name twice": (
        {"actions": [action(action="a"), action(action="b"), action(action="a")]},
        "data.actions", "action_repeated"),
    "primary is text": (
        {"actions": [action(url="/x", primary="yes")]}, "data.actions.0.primary", "bool_type"),
    "action_url is a list": ({"action_url": []}, "data.action_url", "string_type"),
    "action_url is endless": (
        {"action_url": "/" + "a" * 2048}, "data.action_url", "string_too_long"),
}  # fmt: skip
for name in ("", "1", "0x", "-a", "_a", "a b", "a/b", "../a", "a\n", "ä", "a" * 65):
    BAD_DATA[f"action is named {name[:8]!r}"] = (
        {"actions": [action(action=name)]}, "data.actions.0.action", "string_pattern_mismatch",
    )  # fmt: skip
for address in (
    "", "tasks/1", "javascript:alert(1)", " /x", "/x\t", "java\nscript:x", "data:text/html,x",
    "//evil.example", "/\\evil.example", "\\\\evil.example", "http://example.com", "mailto:a@b.c",
    "https://", "https://ada@example.com", "https://ada:x@example.com", "/\u202ex", "/\x7f",
):  # fmt: skip
    BAD_DATA[f"action_url is {address!r}"] = (
        {"action_url": address}, "data.action_url", "address_not_allowed",
    )  # fmt: skip
    BAD_DATA[f"an action's url is {address!r}"] = (
        {"actions": [action(action="a"), action(url=address)]},
        "data.actions.1.url", "address_not_allowed",
    )  # fmt: skip


class TestActions:
    @pytest.mark.parametrize("name", BAD_DATA)
    async def test_a_bad_one_is_named(self, api: Api, name: str) -> None:
        data, path, code = BAD_DATA[name]
        route = CREATE["single"]
        await assert_field_refused(api, route, route.valid(data=data), path, code)

    @pytest.mark.parametrize("route", ["bulk", "internal"])
    async def test_every_route_looks(self, api: Api, route: str) -> None:
        wanted = CREATE[route]
        data = {"actions": [action(url="//evil.example")]}
        await assert_field_refused(api, wanted, wanted.valid(data=data), "data.actions.0.url")

    async def test_good_ones_come_back_as_they_were_sent(self, api: Api) -> None:
        user = await api.new_user()
        data = {
            "action_url": "https://example.com/tasks?token=abc#top",
            "actions": [
                {"label": "View", "url": "/tasks/1", "primary": True},
                {"label": "Again", "url": "/tasks/1"},
                {"label": "1 < 2 & 3", "url": "?page=2", "style": {"color": ["red"]}},
                {"label": "Accept", "action": "accept", "url": None},
                {"label": "Later", "action": "snooze-1_h.v2", "primary": False},
            ],
            "url": "not an address at all",
        }
        created = await api.create(user, data=data)
        assert (await api.read(user, f"/{created['id']}"))["data"] == data
        nothings: list[Json] = [{"actions": []}, {"actions": None, "action_url": None}]
        for nothing in nothings:
            created = await api.create(user, data=nothing)
            assert (await api.read(user, f"/{created['id']}"))["data"] == nothing

    async def test_a_label_is_one_line_of_plain_text(self, api: Api) -> None:
        user = await api.new_user()
        label = " <b>View</b>\n\u202eit <script>alert(1)</script>"
        created = await api.create(user, data={"actions": [{"label": label, "url": "/x"}]})
        item = await api.read(user, f"/{created['id']}")
        assert item["data"]["actions"] == [{"label": "View it", "url": "/x"}]


class TestLimits:
    OVERHEAD = len(b'{"a":""}')

    @pytest.mark.parametrize("route", CREATE)
    async def test_what_just_fits_is_taken(self, api: Api, route: str) -> None:
        user = await api.new_user()
        room = MAX_DATA_BYTES - self.OVERHEAD
        for fields in (
            {"title": f" <b>{'ä' * MAX_TITLE}</b>\n "},
            {"body": "a" * MAX_BODY_BYTES},
            {"body": "ä" * (MAX_BODY_BYTES // 2)},
            {"data": {"a": "b" * room}},
            {"data": {"a": "ä" * (room // 2)}},
            {"data": {"actions": [action(label="a" * 100, url="/x")] * 10}},
            {"data": {"action_url": "/" + "a" * 2047}},
        ):
            await send(api, CREATE[route], user, **fields)

    @pytest.mark.parametrize("route", CREATE)
    async def test_one_byte_more_is_refused(self, api: Api, route: str) -> None:
        wanted = CREATE[route]
        room = MAX_DATA_BYTES - self.OVERHEAD
        for field, value in (
            ("title", "a" * (MAX_TITLE + 1)),
            ("body", "a" * (MAX_BODY_BYTES + 1)),
            ("body", "ä" * (MAX_BODY_BYTES // 2) + "a"),
            ("data", {"a": "b" * (room + 1)}),
            ("data", {"a": "ä" * (room // 2) + "b"}),
        ):
            await assert_field_refused(api, wanted, wanted.valid(**{field: value}), field)

    @pytest.mark.parametrize("route", CREATE)
    async def test_a_whole_body_has_at_most_1_mib(self, api: Api, route: str) -> None:
        wanted = CREATE[route]
        user = str(await api.new_user())
        to: Json = {"user_ids": [user]} if wanted.is_bulk else {"user_id": user}
        raw = json_bytes(content(**to))
        padded = raw[:-1] + b" " * (MEBIBYTE - len(raw)) + b"}"
        assert len(padded) == MEBIBYTE
        assert (await post(api, wanted, padded)).status_code == 202
        assert_refused(await post(api, wanted, padded + b" "), 413, "body_too_large")


async def test_batches_stored_before_masking_can_still_be_expanded(api: Api) -> None:
    told = await send(api, CREATE["bulk"], uuid4())
    query = "SELECT content FROM notification_batches WHERE id = :id"
    (row,) = await api.rows(query, id=UUID(told["batch_id"]))
    del row.content["content"]["masked"]
    assert stored_content.validate_python(row.content).content.masked == ()
