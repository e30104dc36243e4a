"""Devices on PostgreSQL: tokens at rest, successors that inherit, and what happens at once."""

import asyncio
import base64
import hashlib
import os
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from app.channels.base import Outcome, Retry, TokenVerdict, fcm_token_context
from app.errors import EndpointInUse, ValidationFailed
from app.pipeline.announce import Announcement
from app.policy.kinds import Channel, Reason
from app.schemas.push import Subscribe, Subscribed
from app.security.address_rules import AddressRules
from app.security.encryption import Cipher
from app.security.outbound import Outbound
from app.services.push_service import DEVICES_OF_A_USER, PushService
from tests.contract.callers import Json, browser
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, Stage
from tests.integration.test_push_queue import GONE, PUSH, Pushes

stage = test_pipeline.stage
pushes = test_push_queue.pushes
TOKEN = "dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx"


@dataclass
class Devices:
    """The service on the stage's database, and what tests ask of it."""

    pushes: Pushes
    outbound: Outbound
    told: list[Announcement] = field(default_factory=list[Announcement])
    asked: list[str] = field(default_factory=list[str])
    verdict: TokenVerdict = TokenVerdict.VALID

    @property
    def stage(self) -> Stage:
        return self.pushes.stage

    async def _validate(self, token: str) -> TokenVerdict:
        self.asked.append(token)
        return self.verdict

    def service(self, keys: Sequence[bytes] | None = None) -> PushService:
        return PushService(
            self.stage.database,
            keys or self.stage.settings.encryption_keys,
            self.outbound,
            self._validate,
            self.told.append,
            self.stage.clock,
        )

    async def put(self, user: UUID, subscription: Json | None = None, **fields: Any) -> Subscribed:
        wanted = {"subscription": subscription or browser(), **fields}
        return await self.service().subscribe(user, Subscribe.model_validate(wanted))

    async def put_phone(self, user: UUID, token: str, keys: Sequence[bytes] | None = None) -> UUID:
        wanted = Subscribe.model_validate({"fcm_token": token})
        return (await self.service(keys).subscribe(user, wanted)).id

    async def ids(self, user: UUID) -> list[UUID]:
        return [item.id for item in (await self.service().listed(user)).items]


@pytest.fixture
async def devices(pushes: Pushes) -> AsyncGenerator[Devices]:
    async with Outbound(AddressRules.from_settings(pushes.stage.settings)) as outbound:
        yield Devices(pushes, outbound)


# --- tokens ----------------------------------------------------------------------------------


async def everything(stage: Stage) -> str:
    """All rows of all tables, as text."""
    tables = await stage.rows(
        "SELECT c.relname AS name FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind = 'r' AND has_table_privilege('service_role', c.oid, 'SELECT')"
    )
    parts = [
        row[0]
        for table in tables
        for row in await stage.rows(f'SELECT CAST(t AS text) FROM "{table.name}" t')
    ]
    assert any("fcm" in part for part in parts)
    return "\n".join(parts)


async def test_a_token_is_readable_nowhere(devices: Devices) -> None:
    with capture_logs() as logs:
        user = await devices.stage.user()
        phone = await devices.put_phone(user, TOKEN)
        await devices.put_phone(user, TOKEN)
        await devices.stage.post(user, PUSH)
        await devices.pushes.deliver()
        await devices.service().unsubscribe(user, await devices.put_phone(user, TOKEN + "2"))
    assert {line["event"] for line in logs} >= {"push_subscribed", "push_unsubscribed"}
    stored = await everything(devices.stage)
    raw = TOKEN.encode()
    for form in (
        TOKEN,
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        hashlib.sha256(raw).hexdigest(),
    ):
        assert form not in stored
        assert form not in str(logs)
    ((sealed,),) = await devices.stage.rows("SELECT fcm_token FROM push_subscriptions")
    cipher = Cipher(devices.stage.settings.encryption_keys)
    assert cipher.decrypt(sealed, context=fcm_token_context(phone)) == raw


async def test_logs_name_no_endpoint_and_no_key(devices: Devices) -> None:
    user, wanted = await devices.stage.user(), browser()
    with capture_logs() as logs:
        stored = await devices.put(user, wanted)
        with pytest.raises(EndpointInUse):
            await devices.put(uuid4(), wanted | {"keys": browser(auth=b"b" * 16)["keys"]})
        await devices.service().unsubscribe(user, stored.id)
    assert [line["event"] for line in logs] == ["push_subscribed", "push_unsubscribed"]
    told = {"subscription_id": str(stored.id), "user_id": str(user), "kind": "web"}
    assert told.items() <= logs[1].items()
    assert wanted["endpoint"] not in str(logs)
    assert all(key not in str(logs) for key in wanted["keys"].values())


