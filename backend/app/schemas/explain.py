"""What explaining answers: what would be decided, and what was decided and has happened."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.policy.kinds import Action, Channel, Reason
from app.schemas.base import Answered, AnsweredInstant, JsonObject
from app.schemas.notification import DeliveryWishes


class PreviewPreferences(DeliveryWishes):
    """A notification that might come; it needs no text."""


class ExplainedChannel(Answered):
    """What is decided for one channel, and why."""

    channel: Channel
    action: Action
    reason: Reason = Field(description="Stable code; docs/reasons.md has them all.")
    until: AnsweredInstant | None = Field(
        description="For `hold` when it is released, for `digest` the digest's slot."
    )


class Explanation(Answered):
    """What would be decided now, for every channel."""

    channels: list[ExplainedChannel] = Field(description="Always push, in_app and email.")


class TracedDecision(ExplainedChannel):
    """What was decided for one channel, and from what."""

    inputs: JsonObject = Field(description="All that the policy saw.")
    at: AnsweredInstant
    stage: Literal["create", "claim"] = Field(
        description="`create`: when it was stored; `claim`: when it was about to go out."
    )


class TracedEvent(Answered):
    """Something that happened."""

    at: AnsweredInstant
    channel: Channel | None = Field(description="Null for what concerns no channel alone.")
    event: str = Field(description="docs/explaining.md has them all.", examples=["sent"])
    reason: Reason | None
    device_id: UUID | None
    detail: JsonObject = Field(
        description="Such as the attempt's number, what the provider said and its id."
    )


class Trace(Answered):
    """Why a notification is where it is: what was decided, and what happened."""

    id: UUID
    decisions: list[TracedDecision] = Field(description="In the order they were made.")
    events: list[TracedEvent] = Field(description="In the order they happened.")
