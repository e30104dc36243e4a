"""What users choose, on PostgreSQL: seen by every process at once, and none of it lost."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.config import Settings
from app.db.database import driver_of
from app.errors import Busy
from app.pipeline import choices
from app.pipeline.announce import Announcement
from app.pipeline.decide import Defaults
from app.pipeline.receipt import Receipt
from app.policy.kinds import Channel, NotificationType
from app.policy.preferences import Preferences
from app.policy.routing import Request
from app.schemas.preferences import UpdateGlobalPreferences, UpdatePreference
from app.schemas.settings import UpdateSettings
from app.services.choice_changes import ChoiceChanges
from app.services.preference_service import PreferenceService
from app.services.settings_service import SettingsService
from tests.contract.callers import V1, Api, open_api
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, Stage
from tests.integration.test_push_queue import PUSH, Pushes
from tests.ports import free_ports

stage = test_pipeline.stage
pushes = test_push_queue.pushes
TASK = NotificationType.TASK
SILENCE: dict[str, Any] = {"quiet_hours": {str(day): [["00:00", "23:00"]] for day in range(1, 8)}}


@dataclass
class Choosing:
    """The services on the stage's database, and what tests ask of them."""

    pushes: Pushes
    told: list[Announcement] = field(default_factory=list[Announcement])

    def __post_init__(self) -> None:
        stage = self.stage
        changes = ChoiceChanges(
            stage.database,
            Defaults.from_settings(stage.settings),
            self.told.append,
            stage.clock,
        )
        self.preferences = PreferenceService(stage.database, changes, Preferences(), stage.clock)
        self.settings = SettingsService(stage.database, changes, stage.clock)

    @property
    def stage(self) -> Stage:
        return self.pushes.stage

    async def set_up(self, user: UUID, **fields: Any) -> None:
        await self.settings.update(user, UpdateSettings.model_validate(fields))

    async def choose(self, user: UUID, kind: NotificationType = TASK, **fields: Any) -> None:
        await self.preferences.update_type(user, kind, UpdatePreference.model_validate(fields))

    async def choose_for_all(self, user: UUID, **fields: Any) -> None:
        wanted = UpdateGlobalPreferences.model_validate(fields)
        await self.preferences.update_global(user, wanted)

    async def pause(self, user: UUID, until: datetime | None) -> None:
        await self.set_up(user, pause_until=None if until is None else until.isoformat())

    async def reader(self) -> UUID:
        """A user with a device."""
        user = await self.stage.user(email=None)
        await self.pushes.device(user)
        return user

    async def push(self, stored: Receipt) -> tuple[str, str, datetime | None]:
        row = await self.stage.delivery(stored, Channel.PUSH)
        return row.status, row.reason, row.next_attempt_at

    async def version(self, user: UUID) -> int:
        (row,) = await self.stage.rows(
            "SELECT choices_version FROM inbox_state WHERE user_id = :id", id=user
        )
        return row.choices_version


@pytest.fixture
def choosing(pushes: Pushes) -> Choosing:
    return Choosing(pushes)


# --- other processes -------------------------------------------------------------------------


@dataclass(frozen=True)
class Processes:
    """Two APIs on one database."""

    here: Api
    there: Api

    async def put(self, user: UUID, path: str, **body: Any) -> None:
        """Choose something here."""
        answer = await self.here.client.put(
            f"{V1}/notifications/{path}", json=body, headers=self.here.user(user)
        )
        assert answer.status_code == 200, answer.text

    async def decided(self, user: UUID) -> list[str]:
        """What is decided there for an email that shall go now."""
        return (await self.there.create(user, send_email=True))["channels"]


@pytest.fixture(params=["with Redis", "without Redis"])
async def processes(
    settings: Settings, request: pytest.FixtureRequest
) -> AsyncGenerator[Processes]:
    if request.param == "without Redis":
        (port,) = free_ports(1)
        url = SecretStr(f"redis://127.0.0.1:{port}/0")
        settings = settings.model_copy(update={"redis_url": url})
    async with AsyncExitStack() as stack:
        here, there = [await stack.enter_async_context(open_api(settings)) for _ in range(2)]
        yield Processes(here, there)


async def test_every_process_decides_by_what_was_chosen_last(processes: Processes) -> None:
    user = await processes.here.new_user(email="ada@example.com")
    on, off = ["in_app", "email"], ["in_app"]
    assert await processes.decided(user) == on
    await processes.put(user, "preferences/task", email_enabled=False)
    assert await processes.decided(user) == off
    await processes.put(user, "preferences/task", email_enabled=None)
    assert await processes.decided(user) == on
    await processes.put(user, "preferences/global", all="none")
    assert await processes.decided(user) == off
    await processes.put(user, "preferences/global", all="all", default_digest_frequency="never")
    assert await processes.decided(user) == off
    await processes.put(user, "preferences/task", digest_frequency="daily")
    assert await processes.decided(user) == on


