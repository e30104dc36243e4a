"""Stage 2: what is known of the users, and what the policy says for each draft."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import JsonValue

from app.config import Settings
from app.db.database import Driver
from app.pipeline.draft import Draft, JsonObject
from app.policy.kinds import Channel, DeviceKind
from app.policy.routing import Decision, Recipient, Request, decide, effective_priority
from app.realtime.inboxes import Inbox, inbox_of

# Inboxes are locked in the order of user ids.
LOCK_RECIPIENTS = """
    SELECT i.user_id, i.seq, i.unread, r.email IS NOT NULL AS has_address, r.timezone,
           EXISTS (SELECT FROM push_subscriptions p WHERE p.user_id = i.user_id) AS has_device
    FROM inbox_state i
    LEFT JOIN notification_recipients r ON r.user_id = i.user_id
    WHERE i.user_id = ANY($1::uuid[])
    ORDER BY i.user_id FOR UPDATE OF i
"""
# Read when the inboxes are locked, however long that took: who waited would see devices that are
# gone, and not see those that took their place. They stay until what is for them is stored. Locked
# in the order of ids, as whoever removes devices does.
HOLD_DEVICES = """
    SELECT user_id, id, kind, created_at FROM push_subscriptions
    WHERE user_id = ANY($1::uuid[]) AND is_active
    ORDER BY id FOR KEY SHARE
"""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for users who chose nothing."""

    timezone: ZoneInfo
    digest_time: time
    digest_weekday: int
    configured: frozenset[Channel]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Defaults":
        """The defaults of this installation."""
        # Browsers need no provider's account.
        configured = {Channel.IN_APP, Channel.PUSH}
        if settings.email_configured:
            configured.add(Channel.EMAIL)
        return cls(
            timezone=settings.default_timezone,
            digest_time=time.fromisoformat(settings.digest_default_time),
            digest_weekday=settings.digest_default_day,
            configured=frozenset(configured),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A user as a draft finds them.

    Args:
        recipient: what the policy needs to know of them.
        inbox: locked.
        devices: those that pushes go to, the oldest first.
    """

    recipient: Recipient
    inbox: Inbox
    devices: Mapping[UUID, DeviceKind]

    def narrowed(self, draft: Draft) -> "Target":
        """The same user with those devices alone that the draft is for."""
        if draft.only_device is None:
            return self
        kind = self.devices.get(draft.only_device)
        devices = {} if kind is None else {draft.only_device: kind}
        return replace(self, recipient=_having(self.recipient, devices), devices=devices)


async def lock_recipients(
    driver: Driver, user_ids: Collection[UUID], defaults: Defaults
) -> dict[UUID, Target]:
    """Each user who has an inbox, which is locked."""
    rows = await driver.fetch(LOCK_RECIPIENTS, sorted(user_ids))
    devices: dict[UUID, dict[UUID, DeviceKind]] = {row["user_id"]: {} for row in rows}
    if having := [row["user_id"] for row in rows if row["has_device"]]:
        held = await driver.fetch(HOLD_DEVICES, having)
        for device in sorted(held, key=lambda row: (row["created_at"], row["id"])):
            devices[device["user_id"]][device["id"]] = DeviceKind(device["kind"])
    return {row["user_id"]: _target(row, devices[row["user_id"]], defaults) for row in rows}


def _target(
    row: Mapping[str, Any], devices: Mapping[UUID, DeviceKind], defaults: Defaults
) -> Target:
    recipient = Recipient(
        has_address=row["has_address"],
        has_device=False,
        timezone=_timezone(row["timezone"], defaults.timezone),
        configured=defaults.configured,
        digest_time=defaults.digest_time,
        digest_weekday=defaults.digest_weekday,
    )
    return Target(_having(recipient, devices), inbox_of(row), devices)


def _having(recipient: Recipient, devices: Mapping[UUID, DeviceKind]) -> Recipient:
    has_phone = DeviceKind.FCM in devices.values()
    return replace(recipient, has_device=bool(devices), has_phone=has_phone)


def _timezone(name: str | None, default: ZoneInfo) -> ZoneInfo:
    # A zone that this machine does not know must not stop the user's notifications.
    try:
        return ZoneInfo(name) if name else default
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return default


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the policy, as the trace keeps it."""

    decisions: tuple[Decision, ...]
    inputs: JsonObject

    def outcomes(self) -> list[JsonValue]:
        """The decisions as the trace shows them."""
        return [
            {
                "channel": decision.channel.value,
                "action": decision.action.value,
                "reason": decision.reason.value,
                "until": _instant(decision.until),
            }
            for decision in self.decisions
        ]


def run_policy(draft: Draft, recipient: Recipient) -> Run:
    """Decide a draft at the instant it was made."""
    decisions = decide(draft.request, recipient, now=draft.created_at)
    return Run(decisions, recorded_inputs(draft.request, recipient, draft.created_at))


def recorded_inputs(request: Request, recipient: Recipient, now: datetime) -> JsonObject:
    """All that `decide` saw, so that the run can be replayed."""
    known: JsonObject = {
        "has_address": recipient.has_address,
        "has_device": recipient.has_device,
        "has_phone": recipient.has_phone,
        "timezone": recipient.timezone.key,
        "configured": _channels(recipient.configured),
        "digest_frequency": recipient.digest_frequency.value,
        "digest_time": recipient.digest_time.isoformat(),
        "digest_weekday": recipient.digest_weekday,
    }
    return {
        "type": request.type.value,
        "priority": effective_priority(request).value,
        "channels": _channels(request.channels),
        "send_email": request.send_email,
        "send_at": _instant(request.send_at),
        "expires_at": _instant(request.expires_at),
        "silent": request.silent,
        "now": _instant(now),
        "recipient": known,
    }


def _channels(channels: frozenset[Channel] | None) -> JsonValue:
    if channels is None:
        return None
    return [channel.value for channel in Channel if channel in channels]


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()
