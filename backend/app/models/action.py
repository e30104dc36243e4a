"""Actions of notifications: what was clicked, and where named ones are posted (REQ-013)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import String

from app.models.base import Base, CreatedAt, Name20, Name50, Zero

LONGEST_NAME = 64


class ActionCallback(Base):
    """Where clicks on a named action are posted; the signing secret is encrypted."""

    __tablename__ = "action_callbacks"

    name: Mapped[str] = mapped_column(String(LONGEST_NAME), primary_key=True)
    url: Mapped[str]
    secret: Mapped[bytes]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


class ActionRun(Base):
    """The one run of a notification's action, and its place in the queue while it is `pending`.

    Whoever posts it has leased it before: `lease_token` is set, and `next_attempt_at` is the
    lease's end, when it is due again by itself. Only the token's holder may record an outcome.
    """

    __tablename__ = "notification_actions"
    __table_args__ = (
        CheckConstraint(
            "status in ('pending', 'completed', 'failed')", name="actions_status_check"
        ),
        CheckConstraint(
            "(status = 'pending') = (next_attempt_at is not null)", name="actions_due_check"
        ),
        Index(
            "idx_notification_actions_due",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
    )

    notification_id: Mapped[UUID] = mapped_column(
        ForeignKey("notifications.id", ondelete="CASCADE"), primary_key=True
    )
    action: Mapped[str] = mapped_column(String(LONGEST_NAME), primary_key=True)
    user_id: Mapped[UUID]
    label: Mapped[str | None]
    status: Mapped[Name20]
    result: Mapped[Any | None] = mapped_column(JSONB)
    reason: Mapped[Name50 | None]
    error_message: Mapped[str | None]
    attempts: Mapped[Zero]
    next_attempt_at: Mapped[datetime | None]
    lease_token: Mapped[UUID | None]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]
