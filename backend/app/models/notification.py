"""Notifications and everything that happens to one: deliveries, decisions, events, batches."""

from datetime import datetime
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import String, Text

from app.db.conditions import EXPIRING, PRESENT
from app.models.base import Base, CreatedAt, EmptyObject, Id, Name20, Name50, UserId, Zero
from app.policy.kinds import Channel, DeliveryStatus, NotificationType, Priority


def one_of(
    column: str, values: type[Channel | DeliveryStatus | NotificationType | Priority]
) -> str:
    """SQL of a check that `column` holds a member of the enumeration."""
    return f"{column} in ({', '.join(repr(str(value)) for value in values)})"


class Batch(Base):
    """A bulk call: its content once, its recipients beside it (REQ-005).

    `error` says why a batch could not be expanded to its end.
    """

    __tablename__ = "notification_batches"
    __table_args__ = (
        Index(
            "idx_notification_batches_open",
            "created_at",
            postgresql_where=text("expanded_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    service: Mapped[str]
    content: Mapped[dict[str, JsonValue]]
    recipient_count: Mapped[int]
    expanded_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    urgency: Mapped[int] = mapped_column(SmallInteger, server_default=text("2"))
    error: Mapped[str | None]


class BatchRecipient(Base):
    """One recipient of a batch; `unknown` when no such user exists."""

    __tablename__ = "notification_batch_recipients"
    __table_args__ = (
        CheckConstraint("state in ('pending', 'created', 'unknown')", name="batch_state_check"),
        Index(
            "idx_notification_batch_recipients_pending",
            "batch_id",
            "user_id",
            postgresql_where=text("state = 'pending'"),
        ),
    )

    batch_id: Mapped[UUID] = mapped_column(
        ForeignKey("notification_batches.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    state: Mapped[Name20] = mapped_column(server_default="pending")


class Notification(Base):
    """A notification of one user (REQ-003).

    `position` is the inbox's `seq` at which it became visible and never changes; `seq` is that of
    its last change. Both are null while it is not visible: scheduled, or held. `channels` and
    `send_email` are what the call asked for. `language` is that of a template's words, and `texts`
    what the template says on other channels, in the fields of `ChannelTexts`.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        CheckConstraint(one_of("type", NotificationType), name="notifications_type_check"),
        CheckConstraint(one_of("priority", Priority), name="notifications_priority_check"),
        CheckConstraint("(position is null) = (seq is null)", name="notifications_position_check"),
        Index(
            "idx_notifications_user_id",
            "user_id",
            text("position DESC"),
            postgresql_where=text(PRESENT),
        ),
        Index(
            "idx_notifications_type",
            "user_id",
            "type",
            text("position DESC"),
            postgresql_where=text(PRESENT),
        ),
        Index(
            "idx_notifications_priority",
            "user_id",
            "priority",
            text("position DESC"),
            postgresql_where=text(PRESENT),
        ),
        Index("idx_notifications_seq", "user_id", "seq"),
        Index(
            "idx_notifications_unread",
            "user_id",
            "position",
            postgresql_where=text(f"read_at IS NULL AND {PRESENT}"),
        ),
        Index(
            "idx_notifications_read",
            "user_id",
            "position",
            postgresql_where=text(f"read_at IS NOT NULL AND {PRESENT}"),
        ),
        Index("idx_notifications_expiring", "expires_at", postgresql_where=text(EXPIRING)),
        Index(
            "idx_notifications_expiring_of_user",
            "user_id",
            "expires_at",
            postgresql_where=text(EXPIRING),
        ),
        Index("idx_notifications_created_at", text("created_at DESC")),
        Index(
            "idx_notifications_batch_id",
            "batch_id",
            "user_id",
            unique=True,
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    user_id: Mapped[UserId]
    type: Mapped[Name50]
    priority: Mapped[Name20] = mapped_column(server_default="normal")
    title: Mapped[str] = mapped_column(String(255))
    body: Mapped[str]
    body_html: Mapped[str]
    data: Mapped[EmptyObject]
    masked: Mapped[list[JsonValue]] = mapped_column(server_default=text("'[]'::jsonb"))
    template_id: Mapped[str | None] = mapped_column(String(100))
    service: Mapped[str]
    batch_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("notification_batches.id", ondelete="SET NULL")
    )
    position: Mapped[int | None] = mapped_column(BigInteger)
    seq: Mapped[int | None] = mapped_column(BigInteger)
    send_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    channels: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    send_email: Mapped[bool | None]
    template_version: Mapped[int | None]
    language: Mapped[str | None] = mapped_column(String(35))
    texts: Mapped[dict[str, JsonValue] | None]


class Delivery(Base):
    """One channel (for push: one device) of a notification, and its place in the queue.

    A `pending` row without `digest_slot` is claimed once `next_attempt_at` has come. Claiming sets
    `lease_token` and moves `next_attempt_at` to the lease's end, so a dead worker's row is due
    again by itself, and only the token's holder may record an outcome. `counted_at` says when it
    used up one of its user's limit, `summarises` that it stands for so many held pushes.
    """

    __tablename__ = "notification_deliveries"
    __table_args__ = (
        CheckConstraint(one_of("channel", Channel), name="deliveries_channel_check"),
        CheckConstraint(one_of("status", DeliveryStatus), name="deliveries_status_check"),
        Index("idx_notification_deliveries_notification_id", "notification_id"),
        Index(
            "idx_notification_deliveries_device_id",
            "device_id",
            postgresql_where=text("device_id IS NOT NULL"),
        ),
        Index(
            "idx_notification_deliveries_due",
            "channel",
            "urgency",
            "next_attempt_at",
            postgresql_where=text("status = 'pending' AND digest_slot IS NULL"),
        ),
        Index(
            "idx_notification_deliveries_digest",
            "digest_slot",
            "user_id",
            postgresql_where=text("status = 'pending' AND digest_slot IS NOT NULL"),
        ),
        Index(
            "idx_notification_deliveries_parked",
            "user_id",
            postgresql_where=text("status = 'pending' AND digest_slot IS NOT NULL"),
        ),
        Index(
            "idx_notification_deliveries_unseen",
            "user_id",
            postgresql_where=text("channel = 'in_app' AND status = 'sent'"),
        ),
        Index(
            "idx_notification_deliveries_counted",
            "user_id",
            "channel",
            "counted_at",
            postgresql_where=text("counted_at IS NOT NULL"),
        ),
        Index(
            "idx_notification_deliveries_held",
            "user_id",
            "channel",
            postgresql_where=text("status = 'pending' AND reason IN ('quiet_hours', 'user_limit')"),
        ),
        Index(
            "idx_notification_deliveries_provider_id",
            "provider_id",
            postgresql_where=text("channel = 'email' AND provider_id IS NOT NULL"),
        ),
        Index(
            "idx_notification_deliveries_dead",
            text("failed_at DESC"),
            text("id DESC"),
            postgresql_where=text("status = 'failed'"),
        ),
    )

    id: Mapped[Id]
    notification_id: Mapped[UUID] = mapped_column(
        ForeignKey("notifications.id", ondelete="CASCADE")
    )
    user_id: Mapped[UUID]
    channel: Mapped[Name20]
    status: Mapped[Name20] = mapped_column(server_default="pending")
    device_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("push_subscriptions.id", ondelete="SET NULL")
    )
    reason: Mapped[Name50 | None]
    error_message: Mapped[str | None]
    urgency: Mapped[int] = mapped_column(SmallInteger, server_default=text("2"))
    attempts: Mapped[Zero]
    expired_leases: Mapped[Zero]
    next_attempt_at: Mapped[datetime | None]
    lease_token: Mapped[UUID | None]
    digest_slot: Mapped[datetime | None]
    provider_id: Mapped[str | None]
    sent_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    counted_at: Mapped[datetime | None]
    summarises: Mapped[int | None]


class IdempotencyKey(Base):
    """A key that a service sent with a create call, and what the call was answered (5.1)."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idx_idempotency_keys_created_at", "created_at"),)

    service: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    key: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    fingerprint: Mapped[bytes]
    owner_id: Mapped[UUID]
    answer: Mapped[dict[str, JsonValue] | None]
    created_at: Mapped[CreatedAt]


class DecisionRecord(Base):
    """One run of the policy: what it saw and what it decided, for the trace."""

    __tablename__ = "notification_decisions"
    __table_args__ = (
        CheckConstraint("stage in ('create', 'claim')", name="decisions_stage_check"),
        Index("idx_notification_decisions_notification_id", "notification_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(
        ForeignKey("notifications.id", ondelete="CASCADE")
    )
    user_id: Mapped[UUID]
    stage: Mapped[Name20]
    inputs: Mapped[dict[str, JsonValue]]
    outcomes: Mapped[list[JsonValue]]
    decided_at: Mapped[CreatedAt]


class Event(Base):
    """Something that happened to a notification on a channel, in the order of `id`."""

    __tablename__ = "notification_events"
    __table_args__ = (Index("idx_notification_events_notification_id", "notification_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    notification_id: Mapped[UUID] = mapped_column(
        ForeignKey("notifications.id", ondelete="CASCADE")
    )
    user_id: Mapped[UUID]
    channel: Mapped[Name20]
    event: Mapped[Name50]
    reason: Mapped[Name50 | None]
    device_id: Mapped[UUID | None]
    detail: Mapped[EmptyObject]
    at: Mapped[CreatedAt]


class AnalyticsEvent(Base):
    """A countable event that outlives its notification and its user (REQ-021)."""

    __tablename__ = "notification_analytics"
    __table_args__ = (
        Index("idx_notification_analytics_notification_id", "notification_id"),
        Index("idx_notification_analytics_type", "notification_type"),
        Index("idx_notification_analytics_event", "event"),
        Index("idx_notification_analytics_created_at", "created_at"),
        Index("idx_notification_analytics_user_id", "user_id"),
    )

    id: Mapped[Id]
    notification_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("notifications.id", ondelete="SET NULL")
    )
    notification_type: Mapped[Name50]
    channel: Mapped[Name20]
    event: Mapped[Name50]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    device_id: Mapped[UUID | None]
    details: Mapped[EmptyObject] = mapped_column("metadata")
    created_at: Mapped[CreatedAt]
