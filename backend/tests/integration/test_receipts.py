"""Receipts of pushes, and what they race with (section 5.2)."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.channels.base import Outcome, Retry, Sent
from app.errors import InvalidAckToken
from app.pipeline.announce import Announcement
from app.pipeline.receipt import Receipt
from app.policy.kinds import Channel, Reason
from app.security.ack_tokens import AckTokens
from app.services.inbox_changes import InboxChanges
from app.services.receipt_service import PushEvent, ReceiptService
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, Stage
from tests.integration.test_push_queue import GONE, PUSH, Pushes

stage = test_pipeline.stage
pushes = test_push_queue.pushes


@dataclass
class Phone:
    """A push on its way to a device, and the device's side of it."""

    pushes: Pushes
    user: UUID
    device: UUID
    stored: Receipt
    tokens: AckTokens
    receipts: ReceiptService
    changes: InboxChanges
    told: list[Announcement] = field(default_factory=list[Announcement])

    @property
    def stage(self) -> Stage:
        return self.pushes.stage

    async def delivery(self) -> Any:
        return await self.stage.delivery(self.stored, Channel.PUSH)

    async def says(self, event: PushEvent) -> None:
        token = self.tokens.issue((await self.delivery()).id)
        await self.receipts.acknowledge(token, event)

    async def events(self) -> list[str]:
        return [event for event, _ in await self.stage.events(self.stored)]

    async def read_at(self) -> Any:
        ((read_at,),) = await self.stage.rows(
            "SELECT read_at FROM notifications WHERE id = :id", id=self.stored.id
        )
        return read_at


@pytest.fixture
async def phone(pushes: Pushes) -> Phone:
    stage, told = pushes.stage, list[Announcement]()
    user = await stage.user()
    device = await pushes.device(user)
    stored = await stage.post(user, PUSH)
    tokens = AckTokens(stage.settings.encryption_keys)
    changes = InboxChanges(stage.database, told.append, stage.clock)
    receipts = ReceiptService(stage.database, tokens, changes, stage.clock)
    return Phone(pushes, user, device, stored, tokens, receipts, changes, told)


async def test_a_receipt_turns_sent_into_delivered(phone: Phone) -> None:
    await phone.pushes.deliver()
    phone.stage.clock.advance(seconds=2)
    await phone.says(PushEvent.DELIVERED)
    phone.stage.clock.advance(seconds=2)
    await phone.says(PushEvent.DELIVERED)
    push = await phone.delivery()
    assert (push.status, push.sent_at) == ("delivered", START)
    assert push.delivered_at == START + timedelta(seconds=2)
    assert await phone.events() == ["sent", "delivered"]
    assert await phone.read_at() is None
    (event,) = await phone.stage.rows(
        "SELECT user_id, channel, device_id, detail FROM notification_events"
        " WHERE event = 'delivered'"
    )
    assert event == (phone.user, "push", phone.device, {"delivery_id": str(push.id)})


@pytest.mark.parametrize("outcome", [Sent("p-1"), GONE, Retry(Reason.PROVIDER_UNAVAILABLE, "503")])
async def test_a_receipt_may_come_before_the_attempt_is_recorded(
    phone: Phone, outcome: Outcome
) -> None:
    phone.pushes.sender.outcomes[phone.device] = outcome
    claims = await phone.pushes.deliverer.claim()
    await phone.says(PushEvent.DELIVERED)
    await phone.pushes.deliverer.dispatch(claims)
    push = await phone.delivery()
    assert (push.status, push.lease_token, push.failed_at) == ("delivered", None, None)
    phone.stage.clock.advance(hours=2)
    assert await phone.pushes.deliver() == 0


async def test_receipts_race_with_the_recorder(phone: Phone) -> None:
    for number in range(25):
        phone.stored = await phone.stage.post(phone.user, PUSH)
        claims = await phone.pushes.deliverer.claim()
        work: list[Awaitable[object]] = [phone.says(event) for event in PushEvent] * 2
        work.insert(number % len(work), phone.pushes.deliverer.dispatch(claims))
        await asyncio.gather(*work)
        push = await phone.delivery()
        assert (push.status, push.lease_token, push.next_attempt_at) == ("delivered", None, None)
        assert sorted(await phone.events()) == ["clicked", "closed", "delivered", "sent"]
        assert await phone.read_at() is not None


