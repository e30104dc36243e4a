"""Push: the devices of users, the keys their browsers know us by, and what phones are to close."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import String

from app.models.base import Base, CreatedAt, EmptyObject, Id, Name20, UserId, Zero


class PushSubscription(Base):
    """A browser (`web`) or an app (`fcm`) that receives pushes (REQ-008).

    FCM tokens are stored encrypted, with a keyed hash to find them by. `vapid_key_id` is the key
    that the browser subscribed with, the only one its push service takes.
    """

    __tablename__ = "push_subscriptions"
    __table_args__ = (
        CheckConstraint(
            "(kind = 'web' AND endpoint IS NOT NULL AND p256dh_key IS NOT NULL"
            " AND auth_key IS NOT NULL AND fcm_token IS NULL AND fcm_token_hash IS NULL)"
            " OR (kind = 'fcm' AND endpoint IS NULL AND p256dh_key IS NULL"
            " AND auth_key IS NULL AND fcm_token IS NOT NULL AND fcm_token_hash IS NOT NULL)",
            name="push_subscriptions_kind_check",
        ),
        UniqueConstraint("endpoint", name="push_subscriptions_endpoint_key"),
        UniqueConstraint("fcm_token_hash", name="push_subscriptions_fcm_token_hash_key"),
        Index("idx_push_subscriptions_user_id", "user_id"),
        Index(
            "idx_push_subscriptions_is_active",
            "user_id",
            postgresql_where=text("is_active"),
        ),
        Index(
            "idx_push_subscriptions_vapid_key_id",
            "vapid_key_id",
            postgresql_where=text("vapid_key_id IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    user_id: Mapped[UserId]
    kind: Mapped[Name20]
    endpoint: Mapped[str | None]
    p256dh_key: Mapped[str | None] = mapped_column(String(255))
    auth_key: Mapped[str | None] = mapped_column(String(255))
    fcm_token: Mapped[bytes | None]
    fcm_token_hash: Mapped[bytes | None]
    vapid_key_id: Mapped[str | None]
    device_info: Mapped[EmptyObject]
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    failure_count: Mapped[Zero]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class VapidKey(Base):
    """A key pair that push services know us by; the private half is encrypted (SEC-003).

    `retired_at` is set once no subscription needs it any more.
    """

    __tablename__ = "vapid_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    public_key: Mapped[bytes]
    private_key: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    retired_at: Mapped[datetime | None]


class PushClosing(Base):
    """A push that was read elsewhere and is to be closed on a phone.

    Whoever sends it has leased it before: `lease_token` is set, and `next_attempt_at` is the
    lease's end.
    """

    __tablename__ = "push_closings"
    __table_args__ = (
        Index("idx_push_closings_due", "next_attempt_at"),
        Index("idx_push_closings_notification_id", "notification_id"),
    )

    device_id: Mapped[UUID] = mapped_column(
        ForeignKey("push_subscriptions.id", ondelete="CASCADE"), primary_key=True
    )
    notification_id: Mapped[UUID] = mapped_column(
        ForeignKey("notifications.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[UUID]
    attempts: Mapped[Zero]
    next_attempt_at: Mapped[CreatedAt]
    lease_token: Mapped[UUID | None]
    created_at: Mapped[CreatedAt]
