"""What every channel is to the pipeline: claims in, outcomes out."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import ClassVar, Protocol
from uuid import UUID

from pydantic import JsonValue

from app.channels.texts import NO_TEXTS, ChannelTexts
from app.policy.kinds import Channel, DeviceKind, Reason
from app.policy.routing import Request


@dataclass(frozen=True, slots=True)
class Device:
    """A browser or an app that a push goes to, as it is stored.

    Args:
        endpoint: a browser's address at its push service; None for `fcm`, as are its keys.
        p256dh: the browser's public key, base64url.
        auth: the browser's secret, base64url.
        vapid_key_id: the key of ours that the browser subscribed with, None when it did not say.
        fcm_token: encrypted, in the context `fcm_token_context` gives.
        platform: what the device said of itself, such as `ios`.
    """

    id: UUID
    kind: DeviceKind
    endpoint: str | None
    p256dh: str | None
    auth: str | None
    vapid_key_id: str | None
    fcm_token: bytes | None
    platform: str | None


def fcm_token_context(device_id: UUID) -> str:
    """Where a device's FCM token lives, for its encryption."""
    return f"push_subscriptions/{device_id}/fcm_token"


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that this worker owns until its lease ends, with all that sending needs.

    Args:
        id: the delivery; also the provider's idempotency key.
        lease_token: proves the ownership when the outcome is recorded.
        attempts: attempts made, this one included.
        expired_leases: how often a worker took it and never came back.
        send_at: before which nothing was to go out, None when it was not scheduled.
        cancelled_at: when the notification was cancelled, None while it is not.
        email: the user's address, None when there is none.
        locale: the user's language, a BCP 47 tag, None when it is not known.
        language: of a template's words, None where they are the caller's own.
        texts: what a template says on other channels than in the inbox.
        email_epoch: counts the user's addresses; links in emails name it.
        was_taken: by a provider, before an operator let it be sent once more.
        device: where a push goes; None for other channels, and when the device is gone.
        unread_count: of the user's inbox when a push was claimed, the absolute badge; else 0.
        request: what the caller asked for, as the policy takes it.
        has_read: the user has read it, or taken it out of the inbox.
        reason: why it was not sent before.
        summarises: stands for so many pushes that were held, None for itself alone.
        titles: of the latest of those others, the newest first.
        counted_at: when it used up one of the user's limit, as far as this claim did that.
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
    request: Request
    locale: str | None = None
    send_at: datetime | None = None
    language: str | None = None
    texts: ChannelTexts = NO_TEXTS
    email_epoch: int = 0
    was_taken: bool = False
    device: Device | None = None
    unread_count: int = 0
    has_read: bool = False
    reason: Reason | None = None
    summarises: int | None = None
    titles: tuple[str, ...] = ()
    counted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider accepted it.

    Args:
        provider_id: the provider's name for it, if it gave one.
        vapid_key_id: the key that a browser's push service took, when it is not the stored one.
    """

    provider_id: str | None = None
    vapid_key_id: str | None = None


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
class Deferred:
    """Not tried, or in vain while the provider is known to be ill: this was no attempt.

    Args:
        after: seconds until it is due again.
    """

    reason: Reason
    detail: str
    after: float


@dataclass(frozen=True, slots=True)
class Held:
    """The policy wants it later: this was no attempt.

    Args:
        choices_version: of the user's choices, where it is for these.
    """

    reason: Reason
    until: datetime
    choices_version: int | None = None


@dataclass(frozen=True, slots=True)
class Digested:
    """The policy wants it in a digest: this was no attempt."""

    reason: Reason
    slot: datetime


class DeviceFate(Enum):
    """What a failed push means for the device it was for (REQ-006)."""

    REMOVE = "remove"
    """It is gone."""
    COUNT = "count"
    """It refused for good; the third time in a row removes it."""
    DISABLE = "disable"
    """It belongs to somebody else's project; operators are told."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It will never work: a dead letter."""

    reason: Reason
    detail: str
    device: DeviceFate | None = None


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


Outcome = Sent | Retry | Deferred | Held | Digested | Failed | Skipped | Cancelled | Recorded
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


class TokenVerdict(Enum):
    """What FCM says of a token that an app wants to subscribe with (REQ-008)."""

    VALID = "valid"
    INVALID = "invalid"
    """It is no token, or another project's."""
    UNKNOWN = "unknown"
    """FCM could not be asked."""


ValidateToken = Callable[[str], Awaitable[TokenVerdict]]
