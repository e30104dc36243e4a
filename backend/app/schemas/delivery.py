"""What operators and internal services see and change of deliveries (section 8.4)."""

from typing import Annotated, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from app.policy.kinds import Channel, DeliveryStatus, NotificationType, Reason
from app.schemas.base import Answered, AnsweredInstant, Instant, Received

RETRIES_AT_ONCE = 1_000


class DeadLetter(Answered):
    """A delivery that failed for good. What it says is its user's alone, so it is not shown."""

    id: UUID
    notification_id: UUID
    user_id: UUID
    type: NotificationType
    channel: Channel
    device_id: UUID | None
    reason: Reason
    detail: str | None = Field(description="What the provider said, or the last fault.")
    attempts: int = Field(description="Attempts that had an outcome.")
    failed_at: AnsweredInstant
    created_at: AnsweredInstant


class DeadLetterPage(Answered):
    """Dead letters, newest failure first."""

    items: list[DeadLetter]
    next_cursor: str | None
    has_more: bool


class RetriedDeadLetter(Answered):
    """The delivery is in the queue again, or went on from there since."""

    id: UUID
    status: DeliveryStatus


class RetryDeadLetters(Received):
    """Which dead letters to retry: those that fit everything given; oldest failure first."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    ids: Annotated[list[UUID], Field(min_length=1, max_length=RETRIES_AT_ONCE)] | None = None
    channel: Channel | None = None
    reason: Reason | None = None
    before: Instant | None = Field(None, description="Failed before this instant.")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not any((self.ids, self.channel, self.reason, self.before)):
            raise ValueError("name ids, channel, reason or before")
        return self


class RetriedDeadLetters(Answered):
    """How many are in the queue again; ask again while it is as many as one call retries."""

    retried: int = Field(description=f"At most {RETRIES_AT_ONCE:,}.")


class CancelledNotification(Answered):
    """What became of a cancelled notification's channels; those delivered are in neither list."""

    id: UUID
    cancelled: list[Channel] = Field(description="Nothing goes out on these any more.")
    sending: list[Channel] = Field(
        description="Being sent when it was cancelled: left to finish, not tried again."
    )
