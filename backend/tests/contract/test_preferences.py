"""Preferences and settings, as clients see them (REQ-017 to REQ-019, section 5.3)."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from app.policy.kinds import NotificationType
from tests.contract.callers import V1, Api, Json, assert_refused, open_api

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DEFAULTS: Json = {
    "push_enabled": True,
    "email_enabled": True,
    "in_app_enabled": True,
    "digest_frequency": "daily",
    "digest_time": "09:00:00",
    "digest_day": 1,
    "quiet_hours_start": None,
    "quiet_hours_end": None,
    "quiet_hours_days": [1, 2, 3, 4, 5],
    "updated_at": None,
}
GLOBAL_DEFAULTS: Json = {
    "all_push_enabled": True,
    "all_email_enabled": True,
    "default_digest_frequency": "daily",
    "default_digest_time": "09:00:00",
    "default_digest_day": 1,
    "quiet_hours_start": None,
    "quiet_hours_end": None,
    "quiet_hours_days": [1, 2, 3, 4, 5],
    "updated_at": None,
}
NO_SETTINGS: Json = {"timezone": None, "locale": None, "quiet_hours": None, "pause_until": None}
NIGHT = {"quiet_hours_start": "22:00", "quiet_hours_end": "08:00"}


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Person:
    """A user, and what they ask of the API."""

    api: Api
    id: UUID

    async def try_to_put(self, path: str, body: object) -> httpx.Response:
        return await self.api.client.put(
            f"{V1}/notifications/{path}", json=body, headers=self.api.user(self.id)
        )

    async def put(self, path: str, **body: Any) -> Json:
        answer = await self.try_to_put(path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def choose(self, kind: str, **body: Any) -> Json:
        return await self.put(f"preferences/{kind}", **body)

    async def preferences(self) -> Json:
        return await self.api.read(self.id, "/preferences")

    async def of(self, kind: str) -> Json:
        items = (await self.preferences())["items"]
        (item,) = [item for item in items if item["notification_type"] == kind]
        return item

    async def settings(self) -> Json:
        return await self.api.read(self.id, "/settings")

    async def everything(self) -> tuple[Json, Json]:
        return await self.preferences(), await self.settings()

    async def version(self) -> int:
        (row,) = await self.api.rows(
            "SELECT choices_version FROM inbox_state WHERE user_id = :id", id=self.id
        )
        return row.choices_version

    async def stored(self) -> list[str]:
        rows = await self.api.rows(
            "SELECT notification_type FROM notification_preferences WHERE user_id = :id"
            " ORDER BY notification_type",
            id=self.id,
        )
        return [row.notification_type for row in rows]


@pytest.fixture
async def ada(api: Api) -> Person:
    return Person(api, await api.new_user())


@pytest.fixture
async def nobody(api: Api) -> Person:
    """A user who was never heard of."""
    return Person(api, uuid4())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def driven(settings: Settings, clock: Clock) -> AsyncGenerator[Person]:
    """A user of an API whose time stands still."""
    async with open_api(settings, clock) as api:
        yield Person(api, await api.new_user())


# --- preferences -----------------------------------------------------------------------------


async def test_who_chose_nothing_has_the_defaults(ada: Person, nobody: Person) -> None:
    expected = {
        "items": [{"notification_type": kind.value, **DEFAULTS} for kind in NotificationType],
        "global": GLOBAL_DEFAULTS,
    }
    assert await ada.preferences() == expected
    assert await nobody.preferences() == expected


async def test_the_installations_defaults_are_shown(settings: Settings) -> None:
    changed = {"digest_default_time": "07:30", "digest_default_day": 5}
    async with open_api(settings.model_copy(update=changed)) as api:
        told = await api.read(uuid4(), "/preferences")
    assert {(item["digest_time"], item["digest_day"]) for item in told["items"]} == {
        ("07:30:00", 5)
    }
    assert told["global"]["default_digest_time"] == "07:30:00"
    assert told["global"]["default_digest_day"] == 5


async def test_choosing_for_a_type_answers_all_that_holds_for_it(driven: Person) -> None:
    chosen = await driven.choose(
        "task", push_enabled=True, email_enabled=False, digest_frequency="weekly",
        digest_time="18:30:00", digest_day=7, quiet_hours_days=[7, 6], **NIGHT,
    )  # fmt: skip
    assert chosen == {
        "notification_type": "task",
        "push_enabled": True,
        "email_enabled": False,
        "in_app_enabled": True,
        "digest_frequency": "weekly",
        "digest_time": "18:30:00",
        "digest_day": 7,
        "quiet_hours_start": "22:00:00",
        "quiet_hours_end": "08:00:00",
        "quiet_hours_days": [6, 7],
        "updated_at": "2026-03-02T12:00:00Z",
    }
    told = await driven.preferences()
    others = [item for item in told["items"] if item["notification_type"] != "task"]
    assert await driven.of("task") == chosen
    assert others == [
        {"notification_type": kind.value, **DEFAULTS}
        for kind in NotificationType
        if kind is not NotificationType.TASK
    ]
    assert told["global"] == GLOBAL_DEFAULTS


async def test_choosing_for_all_answers_all_that_holds(driven: Person) -> None:
    await driven.choose("billing", digest_frequency="instant")
    chosen = await driven.put(
        "preferences/global", all_push_enabled=False, default_digest_frequency="weekly",
        default_digest_time="08:15", default_digest_day=3, quiet_hours_days=[], **NIGHT,
    )  # fmt: skip
    items = chosen.pop("items")
    assert chosen == {
        "all_push_enabled": False,
        "all_email_enabled": True,
        "default_digest_frequency": "weekly",
        "default_digest_time": "08:15:00",
        "default_digest_day": 3,
        "quiet_hours_start": "22:00:00",
        "quiet_hours_end": "08:00:00",
        "quiet_hours_days": [],
        "updated_at": "2026-03-02T12:00:00Z",
    }
    assert await driven.preferences() == {"items": items, "global": chosen}
    assert [item["digest_frequency"] for item in items] == [
        "instant" if kind is NotificationType.BILLING else "weekly" for kind in NotificationType
    ]
    for item in items:
        assert item["push_enabled"] is False
        assert item["email_enabled"] is True
        assert (item["digest_time"], item["digest_day"]) == ("08:15:00", 3)
        assert (item["quiet_hours_start"], item["quiet_hours_end"]) == ("22:00:00", "08:00:00")
        assert item["quiet_hours_days"] == []


async def test_what_is_not_sent_stays_and_null_inherits_again(ada: Person) -> None:
    await ada.put("preferences/global", default_digest_frequency="weekly", all_email_enabled=True)
    await ada.choose("task", digest_frequency="instant", email_enabled=False, digest_day=4, **NIGHT)
    await ada.choose("task", quiet_hours_end="07:00:00")
    task = await ada.choose("task", digest_frequency=None, email_enabled=None)
    assert (task["digest_frequency"], task["email_enabled"]) == ("weekly", True)
    assert (task["digest_day"], task["quiet_hours_end"]) == (4, "07:00:00")
    task = await ada.choose("task", quiet_hours_start=None, quiet_hours_end=None, digest_day=None)
    assert (task["quiet_hours_start"], task["quiet_hours_end"]) == (None, None)
    assert task["updated_at"] is None
    told = await ada.put("preferences/global", default_digest_frequency=None)
    assert told["default_digest_frequency"] == "daily"
    assert told["all_email_enabled"] is True


async def test_each_save_says_when_it_was(driven: Person, clock: Clock) -> None:
    first = await driven.choose("task", push_enabled=False)
    clock.now += timedelta(minutes=1)
    second = await driven.choose("task", email_enabled=False)
    of_all = await driven.put("preferences/global", all="all")
    assert first["updated_at"] == "2026-03-02T12:00:00Z"
    assert second["updated_at"] == of_all["updated_at"] == "2026-03-02T12:01:00Z"
    assert {item["updated_at"] for item in of_all["items"]} == {None, second["updated_at"]}


async def test_off_for_all_vetoes_and_keeps_what_was_chosen_for_types(ada: Person) -> None:
    await ada.choose("task", push_enabled=True, email_enabled=False)
    await ada.choose("billing", push_enabled=False, email_enabled=True)
    before = await ada.preferences()
    off = await ada.put("preferences/global", all="none")
    assert (off["all_push_enabled"], off["all_email_enabled"]) == (False, False)
    for item in off["items"]:
        assert (item["push_enabled"], item["email_enabled"]) == (False, False)
        assert item["in_app_enabled"] is True
    # Chosen while all is off, it waits for all to be on again.
    assert (await ada.choose("agent", push_enabled=False))["push_enabled"] is False
    assert (await ada.choose("user", push_enabled=True))["push_enabled"] is False
    on = await ada.put("preferences/global", all="all")
    enabled = {i["notification_type"]: (i["push_enabled"], i["email_enabled"]) for i in on["items"]}
    assert enabled == {
        "system": (True, True),
        "user": (True, True),
        "task": (True, False),
        "security": (True, True),
        "billing": (False, True),
        "workflow": (True, True),
        "agent": (False, True),
    }
    assert before["items"][2] == await ada.of("task")


async def test_one_channel_may_be_off_for_all(ada: Person) -> None:
    told = await ada.put("preferences/global", all_email_enabled=False)
    assert {(item["push_enabled"], item["email_enabled"]) for item in told["items"]} == {
        (True, False)
    }
    told = await ada.put("preferences/global", all=None)
    assert (told["all_push_enabled"], told["all_email_enabled"]) == (True, True)
    assert told["updated_at"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"all": "none", "all_push_enabled": False},
        {"all": "all", "all_push_enabled": True, "all_email_enabled": True},
    ],
    ids=str,
)
async def test_saying_the_same_twice_is_no_contradiction(ada: Person, body: Json) -> None:
    told = await ada.put("preferences/global", **body)
    assert told["all_push_enabled"] is told["all_email_enabled"] is (body["all"] == "all")


async def test_push_and_email_may_both_be_off(ada: Person) -> None:
    task = await ada.choose("task", push_enabled=False, email_enabled=False, in_app_enabled=True)
    assert (task["push_enabled"], task["email_enabled"]) == (False, False)
    assert task["in_app_enabled"] is True


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("preferences/task", {}),
        ("preferences/task", {"in_app_enabled": True}),
        ("preferences/task", {"in_app_enabled": None}),
        ("preferences/global", {}),
        ("settings", {}),
    ],
)
async def test_saying_nothing_changes_nothing(
    ada: Person, nobody: Person, path: str, body: Json
) -> None:
    await ada.choose("task", push_enabled=False)
    await ada.put("settings", locale="de")
    before, version = await ada.everything(), await ada.version()
    shown = {
        "preferences/task": await ada.of("task"),
        "preferences/global": before[0]["global"] | {"items": before[0]["items"]},
        "settings": before[1],
    }
    assert await ada.put(path, **body) == shown[path]
    assert (await ada.everything(), await ada.version()) == (before, version)
    await nobody.put(path, **body)
    assert await nobody.api.rows("SELECT id FROM users WHERE id = :id", id=nobody.id) == []


async def test_every_save_counts(ada: Person) -> None:
    assert await ada.version() == 0
    await ada.choose("task", push_enabled=False)
    first = await ada.version()
    await ada.put("preferences/global", all="all")
    await ada.put("settings", timezone="Europe/Berlin")
    assert await ada.version() == first + 2 > 2


@pytest.mark.parametrize("kind", ["nonsense", "TASK", "task ", "0", "globals", "%00", "%2e%2e"])
async def test_an_unknown_type_is_not_there(ada: Person, kind: str) -> None:
    answer = await ada.try_to_put(f"preferences/{kind}", {"push_enabled": False})
    assert_refused(answer, 404, "not_found")


BAD_TIMES: list[Any] = [
    "", "9:00", "24:00", "09:60", "09:00:60", "09:00Z", "09:00:00+01:00", "09:00:00.5", "09",
    "0900", " 09:00", "09:00\n", "٠٩:٠٠", 900, 9.0, True, [], {},
]  # fmt: skip
BAD_DAYS: list[Any] = [0, 8, -1, 1.5, "1", "monday", True, [], 10**20]
BAD_LISTS: list[Any] = ["1", 1, {}, True, [[1]], [1, 2, 3, 4, 5, 6, 7, 8]]
BAD_SWITCHES: list[Any] = ["true", 1, 0, "on", [], {}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("push_enabled", "email_enabled") for value in BAD_SWITCHES),
        *(("in_app_enabled", value) for value in ("true", 1, 0)),
        *(("digest_frequency", value) for value in ("hourly", "", "DAILY", 1, True, ["daily"])),
        *(("digest_time", value) for value in BAD_TIMES),
        *(("quiet_hours_start", value) for value in BAD_TIMES),
        *(("quiet_hours_end", value) for value in BAD_TIMES),
        *(("digest_day", value) for value in BAD_DAYS),
        *(("quiet_hours_days", [1, value]) for value in (*BAD_DAYS, None)),
        *(("quiet_hours_days", value) for value in BAD_LISTS),
        ("all_push_enabled", True),
        ("notification_type", "task"),
        ("updated_at", "2026-01-01T00:00:00Z"),
        ("user_id", "0197a000-0000-7000-8000-000000000001"),
        ("nonsense", None),
    ],
)
async def test_what_is_no_preference_is_refused(ada: Person, field: str, value: object) -> None:
    before = await ada.preferences()
    answer = await ada.try_to_put("preferences/task", {"push_enabled": False, **{field: value}})
    details = assert_refused(answer, 422, "validation_error")
    assert details
    assert all(detail["path"].partition(".")[0] == field for detail in details)
    assert await ada.preferences() == before
    assert await ada.version() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("all_push_enabled", value) for value in BAD_SWITCHES),
        *(("all_email_enabled", value) for value in BAD_SWITCHES),
        *(("all", value) for value in ("some", "", True, ["all"])),
        *(("default_digest_frequency", value) for value in ("hourly", 1, True)),
        *(("default_digest_time", value) for value in BAD_TIMES),
        *(("default_digest_day", value) for value in BAD_DAYS),
        *(("quiet_hours_start", value) for value in BAD_TIMES),
        *(("quiet_hours_end", value) for value in BAD_TIMES),
        *(("quiet_hours_days", [1, value]) for value in BAD_DAYS),
        ("push_enabled", True),
        ("in_app_enabled", True),
        ("digest_time", "09:00"),
        ("items", []),
    ],
)
async def test_what_is_no_global_preference_is_refused(
    ada: Person, field: str, value: object
) -> None:
    before = await ada.preferences()
    body = {"default_digest_frequency": "weekly", **{field: value}}
    details = assert_refused(
        await ada.try_to_put("preferences/global", body), 422, "validation_error"
    )
    assert details
    assert all(detail["path"].partition(".")[0] == field for detail in details)
    assert await ada.preferences() == before


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("task", {"in_app_enabled": False}, [("in_app_enabled", "always_on")]),
        (
            "task",
            {"push_enabled": False, "email_enabled": False, "in_app_enabled": False},
            [("in_app_enabled", "always_on"), ("in_app_enabled", "at_least_one_channel")],
        ),
        (
            "global",
            {"all": "none", "all_push_enabled": True},
            [("all_push_enabled", "contradiction")],
        ),
        (
            "global",
            {"all": "all", "all_push_enabled": False, "all_email_enabled": None},
            [("all_push_enabled", "contradiction"), ("all_email_enabled", "contradiction")],
        ),
        ("task", {"digest_time": "09:00+00:00"}, [("digest_time", "local_time")]),
        ("task", {"quiet_hours_days": [1, 2, 1]}, [("quiet_hours_days", "duplicate_day")]),
        ("task", {"digest_day": 0}, [("digest_day", "greater_than_equal")]),
        ("global", {"default_digest_day": 8}, [("default_digest_day", "less_than_equal")]),
        ("task", {"nonsense": 1}, [("nonsense", "extra_forbidden")]),
    ],
)
async def test_a_refusal_says_why(
    ada: Person, kind: str, body: Json, expected: list[tuple[str, str]]
) -> None:
    answer = await ada.try_to_put(f"preferences/{kind}", body)
    details = assert_refused(answer, 422, "validation_error")
    assert [(detail["path"], detail["code"]) for detail in details] == expected


@pytest.mark.parametrize("kind", ["task", "global"])
@pytest.mark.parametrize(
    ("before", "body", "expected"),
    [
        ({}, {"quiet_hours_start": "22:00"}, ("quiet_hours_end", "incomplete_window")),
        ({}, {"quiet_hours_end": "08:00:00"}, ("quiet_hours_start", "incomplete_window")),
        ({}, NIGHT | {"quiet_hours_end": None}, ("quiet_hours_end", "incomplete_window")),
        (NIGHT, {"quiet_hours_end": None}, ("quiet_hours_end", "incomplete_window")),
        (NIGHT, {"quiet_hours_start": None}, ("quiet_hours_start", "incomplete_window")),
        ({}, NIGHT | {"quiet_hours_end": "22:00:00"}, ("quiet_hours_end", "empty_window")),
        (NIGHT, {"quiet_hours_end": "22:00"}, ("quiet_hours_end", "empty_window")),
        (NIGHT, {"quiet_hours_start": "08:00:00"}, ("quiet_hours_end", "empty_window")),
    ],
)
async def test_quiet_hours_are_judged_with_what_was_chosen_before(
    ada: Person, kind: str, before: Json, body: Json, expected: tuple[str, str]
) -> None:
    await ada.choose(kind, **before)
    shown, version = await ada.preferences(), await ada.version()
    answer = await ada.try_to_put(f"preferences/{kind}", body | {"quiet_hours_days": [7]})
    (detail,) = assert_refused(answer, 422, "validation_error")
    assert (detail["path"], detail["code"]) == expected
    assert (await ada.preferences(), await ada.version()) == (shown, version)


async def test_a_types_window_wins_and_its_days_are_a_choice_of_their_own(ada: Person) -> None:
    await ada.put("preferences/global", quiet_hours_days=[6, 7], **NIGHT)
    await ada.choose("task", quiet_hours_start="12:00", quiet_hours_end="13:00")
    await ada.choose("agent", quiet_hours_days=[])
    shown = {
        kind: [
            item[f"quiet_hours_{part}"]
            for item in [await ada.of(kind)]
            for part in ("start", "end", "days")
        ]
        for kind in ("task", "agent", "user")
    }
    assert shown == {
        "task": ["12:00:00", "13:00:00", [6, 7]],
        "agent": ["22:00:00", "08:00:00", []],
        "user": ["22:00:00", "08:00:00", [6, 7]],
    }


# --- settings --------------------------------------------------------------------------------


async def test_settings_are_what_is_stored(driven: Person, nobody: Person) -> None:
    assert await driven.settings() == NO_SETTINGS
    assert await nobody.settings() == NO_SETTINGS
    week = {
        "1": [["22:00", "08:00"], ["12:30", "13:00"]],
        "6": [["00:00", "24:00"]],
        "7": [],
    }
    stored = await driven.put(
        "settings",
        timezone="Europe/Berlin",
        locale="de-AT",
        quiet_hours=week,
        pause_until="2026-03-09T00:00:00+01:00",
    )
    assert stored == {
        "timezone": "Europe/Berlin",
        "locale": "de-AT",
        "quiet_hours": week,
        "pause_until": "2026-03-08T23:00:00Z",
    }
    assert await driven.settings() == stored


async def test_settings_merge_and_null_resets(driven: Person) -> None:
    await driven.put("settings", timezone="Asia/Tokyo", locale="ja", quiet_hours={})
    stored = await driven.put("settings", locale=None, pause_until="2026-03-03T00:00:00Z")
    assert stored == {
        "timezone": "Asia/Tokyo",
        "locale": None,
        "quiet_hours": {},
        "pause_until": "2026-03-03T00:00:00Z",
    }
    assert await driven.put("settings", **NO_SETTINGS) == NO_SETTINGS


async def test_settings_are_shared_with_the_platform(ada: Person) -> None:
    path, headers = f"{V1}/internal/users/{ada.id}", ada.api.internal()
    body = {"email": "ada@example.com", "timezone": "Europe/London", "locale": "en-GB"}
    await ada.api.client.put(path, json=body, headers=headers)
    assert (await ada.settings())["timezone"] == "Europe/London"
    await ada.put("settings", timezone="Asia/Tokyo")
    known = (await ada.api.client.put(path, json={}, headers=headers)).json()
    assert known == {"id": str(ada.id), "full_name": None, "attributes": {}} | body | {
        "timezone": "Asia/Tokyo"
    }


async def test_a_pause_that_is_over_is_none(driven: Person, clock: Clock) -> None:
    await driven.put("settings", pause_until="2026-03-02T13:00:00Z", locale="de")
    clock.now += timedelta(minutes=59)
    assert (await driven.settings())["pause_until"] == "2026-03-02T13:00:00Z"
    clock.now += timedelta(minutes=1)
    assert (await driven.settings())["pause_until"] is None
    assert (await driven.put("settings", locale="fr"))["pause_until"] is None


async def test_a_pause_may_last_a_year(driven: Person) -> None:
    stored = await driven.put("settings", pause_until="2027-03-02T12:00:00Z")
    assert stored["pause_until"] == "2027-03-02T12:00:00Z"


DAYTIME = [["06:00", "24:00"]]
ALL_WEEK = {str(day): [["00:00", "24:00"]] for day in range(1, 8)}


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"timezone": "../etc"}, "timezone", "value_error"),
        ({"timezone": "europe/berlin"}, "timezone", "value_error"),
        ({"timezone": "localtime"}, "timezone", "value_error"),
        ({"timezone": "UTC+1"}, "timezone", "value_error"),
        ({"timezone": ""}, "timezone", "value_error"),
        ({"timezone": 1}, "timezone", "string_type"),
        ({"locale": "../de"}, "locale", "string_pattern_mismatch"),
        ({"locale": 1}, "locale", "string_type"),
        ({"pause_until": "2026-03-02T12:00:00Z"}, "pause_until", "in_the_past"),
        ({"pause_until": "2020-01-01T00:00:00Z"}, "pause_until", "in_the_past"),
        ({"pause_until": "2027-03-04T00:00:00Z"}, "pause_until", "too_far_ahead"),
        ({"pause_until": "2026-03-03T00:00:00"}, "pause_until", "timezone_aware"),
        ({"pause_until": "tomorrow"}, "pause_until", "value_error"),
        ({"pause_until": 1_800_000_000}, "pause_until", "value_error"),
        ({"quiet_hours": []}, "quiet_hours", "dict_type"),
        ({"quiet_hours": {"0": []}}, "quiet_hours.0.[key]", "literal_error"),
        ({"quiet_hours": {"8": []}}, "quiet_hours.8.[key]", "literal_error"),
        ({"quiet_hours": {"mon": []}}, "quiet_hours.mon.[key]", "literal_error"),
        ({"quiet_hours": {"1": None}}, "quiet_hours.1", "list_type"),
        ({"quiet_hours": {"1": ["22:00", "08:00"]}}, "quiet_hours.1.0", "tuple_type"),
        ({"quiet_hours": {"1": [["22:00"]]}}, "quiet_hours.1.0.1", "missing"),
        ({"quiet_hours": {"1": [["22:00", "23:00", "x"]]}}, "quiet_hours.1.0", "too_long"),
        ({"quiet_hours": {"1": [["22:00", "22:00"]]}}, "quiet_hours.1.0", "empty_window"),
        (
            {"quiet_hours": {"1": [["24:00", "08:00"]]}},
            "quiet_hours.1.0.0",
            "string_pattern_mismatch",
        ),
        (
            {"quiet_hours": {"1": [["22:00:00", "08:00"]]}},
            "quiet_hours.1.0.0",
            "string_pattern_mismatch",
        ),
        (
            {"quiet_hours": {"1": [["22:00", "24:01"]]}},
            "quiet_hours.1.0.1",
            "string_pattern_mismatch",
        ),
        (
            {"quiet_hours": {"1": [["22:00", "08:00Z"]]}},
            "quiet_hours.1.0.1",
            "string_pattern_mismatch",
        ),
        ({"quiet_hours": {"1": [["01:00", "02:00"]] * 9}}, "quiet_hours.1", "too_long"),
        ({"quiet_hours": ALL_WEEK}, "quiet_hours", "always_quiet"),
        ({"nonsense": None}, "nonsense", "extra_forbidden"),
        ({"email": "ada@example.com"}, "email", "extra_forbidden"),
    ],
    ids=str,
)
async def test_what_is_no_setting_is_refused(
    driven: Person, body: Json, path: str, code: str
) -> None:
    answer = await driven.try_to_put("settings", {"locale": "de", **body})
    details = assert_refused(answer, 422, "validation_error")
    assert (details[0]["path"], details[0]["code"]) == (path, code)
    assert (await driven.settings(), await driven.version()) == (NO_SETTINGS, 0)


@pytest.mark.parametrize(
    ("week", "leaves_time"),
    [
        (ALL_WEEK, False),
        (ALL_WEEK | {"7": [["00:00", "23:59"]]}, True),
        (ALL_WEEK | {"1": [["00:01", "24:00"]]}, True),
        (ALL_WEEK | {"3": []}, True),
        # What Sunday's night reaches into is Monday.
        (ALL_WEEK | {"1": DAYTIME, "7": [["06:00", "05:59"]]}, True),
        (ALL_WEEK | {"1": DAYTIME, "7": [["00:00", "24:00"], ["22:00", "06:00"]]}, False),
        ({str(day): [["08:00", "20:00"], ["20:00", "08:00"]] for day in range(1, 8)}, False),
        ({str(day): [["08:00", "20:00"], ["20:01", "08:00"]] for day in range(1, 8)}, True),
        ({str(day): [["12:00", "00:00"], ["00:00", "12:00"]] for day in range(1, 8)}, False),
    ],
)
async def test_a_week_must_have_a_minute_that_is_not_quiet(
    ada: Person, week: Json, leaves_time: bool
) -> None:
    answer = await ada.try_to_put("settings", {"quiet_hours": week})
    assert answer.status_code == (200 if leaves_time else 422)


# --- whose ------------------------------------------------------------------------------------


async def test_nobody_sees_or_changes_what_another_chose(ada: Person) -> None:
    eve = Person(ada.api, await ada.api.new_user())
    await ada.choose("task", push_enabled=False)
    await ada.put("settings", timezone="Asia/Tokyo")
    hers = await ada.everything()
    assert (await eve.of("task"))["push_enabled"] is True
    assert await eve.settings() == NO_SETTINGS
    await eve.put("preferences/global", all="none")
    await eve.choose("task", email_enabled=False)
    await eve.put("settings", locale="de")
    assert await ada.everything() == hers


async def test_who_was_never_heard_of_may_choose(nobody: Person) -> None:
    await nobody.choose("task", push_enabled=False)
    await nobody.put("settings", timezone="Asia/Tokyo")
    assert (await nobody.of("task"))["push_enabled"] is False
    assert (await nobody.settings())["timezone"] == "Asia/Tokyo"
    assert await nobody.version() > 0
    # Their platform reports them afterwards: what they chose stays.
    path, headers = f"{V1}/internal/users/{nobody.id}", nobody.api.internal()
    await nobody.api.client.put(path, json={"email": "x@example.com"}, headers=headers)
    assert (await nobody.of("task"))["push_enabled"] is False
    assert (await nobody.settings())["timezone"] == "Asia/Tokyo"


async def test_new_users_have_a_global_row_that_chooses_nothing(ada: Person) -> None:
    assert await ada.stored() == ["global"]
    assert (await ada.preferences())["global"] == GLOBAL_DEFAULTS
    await ada.put("preferences/global", all="none")
    path = f"{V1}/internal/users/{ada.id}"
    await ada.api.client.put(path, json={}, headers=ada.api.internal())
    assert await ada.stored() == ["global"]
    assert (await ada.preferences())["global"]["all_push_enabled"] is False


async def test_nobody_has_more_than_eight_rows(ada: Person) -> None:
    for _ in range(2):
        for kind in NotificationType:
            await ada.choose(kind.value, push_enabled=False)
        await ada.put("preferences/global", all="all")
    assert await ada.stored() == sorted([*(kind.value for kind in NotificationType), "global"])
