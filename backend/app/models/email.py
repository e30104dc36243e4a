"""Emails: requests to providers, the links in them, addresses that take none, what was reported."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    SmallInteger,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from app.models.base import Base, CreatedAt, Name20, UserId


class EmailRequest(Base):
    """A request that was, or is about to be, made of a provider; `id` is its idempotency key.

    As long as it is there the provider may have taken it, so it is repeated as it was. `payload`
    is encrypted, in the context `email_requests/{id}/payload`.
    """

    __tablename__ = "email_requests"
    __table_args__ = (Index("idx_email_requests_created_at", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider: Mapped[Name20]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]


class EmailRequestLetter(Base):
    """A letter of a request, of a delivery's or a digest's id; it is in one request at most."""

    __tablename__ = "email_request_letters"
    __table_args__ = (Index("idx_email_request_letters_request_id", "request_id"),)

    letter_id: Mapped[UUID] = mapped_column(primary_key=True)
    request_id: Mapped[UUID] = mapped_column(ForeignKey("email_requests.id", ondelete="CASCADE"))
    place: Mapped[int] = mapped_column(SmallInteger)


class EmailLinks(Base):
    """Where the tracked links of a letter lead, by their number."""

    __tablename__ = "email_links"
    __table_args__ = (
        Index("idx_email_links_created_at", "created_at"),
        Index("idx_email_links_user_id", "user_id"),
    )

    letter_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UserId]
    targets: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]


class EmailSuppression(Base):
    """An address that bounced, or whose owner complained, by the SHA-256 of its lower case.

    Nothing is sent to it once `suppressed_at` is set. Soft bounces count as long as nothing was
    delivered later. It outlives the user's erasure: who complained is not written to because they
    came back.
    """

    __tablename__ = "email_suppressions"
    __table_args__ = (
        CheckConstraint(
            "reason IN ('bounced', 'complained', 'soft_bounced')",
            name="suppressions_reason_check",
        ),
    )

    address_digest: Mapped[bytes] = mapped_column(primary_key=True)
    reason: Mapped[Name20]
    soft_bounced_at: Mapped[list[datetime]] = mapped_column(
        ARRAY(TIMESTAMP(timezone=True)), server_default=text("'{}'::timestamptz[]")
    )
    delivered_at: Mapped[datetime | None]
    suppressed_at: Mapped[datetime | None]
    updated_at: Mapped[CreatedAt]


class WebhookReceipt(Base):
    """A webhook that was taken in: the same one again has no effect."""

    __tablename__ = "webhook_receipts"
    __table_args__ = (Index("idx_webhook_receipts_received_at", "received_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[CreatedAt]
