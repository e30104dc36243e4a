"""What users set up for themselves: preferences, digests; and the templates."""

from datetime import datetime, time
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import String

from app.models.base import Base, CreatedAt, EmptyObject, Id, Name20, Name50, UserId, Zero


class Preference(Base):
    """Choices for one type, or for all of them (`global`); null inherits (REQ-017 to REQ-019)."""

    __tablename__ = "notification_preferences"
    __table_args__ = (
        UniqueConstraint(
            "user_id", "notification_type", name="notification_preferences_user_id_type_key"
        ),
        CheckConstraint("in_app_enabled", name="preferences_in_app_check"),
        CheckConstraint(
            "digest_frequency in ('instant', 'daily', 'weekly', 'never')",
            name="preferences_digest_frequency_check",
        ),
        CheckConstraint("digest_day between 1 and 7", name="preferences_digest_day_check"),
        CheckConstraint(
            "(quiet_hours_start is null) = (quiet_hours_end is null)"
            " and quiet_hours_start <> quiet_hours_end",
            name="preferences_quiet_hours_check",
        ),
        Index("idx_notification_preferences_user_id", "user_id"),
    )

    id: Mapped[Id]
    user_id: Mapped[UserId]
    notification_type: Mapped[Name50]
    push_enabled: Mapped[bool | None]
    email_enabled: Mapped[bool | None]
    in_app_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    digest_frequency: Mapped[Name20 | None]
    digest_time: Mapped[time | None]
    digest_day: Mapped[int | None]
    quiet_hours_start: Mapped[time | None]
    quiet_hours_end: Mapped[time | None]
    quiet_hours_days: Mapped[list[JsonValue] | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


class RateBucket(Base):
    """A token bucket: what was in it when it was last looked at (REQ-023)."""

    __tablename__ = "rate_buckets"

    name: Mapped[str] = mapped_column(primary_key=True)
    tokens: Mapped[float]
    updated_at: Mapped[datetime]


class CacheVersion(Base):
    """Counts changes: what a process remembers holds as long as the version is the same.

    Counted up in the transaction of the change, and read with what the memory is needed for.
    """

    __tablename__ = "cache_versions"

    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[Zero] = mapped_column(BigInteger)


class Template(Base):
    """Texts of one (name, language, version); one version of each is active (REQ-004).

    `is_shipped` tells those that came with the program from an operator's own.
    """

    __tablename__ = "notification_templates"
    __table_args__ = (
        UniqueConstraint(
            "name", "language", "version", name="notification_templates_name_language_version_key"
        ),
        Index(
            "idx_notification_templates_active",
            "name",
            "language",
            unique=True,
            postgresql_where=text("is_active"),
        ),
        Index("idx_notification_templates_type", "type"),
        Index("idx_notification_templates_language", "language"),
    )

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(String(100))
    type: Mapped[Name50]
    title_template: Mapped[str]
    body_template: Mapped[str]
    email_subject_template: Mapped[str | None]
    email_html_template: Mapped[str | None]
    email_text_template: Mapped[str | None]
    push_title_template: Mapped[str | None]
    push_body_template: Mapped[str | None]
    default_priority: Mapped[Name20 | None] = mapped_column(server_default="normal")
    default_channels: Mapped[list[JsonValue] | None]
    variables: Mapped[EmptyObject]
    language: Mapped[str] = mapped_column(String(10), server_default="en")
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    version: Mapped[int] = mapped_column(server_default=text("1"))
    is_shipped: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


class EmailDigest(Base):
    """One digest: the pair (user, instant) is unique, so no race sends two (REQ-015, REQ-016).

    It is queued like a delivery: `lease_token` fences, `next_attempt_at` is when it is due, or a
    lease ends.
    """

    __tablename__ = "email_digests"
    __table_args__ = (
        UniqueConstraint(
            "user_id", "scheduled_for", name="email_digests_user_id_scheduled_for_key"
        ),
        CheckConstraint(
            "status in ('pending', 'sent', 'delivered', 'bounced', 'failed', 'skipped')",
            name="digests_status_check",
        ),
        Index(
            "idx_email_digests_due",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "idx_email_digests_pending",
            "user_id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "idx_email_digests_provider_id",
            "provider_id",
            postgresql_where=text("provider_id IS NOT NULL"),
        ),
        Index("idx_email_digests_user_id", "user_id"),
        Index("idx_email_digests_scheduled_for", "scheduled_for"),
        Index("idx_email_digests_status", "status"),
    )

    id: Mapped[Id]
    user_id: Mapped[UserId]
    frequency: Mapped[Name20]
    scheduled_for: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    notification_ids: Mapped[list[UUID]] = mapped_column(
        ARRAY(PG_UUID(as_uuid=True)), server_default=text("'{}'::uuid[]")
    )
    status: Mapped[Name20] = mapped_column(server_default="pending")
    error_message: Mapped[str | None]
    created_at: Mapped[CreatedAt]
    attempts: Mapped[Zero]
    expired_leases: Mapped[Zero]
    next_attempt_at: Mapped[datetime | None]
    lease_token: Mapped[UUID | None]
    reason: Mapped[Name50 | None]
    provider_id: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
