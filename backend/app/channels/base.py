"""What every channel is to the pipeline: claims in, outcomes out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol
from uuid import UUID

from pydantic import JsonValue

from app.policy.kinds import Channel, Reason


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that this worker owns until its lease ends, with all that sending needs.

    Args:
        id: the delivery; also the provider's idempotency key.
        lease_token: proves the ownership when the outcome is recorded.
        attempts: attempts made, this one included.
        expired_leases: how often a worker took it and never came back.
        cancelled_at: when the notification was cancelled, None while it is not.
        email: the user's address, None when there is none.
    """

    id: UUID
    lease_token: UUID
    notification_id: UUID
    user_id: UUID
    channel: Channel
    attempts: int
    expired_leases: int
    type: str
    priority: str
    title: str
    body: str
    body_html: str
    data: dict[str, JsonValue]
    created_at: datetime
    expires_at: datetime | None
    cancelled_at: datetime | None
    email: str | None
    full_name: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider accepted it.

    Args:
        provider_id: the provider's name for it, if it gave one.
    """

    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later.

    Args:
        reason: stable code of why not now.
        detail: a sentence for operators, free of personal data.
        after: seconds the provider asked to wait.
    """

    reason: Reason
    detail: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It will never work: a dead letter."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A rule says it must not go out any more."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It was withdrawn before it went out."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Recorded:
    """The channel recorded the outcome itself, in the transaction that did the work."""


Outcome = Sent | Retry | Failed | Skipped | Cancelled | Recorded
Report = Callable[[Claim, Outcome], None]


class ChannelSender(Protocol):
    """A channel's sending half.

    A sender reports every claim exactly once, each as soon as it is known, and raises nothing
    that belongs to one claim only: a fault of one delivery must not delay another.
    """

    channel: ClassVar[Channel]

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send the claims and report each one's outcome."""
        ...
