"""Which channels a notification takes, when, and why (REQ-002, REQ-014 to REQ-019, REQ-022).

`decide` is a function of its inputs: no I/O, no clock, no randomness. Creating, claiming and
explaining all call it, so an explanation cannot differ from what happens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from app.policy.digest_schedule import next_slot
from app.policy.kinds import Action, Channel, DigestFrequency, NotificationType, Priority, Reason
from app.policy.preferences import BY_DEFAULT, Preferences
from app.policy.quiet_hours import Schedule, quiet_until


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
        is_suppressed: the address bounced or its owner complained.
        has_read: they have read the notification, wherever.
        timezone: the user's, or the default.
        configured: channels that have a provider in this installation.
        preferences: what they chose for the notification's type.
        schedule: quiet hours of all types, which win over those of the preferences; None where the
            user has none.
        pause_until: aware instant until which they want no push.
        frees_at: for each channel whose limit is used up, when it is the notification's turn.
        in_digest: the digest that the notification waits for is being written.
    """

    has_address: bool
    has_device: bool
    timezone: ZoneInfo
    has_phone: bool = False
    is_suppressed: bool = False
    has_read: bool = False
    configured: frozenset[Channel] = frozenset(Channel)
    preferences: Preferences = BY_DEFAULT
    schedule: Schedule | None = None
    pause_until: datetime | None = None
    frees_at: Mapping[Channel, datetime] = field(default_factory=dict[Channel, datetime])
    in_digest: bool = False


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


def is_limited(request: Request) -> bool:
    """Whether the notification uses up its user's limits, and waits for them."""
    return effective_priority(request) is not Priority.CRITICAL


def decide(
    request: Request,
    recipient: Recipient,
    *,
    now: datetime,
    channels: Iterable[Channel] = Channel,
) -> tuple[Decision, ...]:
    """Decide channels, all of them or some.

    Args:
        request: what the caller asked for.
        recipient: what is known of the user.
        now: an aware instant.

    Returns:
        One decision for each of the channels, in their order. In-app is never skipped but for what
        has expired, and for silent data.
    """
    return tuple(_decide(channel, request, recipient, now) for channel in channels)


def _decide(channel: Channel, request: Request, recipient: Recipient, now: datetime) -> Decision:
    skip = _reason_to_skip(channel, request, recipient, now)
    if skip is not None:
        return Decision(channel, Action.SKIP, skip)
    if channel is Channel.EMAIL and recipient.in_digest:
        return Decision(channel, Action.SEND, Reason.DIGEST)
    earliest = max(now, request.send_at or now)
    if channel is Channel.EMAIL and not _email_goes_now(request, recipient):
        return _digest(request, recipient, now)
    if channel is Channel.PUSH and (quiet := _quiet_until(request, recipient, earliest)):
        return Decision(channel, Action.HOLD, Reason.QUIET_HOURS, quiet)
    if earliest > now:
        return Decision(channel, Action.HOLD, Reason.SCHEDULED, earliest)
    frees_at = recipient.frees_at.get(channel)
    if is_limited(request) and frees_at is not None and frees_at > now:
        return Decision(channel, Action.HOLD, Reason.USER_LIMIT, frees_at)
    return Decision(channel, Action.SEND, Reason.SENT_NOW)


def slot_for(
    request: Request, preferences: Preferences, timezone: ZoneInfo, now: datetime
) -> datetime:
    """The first digest after `now` that the notification can go with, as a UTC instant."""
    frequency = preferences.digest_frequency
    return next_slot(
        max(now, request.send_at or now),
        # Low priority is digest only: who wants no digests gets it with the daily one.
        frequency=DigestFrequency.DAILY if frequency is DigestFrequency.INSTANT else frequency,
        at=preferences.digest_time,
        weekday=preferences.digest_day,
        timezone=timezone,
    )


def is_gathered(request: Request, preferences: Preferences) -> bool:
    """Whether email of this kind waits for a digest, as far as the user's frequency says."""
    if preferences.digest_frequency is DigestFrequency.INSTANT:
        return effective_priority(request) is Priority.LOW
    return preferences.digest_frequency is not DigestFrequency.NEVER


def _digest(request: Request, recipient: Recipient, now: datetime) -> Decision:
    slot = slot_for(request, recipient.preferences, recipient.timezone, now)
    if request.expires_at is not None and slot >= request.expires_at:
        return Decision(Channel.EMAIL, Action.SKIP, Reason.EXPIRED)
    return Decision(Channel.EMAIL, Action.DIGEST, Reason.DIGEST, slot)


def _quiet_until(request: Request, recipient: Recipient, instant: datetime) -> datetime | None:
    if effective_priority(request) is Priority.CRITICAL:
        return None
    schedule = recipient.schedule
    return quiet_until(
        instant,
        schedule=recipient.preferences.schedule if schedule is None else schedule,
        timezone=recipient.timezone,
        pause_until=recipient.pause_until,
    )


def _reason_to_skip(
    channel: Channel, request: Request, recipient: Recipient, now: datetime
) -> Reason | None:
    if request.expires_at is not None and request.expires_at <= now:
        return Reason.EXPIRED
    if request.silent and channel is not Channel.PUSH:
        return Reason.SILENT
    if channel is Channel.IN_APP:
        return None
    if effective_priority(request) is not Priority.CRITICAL:
        unwanted = _reason_not_wanted(channel, request, recipient)
        if unwanted is not None:
            return unwanted
    unreachable = _reason_unreachable(channel, request, recipient)
    if unreachable is None and channel not in recipient.configured:
        return Reason.CHANNEL_NOT_CONFIGURED
    return unreachable


def _reason_not_wanted(channel: Channel, request: Request, recipient: Recipient) -> Reason | None:
    """Why the caller or the user does not want a push or an email that is not critical."""
    preferences = recipient.preferences
    if channel is Channel.PUSH and effective_priority(request) is Priority.LOW:
        return Reason.PRIORITY_RULE
    if not _requested(channel, request):
        return Reason.NOT_REQUESTED
    if recipient.has_read:
        return Reason.READ_ELSEWHERE
    if channel is Channel.PUSH:
        return None if preferences.push_enabled else Reason.PREFERENCE_OFF
    is_off = preferences.digest_frequency is DigestFrequency.NEVER or not preferences.email_enabled
    return Reason.PREFERENCE_OFF if is_off else None


def _reason_unreachable(channel: Channel, request: Request, recipient: Recipient) -> Reason | None:
    if channel is Channel.PUSH:
        if not recipient.has_device:
            return Reason.NO_DEVICE
        return Reason.SILENT_NEEDS_FCM if request.silent and not recipient.has_phone else None
    if not recipient.has_address:
        return Reason.NO_ADDRESS
    return Reason.ADDRESS_SUPPRESSED if recipient.is_suppressed else None


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
    frequency = recipient.preferences.digest_frequency
    return bool(request.send_email) or frequency is DigestFrequency.INSTANT