async def test_a_token_is_found_again_after_the_keys_rotated(devices: Devices) -> None:
    user, (old,), new = await devices.stage.user(), devices.stage.settings.encryption_keys, None
    new = os.urandom(32)
    phone = await devices.put_phone(user, TOKEN, [old])
    assert await devices.put_phone(user, TOKEN, [new, old]) == phone
    # Written anew, it needs the old key no more.
    assert await devices.put_phone(user, TOKEN, [new]) == phone
    ((sealed,),) = await devices.stage.rows("SELECT fcm_token FROM push_subscriptions")
    assert Cipher([new]).decrypt(sealed, context=fcm_token_context(phone)) == TOKEN.encode()


async def test_rows_of_one_token_under_two_keys_become_one(devices: Devices) -> None:
    user, (old,), new = (
        await devices.stage.user(),
        devices.stage.settings.encryption_keys,
        b"n" * 32,
    )
    first = await devices.put_phone(user, TOKEN, [old])
    second = await devices.put_phone(user, TOKEN, [new])  # a process that was told of it alone
    assert first != second
    kept = await devices.put_phone(user, TOKEN, [new, old])
    assert await devices.ids(user) == [kept]


async def test_a_phone_goes_over_to_who_signs_in_on_it(devices: Devices) -> None:
    before, after = await devices.stage.user(), await devices.stage.user()
    phone = await devices.put_phone(before, TOKEN)
    stored = await devices.stage.post(before, PUSH)
    moved = await devices.put_phone(after, TOKEN)
    assert moved != phone
    assert (await devices.ids(before), await devices.ids(after)) == ([], [moved])
    await devices.pushes.deliver()
    assert await devices.pushes.rows(stored) == [(None, "skipped", "no_device")]
    assert devices.pushes.sender.claims == []


@pytest.mark.parametrize("verdict", [TokenVerdict.VALID, TokenVerdict.UNKNOWN])
async def test_a_token_is_shown_to_fcm_before_it_is_kept(
    devices: Devices, verdict: TokenVerdict
) -> None:
    devices.verdict = verdict
    user = await devices.stage.user()
    phone = await devices.put_phone(user, TOKEN)
    assert devices.asked == [TOKEN]
    assert await devices.ids(user) == [phone]


async def test_a_token_that_fcm_refuses_is_not_kept(devices: Devices) -> None:
    devices.verdict = TokenVerdict.INVALID
    user = await devices.stage.user()
    with pytest.raises(ValidationFailed) as refused:
        await devices.put_phone(user, TOKEN)
    assert [(item["path"], item["code"]) for item in refused.value.details] == [
        ("fcm_token", "invalid_fcm_token")
    ]
    assert await devices.ids(user) == []


async def test_apps_need_fcm(devices: Devices) -> None:
    stage = devices.stage
    keys = stage.settings.encryption_keys
    service = PushService(
        stage.database, keys, devices.outbound, None, devices.told.append, stage.clock
    )
    wanted = Subscribe.model_validate({"fcm_token": TOKEN})
    with pytest.raises(ValidationFailed) as refused:
        await service.subscribe(await stage.user(), wanted)
    assert refused.value.details[0]["code"] == "fcm_not_configured"


# --- endpoints -------------------------------------------------------------------------------


