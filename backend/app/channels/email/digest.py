"""What a digest tells of: notifications of one user, gathered (REQ-015)."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from app.policy.kinds import DigestFrequency, NotificationType, Priority


@dataclass(frozen=True, slots=True)
class DigestItem:
    """A notification in a digest.

    Args:
        body_html: safe HTML.
        language: of a template's words, None where they are the caller's own.
    """

    notification_id: UUID
    type: NotificationType
    priority: Priority
    title: str
    body_html: str
    created_at: datetime
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest that is to be written.

    Args:
        slot: the instant it is for.
        email_epoch: counts the user's addresses; links in emails name it.
        items: at least one, the newest first.
    """

    id: UUID
    user_id: UUID
    email: str
    full_name: str | None
    locale: str | None
    timezone: ZoneInfo
    frequency: DigestFrequency
    slot: datetime
    email_epoch: int
    items: tuple[DigestItem, ...]