async def test_so_does_every_process_for_users_never_heard_of(processes: Processes) -> None:
    user = uuid4()
    await processes.put(user, "preferences/task", email_enabled=False)
    path, headers = f"{V1}/internal/users/{user}", processes.there.internal()
    await processes.there.client.put(path, json={"email": "x@example.com"}, headers=headers)
    assert await processes.decided(user) == ["in_app"]


async def test_who_is_pushed_out_while_others_are_read_is_known_all_the_same(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "REMEMBERED", 1)
    cache = choices.ChoicesCache()
    old, new, *others = (uuid4() for _ in range(4))
    async with (
        stage.database.as_service() as waiting,
        stage.database.as_service() as holding,
    ):
        await holding.execute(text("LOCK TABLE notification_preferences"))
        await cache.read(await driver_of(holding), {old: 1})
        reading = asyncio.create_task(cache.read(await driver_of(waiting), {old: 1, new: 1}))
        await asyncio.sleep(0)
        await cache.read(await driver_of(holding), dict.fromkeys(others, 1))
        await holding.commit()
        assert await reading == dict.fromkeys((old, new), choices.NO_CHOICES)


# --- what is held ----------------------------------------------------------------------------


async def test_a_push_that_is_held_goes_out_when_the_pause_is_cleared(choosing: Choosing) -> None:
    user, stage = await choosing.reader(), choosing.stage
    until = START + timedelta(hours=5)
    await choosing.pause(user, until)
    stored = await stage.post(user, PUSH)
    assert await choosing.push(stored) == ("pending", "quiet_hours", until)
    assert await choosing.pushes.deliver() == 0
    assert choosing.told == []
    stage.clock.advance(minutes=1)
    await choosing.pause(user, None)
    assert await choosing.push(stored) == ("pending", "quiet_hours", stage.clock())
    push = await stage.delivery(stored, Channel.PUSH)
    assert choosing.told == [Announcement(delivery_ids=(push.id,))]
    assert await choosing.pushes.deliver() == 1
    assert [claim.id for claim in choosing.pushes.sender.claims] == [push.id]
    assert (await choosing.push(stored))[0] == "sent"


async def test_a_push_that_is_held_is_decided_by_what_was_chosen_meanwhile(
    choosing: Choosing,
) -> None:
    user, stage = await choosing.reader(), choosing.stage
    await choosing.set_up(user, **SILENCE)
    longer, never, now = [
        await stage.post(user, Request(kind))
        for kind in (NotificationType.TASK, NotificationType.BILLING, NotificationType.USER)
    ]
    until = START.replace(hour=23)
    for stored in (longer, never, now):
        assert await choosing.push(stored) == ("pending", "quiet_hours", until)
    # No schedule any more, but a window for one type; and another type's pushes are off.
    await choosing.choose(user, quiet_hours_start="10:00", quiet_hours_end="20:00")
    await choosing.choose(user, NotificationType.BILLING, push_enabled=False)
    await choosing.set_up(user, quiet_hours=None)
    assert len(choosing.told[-1].delivery_ids) == 3
    await choosing.pushes.deliver()
    assert await choosing.push(longer) == ("pending", "quiet_hours", START.replace(hour=20))
    assert (await choosing.push(never))[:2] == ("skipped", "preference_off")
    assert (await choosing.push(now))[0] == "sent"


async def test_a_new_timezone_moves_what_is_held(choosing: Choosing) -> None:
    user, stage = await choosing.reader(), choosing.stage
    await choosing.choose_for_all(user, quiet_hours_start="10:00", quiet_hours_end="20:00")
    stored = await stage.post(user, PUSH)
    assert await choosing.push(stored) == ("pending", "quiet_hours", START.replace(hour=20))
    await choosing.set_up(user, timezone="Asia/Tokyo")  # where it is 21:00
    await choosing.pushes.deliver()
    assert (await choosing.push(stored))[0] == "sent"


async def test_nothing_else_becomes_due(choosing: Choosing) -> None:
    user, other, stage = await choosing.reader(), await choosing.reader(), choosing.stage
    until = START + timedelta(hours=5)
    for somebody in (user, other):
        await choosing.pause(somebody, until)
    theirs = await stage.post(other, PUSH)
    leased, limited, dead, due = [await stage.post(user, PUSH) for _ in range(4)]
    for stored, change in (
        (leased, "lease_token = gen_random_uuid()"),
        (limited, "reason = 'user_limit'"),
        (dead, "status = 'failed'"),
        (due, "next_attempt_at = next_attempt_at - interval '6 hours'"),
    ):
        await stage.rows(
            f"UPDATE notification_deliveries SET {change}"
            " WHERE notification_id = :id AND channel = 'push' RETURNING id",
            id=stored.id,
        )
    before = [await choosing.push(stored) for stored in (theirs, leased, limited, dead, due)]
    await choosing.pause(user, None)
    after = [await choosing.push(stored) for stored in (theirs, leased, limited, dead, due)]
    assert after == before
    assert choosing.told == []


