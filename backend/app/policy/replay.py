"""All that a run of the policy saw, as JSON for the trace, and back again. Pure.

Whoever has the record of a run can make the run once more and must get what was recorded.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from app.policy.kinds import Channel, DigestFrequency, NotificationType, Priority
from app.policy.preferences import Preferences
from app.policy.quiet_hours import Schedule, Window
from app.policy.routing import Decision, Recipient, Request, effective_priority

Record = dict[str, Any]


def inputs_of(request: Request, recipient: Recipient, now: datetime) -> Record:
    """What `decide` sees; `replayed` takes it."""
    return {
        "type": request.type.value,
        "priority": effective_priority(request).value,
        "channels": None if request.channels is None else _channels(request.channels),
        "send_email": request.send_email,
        "send_at": _instant(request.send_at),
        "expires_at": _instant(request.expires_at),
        "silent": request.silent,
        "now": _instant(now),
        "recipient": {
            "has_address": recipient.has_address,
            "has_device": recipient.has_device,
            "has_phone": recipient.has_phone,
            "is_suppressed": recipient.is_suppressed,
            "has_read": recipient.has_read,
            "timezone": recipient.timezone.key,
            "configured": _channels(recipient.configured),
            "preferences": _preferences(recipient.preferences),
            "schedule": None if recipient.schedule is None else schedule_json(recipient.schedule),
            "pause_until": _instant(recipient.pause_until),
            "frees_at": {
                channel.value: _instant(recipient.frees_at[channel])
                for channel in Channel
                if channel in recipient.frees_at
            },
            "in_digest": recipient.in_digest,
        },
    }


def outcomes_of(decisions: Iterable[Decision]) -> list[Record]:
    """The decisions as the trace shows them."""
    return [
        {
            "channel": decision.channel.value,
            "action": decision.action.value,
            "reason": decision.reason.value,
            "until": _instant(decision.until),
        }
        for decision in decisions
    ]


def replayed(inputs: Mapping[str, Any]) -> tuple[Request, Recipient, datetime]:
    """What `decide` is to be given to decide again."""
    known, channels = inputs["recipient"], inputs["channels"]
    request = Request(
        type=NotificationType(inputs["type"]),
        priority=Priority(inputs["priority"]),
        channels=None if channels is None else frozenset(map(Channel, channels)),
        send_email=inputs["send_email"],
        send_at=_moment(inputs["send_at"]),
        expires_at=_moment(inputs["expires_at"]),
        silent=inputs["silent"],
    )
    recipient = Recipient(
        has_address=known["has_address"],
        has_device=known["has_device"],
        has_phone=known["has_phone"],
        is_suppressed=known["is_suppressed"],
        has_read=known["has_read"],
        timezone=ZoneInfo(known["timezone"]),
        configured=frozenset(map(Channel, known["configured"])),
        preferences=_preferences_of(known["preferences"]),
        schedule=None if known["schedule"] is None else schedule_of(known["schedule"]),
        pause_until=_moment(known["pause_until"]),
        frees_at={
            Channel(channel): datetime.fromisoformat(instant)
            for channel, instant in known["frees_at"].items()
        },
        in_digest=known.get("in_digest", False),
    )
    return request, recipient, datetime.fromisoformat(inputs["now"])


def schedule_json(schedule: Schedule) -> dict[str, list[list[str]]]:
    """A schedule as settings hold it: `{"1": [["22:00", "08:00"]]}`; a day may end at 24:00."""
    return {
        str(day): [[_clock(window.start), _clock(window.end, is_end=True)] for window in windows]
        for day, windows in schedule.items()
    }


def schedule_of(stored: Mapping[str, Iterable[Iterable[str]]]) -> Schedule:
    """The schedule that settings hold."""
    return {int(day): tuple(_window(*pair) for pair in pairs) for day, pairs in stored.items()}


def _window(start: str, end: str) -> Window:
    return Window(time.fromisoformat(start), time() if end == "24:00" else time.fromisoformat(end))


def _clock(value: time, *, is_end: bool = False) -> str:
    return "24:00" if is_end and value == time() else value.isoformat("minutes")


@lru_cache(maxsize=1_000)
def _preferences(preferences: Preferences) -> Record:
    start, end = preferences.quiet_hours_start, preferences.quiet_hours_end
    return {
        "push_enabled": preferences.push_enabled,
        "email_enabled": preferences.email_enabled,
        "digest_frequency": preferences.digest_frequency.value,
        "digest_time": preferences.digest_time.isoformat(),
        "digest_day": preferences.digest_day,
        "quiet_hours_start": None if start is None else start.isoformat(),
        "quiet_hours_end": None if end is None else end.isoformat(),
        "quiet_hours_days": list(preferences.quiet_hours_days),
    }


def _preferences_of(record: Mapping[str, Any]) -> Preferences:
    start, end = record["quiet_hours_start"], record["quiet_hours_end"]
    return Preferences(
        push_enabled=record["push_enabled"],
        email_enabled=record["email_enabled"],
        digest_frequency=DigestFrequency(record["digest_frequency"]),
        digest_time=time.fromisoformat(record["digest_time"]),
        digest_day=record["digest_day"],
        quiet_hours_start=None if start is None else time.fromisoformat(start),
        quiet_hours_end=None if end is None else time.fromisoformat(end),
        quiet_hours_days=tuple(record["quiet_hours_days"]),
    )


@lru_cache(maxsize=16)
def _channels(channels: frozenset[Channel]) -> list[str]:
    return [channel.value for channel in Channel if channel in channels]


def _instant(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat()


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