async def test_what_was_given_up_and_arrived_is_no_dead_letter(phone: Phone) -> None:
    phone.pushes.sender.outcomes[phone.device] = GONE
    await phone.pushes.deliver()
    assert (await phone.delivery()).status == "failed"
    await phone.says(PushEvent.DELIVERED)
    push = await phone.delivery()
    assert (push.status, push.failed_at, push.error_message) == ("delivered", None, None)


async def test_a_click_reads_the_notification_and_tells_all_sessions(phone: Phone) -> None:
    await phone.pushes.deliver()
    await asyncio.gather(*(phone.says(PushEvent.CLICKED) for _ in range(5)))
    assert (await phone.delivery()).status == "delivered"
    assert await phone.events() == ["sent", "delivered", "clicked"]
    assert await phone.read_at() == START
    (told,) = [change for announcement in phone.told for change in announcement.changes]
    assert told.user_id == phone.user


async def test_a_repeated_click_does_not_read_what_was_made_unread(phone: Phone) -> None:
    await phone.says(PushEvent.CLICKED)
    await phone.changes.mark_unread(phone.user, phone.stored.id)
    await phone.says(PushEvent.CLICKED)
    assert await phone.read_at() is None


async def test_a_click_on_what_left_the_inbox_counts(phone: Phone) -> None:
    await phone.pushes.deliver()
    await phone.changes.delete(phone.user, phone.stored.id)
    await phone.says(PushEvent.CLICKED)
    assert await phone.events() == ["sent", "delivered", "clicked"]


async def test_what_was_closed_was_shown(phone: Phone) -> None:
    await phone.pushes.deliver()
    await phone.says(PushEvent.CLOSED)
    await phone.says(PushEvent.DELIVERED)
    assert await phone.events() == ["sent", "delivered", "closed"]
    assert (await phone.delivery()).status == "delivered"
    assert await phone.read_at() is None


async def test_each_device_has_receipts_of_its_own(phone: Phone) -> None:
    other = await phone.pushes.device(phone.user)
    stored = await phone.stage.post(phone.user, PUSH)
    rows = await phone.stage.rows(
        "SELECT id FROM notification_deliveries"
        " WHERE notification_id = :id AND channel = 'push' ORDER BY device_id = :other",
        id=stored.id,
        other=other,
    )
    await phone.pushes.deliver()
    for row in rows:
        await phone.receipts.acknowledge(phone.tokens.issue(row.id), PushEvent.DELIVERED)
    devices = await phone.stage.rows(
        "SELECT device_id FROM notification_events"
        " WHERE notification_id = :id AND event = 'delivered' ORDER BY id",
        id=stored.id,
    )
    assert devices == [(phone.device,), (other,)]


async def test_what_was_skipped_stays_so(phone: Phone) -> None:
    await phone.stage.rows("DELETE FROM push_subscriptions RETURNING id")
    await phone.pushes.deliver()
    await phone.says(PushEvent.DELIVERED)
    assert (await phone.delivery()).status == "skipped"


async def test_what_is_erased_has_no_receipts(phone: Phone) -> None:
    token = phone.tokens.issue((await phone.delivery()).id)
    await phone.stage.rows("DELETE FROM notifications RETURNING id")
    for event in PushEvent:
        await phone.receipts.acknowledge(token, event)
    assert await phone.stage.rows("SELECT id FROM notification_events") == []


async def test_other_channels_have_no_such_receipts(phone: Phone) -> None:
    in_app = await phone.stage.delivery(phone.stored, Channel.IN_APP)
    await phone.receipts.acknowledge(phone.tokens.issue(in_app.id), PushEvent.CLICKED)
    assert await phone.events() == []
    assert (await phone.stage.delivery(phone.stored, Channel.IN_APP)).status == "sent"


async def test_an_unknown_token_opens_nothing(phone: Phone) -> None:
    with pytest.raises(InvalidAckToken):
        await phone.receipts.acknowledge(AckTokens([b"x" * 32]).issue(uuid4()), PushEvent.CLICKED)
