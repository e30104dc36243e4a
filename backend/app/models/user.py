"""Users, and what is known of them as recipients."""

from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import BigInteger, CheckConstraint, Index, Text, literal_column
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, CreatedAt, EmptyObject, Id, UserId, Zero


class User(Base):
    """A user's id: all that is needed of a platform's own `users` table."""

    __tablename__ = "users"

    id: Mapped[Id]


class Recipient(Base):
    """Address, language and settings of a user, as their platform reports them.

    `email_epoch` counts changes of the address: links in emails to an earlier one are void.
    """

    __tablename__ = "notification_recipients"
    __table_args__ = (
        Index(
            "idx_notification_recipients_attributes",
            "attributes",
            postgresql_using="gin",
            postgresql_ops={"attributes": "jsonb_path_ops"},
        ),
        Index(
            "idx_notification_recipients_locale",
            literal_column("(lower(locale) || '-')", Text()).label("language"),
            postgresql_ops={"language": "text_pattern_ops"},
        ),
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    full_name: Mapped[str | None]
    timezone: Mapped[str | None]
    locale: Mapped[str | None]
    attributes: Mapped[EmptyObject]
    quiet_hours: Mapped[dict[str, JsonValue] | None]
    pause_until: Mapped[datetime | None]
    email_epoch: Mapped[Zero]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]


class InboxState(Base):
    """Where a user's inbox stands; locked by everything that changes the inbox.

    `seq` counts changes, `unread` counts by type without zeros, and a `since` below `floor_seq`
    cannot be served any more. `choices_version` counts changes of the user's preferences: what is
    remembered of them holds as long as it is the same.
    """

    __tablename__ = "inbox_state"
    __table_args__ = (
        CheckConstraint("seq >= floor_seq", name="inbox_state_seq_check"),
        CheckConstraint(
            "not jsonb_path_exists(unread, '$.* ? (@ < 1)')", name="inbox_state_unread_check"
        ),
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True)
    seq: Mapped[Zero] = mapped_column(BigInteger)
    unread: Mapped[EmptyObject]
    floor_seq: Mapped[Zero] = mapped_column(BigInteger)
    choices_version: Mapped[Zero] = mapped_column(BigInteger)
