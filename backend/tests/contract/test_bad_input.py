"""Bad input is told as such: 4xx with the field's name, nothing stored, never a 500."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.schemas.base import MAX_BODY_BYTES, MAX_DATA_BYTES, MAX_NESTING, MAX_RAW_TITLE, MAX_TITLE
from tests.contract.callers import V1, Api, Headers, Json, assert_refused, content

NUL = "\0"
SOMEBODY = UUID("0197a000-0000-7000-8000-00000000abcd")
TOMORROW = datetime.now(UTC) + timedelta(days=1)
JSON_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Route:
    """A route that takes a body, and credentials for it."""

    method: str
    path: str
    is_internal: bool
    is_bulk: bool = False

    def headers(self, api: Api, name: str) -> Headers:
        return api.internal(name) if self.is_internal else api.service(name)

    def valid(self, **fields: Any) -> Json:
        """A body that is accepted, changed by `fields`."""
        to: Json = {"user_ids": [str(uuid4())]} if self.is_bulk else {"user_id": str(uuid4())}
        return content(**(to | fields))


CREATE = {
    "single": Route("POST", f"{V1}/notifications", is_internal=False),
    "bulk": Route("POST", f"{V1}/notifications/bulk", is_internal=False, is_bulk=True),
    "internal": Route("POST", f"{V1}/internal/notifications/send", is_internal=True),
}
USERS = Route("PUT", f"{V1}/internal/users/{SOMEBODY}", is_internal=True)
ALL = {**CREATE, "users": USERS}


def nested(levels: int) -> Json:
    """An object with so many levels, itself the first."""
    value: Json = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


async def post(api: Api, route: Route, raw: bytes, name: str = "tests") -> httpx.Response:
    headers = route.headers(api, name) | JSON_TYPE
    return await api.client.request(route.method, route.path, content=raw, headers=headers)


async def assert_field_refused(
    api: Api, route: Route, body: object, path: str, code: str | None = None
) -> None:
    """The body is refused, exactly that field is named, and nothing was stored."""
    service = f"tests-{uuid4()}"
    details = assert_refused(
        await post(api, route, json_bytes(body), service), 422, "validation_error"
    )
    assert {detail["path"] for detail in details} == {path}, details
    if code is not None:
        assert details[0]["code"] == code
    assert await api.stored_by(service) == 0


# Field, value, and the path that is told where it is another than the field's.
BAD_FIELDS: dict[str, tuple[str, object, str]] = {}


def bad(name: str, field: str, value: object, path: str | None = None) -> None:
    BAD_FIELDS[name] = (field, value, field if path is None else path)


def bad_each(field: str, *values: object) -> None:
    for value in values:
        bad(f"{field} is {str(value)[:40]!r}", field, value)


bad_each("title", None, 1, 1.5, True, [], {}, ["task"])
bad_each("body", None, 1, 1.5, True, [], {}, ["task"])
bad_each("type", None, 1, 1.5, True, [], {}, ["task"], "", "nothing", "TASK", "global", "task ")
bad_each("priority", 1, True, [], {}, "urgent", "HIGH", "", " high")
bad_each("data", None, 1, "text", True, [], [{"a": 1}])
bad_each("template_id", 1, True, [], {}, "", "a" * 101)
bad_each("send_email", 1, 0, "true", "yes", [], {})
bad("title is missing", "title", ...)
bad("body is missing", "body", ...)
bad("type is missing", "type", ...)
bad("title is empty", "title", "")
bad("title is space", "title", " \t\n ")
bad("title is nothing but tags", "title", "<b><i></i></b>")
bad("title is nothing but a script", "title", "<script>alert(1)</script>")
bad("title is too long", "title", "a" * (MAX_TITLE + 1))
bad("title is too long beside its tags", "title", f"<b>{'a' * (MAX_TITLE + 1)}</b>")
bad("title is endless", "title", "<b>" * MAX_RAW_TITLE)
bad("body is empty", "body", "")
bad("body is space", "body", " \n\t ")
bad("body is over 64 KiB", "body", "a" * (MAX_BODY_BYTES + 1))
bad("body is over 64 KiB in bytes", "body", "ä" * (MAX_BODY_BYTES // 2 + 1))
bad("data is over 32 KiB", "data", {"a": "b" * MAX_DATA_BYTES})
bad("data is over 32 KiB in bytes", "data", {"a": "ä" * (MAX_DATA_BYTES // 2)})
bad("data is nested 33 levels", "data", nested(MAX_NESTING + 1))
bad("data is nested 200 levels", "data", nested(200))
bad("data is nested 300 levels", "data", nested(300))
bad("data holds a deep array", "data", {"a": json.loads("[" * 32 + "]" * 32)})
bad("channels is empty", "channels", [])
bad("channels has an unknown one", "channels", ["in_app", "pigeon"], "channels.1")
bad("channels has null", "channels", [None], "channels.0")
bad("channels has a number", "channels", [1], "channels.0")
bad("channels has a list", "channels", [["push"]], "channels.0")
bad("channels has another case", "channels", ["PUSH"], "channels.0")
bad("channels is text", "channels", "push")
bad("channels is an object", "channels", {"push": True})
bad("channels is a number", "channels", 1)
for instant in ("send_at", "expires_at"):
    bad_each(
        instant,
        1,
        1799999999,
        "1799999999",
        True,
        [],
        {},
        "",
        "tomorrow",
        "2030-01-01",
        "2030-01-01T00:00:00",
        "2030-01-01 00:00",
        "2030-13-01T00:00:00Z",
        "2030-02-30T00:00:00Z",
        "2030-01-01T25:00:00Z",
        "2030-01-01T00:00:00+99:99",
        "2030-01-01T00:00:00+24:00",
        "2030-01-01T00:00:00 Europe/Berlin",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-14:00",
        "12030-01-01T00:00:00Z",
        "-2030-01-01T00:00:00Z",
        "2030-01-01T00:00:00Z" + "0" * 1000,
    )
bad("expires_at is in the past", "expires_at", "2020-01-01T00:00:00Z")
bad("expires_at is now", "expires_at", datetime.now(UTC).isoformat())
bad(
    "expires_at is in the past by its offset",
    "expires_at",
    (datetime.now(UTC) - timedelta(minutes=5)).isoformat().replace("+00:00", "-00:00"),
)
bad("a field nobody knows", "no_such_field", 1)
bad("a field by another case", "Title", "a")


@pytest.mark.parametrize("route", CREATE)
@pytest.mark.parametrize("name", BAD_FIELDS)
async def test_a_bad_field_is_named(api: Api, route: str, name: str) -> None:
    field, value, path = BAD_FIELDS[name]
    await assert_field_refused(api, CREATE[route], CREATE[route].valid(**{field: value}), path)


@pytest.mark.parametrize("route", CREATE)
@pytest.mark.parametrize("before", [timedelta(), timedelta(seconds=1), timedelta(hours=5)])
async def test_expiring_before_it_is_sent_is_refused(
    api: Api, route: str, before: timedelta
) -> None:
    wanted = {"send_at": TOMORROW.isoformat(), "expires_at": (TOMORROW - before).isoformat()}
    await assert_field_refused(api, CREATE[route], CREATE[route].valid(**wanted), "expires_at")


@pytest.mark.parametrize("route", CREATE)
async def test_every_bad_field_is_named_at_once(api: Api, route: str) -> None:
    body = CREATE[route].valid(title=1, type="x", channels=[], unheard_of=None)
    answer = await post(api, CREATE[route], json_bytes(body))
    details = assert_refused(answer, 422, "validation_error")
    told = {detail["path"] for detail in details}
    assert told == {"title", "type", "channels", "unheard_of"}


class TestRecipients:
    @pytest.mark.parametrize("route", ["single", "internal"])
    @pytest.mark.parametrize(
        "wrong", [..., None, "", "x", 1, True, [], {}, "0" * 33, f"{SOMEBODY}0", f"{SOMEBODY}\n"]
    )
    async def test_a_user_id_is_a_uuid(self, api: Api, route: str, wrong: object) -> None:
        body = CREATE[route].valid(user_id=wrong)
        await assert_field_refused(api, CREATE[route], body, "user_id")

    @pytest.mark.parametrize("route", ["single", "internal"])
    async def test_a_user_nobody_knows_is_told(self, api: Api, route: str) -> None:
        service = f"tests-{uuid4()}"
        answer = await post(api, CREATE[route], json_bytes(CREATE[route].valid()), service)
        assert_refused(answer, 422, "unknown_user")
        assert await api.stored_by(service) == 0

    @pytest.mark.parametrize("wrong", [..., None, [], "", str(SOMEBODY), {}, 1])
    async def test_a_batch_needs_a_list_of_users(self, api: Api, wrong: object) -> None:
        bulk = CREATE["bulk"]
        await assert_field_refused(api, bulk, bulk.valid(user_ids=wrong), "user_ids")

    @pytest.mark.parametrize("wrong", [None, 1, "x", [], {}, [str(SOMEBODY)]])
    async def test_each_of_a_batchs_users_is_a_uuid(self, api: Api, wrong: object) -> None:
        bulk = CREATE["bulk"]
        body = bulk.valid(user_ids=[str(uuid4()), wrong])
        await assert_field_refused(api, bulk, body, "user_ids.1")

    async def test_one_user_too_many_is_a_bad_request(self, api: Api) -> None:
        bulk, service = CREATE["bulk"], f"tests-{uuid4()}"
        most = api.settings.notification_max_batch_size
        body = bulk.valid(user_ids=[str(UUID(int=number)) for number in range(most + 1)])
        answer = await post(api, bulk, json_bytes(body), service)
        assert assert_refused(answer, 400, "too_many_recipients") == []
        assert await api.stored_by(service) == 0

    async def test_bodies_full_of_errors_are_answered_briefly(self, api: Api) -> None:
        bulk = CREATE["bulk"]
        for body in (
            bulk.valid(user_ids=[1] * 300_000),
            bulk.valid(**{f"a{number}": 1 for number in range(50_000)}),
        ):
            answer = await post(api, bulk, json_bytes(body))
            assert_refused(answer, 422, "validation_error")
            assert len(answer.content) < 64 * 1024


class TestMalformed:
    @pytest.mark.parametrize("route", ALL)
    @pytest.mark.parametrize(
        "raw",
        [
            b"{",
            b"}",
            b'{"title": }',
            b"{'title': 1}",
            b'{"title": "a",}',
            b'{"title": NaN}',
            b'{"data": {"a": Infinity}}',
            b'{"data": {"a": -Infinity}}',
            b'{"data": {"a": 1e999}}',
            b'{"data": {"a": 1' + b"0" * 400 + b"}}",
            b'{"data": {"a": 01}}',
            b'{"data": {"a": 0x10}}',
            b'{"title": "\xff\xfe"}',
            b'{"title": "\xc0\xaf"}',
            b'{"title": "\xed\xa0\x80"}',
            b'{"title": "\\ud800"}',
            b'{"title": "\\udc00\\ud800"}',
            b'{"data": {"\\udfff": 1}}',
            b'{"title": "a\nb"}',
            b'{"title": "a\0b"}',
            b'{"title": "a"} {"title": "b"}',
            b"\xef\xbb\xbf{}",
            b"\xff\xfe{\0}\0",
            b"[" * 10_000 + b"]" * 10_000,
            b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
            b'{"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
            b"\0",
        ],
    )
    async def test_what_is_no_json_is_told_once(self, api: Api, route: str, raw: bytes) -> None:
        service = f"tests-{uuid4()}"
        (detail,) = assert_refused(
            await post(api, ALL[route], raw, service), 422, "validation_error"
        )
        assert (detail["path"], detail["code"]) == ("", "json_invalid")
        assert await api.stored_by(service) == 0

    @pytest.mark.parametrize("route", ALL)
    @pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"[{}]", b'"text"', b"1", b"true"])
    async def test_a_body_is_an_object(self, api: Api, route: str, raw: bytes) -> None:
        (detail,) = assert_refused(await post(api, ALL[route], raw), 422, "validation_error")
        assert detail["path"] == ""

    @pytest.mark.parametrize("route", ALL)
    @pytest.mark.parametrize(
        "given",
        [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/xml",
            "nonsense",
            "application/octet-stream",
        ],
    )
    async def test_a_body_says_that_it_is_json(self, api: Api, route: str, given: str) -> None:
        wanted, service = ALL[route], f"tests-{uuid4()}"
        raw = json_bytes({} if wanted is USERS else wanted.valid())
        headers = wanted.headers(api, service) | ({"Content-Type": given} if given else {})
        answer = await api.client.request(wanted.method, wanted.path, content=raw, headers=headers)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert "application/json" in detail["message"]
        assert await api.stored_by(service) == 0

    @pytest.mark.parametrize(
        "given", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/ld+json"]
    )
    async def test_json_by_another_name_is_taken(self, api: Api, given: str) -> None:
        headers = USERS.headers(api, "tests") | {"Content-Type": given}
        answer = await api.client.put(USERS.path, content=b"{}", headers=headers)
        assert answer.status_code == 200


def place(field: str, value: object) -> tuple[str, object]:
    return field, value


NUL_PLACES = (
    place("title", f"a{NUL}b"),
    place("body", NUL),
    place("template_id", f"a{NUL}"),
    place("data", {f"a{NUL}": 1}),
    place("data", {"a": NUL}),
    place("data", {"a": [{"b": [f"x{NUL}"]}]}),
    place("data", nested(20) | {"z": {NUL: 1}}),
    place("type", f"task{NUL}"),
    place("priority", NUL),
    place("channels", [f"push{NUL}"]),
    place("send_at", f"2030-01-01T00:00:00Z{NUL}"),
    place("expires_at", NUL),
    place("no_such_field", NUL),
)


class TestNul:
    @pytest.mark.parametrize("route", CREATE)
    @pytest.mark.parametrize(("field", "value"), NUL_PLACES)
    async def test_it_is_refused_wherever_it_stands(
        self, api: Api, route: str, field: str, value: object
    ) -> None:
        body = CREATE[route].valid(**{field: value})
        await assert_field_refused(api, CREATE[route], body, field, "json_invalid")

    @pytest.mark.parametrize("route", CREATE)
    async def test_it_is_refused_in_ids_and_names(self, api: Api, route: str) -> None:
        wanted = CREATE[route]
        to: Json = {"user_ids": [NUL]} if wanted.is_bulk else {"user_id": f"{uuid4()}{NUL}"}
        (field,) = to
        await assert_field_refused(api, wanted, wanted.valid(**to), field, "json_invalid")
        body = wanted.valid(**{f"title{NUL}": "a"})
        assert_refused(await post(api, wanted, json_bytes(body)), 422, "validation_error")

    @pytest.mark.parametrize(
        "field", ["email", "full_name", "timezone", "locale", "attributes", "attributes key"]
    )
    async def test_it_is_refused_in_what_is_known_of_users(self, api: Api, field: str) -> None:
        values: Json = {"attributes": {"a": NUL}, "attributes key": {NUL: "a"}}
        name = field.partition(" ")[0]
        answer = await post(api, USERS, json_bytes({name: values.get(field, f"a{NUL}")}))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == name

    async def test_text_that_only_looks_like_it_is_kept(self, api: Api) -> None:
        user, text = await api.new_user(), "\\u0000 \\\\u0000 \\"
        created = await api.create(user, body=text, data={text: text})
        item = await api.read(user, f"/{created['id']}")
        assert (item["body"], item["data"]) == (text, {text: text})

    @pytest.mark.parametrize("name", [f"a{NUL}b", NUL, "a\nb", "a\x7fb", "a\x85b", ""])
    async def test_a_services_name_is_printable(self, api: Api, name: str) -> None:
        for wanted in CREATE.values():
            headers = wanted.headers(api, "tests")
            pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
            pairs = [pair for pair in pairs if pair[0] != b"X-Service-Name"]
            pairs.append((b"X-Service-Name", name.encode("latin-1")))
            if not name and not wanted.is_internal:
                continue  # the token's subject is the name then
            answer = await api.client.request(
                wanted.method, wanted.path, json=wanted.valid(), headers=pairs
            )
            assert_refused(answer, 401, "not_authenticated")

    @pytest.mark.parametrize(
        ("path", "field"),
        [
            (f"{V1}/notifications/%00", "notification_id"),
            (f"{V1}/notifications/{SOMEBODY}%00", "notification_id"),
            (f"{V1}/notifications?cursor=%00", "cursor"),
            (f"{V1}/notifications?limit=1%00", "limit"),
        ],
    )
    async def test_it_is_refused_in_addresses(self, api: Api, path: str, field: str) -> None:
        answer = await api.client.get(path, headers=api.user(uuid4()))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == field


class TestTooLarge:
    SIZE = 20_000_000

    @pytest.mark.parametrize("route", ALL)
    async def test_a_body_of_declared_length_is_refused(self, api: Api, route: str) -> None:
        service = f"tests-{uuid4()}"
        answer = await post(api, ALL[route], b"{" * self.SIZE, service)
        assert_refused(answer, 413, "body_too_large")
        assert await api.stored_by(service) == 0

    @pytest.mark.parametrize("route", ALL)
    async def test_a_chunked_body_is_refused_before_it_ends(self, api: Api, route: str) -> None:
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < self.SIZE:
                sent += 100_000
                yield b" " * 100_000

        wanted, service = ALL[route], f"tests-{uuid4()}"
        headers = wanted.headers(api, service) | JSON_TYPE
        answer = await api.client.request(
            wanted.method, wanted.path, content=chunks(), headers=headers
        )
        assert_refused(answer, 413, "body_too_large")
        assert sent < 2 * 1024 * 1024
        assert await api.stored_by(service) == 0

    async def test_a_body_of_1_mib_is_read(self, api: Api) -> None:
        raw = json_bytes({"full_name": "Ada"})
        padded = raw[:-1] + b" " * (1024 * 1024 - len(raw)) + b"}"
        assert (await post(api, USERS, padded)).status_code == 200
        assert_refused(await post(api, USERS, padded[:-1] + b" }"), 413, "body_too_large")


class TestLimitsThemselves:
    async def test_what_just_fits_is_taken(self, api: Api) -> None:
        user = await api.new_user()
        overhead = len(b'{"a":""}')
        for fields in (
            {"title": "a" * MAX_TITLE},
            {"title": f"<b>{'ä' * MAX_TITLE}</b>"},
            {"body": "a" * MAX_BODY_BYTES},
            {"data": {"a": "b" * (MAX_DATA_BYTES - overhead)}},
            {"data": nested(MAX_NESTING)},
            {"template_id": "a" * 100},
        ):
            await api.create(user, **fields)
        assert (await api.read(user))["unread_count"] == 6


class TestUsers:
    @pytest.mark.parametrize(
        ("field", "wrong"),
        [
            ("email", 1),
            ("email", ""),
            ("email", "nobody"),
            ("email", "@example.com"),
            ("email", "a@"),
            ("email", "a@b@example.com"),
            ("email", "a@exa mple.com"),
            ("email", "a\r\nBcc: b@example.com"),
            ("email", "a@example.com\r\nBcc: b@example.com"),
            ("email", "Ada <ada@example.com>"),
            ("email", f"{'a' * 250}@example.com"),
            ("full_name", 1),
            ("full_name", []),
            ("full_name", "a" * 201),
            ("timezone", ""),
            ("timezone", 1),
            ("timezone", "Mars/Olympus"),
            ("timezone", "../../etc/passwd"),
            ("timezone", "/etc/localtime"),
            ("timezone", "europe/berlin"),
            ("timezone", "+02:00"),
            ("locale", ""),
            ("locale", 1),
            ("locale", "d"),
            ("locale", "de_AT"),
            ("locale", "de-"),
            ("locale", "de\n"),
            ("locale", "../de"),
            ("locale", "a" * 40),
            ("attributes", []),
            ("attributes", 1),
            ("attributes", "a"),
            ("attributes", {"a": "b" * MAX_DATA_BYTES}),
            ("attributes", nested(MAX_NESTING + 1)),
            ("quiet_hours", {}),
        ],
    )
    async def test_a_bad_field_is_named_and_nothing_changes(
        self, api: Api, field: str, wrong: object
    ) -> None:
        known = {"email": "ada@example.com", "full_name": "Ada", "locale": "en"}
        user = await api.new_user(**known)
        headers = api.internal()
        path = f"{V1}/internal/users/{user}"
        body = {"full_name": "Somebody else"} | {field: wrong}
        answer = await api.client.put(path, json=body, headers=headers)
        details = assert_refused(answer, 422, "validation_error")
        assert {detail["path"] for detail in details} == {field}
        stored = await api.client.put(path, json={}, headers=headers)
        assert {name: stored.json()[name] for name in known} == known

    @pytest.mark.parametrize("wrong", ["x", "1", "%20", f"{SOMEBODY}x"])
    async def test_an_id_is_a_uuid(self, api: Api, wrong: str) -> None:
        path = f"{V1}/internal/users/{wrong}"
        answer = await api.client.put(path, json={}, headers=api.internal())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "user_id"


class TestReading:
    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=-1", "limit"),
            ("limit=101", "limit"),
            ("limit=ten", "limit"),
            ("limit=1.5", "limit"),
            ("limit=", "limit"),
            ("limit=" + "9" * 5000, "limit"),
            ("cursor=", "cursor"),
            ("cursor=x", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("cursor=%ff%fe", "cursor"),
            ("cursor=%F0%9F%98%80", "cursor"),
            ("cursor=" + "A" * 32, "cursor"),
            ("cursor=" + "A" * 513, "cursor"),
            ("cursor=0", "cursor"),
        ],
    )
    async def test_a_bad_parameter_is_named(self, api: Api, query: str, field: str) -> None:
        answer = await api.client.get(f"{V1}/notifications?{query}", headers=api.user(uuid4()))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == field

    async def test_no_altered_cursor_is_taken(self, api: Api) -> None:
        user = await api.new_user()
        for _ in range(2):
            await api.create(user)
        cursor: str = (await api.read(user, "?limit=1"))["next_cursor"]
        for index in range(len(cursor)):
            altered = "A" if cursor[index] != "A" else "B"
            changed = cursor[:index] + altered + cursor[index + 1 :]
            answer = await api.client.get(
                f"{V1}/notifications", params={"cursor": changed}, headers=api.user(user)
            )
            assert_refused(answer, 422, "validation_error")

    @pytest.mark.parametrize("wrong", ["x", "1", "null", "%2e%2e", "%F0%9F%98%80", "0" * 500])
    async def test_a_notifications_id_is_a_uuid(self, api: Api, wrong: str) -> None:
        answer = await api.client.get(f"{V1}/notifications/{wrong}", headers=api.user(uuid4()))
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "notification_id"


FIELDS = (
    "user_id",
    "user_ids",
    "type",
    "priority",
    "title",
    "body",
    "data",
    "template_id",
    "channels",
    "send_email",
    "send_at",
    "expires_at",
)
any_text = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    ["task", "push", "in_app", "high", "<b>", "2030-01-01T00:00:00Z", str(SOMEBODY), "\0"]
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(any_text, children, max_size=4)
    ),
    max_leaves=12,
)
odd_bodies = any_json | st.dictionaries(st.sampled_from(FIELDS) | any_text, any_json, max_size=8)


def nearly_valid(route: Route) -> st.SearchStrategy[Json]:
    """Bodies with one field changed or added."""

    def changed(field: str, value: object) -> Json:
        return route.valid(**{field: value})

    return st.builds(changed, st.sampled_from(FIELDS) | any_text, any_json)


@pytest.mark.parametrize("route", ALL)
@hypothesis_settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=odd_bodies | st.one_of([nearly_valid(route) for route in CREATE.values()]))
async def test_no_json_is_our_fault(api: Api, route: str, body: object) -> None:
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = await post(api, ALL[route], raw)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert_refused(answer, answer.status_code, answer.json()["error"]["code"])
