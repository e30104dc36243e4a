"""What users set up for all that they get: timezone, language, quiet hours, pause (REQ-019)."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from app.schemas.base import (
    Answered,
    AnsweredInstant,
    Instant,
    Locale,
    Received,
    TimezoneName,
)

START_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
END_PATTERN: Final = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
WINDOWS_A_DAY: Final = 8
DAY: Final = 24 * 60  # minutes
WEEK: Final = 7 * DAY


def _minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _some_time(window: tuple[str, str]) -> tuple[str, str]:
    start, end = window
    if start == end:
        raise PydanticCustomError("empty_window", "must not end when it starts")
    return window


def _leaves_time(schedule: "QuietHours") -> "QuietHours":
    if not has_loud_minute(schedule):
        raise PydanticCustomError(
            "always_quiet", "must leave a minute of the week; to get no pushes, switch push off"
        )
    return schedule


def has_loud_minute(schedule: "Mapping[Day, Iterable[WindowPair]]") -> bool:
    """Whether the windows leave a minute of an ordinary week.

    Args:
        schedule: windows by the weekday they start on, `"1"` to `"7"`; one that ends at or before
            its start ends on the next day.
    """
    windows: list[tuple[int, int]] = []
    for day, pairs in schedule.items():
        midnight = (int(day) - 1) * DAY
        for start, end in pairs:
            first, last = midnight + _minute(start), midnight + _minute(end)
            last += DAY if last <= first else 0
            # What reaches into the next week begins this one.
            windows += [(first, last), (first - WEEK, last - WEEK)]
    reached = 0
    for first, last in sorted(windows):
        if first > reached:
            break
        reached = max(reached, last)
    return reached < WEEK


Day = Literal["1", "2", "3", "4", "5", "6", "7"]
WindowPair = Annotated[
    tuple[
        Annotated[str, Field(pattern=START_PATTERN)],
        Annotated[str, Field(pattern=END_PATTERN)],
    ],
    AfterValidator(_some_time),
]
QuietHours = Annotated[
    dict[Day, Annotated[list[WindowPair], Field(max_length=WINDOWS_A_DAY)]],
    AfterValidator(_leaves_time),
]


class UpdateSettings(Received):
    """Fields that are sent are stored, null goes back to the default, the others stay."""

    timezone: TimezoneName | None = None
    locale: Locale | None = None
    quiet_hours: QuietHours | None = Field(
        None,
        description=(
            "Windows by the weekday they start on (1 is Monday), in the user's timezone. They win"
            " over the quiet hours of preferences; `{}` is none at all."
        ),
        examples=[{"1": [["22:00", "08:00"]], "6": [["00:00", "24:00"]]}],
    )
    pause_until: Instant | None = Field(
        None, description="No push before, but critical ones; at most a year ahead."
    )


class UserSettings(Answered):
    """What is stored; null where nothing is."""

    timezone: str | None
    locale: str | None
    quiet_hours: dict[str, list[list[str]]] | None
    pause_until: AnsweredInstant | None
