"""Settings take a schedule exactly when the policy finds a time in it that is not quiet."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.policy.quiet_hours import Schedule, quiet_until
from app.policy.replay import schedule_of
from app.schemas.settings import UpdateSettings

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
# All windows begin and end at even hours.
WEEK = [MONDAY + timedelta(hours=hour) for hour in range(0, 7 * 24, 2)]
Windows = list[tuple[str, str]]
WHOLE_DAYS: list[Windows] = [
    [("00:00", "24:00")],
    [("00:00", "08:00"), ("08:00", "16:00"), ("16:00", "24:00")],
    [("08:00", "16:00"), ("16:00", "08:00")],
    [("06:00", "00:00"), ("22:00", "06:00"), ("00:00", "06:00")],
]


@st.composite
def weeks(draw: st.DrawFn) -> dict[str, Windows]:
    """A week that is quiet throughout, but for some windows that were taken out."""
    week = {str(day): list(draw(st.sampled_from(WHOLE_DAYS))) for day in range(1, 8)}
    for day in draw(st.lists(st.sampled_from(sorted(week)), max_size=2)):
        if week[day]:
            week[day].pop(draw(st.integers(0, len(week[day]) - 1)))
    return week


@settings(max_examples=50)
@given(week=weeks())
def test_a_schedule_is_taken_when_it_leaves_time(week: dict[str, Windows]) -> None:
    schedule = schedule_of(week)
    is_loud = any(_is_loud(at, schedule) for at in WEEK)
    event("loud" if is_loud else "quiet")
    try:
        UpdateSettings.model_validate({"quiet_hours": week})
    except ValidationError as error:
        (told,) = error.errors()
        assert (told["type"], is_loud) == ("always_quiet", False)
    else:
        assert is_loud


def _is_loud(at: datetime, schedule: Schedule) -> bool:
    return quiet_until(at, schedule=schedule, timezone=ZoneInfo("UTC")) is None
