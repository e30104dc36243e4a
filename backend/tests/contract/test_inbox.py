"""The notification center as its user sees it (contract; REQ-011, REQ-012, section 5.1)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.contract.callers import V1, Api, Json, assert_refused

INBOX = f"{V1}/notifications"


@pytest.fixture
async def ada(api: Api) -> UUID:
    """A user with an address and no device."""
    return await api.new_user(email="ada@example.com")


async def call(api: Api, user: UUID, method: str, path: str, body: Any = None) -> httpx.Response:
    """What the user gets for a call under /notifications."""
    return await api.client.request(
        method, f"{INBOX}{path}", headers=api.user(user), **({} if body is None else {"json": body})
    )


async def change(api: Api, user: UUID, method: str, path: str, body: Any = None) -> Json:
    """The answer to a call that succeeds."""
    answer = await call(api, user, method, path, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def titles(api: Api, user: UUID, query: str = "") -> list[str]:
    """Titles of all pages of a list, which hold two each."""
    found: list[str] = []
    page = await api.read(user, f"?limit=2{query}")
    while True:
        found += [item["title"] for item in page["items"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        if not page["has_more"]:
            return found
        assert len(page["items"]) == 2
        page = await api.read(user, f"?limit=2{query}&cursor={page['next_cursor']}")


class TestLists:
    @pytest.fixture
    async def filled(self, api: Api, ada: UUID) -> UUID:
        """An inbox of eight, every third of which is read."""
        kinds = ["task", "billing"] * 4
        priorities = ["low", "normal", "high", "critical", "normal", "low", "critical", "high"]
        for number, (kind, priority) in enumerate(zip(kinds, priorities, strict=True)):
            made = await api.create(ada, type=kind, priority=priority, title=str(number))
            if number % 3 == 0:
                await change(api, ada, "PATCH", f"/{made['id']}/read")
        return ada

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("", "76543210"),
            ("&sort=newest", "76543210"),
            ("&sort=oldest", "01234567"),
            ("&sort=priority", "63724150"),
            ("&type=task", "6420"),
            ("&type=task&sort=oldest", "0246"),
            ("&type=security", ""),
            ("&priority=critical", "63"),
            ("&priority=low&sort=priority", "50"),
            ("&is_read=true", "630"),
            ("&is_read=false", "75421"),
            ("&is_read=false&sort=priority", "72415"),
            ("&type=billing&is_read=false&priority=high", "7"),
            ("&type=task&priority=critical&is_read=false&sort=priority", ""),
        ],
    )
    async def test_are_filtered_and_sorted(
        self, api: Api, filled: UUID, query: str, found: str
    ) -> None:
        assert await titles(api, filled, query) == list(found)
        page = await api.read(filled, f"?{query}")
        assert page["unread_count"] == 5  # of the whole inbox
        assert page["seq"] == 11

    async def test_a_cursor_continues_its_own_list_alone(self, api: Api, filled: UUID) -> None:
        cursor = (await api.read(filled, "?limit=2&type=task"))["next_cursor"]
        for other in ("", "&type=billing", "&type=task&sort=oldest", "&type=task&is_read=false"):
            answer = await call(api, filled, "GET", f"?cursor={cursor}{other}")
            details = assert_refused(answer, 422, "validation_error")
            assert [detail["path"] for detail in details] == ["cursor"]

    async def test_pages_neither_skip_nor_repeat_while_things_change(
        self, api: Api, filled: UUID
    ) -> None:
        first = await api.read(filled, "?limit=3")
        await api.create(filled, title="new")
        await change(api, filled, "PATCH", f"/{first['items'][0]['id']}/read")
        assert (await call(api, filled, "DELETE", f"/{first['items'][2]['id']}")).status_code == 204
        second = await api.read(filled, f"?limit=3&cursor={first['next_cursor']}")
        assert [item["title"] for item in second["items"]] == ["4", "3", "2"]

    @pytest.mark.parametrize(
        "query", ["type=nothing", "priority=urgent", "is_read=maybe", "sort=random", "limit=0"]
    )
    async def test_bad_filters_are_refused(self, api: Api, ada: UUID, query: str) -> None:
        assert_refused(await call(api, ada, "GET", f"?{query}"), 422, "validation_error")

    async def test_items_say_where_they_stand(self, api: Api, ada: UUID) -> None:
        await api.create(ada, title="first")
        made = await api.create(ada, title="second")
        await change(api, ada, "PATCH", f"/{made['id']}/read")
        second, first = (await api.read(ada))["items"]
        assert (first["position"], first["seq"]) == (1, 1)
        assert (second["position"], second["seq"]) == (2, 3)
        assert second["delivery_status"]["in_app"] == "delivered"


class TestReadState:
    async def test_reading_counts_down_once_and_keeps_the_first_instant(
        self, api: Api, ada: UUID
    ) -> None:
        made, other = [await api.create(ada, type=kind) for kind in ("task", "billing")]
        path = f"/{made['id']}/read"
        read = await change(api, ada, "PATCH", path)
        assert set(read) == {"id", "read_at"}
        assert read["id"] == made["id"]
        assert read["read_at"] is not None
        assert await change(api, ada, "PATCH", path) == read
        assert await api.read(ada, "/unread-count") == {"count": 1, "by_type": {"billing": 1}}
        item = await api.read(ada, f"/{made['id']}")
        assert item["read_at"] == read["read_at"]
        unread = await change(api, ada, "PATCH", f"/{made['id']}/unread")
        assert unread == {"id": made["id"], "read_at": None}
        assert await change(api, ada, "PATCH", f"/{made['id']}/unread") == unread
        assert await api.read(ada, "/unread-count") == {
            "count": 2,
            "by_type": {"billing": 1, "task": 1},
        }
        # Two creates, one reading, one undoing; repeating is no change.
        assert (await api.read(ada))["seq"] == 4
        assert (await api.read(ada, f"/{other['id']}"))["seq"] == 2

    async def test_all_at_once_up_to_a_position_or_of_one_type(self, api: Api, ada: UUID) -> None:
        for kind in ("task", "billing", "task", "billing", "task"):
            await api.create(ada, type=kind)
        first = await change(api, ada, "POST", "/read-all", {"up_to": 3, "type": "task"})
        assert first == {"updated_count": 2}
        assert await api.read(ada, "/unread-count") == {
            "count": 3,
            "by_type": {"billing": 2, "task": 1},
        }
        assert await change(api, ada, "POST", "/read-all", {"type": "billing"}) == {
            "updated_count": 2
        }
        assert (await api.read(ada))["seq"] == 7  # each of them one change
        assert await change(api, ada, "POST", "/read-all") == {"updated_count": 1}
        assert await change(api, ada, "POST", "/read-all", {}) == {"updated_count": 0}
        page = await api.read(ada)
        assert (page["seq"], page["unread_count"]) == (8, 0)
        assert all(item["read_at"] for item in page["items"])
        assert await change(api, uuid4(), "POST", "/read-all") == {"updated_count": 0}

    @pytest.mark.parametrize(
        "body",
        [
            {"up_to": -1}, {"up_to": "3"}, {"up_to": 1.5}, {"up_to": 2**63}, {"type": "nothing"},
            {"other": 1}, [], "x",
        ],
    )  # fmt: skip
    async def test_a_bad_read_all_changes_nothing(self, api: Api, ada: UUID, body: Any) -> None:
        await api.create(ada)
        assert_refused(await call(api, ada, "POST", "/read-all", body), 422, "validation_error")
        assert (await api.read(ada))["unread_count"] == 1

    async def test_deleting_takes_out_for_good(self, api: Api, ada: UUID) -> None:
        unread, read = [await api.create(ada) for _ in range(2)]
        await change(api, ada, "PATCH", f"/{read['id']}/read")
        for made in (unread, read):
            answer = await call(api, ada, "DELETE", f"/{made['id']}")
            assert (answer.status_code, answer.content) == (204, b"")
            for method, path in (
                ("GET", ""), ("DELETE", ""), ("PATCH", "/read"), ("PATCH", "/unread"),
            ):  # fmt: skip
                again = await call(api, ada, method, f"/{made['id']}{path}")
                assert_refused(again, 404, "not_found")
        page = await api.read(ada)
        assert (page["items"], page["unread_count"], page["seq"]) == ([], 0, 5)
        # History keeps it.
        (row,) = await api.rows(
            "SELECT count(deleted_at) FROM notifications WHERE user_id = :user", user=ada
        )
        assert row.count == 2

    @pytest.mark.parametrize(
        ("method", "path"), [("PATCH", "/read"), ("PATCH", "/unread"), ("DELETE", "")]
    )
    async def test_what_is_anothers_is_not_there(
        self, api: Api, ada: UUID, method: str, path: str
    ) -> None:
        made = await api.create(ada)
        eve = await api.new_user()
        await api.create(eve)
        refused = await call(api, eve, method, f"/{made['id']}{path}")
        assert_refused(refused, 404, "not_found")
        assert_refused(await call(api, eve, method, f"/{uuid4()}{path}"), 404, "not_found")
        bad = await call(api, eve, method, f"/not-a-uuid{path}")
        assert_refused(bad, 422, "validation_error")
        assert (await api.read(ada))["seq"] == 1

    async def test_many_at_the_same_instant_count_right(self, api: Api, ada: UUID) -> None:
        made = [(await api.create(ada))["id"] for _ in range(6)]
        paths = [f"/{known}/{what}" for known in made for what in ("read", "read", "unread")]
        answers = await asyncio.gather(*(call(api, ada, "PATCH", path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}
        page = await api.read(ada)
        unread = sum(item["read_at"] is None for item in page["items"])
        assert page["unread_count"] == unread
        assert await api.read(ada, "/unread-count") == {
            "count": unread,
            "by_type": {"task": unread} if unread else {},
        }


class TestSync:
    async def test_tells_net_changes_in_the_order_of_their_numbers(
        self, api: Api, ada: UUID
    ) -> None:
        known = [(await api.create(ada, title=str(number)))["id"] for number in range(3)]
        since = (await api.read(ada))["seq"]
        new = await api.create(ada, title="new")
        fleeting = await api.create(ada, title="fleeting")
        await change(api, ada, "PATCH", f"/{known[0]}/read")
        for gone in (known[1], fleeting["id"]):
            assert (await call(api, ada, "DELETE", f"/{gone}")).status_code == 204
        told = await api.read(ada, f"/sync?since={since}")
        assert set(told) == {"items", "seq", "unread_count", "recovered", "has_more"}
        arrived, read, deleted, unseen = told["items"]
        assert (arrived["id"], arrived["seq"], arrived["position"]) == (new["id"], 4, 4)
        assert (read["id"], read["seq"], read["position"]) == (known[0], 6, 1)
        assert read["read_at"] is not None
        assert deleted == {"id": known[1], "seq": 7, "deleted": True}
        # Nobody knows what the client holds of what it asks for again.
        assert unseen == {"id": fleeting["id"], "seq": 8, "deleted": True}
        assert (told["seq"], told["unread_count"]) == (8, 2)
        assert (told["recovered"], told["has_more"]) == (True, False)
        assert (await api.read(ada, "/sync?since=8"))["items"] == []

    async def test_what_it_tells_is_delivered(self, api: Api, ada: UUID) -> None:
        await api.create(ada)
        (item,) = (await api.read(ada, "/sync?since=0"))["items"]
        assert item["delivery_status"]["in_app"] == "delivered"

    async def test_a_position_that_never_was_is_not_served(self, api: Api, ada: UUID) -> None:
        await api.create(ada)
        told = await api.read(ada, "/sync?since=9")
        assert told == {
            "items": [], "seq": 1, "unread_count": 1, "recovered": False, "has_more": False,
        }  # fmt: skip
        assert (await api.read(uuid4(), "/sync?since=0"))["recovered"] is True

    @pytest.mark.parametrize("query", ["", "?since=", "?since=-1", "?since=x", f"?since={2**63}"])
    async def test_since_is_a_position(self, api: Api, ada: UUID, query: str) -> None:
        assert_refused(await call(api, ada, "GET", f"/sync{query}"), 422, "validation_error")

    async def test_many_changes_come_in_parts(self, api: Api, ada: UUID) -> None:
        for _ in range(3):
            await asyncio.gather(*(api.create(ada) for _ in range(70)))
        seen: list[int] = []
        since = 0
        while True:
            part = await api.read(ada, f"/sync?since={since}")
            seen += [item["seq"] for item in part["items"]]
            since = part["seq"]
            if not part["has_more"]:
                break
        assert seen == list(range(1, 211))


class TestExpiry:
    async def test_what_expired_is_gone_from_lists_and_counts_at_once(
        self, api: Api, ada: UUID
    ) -> None:
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        fleeting = await api.create(ada, expires_at=soon, title="fleeting")
        await api.create(ada, title="lasting")
        assert (await api.read(ada))["unread_count"] == 2
        async with asyncio.timeout(20):
            while (await api.read(ada, "/unread-count"))["count"] == 2:
                await asyncio.sleep(0.1)
        page = await api.read(ada)
        assert [item["title"] for item in page["items"]] == ["lasting"]
        assert (page["unread_count"], page["seq"]) == (1, 3)
        told = await api.read(ada, "/sync?since=2")
        assert told["items"] == [{"id": fleeting["id"], "seq": 3, "deleted": True}]
        read = await call(api, ada, "PATCH", f"/{fleeting['id']}/read")
        assert_refused(read, 404, "not_found")
