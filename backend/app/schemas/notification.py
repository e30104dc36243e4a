"""What creating and reading notifications takes and answers (requirements, section 5.1, 5.5)."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import (
    BeforeValidator,
    Field,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.policy.kinds import Channel, DeliveryStatus, NotificationType, Priority
from app.schemas.actions import NotificationData
from app.schemas.base import (
    Answered,
    AnsweredInstant,
    IdempotencyKey,
    Instant,
    JsonObject,
    Locale,
    MarkdownBody,
    Received,
    SmallObject,
    Title,
)
from app.security.redact import Masked


class DeliveryWishes(Received):
    """How a notification is to be delivered: all that the policy asks of a call."""

    type: NotificationType
    priority: Priority | None = Field(
        None, description="Default: critical for security, normal for all others."
    )
    data: NotificationData = Field(
        default_factory=dict, description="Your own data, at most 32 KiB."
    )
    channels: Annotated[list[Channel], Field(min_length=1, max_length=3)] | None = Field(
        None, description="Narrows delivery; in-app is stored whatever it says."
    )
    send_email: StrictBool | None = Field(
        None, description="`true` sends an email now instead of with the next digest."
    )
    send_at: Instant | None = Field(None, description="Nothing goes out before.")
    expires_at: Instant | None = Field(None, description="Nothing goes out from then on.")

    @field_validator("expires_at")
    @classmethod
    def _expires_after_it_is_sent(
        cls, value: datetime | None, info: ValidationInfo
    ) -> datetime | None:
        send_at: datetime | None = info.data.get("send_at")
        if value is not None and send_at is not None and value <= send_at:
            raise ValueError("must be after send_at")
        return value


class NotificationContent(DeliveryWishes):
    """What a notification says, and how it is to be delivered."""

    template_id: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="A template's words win over title and body."
    )
    title: Title | None = Field(
        None, validate_default=True, description="Optional with a template only."
    )
    body: MarkdownBody | None = Field(
        None,
        validate_default=True,
        description="Markdown; raw HTML in it is cleaned. Optional with a template only.",
    )
    variables: SmallObject = Field(
        default_factory=dict, description="For the template, over `data`; at most 32 KiB."
    )
    locale: Locale | None = Field(None, description="Language of the template.")
    idempotency_key: IdempotencyKey | None = Field(
        None, description="For 24 hours a repeated call answers what the first one did."
    )

    @field_validator("title", "body")
    @classmethod
    def _there_without_a_template(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("template_id", "") is None:
            raise PydanticCustomError("missing", "Field required, but with a template")
        return value


class CreateNotification(NotificationContent):
    """A notification for one user (REQ-003)."""

    user_id: UUID


def _only_true(value: object) -> object:
    if value is not True:  # a literal would take the number 1 as well
        raise ValueError("must be true")
    return value


class Segment(Received):
    """Users by what is known of them when the call is made."""

    all: (
        Annotated[Literal[True], BeforeValidator(_only_true, json_schema_input_type=Literal[True])]
        | None
    ) = Field(None, description="Every user.")
    attributes: Annotated[SmallObject, Field(min_length=1)] | None = Field(
        None,
        description="What the user's attributes contain: each key with its value, at any depth.",
        examples=[{"plan": "pro"}],
    )
    locale: Locale | None = Field(
        None, description="The user's language; `de` means `de-AT` too. May narrow `attributes`."
    )

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        chosen = self.attributes is not None or self.locale is not None
        if chosen == (self.all is not None):
            raise ValueError("must have either all: true, or attributes, locale or both")
        return self


class CreateBatch(NotificationContent):
    """The same notification for many users: those listed, or those of a segment (REQ-005)."""

    segment: Segment | None = None
    user_ids: Annotated[list[UUID], Field(min_length=1, fail_fast=True)] | None = Field(
        None, validate_default=True, description="Either these or a segment; duplicates count once."
    )
    override: StrictBool = Field(
        False, description="Critical announcements of operators: passes the global limit."
    )

    @field_validator("user_ids")
    @classmethod
    def _either_users_or_a_segment(
        cls, value: list[UUID] | None, info: ValidationInfo
    ) -> list[UUID] | None:
        has_segment = info.data.get("segment") is not None
        if "segment" in info.data and has_segment == (value is not None):
            raise ValueError("must be given, or else a segment")
        return value

    @property
    def recipients(self) -> set[UUID] | Segment:
        """Whom it is for."""
        return self.segment or set(self.user_ids or ())


MaskedSecrets = Annotated[
    list[Masked], Field(description="Where secrets were found in the content, and masked.")
]


class NotificationAccepted(Answered):
    """The notification is stored and will be delivered."""

    id: UUID
    status: Literal["queued", "scheduled"]
    channels: list[Channel] = Field(description="Channels something will go out on.")
    created_at: AnsweredInstant
    masked: MaskedSecrets


class SendAccepted(Answered):
    """The notification is stored and will be delivered (section 5.5)."""

    notification_id: UUID
    status: Literal["queued", "scheduled"]
    masked: MaskedSecrets


class BatchAccepted(Answered):
    """The batch is stored and will be expanded."""

    batch_id: UUID
    recipient_count: int = Field(description="Distinct users it is for.")
    status: Literal["processing", "completed"] = Field(
        description="`completed` when the segment has nobody in it."
    )
    masked: MaskedSecrets


class BatchStatus(Answered):
    """How far a batch is; the counts are recipients."""

    batch_id: UUID
    recipient_count: int
    created: int = Field(description="Recipients with a notification.")
    delivered: int = Field(description="Recipients something has gone out to.")
    failed: int = Field(description="Recipients a channel failed for; unknown users included.")
    skipped: int = Field(description="Recipients nothing goes out to: expired, or cancelled.")
    pending: int = Field(description="All others, those whose deliveries are held included.")
    status: Literal["processing", "completed", "partially_failed"] = Field(
        description="Held deliveries and digests don't keep a batch `processing`."
    )


class NotificationItem(Answered):
    """A notification as its user sees it."""

    id: UUID
    type: NotificationType
    priority: Priority
    title: str
    body: str = Field(description="Markdown source.")
    body_html: str = Field(description="The body as safe HTML.")
    data: JsonObject
    read_at: AnsweredInstant | None
    created_at: AnsweredInstant
    expires_at: AnsweredInstant | None
    delivery_status: dict[Channel, DeliveryStatus]
    seq: int = Field(description="Number of its last change in the inbox.")
    position: int = Field(
        description="Number of the change that made it visible; newest and oldest go by it."
    )


class NotificationPage(Answered):
    """A page of the notification center (REQ-011)."""

    items: list[NotificationItem]
    unread_count: int
    next_cursor: str | None
    has_more: bool
    seq: int = Field(description="Inbox position this page reflects.")


class GoneNotification(Answered):
    """A notification that was deleted, or has expired."""

    id: UUID
    seq: int = Field(description="Number of the change with which it left the inbox.")
    deleted: Literal[True] = True


class SyncedNotifications(Answered):
    """What changed since a position, net, in the order of `seq`."""

    items: list[NotificationItem | GoneNotification]
    seq: int = Field(description="Where taking in all of it leads; the next `since`.")
    unread_count: int
    recovered: bool = Field(description="`false`: this position cannot be served; list anew.")
    has_more: bool


class ReadStatusUpdated(Answered):
    """Whether a notification is read (REQ-012)."""

    id: UUID
    read_at: AnsweredInstant | None


class MarkAllRead(Received):
    """What to mark as read; everything by default."""

    up_to: Annotated[int, Field(ge=0, le=2**63 - 1, strict=True)] | None = Field(
        None, description="Only what became visible at or before this `seq`."
    )
    type: NotificationType | None = None


class AllReadUpdated(Answered):
    """How many notifications were marked as read."""

    updated_count: int


class UnreadCount(Answered):
    """Unread notifications, absolute."""

    count: int
    by_type: dict[NotificationType, int]
