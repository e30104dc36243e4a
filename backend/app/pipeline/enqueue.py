"""Stage 3: notifications, positions and deliveries are written as one; then the bell is rung.

The rows written here are the queue of record. Everything after the commit, the frames and the
doorbell, may be lost without losing a notification.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from app.db.database import Driver, dumps
from app.pipeline.announce import Announcement
from app.pipeline.decide import Audience, Run, Target
from app.pipeline.draft import Draft
from app.policy.kinds import Action, Channel, DeliveryStatus, DeviceKind
from app.policy.routing import Decision, effective_priority, is_limited
from app.realtime.backplane import Change
from app.realtime.frames import InboxItem, visible_change
from app.realtime.inboxes import Inbox, inbox_columns

WRITE_GROUP = """
    WITH stored AS (
        INSERT INTO notifications (
            id, user_id, type, priority, title, body, body_html, data, template_id, service,
            batch_id, position, seq, send_at, created_at, expires_at, masked, channels, send_email,
            template_version, language, texts
        )
        SELECT id, user_id, type, priority, title, body, body_html, data::jsonb, template_id,
               service, batch_id, position, position, send_at, created_at, expires_at,
               masked::jsonb, string_to_array(channels, ','), send_email, template_version,
               language, texts::jsonb
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::uuid[], $12::bigint[], $13::timestamptz[],
            $14::timestamptz[], $15::timestamptz[], $32::text[], $35::text[], $36::boolean[],
            $37::int[], $38::text[], $39::text[]
        ) AS n (
            id, user_id, type, priority, title, body, body_html, data, template_id, service,
            batch_id, position, send_at, created_at, expires_at, masked, channels, send_email,
            template_version, language, texts
        )
    ), decided AS (
        INSERT INTO notification_decisions (
            notification_id, user_id, stage, inputs, outcomes, decided_at
        )
        SELECT id, user_id, 'create', inputs::jsonb, outcomes::jsonb, created_at
        FROM unnest($1::uuid[], $2::uuid[], $16::text[], $17::text[], $14::timestamptz[])
            AS n (id, user_id, inputs, outcomes, created_at)
    ), queued AS (
        INSERT INTO notification_deliveries (
            id, notification_id, user_id, channel, status, reason, urgency, next_attempt_at,
            digest_slot, sent_at, created_at, device_id, counted_at
        )
        SELECT * FROM unnest(
            $18::uuid[], $19::uuid[], $20::uuid[], $21::text[], $22::text[], $23::text[],
            $24::smallint[], $25::timestamptz[], $26::timestamptz[], $27::timestamptz[],
            $28::timestamptz[], $33::uuid[], $34::timestamptz[]
        )
    )
    UPDATE inbox_state i SET seq = v.seq, unread = v.unread::jsonb
    FROM unnest($29::uuid[], $30::bigint[], $31::text[]) AS v (user_id, seq, unread)
    WHERE i.user_id = v.user_id
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """A delivery row as it is first written."""

    id: UUID
    channel: Channel
    status: DeliveryStatus
    decision: Decision
    next_attempt_at: datetime | None
    digest_slot: datetime | None
    sent_at: datetime | None
    counted_at: datetime | None
    device_id: UUID | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A draft with its decisions, deliveries and position, ready to be written.

    Args:
        change: what live sessions are told, None while the notification is not visible.
    """

    draft: Draft
    run: Run
    position: int | None
    deliveries: tuple[Queued, ...]
    change: Change | None

    @property
    def channels(self) -> list[Channel]:
        """Channels that something will go out on, now or later."""
        return [decision.channel for decision in self.run.decisions if decision.delivers]

    @property
    def is_scheduled(self) -> bool:
        """Whether nothing goes out before a later instant that the caller chose."""
        send_at = self.draft.request.send_at
        return send_at is not None and send_at > self.draft.created_at

    @property
    def due_ids(self) -> list[UUID]:
        """Deliveries that a worker can take at once."""
        return [
            queued.id
            for queued in self.deliveries
            if queued.status is DeliveryStatus.PENDING and queued.decision.action is Action.SEND
        ]


def prepare(draft: Draft, target: Target) -> Prepared:
    """Decide a draft and give it its place; advances the locked inbox in memory."""
    target = target.narrowed(draft)
    inbox = target.inbox
    run = target.decide(draft)
    (shown,) = (decision for decision in run.decisions if decision.channel is Channel.IN_APP)
    target.count(draft, shown)
    visible = shown.action is Action.SEND
    position = inbox.admit(draft.request.type.value) if visible else None
    return Prepared(
        draft=draft,
        run=run,
        position=position,
        deliveries=tuple(
            _queued(decision, draft, device)
            for decision in run.decisions
            if decision.delivers
            for device in _receivers(decision, draft, target)
        ),
        change=None if position is None else _change(draft, inbox, position),
    )


async def store(driver: Driver, drafts: Sequence[Draft], audience: Audience) -> list[Prepared]:
    """Decide a group of drafts and write all that follows from it.

    Args:
        driver: a transaction as the service role; the caller commits it.

    Returns:
        What was written; drafts of users without an inbox are left out.
    """
    if not drafts:
        return []
    users = await audience.lock(driver, drafts)
    prepared = [prepare(draft, users[draft.user_id]) for draft in drafts if draft.user_id in users]
    if prepared:
        inboxes = inbox_columns(target.inbox for target in users.values())
        await driver.execute(
            WRITE_GROUP, *_columns(prepared), *inboxes, *_further_columns(prepared)
        )
    return prepared


def announcement_of(prepared: Sequence[Prepared]) -> Announcement:
    """What is to be told once the group is committed."""
    return Announcement(
        changes=tuple(item.change for item in prepared if item.change is not None),
        delivery_ids=tuple(due for item in prepared for due in item.due_ids),
    )


def _columns(prepared: Sequence[Prepared]) -> tuple[list[Any], ...]:
    drafts = [item.draft for item in prepared]
    deliveries = [(item.draft, queued) for item in prepared for queued in item.deliveries]
    return (
        [draft.id for draft in drafts],
        [draft.user_id for draft in drafts],
        [draft.request.type.value for draft in drafts],
        [effective_priority(draft.request).value for draft in drafts],
        [draft.content.title for draft in drafts],
        [draft.content.body for draft in drafts],
        [draft.content.body_html for draft in drafts],
        [dumps(draft.content.data) for draft in drafts],
        [draft.content.template_id for draft in drafts],
        [draft.service for draft in drafts],
        [draft.batch_id for draft in drafts],
        [item.position for item in prepared],
        [draft.request.send_at for draft in drafts],
        [draft.created_at for draft in drafts],
        [draft.request.expires_at for draft in drafts],
        [dumps(item.run.inputs()) for item in prepared],
        [dumps(item.run.outcomes()) for item in prepared],
        [queued.id for _, queued in deliveries],
        [draft.id for draft, _ in deliveries],
        [draft.user_id for draft, _ in deliveries],
        [queued.channel.value for _, queued in deliveries],
        [queued.status.value for _, queued in deliveries],
        [queued.decision.reason.value for _, queued in deliveries],
        [effective_priority(draft.request).rank for draft, _ in deliveries],
        [queued.next_attempt_at for _, queued in deliveries],
        [queued.digest_slot for _, queued in deliveries],
        [queued.sent_at for _, queued in deliveries],
        [draft.created_at for draft, _ in deliveries],
    )


def _further_columns(prepared: Sequence[Prepared]) -> tuple[list[Any], ...]:
    requests = [item.draft.request for item in prepared]
    contents = [item.draft.content for item in prepared]
    texts = [content.texts.stored() for content in contents]
    deliveries = [queued for item in prepared for queued in item.deliveries]
    return (
        [dumps(content.masked) for content in contents],
        [queued.device_id for queued in deliveries],
        [queued.counted_at for queued in deliveries],
        [
            None if request.channels is None else ",".join(sorted(request.channels))
            for request in requests
        ],
        [request.send_email for request in requests],
        [content.template_version for content in contents],
        [content.language for content in contents],
        [None if stored is None else dumps(stored) for stored in texts],
    )


def _receivers(decision: Decision, draft: Draft, target: Target) -> Iterable[UUID | None]:
    """The devices of a push, each with a delivery of its own; no device for other channels."""
    if decision.channel is not Channel.PUSH:
        return (None,)
    if draft.request.silent:
        return [id_ for id_, kind in target.devices.items() if kind is DeviceKind.FCM]
    return target.devices


def _queued(decision: Decision, draft: Draft, device_id: UUID | None) -> Queued:
    now = draft.created_at
    # The in-app delivery is the commit itself: the position makes it visible.
    committed = decision.channel is Channel.IN_APP and decision.action is Action.SEND
    due = None
    if decision.action is Action.HOLD:
        due = decision.until
    elif decision.action is Action.SEND and not committed:
        due = now
    return Queued(
        id=uuid7(),
        channel=decision.channel,
        status=DeliveryStatus.SENT if committed else DeliveryStatus.PENDING,
        decision=decision,
        next_attempt_at=due,
        digest_slot=decision.until if decision.action is Action.DIGEST else None,
        sent_at=now if committed else None,
        counted_at=now if committed and is_limited(draft.request) else None,
        device_id=device_id,
    )


def _change(draft: Draft, inbox: Inbox, position: int) -> Change:
    item = InboxItem(
        id=draft.id,
        type=draft.request.type.value,
        priority=effective_priority(draft.request).value,
        title=draft.content.title,
        body=draft.content.body,
        body_html=draft.content.body_html,
        data=draft.content.data,
        read_at=None,
        created_at=draft.created_at,
        expires_at=draft.request.expires_at,
        seq=position,
        position=position,
    )
    return visible_change(item, inbox)
