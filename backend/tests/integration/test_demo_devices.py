"""A demo installation's devices: there once the sandbox is, and no more of them at each start."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.channels.base import TokenVerdict
from app.config import Settings
from app.db.database import Database
from app.load_settings import load_settings
from app.pipeline.decide import Defaults
from app.pipeline.deliver import utc_now
from app.pipeline.keyring import Keyring
from app.policy.kinds import DeviceKind, DigestFrequency
from app.policy.preferences import Preferences
from app.sandbox.server import serving_sandbox
from app.schemas.preferences import UpdateGlobalPreferences
from app.schemas.push import Subscription
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from app.services.choice_changes import ChoiceChanges
from app.services.demo_service import (
    DEMO_USERS,
    choose_instant_email,
    seed_demo_users,
    subscribe_demo_devices,
)
from app.services.preference_service import PreferenceService
from app.services.push_service import PushService
from tests.http_client import client_of
from tests.ports import free_ports

PATIENCE = 20.0


@dataclass
class Demo:
    """What the API of a demo installation has."""

    keyring: Keyring
    push: PushService
    url: str

    async def start(self) -> None:
        """What happens at each start of the API."""
        async with asyncio.timeout(PATIENCE):
            await subscribe_demo_devices(self.url, self.keyring, self.push)

    async def devices(self) -> list[Subscription]:
        return list((await self.push.listed(DEMO_USERS[0].id)).items)


async def any_token(_token: str) -> TokenVerdict:
    return TokenVerdict.VALID


@pytest.fixture
async def demo(fresh_settings: Settings, tmp_path: Path) -> AsyncGenerator[Demo]:
    async with AsyncExitStack() as stack:
        database = Database(fresh_settings)
        stack.push_async_callback(database.close)
        await seed_demo_users(database, Defaults.from_settings(fresh_settings))
        sandbox = load_settings(_env_file=None, data_dir=tmp_path)
        url = await stack.enter_async_context(serving_sandbox(sandbox))
        outbound = await stack.enter_async_context(Outbound(AddressRules(allow_loopback=True)))
        keys = fresh_settings.encryption_keys
        push = PushService(database, keys, outbound, any_token, lambda _: None, utc_now)
        yield Demo(Keyring(fresh_settings, database, utc_now), push, url)


@pytest.fixture
async def preferences(fresh_settings: Settings) -> AsyncGenerator[PreferenceService]:
    async with AsyncExitStack() as stack:
        database = Database(fresh_settings)
        stack.push_async_callback(database.close)
        await seed_demo_users(database, Defaults.from_settings(fresh_settings))
        defaults = Defaults.from_settings(fresh_settings)
        changes = ChoiceChanges(database, defaults, lambda _: None, utc_now)
        yield PreferenceService(database, changes, Preferences(), utc_now)


async def test_the_first_demo_user_has_a_browser_and_a_phone(demo: Demo) -> None:
    await demo.start()
    phone, web = await demo.devices()
    assert (web.kind, phone.kind) == ("web", "fcm")
    assert web.key_id == (await demo.keyring.newest()).id
    async with client_of(demo.url) as sandbox:
        browser = (await sandbox.get("/push/browsers/demo")).json()
    assert web.endpoint == browser["endpoint"]


async def test_the_first_demo_user_is_emailed_at_once_until_they_choose(
    preferences: PreferenceService,
) -> None:
    user_id = DEMO_USERS[0].id
    await choose_instant_email(preferences)
    chosen = (await preferences.listed(user_id)).of_all
    assert chosen.default_digest_frequency == DigestFrequency.INSTANT
    wanted = UpdateGlobalPreferences.model_validate({"default_digest_frequency": "weekly"})
    await preferences.update_global(user_id, wanted)
    await choose_instant_email(preferences)
    chosen = (await preferences.listed(user_id)).of_all
    assert chosen.default_digest_frequency == DigestFrequency.WEEKLY


async def test_another_start_finds_them(demo: Demo) -> None:
    await demo.start()
    before = await demo.devices()
    await demo.start()
    assert [device.id for device in await demo.devices()] == [device.id for device in before]


async def test_a_browser_for_the_new_key_takes_the_old_ones_place(demo: Demo) -> None:
    await demo.start()
    before = {device.kind: device for device in await demo.devices()}
    key = await demo.keyring.rotate()
    await demo.start()
    after = {device.kind: device for device in await demo.devices()}
    assert len(after) == len(await demo.devices()) == 2
    assert after[DeviceKind.FCM] == before[DeviceKind.FCM]
    assert after[DeviceKind.WEB].id != before[DeviceKind.WEB].id
    assert after[DeviceKind.WEB].key_id == key.id


async def test_the_sandbox_may_come_later(demo: Demo, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    demo.url = f"http://127.0.0.1:{port}"
    starting = asyncio.create_task(demo.start())
    await asyncio.sleep(0)
    assert not starting.done()
    settings = load_settings(_env_file=None, data_dir=tmp_path / "later")
    async with serving_sandbox(settings, port=port):
        await starting
    assert len(await demo.devices()) == 2