async def test_what_does_not_concern_it_leaves_a_held_push_alone(choosing: Choosing) -> None:
    user, stage = await choosing.reader(), choosing.stage
    until = START + timedelta(hours=5)
    await choosing.pause(user, until)
    stored = await stage.post(user, PUSH)
    version = await choosing.version(user)
    await choosing.set_up(user, locale="de")
    await choosing.set_up(user, locale="en", timezone=None, pause_until=until.isoformat())
    await choosing.choose(user, email_enabled=False, digest_frequency="weekly", digest_day=3)
    await choosing.choose(user, push_enabled=None, quiet_hours_days=None)
    await choosing.choose_for_all(user, default_digest_time="17:00")
    assert await choosing.push(stored) == ("pending", "quiet_hours", until)
    assert choosing.told == []
    assert await choosing.version(user) == version + 5  # the saves count all the same
    for save in (
        choosing.set_up(user, timezone="Asia/Tokyo"),
        choosing.choose_for_all(user, quiet_hours_days=[1]),
        choosing.choose(user, push_enabled=True),
        choosing.pause(user, until + timedelta(hours=1)),
    ):
        choosing.told.clear()
        await save
        assert len(choosing.told) == 1
        await choosing.pushes.deliver()


# --- at the same time ------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "never heard of"])
async def test_what_is_chosen_at_the_same_time_is_all_kept(
    choosing: Choosing, is_known: bool
) -> None:
    stage = choosing.stage
    user = await stage.user() if is_known else uuid4()
    of_type: list[dict[str, Any]] = [
        {"push_enabled": False},
        {"email_enabled": False},
        {"digest_frequency": "weekly"},
        {"digest_time": "10:11:12"},
        {"digest_day": 4},
        {"quiet_hours_start": "22:00:00", "quiet_hours_end": "08:00:00"},
        {"quiet_hours_days": [2, 3]},
    ]
    of_all: list[dict[str, Any]] = [
        {"all_push_enabled": False},
        {"default_digest_frequency": "instant"},
        {"default_digest_time": "13:14:15"},
        {"default_digest_day": 5},
        {"quiet_hours_start": "01:00:00", "quiet_hours_end": "02:00:00"},
        {"quiet_hours_days": []},
    ]
    of_user: list[dict[str, Any]] = [
        {"timezone": "Asia/Tokyo"},
        {"locale": "ja"},
        {"quiet_hours": {"1": [["22:00", "24:00"]]}},
        {"pause_until": (START + timedelta(hours=1)).isoformat()},
    ]
    saves: list[Awaitable[None]] = [
        *(choosing.choose(user, **fields) for fields in of_type),
        *(choosing.choose_for_all(user, **fields) for fields in of_all),
        *(choosing.set_up(user, **fields) for fields in of_user),
        *(choosing.choose(user, kind, digest_day=6) for kind in list(NotificationType)[-3:]),
    ]
    await asyncio.gather(*saves)
    rows = {
        row.notification_type: row
        for row in await stage.rows(
            "SELECT notification_type, push_enabled, email_enabled, digest_frequency,"
            " CAST(digest_time AS text) AS digest_time, digest_day,"
            " CAST(quiet_hours_start AS text) AS quiet_hours_start,"
            " CAST(quiet_hours_end AS text) AS quiet_hours_end, quiet_hours_days"
            " FROM notification_preferences WHERE user_id = :id",
            id=user,
        )
    }
    assert set(rows) == {"global", "task", "billing", "workflow", "agent"}
    for fields in of_type:
        for name, value in fields.items():
            assert getattr(rows["task"], name) == value, name
    for fields in of_all:
        for name, value in fields.items():
            column = name.removeprefix("all_").removeprefix("default_")
            assert getattr(rows["global"], column) == value, name
    assert rows["global"].email_enabled is None
    assert {rows[kind.value].digest_day for kind in list(NotificationType)[-3:]} == {6}
    told = (await choosing.settings.read(user)).model_dump()
    assert told == {
        "timezone": "Asia/Tokyo",
        "locale": "ja",
        "quiet_hours": {"1": [["22:00", "24:00"]]},
        "pause_until": START + timedelta(hours=1),
    }


async def test_a_save_that_waits_for_too_long_is_given_up_whole(choosing: Choosing) -> None:
    user, stage = await choosing.reader(), choosing.stage
    async with stage.database.group_as_service() as driver:
        await driver.fetch("SELECT FROM inbox_state WHERE user_id = $1 FOR UPDATE", user)
        saving = asyncio.create_task(choosing.choose(user, push_enabled=False))
        with pytest.raises(Busy):
            await saving
    assert await choosing.version(user) == 0
    await choosing.choose(user, push_enabled=False)
    assert (await stage.post(user, PUSH)).channels == (Channel.IN_APP,)
