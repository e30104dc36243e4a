"""Demo users of a development installation, and what the first has: devices, instant email."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import httpx
import structlog

from app.db.database import Database
from app.errors import NotifyError
from app.pipeline.decide import Defaults
from app.pipeline.keyring import Keyring
from app.policy.kinds import DigestFrequency
from app.schemas.preferences import UpdateGlobalPreferences
from app.schemas.push import Subscribe
from app.schemas.user import UpsertUser
from app.services.preference_service import PreferenceService
from app.services.push_service import PushService
from app.services.user_service import UserService

log = structlog.get_logger()

DEMO_SERVICE = "demo"
DEMO_BROWSER: Final = {"platform": "web", "device_name": "Sandbox browser"}
DEMO_PHONE: Final = {"platform": "android", "device_name": "Sandbox phone"}
INSTANT_EMAIL: Final = UpdateGlobalPreferences.model_validate(
    {"default_digest_frequency": DigestFrequency.INSTANT}
)
FIRST_PAUSE: Final = 0.5  # seconds until the sandbox is asked again, twice as long each time
LONGEST_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class DemoUser:
    """Somebody to sign in as."""

    id: UUID
    full_name: str
    email: str
    timezone: str
    locale: str


DEMO_USERS = (
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000001"),
        "Ada Lovelace",
        "ada@example.com",
        "Europe/London",
        "en",
    ),
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000002"),
        "Emmy Noether",
        "emmy@example.com",
        "Europe/Berlin",
        "de",
    ),
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000003"),
        "Muhammad al-Khwarizmi",
        "muhammad@example.com",
        "Asia/Baghdad",
        "ar",
    ),
)


async def seed_demo_users(database: Database, defaults: Defaults) -> None:
    """Make sure the demo users are there."""
    users = UserService(database, defaults)
    for user in DEMO_USERS:
        await users.upsert(
            user.id,
            UpsertUser(
                email=user.email,
                full_name=user.full_name,
                timezone=user.timezone,
                locale=user.locale,
            ),
        )


async def choose_instant_email(preferences: PreferenceService) -> None:
    """Have the first demo user emailed at once, so that emails are seen, until they choose."""
    user_id = DEMO_USERS[0].id
    try:
        if (await preferences.listed(user_id)).of_all.updated_at is None:
            await preferences.update_global(user_id, INSTANT_EMAIL)
    except NotifyError as error:
        log.debug("demo_email_not_chosen", error=type(error).__name__)


async def subscribe_demo_devices(sandbox_url: str, keyring: Keyring, push: PushService) -> None:
    """Give the first demo user a browser and a phone of the sandbox's, once it runs.

    A restart finds both subscribed; a browser that a newer key was made for since replaces the
    one before.
    """
    user_id, pause = DEMO_USERS[0].id, FIRST_PAUSE
    async with httpx.AsyncClient(base_url=sandbox_url) as sandbox:
        while True:
            try:
                await push.subscribe(user_id, await _demo_browser(sandbox, keyring, push))
                if push.takes_apps:
                    await push.subscribe(user_id, await _demo_phone(sandbox))
            except (httpx.HTTPError, NotifyError, LookupError, ValueError) as error:
                log.debug("demo_devices_not_subscribed", error=type(error).__name__)
            else:
                return
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)


async def _demo_browser(
    sandbox: httpx.AsyncClient, keyring: Keyring, push: PushService
) -> Subscribe:
    key = await keyring.newest()
    made = await _made(sandbox, "/push/browsers/demo", {"application_server_key": key.public_text})
    former = next(
        (
            device.id
            for device in (await push.listed(DEMO_USERS[0].id)).items
            if device.device_info.get("device_name") == DEMO_BROWSER["device_name"]
            and device.endpoint != made["endpoint"]
        ),
        None,
    )
    wanted = {"subscription": made, "key_id": key.id, "device_info": DEMO_BROWSER}
    return Subscribe.model_validate({**wanted, "replaces": former})


async def _demo_phone(sandbox: httpx.AsyncClient) -> Subscribe:
    made = await _made(sandbox, "/fcm/phones/demo", {"platform": DEMO_PHONE["platform"]})
    return Subscribe.model_validate({"fcm_token": made["token"], "device_info": DEMO_PHONE})


async def _made(sandbox: httpx.AsyncClient, path: str, wanted: dict[str, str]) -> dict[str, Any]:
    answer = await sandbox.put(path, json=wanted)
    answer.raise_for_status()
    return answer.json()