async def subscribe_resolving(devices: Devices, answer: Sequence[str] | Exception) -> Subscribed:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with AsyncExitStack() as stack:
        outbound = await stack.enter_async_context(Outbound(AddressRules(), resolve=resolve))
        chosen = replace(devices, outbound=outbound)
        wanted = browser() | {"endpoint": f"https://push.example.com/{uuid4()}"}
        return await chosen.put(await devices.stage.user(), wanted)


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["127.0.0.1"], ["93.184.216.34", "169.254.169.254"], ["::1"]]
)
async def test_a_name_that_leads_inside_is_refused(
    devices: Devices, addresses: Sequence[str]
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        await subscribe_resolving(devices, addresses)
    (detail,) = refused.value.details
    assert (detail["path"], detail["code"]) == ("subscription.endpoint", "address_not_allowed")
    assert all(address not in detail["message"] for address in addresses)


@pytest.mark.parametrize(
    "answer",
    [
        ["93.184.216.34"],
        socket.gaierror(socket.EAI_AGAIN, "temporary failure"),
        socket.gaierror(socket.EAI_NONAME, "not known"),
        TimeoutError(),
    ],
)
async def test_a_name_that_leads_outside_or_nowhere_is_kept(
    devices: Devices, answer: Sequence[str] | Exception
) -> None:
    assert (await subscribe_resolving(devices, answer)).is_active


# --- room ------------------------------------------------------------------------------------


async def test_the_least_recently_used_device_makes_room(devices: Devices) -> None:
    user = await devices.stage.user()
    first = await devices.put(user)
    second = await devices.put(user)
    for _ in range(DEVICES_OF_A_USER - 2):
        devices.stage.clock.advance(seconds=1)
        await devices.put(user)
    query = "UPDATE push_subscriptions SET last_used_at = :now WHERE id = :id RETURNING id"
    await devices.stage.rows(query, now=devices.stage.clock(), id=first.id)
    with capture_logs() as logs:
        await asyncio.gather(devices.put(user), devices.put(user))
    ids = await devices.ids(user)
    assert len(ids) == DEVICES_OF_A_USER
    assert first.id in ids
    assert second.id not in ids
    assert [line["cause"] for line in logs if "cause" in line] == ["made_room"] * 2


# --- successors ------------------------------------------------------------------------------


async def status(devices: Devices, device: UUID) -> list[tuple[str, int, Any]]:
    rows = await devices.stage.rows(
        "SELECT status, attempts, lease_token FROM notification_deliveries WHERE device_id = :id",
        id=device,
    )
    return [(row.status, row.attempts, row.lease_token) for row in rows]


async def test_what_waits_goes_to_the_successor(devices: Devices) -> None:
    user = await devices.stage.user()
    old = await devices.put(user)
    for _ in range(3):
        await devices.stage.post(user, PUSH)
    new = await devices.put(user, replaces=str(old.id))
    assert await devices.ids(user) == [new.id]
    assert await status(devices, new.id) == [("pending", 0, None)] * 3
    (told,) = devices.told
    assert len(told.delivery_ids) == 3
    assert await devices.pushes.deliver() == 3
    sent = {claim.device.id for claim in devices.pushes.sender.claims if claim.device}
    assert sent == {new.id}


@pytest.mark.parametrize("outcome", [GONE, Retry(Reason.PROVIDER_UNAVAILABLE, "503")])
async def test_what_is_being_sent_to_the_old_one_goes_to_the_successor(
    devices: Devices, outcome: Outcome
) -> None:
    user = await devices.stage.user()
    old = await devices.put(user)
    await devices.stage.post(user, PUSH)
    claims = await devices.pushes.deliverer.claim()
    new = await devices.put(user, replaces=str(old.id))
    devices.pushes.sender.outcomes[old.id] = outcome
    await devices.pushes.deliverer.dispatch(claims)  # too late: its lease is gone
    assert await status(devices, new.id) == [("pending", 0, None)]
    assert await devices.pushes.deliver() == 1
    assert await status(devices, new.id) == [("sent", 1, None)]


async def test_what_waits_for_another_time_still_does(devices: Devices) -> None:
    user = await devices.stage.user()
    old = await devices.put(user)
    tomorrow = START + timedelta(days=1)
    stored = await devices.stage.post(user, replace(PUSH, send_at=tomorrow))
    await devices.put(user, replaces=str(old.id))
    push = await devices.stage.delivery(stored, Channel.PUSH)
    assert (push.status, push.next_attempt_at) == ("pending", tomorrow)


async def test_what_failed_because_the_old_one_was_gone_is_sent_again(devices: Devices) -> None:
    user = await devices.stage.user()
    old, other = await devices.put(user), await devices.put(user)
    devices.pushes.sender.outcomes |= {old.id: GONE, other.id: GONE}
    stored = await devices.stage.post(user, PUSH)
    await devices.pushes.deliver()
    assert await devices.ids(user) == []
    devices.stage.clock.advance(minutes=9)
    new = await devices.put(user, replaces=str(old.id))
    # Two failed, one of them for the device that came back.
    states = [row[:2] for row in await devices.pushes.rows(stored)]
    assert sorted(states, key=str) == sorted([(new.id, "pending"), (None, "failed")], key=str)
    await devices.put(user, browser(), replaces=str(old.id))  # nothing is left for it
    assert await devices.pushes.deliver() == 1
    assert await status(devices, new.id) == [("sent", 1, None)]
    events = await devices.stage.rows(
        "SELECT event, reason, device_id, detail ->> 'replaced_device_id' AS replaced"
        " FROM notification_events WHERE event = 'retried'"
    )
    assert events == [("retried", "device_gone", new.id, str(old.id))]


async def test_what_waited_for_the_one_that_was_gone_is_sent_too(devices: Devices) -> None:
    user = await devices.stage.user()
    old = await devices.put(user)
    devices.pushes.sender.outcomes[old.id] = GONE
    sending = [await devices.stage.post(user, PUSH) for _ in range(2)]
    claims = await devices.pushes.deliverer.claim()
    waiting = await devices.stage.post(user, PUSH)
    # One after the other: when the second is recorded, its device is removed already.
    for claim in claims:
        await devices.pushes.deliverer.dispatch([claim])
    assert await devices.ids(user) == []
    assert await devices.pushes.deliver() == 0
    new = await devices.put(user, replaces=str(old.id))
    for stored in (*sending, waiting):
        assert await devices.pushes.rows(stored) == [(new.id, "pending", "retried")]
    assert await devices.pushes.deliver() == 3


async def test_what_failed_long_ago_or_was_read_stays_as_it_is(devices: Devices) -> None:
    user = await devices.stage.user()
    old = await devices.put(user)
    devices.pushes.sender.outcomes[old.id] = GONE
    stored = await devices.stage.post(user, PUSH)
    read = await devices.stage.post(user, PUSH)
    await devices.pushes.deliver()
    await devices.stage.rows(
        "UPDATE notifications SET read_at = :now WHERE id = :id RETURNING id",
        now=START,
        id=read.id,
    )
    query = "UPDATE notification_deliveries SET failed_at = :then WHERE notification_id = :id"
    then = START - timedelta(minutes=10, seconds=1)
    await devices.stage.rows(f"{query} RETURNING id", then=then, id=stored.id)
    await devices.put(user, replaces=str(old.id))
    for item in (stored, read):
        assert await devices.pushes.rows(item) == [(None, "failed", "device_gone")]


async def test_nobody_inherits_from_the_device_of_another(devices: Devices) -> None:
    owner, other = await devices.stage.user(), await devices.stage.user()
    device, gone = await devices.put(owner), await devices.put(owner)
    devices.pushes.sender.outcomes[gone.id] = GONE
    first = await devices.stage.post(owner, PUSH)
    await devices.pushes.deliver()
    second = await devices.stage.post(owner, PUSH)
    for replaced in (device.id, gone.id, uuid4()):
        await devices.put(other, replaces=str(replaced))
    assert await devices.ids(owner) == [device.id]
    assert await devices.pushes.rows(second) == [(device.id, "pending", "sent_now")]
    assert (None, "failed", "device_gone") in await devices.pushes.rows(first)
    assert devices.told == []


async def test_a_device_does_not_succeed_itself(devices: Devices) -> None:
    user, wanted = await devices.stage.user(), browser()
    stored = await devices.put(user, wanted)
    again = await devices.put(user, wanted, replaces=str(stored.id))
    assert again.id == stored.id
    assert await devices.ids(user) == [stored.id]


async def test_who_calls_often_at_once_holds_one_connection(devices: Devices) -> None:
    """Those who wait for their turn leave the connections to others."""
    stage, service = devices.stage, devices.service()
    user, wanted = await stage.user(), browser()
    subscribe = Subscribe.model_validate({"subscription": wanted})
    stored = await service.subscribe(user, subscribe)
    waiting = (
        "SELECT count(*) FILTER (WHERE granted) AS held, count(*) FILTER (WHERE NOT granted) AS"
        " waiting FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database()"
    )
    async with stage.database.as_service() as connection:
        await connection.execute(
            text("SELECT FROM push_subscriptions WHERE id = :id FOR UPDATE"), {"id": stored.id}
        )
        calls = [asyncio.create_task(service.subscribe(user, subscribe)) for _ in range(5)]
        async with asyncio.timeout(10):
            while (await stage.rows(waiting))[0].held == 0:
                await asyncio.sleep(0.01)
        await service.subscribe(
            await stage.user(), Subscribe.model_validate({"subscription": browser("other")})
        )
        assert (await stage.rows(waiting))[0].waiting == 0
    assert {call.id for call in await asyncio.gather(*calls)} == {stored.id}
