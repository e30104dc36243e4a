"""The VAPID keyring on PostgreSQL: one key at first, one more each month, none lost (SEC-003)."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.config import ConfigurationError, Settings
from app.db.database import Database
from app.errors import ValidationFailed
from app.pipeline.decide import Defaults
from app.pipeline.keyring import Keyring
from app.pipeline.tidy import Tidier
from app.schemas.push import Subscribe
from app.schemas.user import UpsertUser
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from app.security.vapid_keys import VapidKey, encoded, new_key
from app.services.push_service import PushService
from app.services.user_service import UserService
from tests.contract.callers import browser
from tests.stack import NOTIFY

START = datetime(2026, 1, 8, 12, tzinfo=UTC)
MONTH = timedelta(days=30)


@dataclass
class Ring:
    """A database of its own, and keyrings of several processes on it."""

    settings: Settings
    database: Database
    now: datetime = START
    services: list[PushService] = field(default_factory=list[PushService])

    def clock(self) -> datetime:
        return self.now

    def process(self, **settings: Any) -> Keyring:
        changed = self.settings.model_copy(update=settings)
        return Keyring(changed, self.database, self.clock)

    async def tidy(self, keyring: Keyring | None = None) -> None:
        await Tidier(self.database, keyring or self.process(), MONTH, 3 * MONTH, self.clock).tidy()

    async def rows(self, query: str, **parameters: object) -> Sequence[Any]:
        async with self.database.as_service() as connection:
            return (await connection.execute(text(query), parameters)).all()

    async def stored(self) -> list[str]:
        """Ids of all keys there ever were, newest first."""
        rows = await self.rows("SELECT id FROM vapid_keys ORDER BY created_at DESC, id DESC")
        return [row.id for row in rows]

    async def subscribe(self, key_id: str | None) -> UUID:
        user_id = uuid4()
        users = UserService(self.database, Defaults.from_settings(self.settings))
        await users.upsert(user_id, UpsertUser())
        wanted = {"subscription": browser(), "key_id": key_id}
        return (await self.services[0].subscribe(user_id, Subscribe.model_validate(wanted))).id


@pytest.fixture
async def ring(fresh_settings: Settings) -> AsyncGenerator[Ring]:
    database = Database(fresh_settings)
    async with Outbound(AddressRules.from_settings(fresh_settings)) as outbound:
        ring = Ring(fresh_settings, database)
        keys = fresh_settings.encryption_keys
        ring.services.append(
            PushService(database, keys, outbound, None, lambda _: None, ring.clock)
        )
        yield ring
    await database.close()


def pair(key: VapidKey) -> dict[str, object]:
    scalar = SecretStr(encoded(key.scalar))
    return {"vapid_public_key": key.public_text, "vapid_private_key": scalar}


async def test_of_many_first_looks_one_makes_the_key(ring: Ring) -> None:
    keyrings = [ring.process() for _ in range(12)]
    keys = await asyncio.gather(*(keyring.newest() for keyring in keyrings))
    assert {key.id for key in keys} == set(await ring.stored())
    assert len(await ring.stored()) == 1
    assert len({key.scalar for key in keys}) == 1


async def test_the_private_half_is_not_readable(ring: Ring) -> None:
    key = await ring.process().newest()
    ((stored,),) = await ring.rows("SELECT v::text FROM vapid_keys v")
    for form in (key.scalar.hex(), base64.b64encode(key.scalar).decode(), encoded(key.scalar)):
        assert form not in stored


async def test_a_configured_pair_is_taken_over_once(ring: Ring) -> None:
    configured = new_key(START)
    keyrings = [ring.process(**pair(configured)) for _ in range(8)]
    keys = await asyncio.gather(*(keyring.newest() for keyring in keyrings))
    assert {key.id for key in keys} == {configured.id}
    assert await ring.stored() == [configured.id]
    ring.now += timedelta(days=1)
    rotated = await keyrings[0].rotate()
    # It is still configured, and still not the newest.
    assert (await ring.process(**pair(configured)).newest()).id == rotated.id
    assert await ring.stored() == [rotated.id, configured.id]


async def test_a_pair_that_is_configured_later_is_the_newest(ring: Ring) -> None:
    made = await ring.process().newest()
    ring.now += timedelta(minutes=1)
    configured = new_key(START)
    assert (await ring.process(**pair(configured)).newest()).id == configured.id
    assert await ring.stored() == [configured.id, made.id]


async def test_a_pair_that_does_not_match_stops_the_start(ring: Ring) -> None:
    wrong = pair(new_key(START)) | {"vapid_public_key": new_key(START).public_text}
    with pytest.raises(ConfigurationError, match="VAPID_PUBLIC_KEY"):
        ring.process(**wrong)


async def test_several_workers_rotate_once_a_month(ring: Ring) -> None:
    first = await ring.process().newest()
    ring.now += MONTH - timedelta(seconds=1)
    await ring.tidy()
    assert await ring.stored() == [first.id]
    ring.now += timedelta(seconds=1)
    keyrings = [ring.process() for _ in range(6)]
    await asyncio.gather(*(ring.tidy(keyring) for keyring in keyrings))
    newest, *others = await ring.stored()
    assert others == [first.id]
    for keyring in keyrings:
        assert (await keyring.newest()).id == newest
        assert [key.id for key in await keyring.all()] == [newest, first.id]


async def test_a_process_that_knows_nothing_of_a_new_key_finds_it(ring: Ring) -> None:
    keyring = ring.process()
    first = await keyring.newest()
    ring.now += timedelta(hours=1)
    second = await ring.process().rotate()
    assert (await keyring.newest()).id == first.id  # for a minute
    found = await keyring.get(second.id)
    assert found is not None
    assert found.scalar == second.scalar
    assert await keyring.get("no-such-key") is None


async def test_subscriptions_keep_their_key_until_none_needs_it(ring: Ring) -> None:
    keyring = ring.process()
    first = await keyring.newest()
    device = await ring.subscribe(first.id)
    ring.now += MONTH
    await ring.tidy(keyring)
    ring.now += timedelta(days=2)
    await ring.tidy(keyring)
    assert await keyring.get(first.id) is not None
    assert await ring.rows("SELECT vapid_key_id FROM push_subscriptions") == [(first.id,)]

    await ring.rows("DELETE FROM push_subscriptions WHERE id = :id RETURNING id", id=device)
    await ring.tidy(keyring)
    assert await keyring.get(first.id) is None
    (row,) = await ring.rows("SELECT * FROM vapid_keys WHERE id = :id", id=first.id)
    assert (row.private_key, row.retired_at) == (b"", ring.now)
    with pytest.raises(ValidationFailed) as refused:
        await ring.subscribe(first.id)
    assert [detail["code"] for detail in refused.value.details] == ["unknown_key"]


async def test_a_key_outlives_those_who_fetched_it_just_before(ring: Ring) -> None:
    keyring = ring.process()
    first = await keyring.newest()
    ring.now += MONTH
    await ring.tidy(keyring)
    ring.now += timedelta(hours=23)
    await ring.tidy(keyring)
    assert await keyring.get(first.id) is not None
    await ring.subscribe(first.id)
    ring.now += timedelta(hours=2)
    await ring.tidy(keyring)
    assert await keyring.get(first.id) is not None


async def test_who_did_not_say_their_key_keeps_those_that_it_may_be(ring: Ring) -> None:
    keyring = ring.process()
    before = await keyring.newest()
    ring.now += timedelta(hours=1)
    device = await ring.subscribe(None)
    ring.now += timedelta(hours=1)
    after = await keyring.rotate()
    ring.now += timedelta(hours=1)
    newest = await keyring.rotate()
    ring.now += timedelta(days=2)
    assert await keyring.retire() == [after.id]  # which came after the subscription
    query = "UPDATE push_subscriptions SET vapid_key_id = :key WHERE id = :id RETURNING id"
    await ring.rows(query, key=newest.id, id=device)
    assert await keyring.retire() == [before.id]
    assert await keyring.retire() == []


async def test_subscribing_and_retiring_at_once_leaves_nobody_without_a_key(ring: Ring) -> None:
    keyring = ring.process()
    for _ in range(10):
        old = await keyring.newest()
        await keyring.rotate()
        ring.now += timedelta(days=2)
        results = await asyncio.gather(
            *(ring.subscribe(old.id) for _ in range(4)), keyring.retire(), return_exceptions=True
        )
        assert all(isinstance(item, UUID | list | ValidationFailed) for item in results), results
    stranded = await ring.rows(
        "SELECT p.id FROM push_subscriptions p JOIN vapid_keys k ON k.id = p.vapid_key_id"
        " WHERE k.retired_at IS NOT NULL"
    )
    assert stranded == []


async def test_another_encryption_key_takes_over(ring: Ring) -> None:
    made = await ring.process().newest()
    (current,) = ring.settings.encryption_keys
    fresh = os.urandom(32)
    await ring.tidy(ring.process(encryption_keys=(fresh, current)))
    assert (await ring.process(encryption_keys=(fresh,)).newest()).scalar == made.scalar


async def test_a_key_that_cannot_be_read_is_superseded(ring: Ring) -> None:
    lost = await ring.process().newest()
    found = await ring.process(encryption_keys=(os.urandom(32),)).newest()
    assert found.id != lost.id


# --- operators -------------------------------------------------------------------------------


async def notify(ring: Ring, *arguments: str) -> str:
    settings = ring.settings
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.notification_encryption_key is not None
    environment = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "DATA_DIR": str(settings.data_dir),
        "NOTIFICATION_ENCRYPTION_KEY": settings.notification_encryption_key.get_secret_value(),
    }
    program = await asyncio.create_subprocess_exec(
        NOTIFY,
        "vapid",
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        cwd=settings.data_dir,
    )
    output, _ = await program.communicate()
    assert program.returncode == 0
    return output.decode()


async def test_operators_see_the_keys_and_rotate_them(ring: Ring) -> None:
    keyring = ring.process()
    first = await keyring.newest()
    await ring.subscribe(first.id)
    rotated = (await notify(ring, "rotate")).split()[0]
    lines = [json.loads(line) for line in (await notify(ring, "show", "--json")).splitlines()]
    shown = [(line["key_id"], line["state"], line["subscriptions"]) for line in lines]
    assert shown == [(rotated, "newest", 0), (first.id, "superseded", 1)]
    assert lines[1]["public_key"] == first.public_text
    told = await notify(ring, "show")
    assert rotated in told
    assert encoded(first.scalar) not in told + json.dumps(lines)
