"""Which channels a notification takes, when, and why (REQ-002, REQ-014, REQ-018).

`decide` is a function of its inputs: no I/O, no clock, no randomness. Creating, claiming and
explaining all call it, so an explanation cannot differ from what happens.
"""

from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

from app.policy.digest_schedule import next_slot
from app.policy.kinds import Action, Channel, DigestFrequency, NotificationType, Priority, Reason


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller asked for.

    Args:
        type: the notification's type.
        priority: as given; None takes the type's own.
        channels: narrows delivery to these; None does not narrow.
        send_email: True asks for an email now, False for none, None says nothing.
        send_at: aware instant before which nothing goes out.
        expires_at: aware instant from which nothing goes out any more.
        silent: data for apps alone: nothing is shown, listed or mailed (REQ-007).
    """

    type: NotificationType
    priority: Priority | None = None
    channels: frozenset[Channel] | None = None
    send_email: bool | None = None
    send_at: datetime | None = None
    expires_at: datetime | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Recipient:
    """What is known of the user when deciding.

    Args:
        has_address: an email address is stored.
        has_device: a push subscription is active.
        has_phone: one of them is an app's, which takes silent pushes.
        timezone: the user's, or the default.
        configured: channels that have a provider in this installation.
        digest_frequency: how email is gathered for this type.
        digest_time: local time of digests.
        digest_weekday: 1 (Monday) to 7, for weekly digests.
    """

    has_address: bool
    has_device: bool
    timezone: ZoneInfo
    has_phone: bool = False
    configured: frozenset[Channel] = frozenset(Channel)
    digest_frequency: DigestFrequency = DigestFrequency.DAILY
    digest_time: time = time(9)
    digest_weekday: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens on one channel, and why.

    Args:
        until: for `hold` the instant it is released, for `digest` the slot.
    """

    channel: Channel
    action: Action
    reason: Reason
    until: datetime | None = None

    @property
    def delivers(self) -> bool:
        """Whether something will go out on this channel, now or later."""
        return self.action is not Action.SKIP


def effective_priority(request: Request) -> Priority:
    """The request's priority, else its type's: security is critical, all others normal."""
    if request.priority is not None:
        return request.priority
    is_security = request.type is NotificationType.SECURITY
    return Priority.CRITICAL if is_security else Priority.NORMAL


def decide(request: Request, recipient: Recipient, *, now: datetime) -> tuple[Decision, ...]:
    """Decide all three channels, in the order of `Channel`.

    Args:
        request: what the caller asked for.
        recipient: what is known of the user.
        now: an aware instant.

    Returns:
        One decision for each channel. In-app is never skipped but for what has expired, and for
        silent data.
    """
    return tuple(_decide(channel, request, recipient, now) for channel in Channel)


def _decide(channel: Channel, request: Request, recipient: Recipient, now: datetime) -> Decision:
    skip = _reason_to_skip(channel, request, recipient, now)
    if skip is not None:
        return Decision(channel, Action.SKIP, skip)
    earliest = max(now, request.send_at or now)
    if channel is Channel.EMAIL and not _email_goes_now(request, recipient):
        slot = next_slot(
            earliest,
            frequency=recipient.digest_frequency,
            at=recipient.digest_time,
            weekday=recipient.digest_weekday,
            timezone=recipient.timezone,
        )
        if request.expires_at is not None and slot >= request.expires_at:
            return Decision(channel, Action.SKIP, Reason.EXPIRED)
        return Decision(channel, Action.DIGEST, Reason.DIGEST, slot)
    if earliest > now:
        return Decision(channel, Action.HOLD, Reason.SCHEDULED, earliest)
    return Decision(channel, Action.SEND, Reason.SENT_NOW)


def _reason_to_skip(
    channel: Channel, request: Request, recipient: Recipient, now: datetime
) -> Reason | None:
    priority = effective_priority(request)
    if request.expires_at is not None and request.expires_at <= now:
        return Reason.EXPIRED
    if request.silent and channel is not Channel.PUSH:
        return Reason.SILENT
    if channel is Channel.IN_APP:
        return None
    if channel is Channel.PUSH and priority is Priority.LOW:
        return Reason.PRIORITY_RULE
    if priority is not Priority.CRITICAL and not _requested(channel, request):
        return Reason.NOT_REQUESTED
    if channel is Channel.PUSH and not recipient.has_device:
        return Reason.NO_DEVICE
    if channel is Channel.PUSH and request.silent and not recipient.has_phone:
        return Reason.SILENT_NEEDS_FCM
    if channel is Channel.EMAIL:
        if (
            priority is not Priority.CRITICAL
            and recipient.digest_frequency is DigestFrequency.NEVER
        ):
            return Reason.PREFERENCE_OFF
        if not recipient.has_address:
            return Reason.NO_ADDRESS
    if channel not in recipient.configured:
        return Reason.CHANNEL_NOT_CONFIGURED
    return None


def _requested(channel: Channel, request: Request) -> bool:
    if request.channels is not None:
        return channel in request.channels
    return not (channel is Channel.EMAIL and request.send_email is False)


def _email_goes_now(request: Request, recipient: Recipient) -> bool:
    priority = effective_priority(request)
    if priority is Priority.CRITICAL:
        return True
    if priority is Priority.LOW:
        return False
    return bool(request.send_email) or recipient.digest_frequency is DigestFrequency.INSTANT
