"""What a user chose, and what follows from it for one type (REQ-017 to REQ-019). Pure."""

from dataclasses import dataclass
from datetime import time
from typing import TypeVar

from app.policy.kinds import DigestFrequency
from app.policy.quiet_hours import Schedule, Window

WEEKDAYS = (1, 2, 3, 4, 5)

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user chose for one type, or for all; None says nothing.

    Args:
        digest_day: 1 (Monday) to 7.
        quiet_hours_start: local time; set if and only if the end is, and differs from it.
        quiet_hours_days: the weekdays, 1 to 7, that the window starts on.
    """

    push_enabled: bool | None = None
    email_enabled: bool | None = None
    digest_frequency: DigestFrequency | None = None
    digest_time: time | None = None
    digest_day: int | None = None
    quiet_hours_start: time | None = None
    quiet_hours_end: time | None = None
    quiet_hours_days: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Preferences:
    """What holds for one type. In-app is always on.

    Args:
        digest_day: 1 (Monday) to 7, for weekly digests.
        quiet_hours_start: local time, None where there are no quiet hours, as is the end.
    """

    push_enabled: bool = True
    email_enabled: bool = True
    digest_frequency: DigestFrequency = DigestFrequency.DAILY
    digest_time: time = time(9)
    digest_day: int = 1
    quiet_hours_start: time | None = None
    quiet_hours_end: time | None = None
    quiet_hours_days: tuple[int, ...] = WEEKDAYS

    @property
    def schedule(self) -> Schedule:
        """The quiet hours, by weekday."""
        if self.quiet_hours_start is None or self.quiet_hours_end is None:
            return {}
        windows = (Window(self.quiet_hours_start, self.quiet_hours_end),)
        return dict.fromkeys(self.quiet_hours_days, windows)


NOTHING_CHOSEN = Choices()
BY_DEFAULT = Preferences()


def effective(of_type: Choices, of_all: Choices, defaults: Preferences) -> Preferences:
    """What holds for a type.

    Args:
        of_type: chosen for the type; wins, but for channels that are off for all.
        of_all: chosen for all types; a channel that is off here is off for each.
        defaults: what holds where nothing is chosen.
    """
    window = of_type if of_type.quiet_hours_start is not None else of_all
    return Preferences(
        push_enabled=_is_on(of_type.push_enabled, of_all.push_enabled, defaults.push_enabled),
        email_enabled=_is_on(of_type.email_enabled, of_all.email_enabled, defaults.email_enabled),
        digest_frequency=_first(
            of_type.digest_frequency, of_all.digest_frequency, defaults.digest_frequency
        ),
        digest_time=_first(of_type.digest_time, of_all.digest_time, defaults.digest_time),
        digest_day=_first(of_type.digest_day, of_all.digest_day, defaults.digest_day),
        quiet_hours_start=window.quiet_hours_start,
        quiet_hours_end=window.quiet_hours_end,
        quiet_hours_days=_first(
            of_type.quiet_hours_days, of_all.quiet_hours_days, defaults.quiet_hours_days
        ),
    )


def _is_on(of_type: bool | None, of_all: bool | None, default: bool) -> bool:
    if of_all is False:
        return False
    return _first(of_type, of_all, default)


def _first(of_type: Chosen | None, of_all: Chosen | None, default: Chosen) -> Chosen:
    if of_type is not None:
        return of_type
    return default if of_all is None else of_all
