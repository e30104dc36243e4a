"""What users choose of pushes and emails, for a type or for all (requirements, section 5.3)."""

import re
from datetime import time
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    StrictBool,
)
from pydantic_core import PydanticCustomError

from app.errors import ErrorDetail
from app.policy.kinds import DigestFrequency, NotificationType
from app.schemas.base import Answered, AnsweredInstant, Received

TIME_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"
IN_APP: Final = "in_app_enabled"
ALL_CHANNELS: Final = ("all_push_enabled", "all_email_enabled")
SWITCHES: Final = {"all": True, "none": False, None: None}


def _local_time(value: object) -> time:
    if not isinstance(value, str) or not re.fullmatch(TIME_PATTERN, value):
        raise PydanticCustomError(
            "local_time", "must be a local time such as 09:00 or 22:30:00, without an offset"
        )
    return time.fromisoformat(value)


def _distinct(days: list[int]) -> list[int]:
    if len(set(days)) < len(days):
        raise PydanticCustomError("duplicate_day", "must not name a day twice")
    return sorted(days)


TimeText = Annotated[str, Field(pattern=TIME_PATTERN, examples=["09:00:00"])]
LocalTime = Annotated[time, BeforeValidator(_local_time, json_schema_input_type=TimeText)]
AnsweredTime = Annotated[
    time, PlainSerializer(time.isoformat, return_type=str), Field(examples=["09:00:00"])
]
Weekday = Annotated[int, Field(strict=True, ge=1, le=7, description="1 is Monday.", examples=[1])]
Weekdays = Annotated[
    list[Weekday],
    Field(max_length=7, json_schema_extra={"uniqueItems": True}, examples=[[1, 2, 3, 4, 5]]),
    AfterValidator(_distinct),
]


class UpdateQuietHours(Received):
    """One window of the day, on some days of the week."""

    quiet_hours_start: LocalTime | None = Field(
        None, description="In the user's timezone; set together with the end."
    )
    quiet_hours_end: LocalTime | None = Field(
        None, description="Of the next day when it is before the start."
    )
    quiet_hours_days: Weekdays | None = Field(
        None, description="Days that the quiet hours start on; `[]` is never."
    )


class UpdatePreference(UpdateQuietHours):
    """Fields that are sent are stored, null inherits again, what is left out stays as it is."""

    push_enabled: StrictBool | None = None
    email_enabled: StrictBool | None = None
    in_app_enabled: StrictBool | None = Field(None, description="Always on: `false` is refused.")
    digest_frequency: DigestFrequency | None = None
    digest_time: LocalTime | None = Field(None, description="In the user's timezone.")
    digest_day: Weekday | None = Field(None, description="Of weekly digests.")

    def changes(self) -> dict[str, Any]:
        """What is chosen anew, by the fields of `Choices`."""
        sent = self.model_dump(exclude_unset=True, exclude={IN_APP})
        return _with_tuple(sent)

    def problems(self) -> list[ErrorDetail]:
        """Why it cannot be meant."""
        if self.in_app_enabled is not False:
            return []
        message = "The notification center is always on; switch off push and email."
        found = [ErrorDetail(path=IN_APP, code="always_on", message=message)]
        if self.push_enabled is False and self.email_enabled is False:
            message = "At least one channel must be on."
            found.append(ErrorDetail(path=IN_APP, code="at_least_one_channel", message=message))
        return found


class UpdateGlobalPreferences(UpdateQuietHours):
    """Fields that are sent are stored, null goes back to the default, the others stay."""

    all_push_enabled: StrictBool | None = Field(
        None, description="`false` switches push off for every type, whatever the type says."
    )
    all_email_enabled: StrictBool | None = Field(
        None, description="`false` switches email off for every type, whatever the type says."
    )
    all: Literal["all", "none"] | None = Field(
        None, description="Switches push and email on, or off, at once."
    )
    default_digest_frequency: DigestFrequency | None = None
    default_digest_time: LocalTime | None = Field(None, description="In the user's timezone.")
    default_digest_day: Weekday | None = Field(None, description="Of weekly digests.")

    def changes(self) -> dict[str, Any]:
        """What is chosen anew, by the fields of `Choices`."""
        sent = self.model_dump(exclude_unset=True)
        if "all" in sent:
            sent |= dict.fromkeys(ALL_CHANNELS, SWITCHES[sent.pop("all")])
        return _with_tuple(
            {name.removeprefix("all_").removeprefix("default_"): sent[name] for name in sent}
        )

    def problems(self) -> list[ErrorDetail]:
        """Why it cannot be meant."""
        if "all" not in self.model_fields_set:
            return []
        return [
            ErrorDetail(path=name, code="contradiction", message="says otherwise than `all`")
            for name in ALL_CHANNELS
            if name in self.model_fields_set and getattr(self, name) is not SWITCHES[self.all]
        ]


def _with_tuple(sent: dict[str, Any]) -> dict[str, Any]:
    days = sent.get("quiet_hours_days")
    return sent if days is None else sent | {"quiet_hours_days": tuple(days)}


class TypePreference(Answered):
    """What holds for one type, with all that it inherits."""

    notification_type: NotificationType
    push_enabled: bool
    email_enabled: bool
    in_app_enabled: Literal[True]
    digest_frequency: DigestFrequency
    digest_time: AnsweredTime
    digest_day: int
    quiet_hours_start: AnsweredTime | None
    quiet_hours_end: AnsweredTime | None
    quiet_hours_days: list[int]
    updated_at: AnsweredInstant | None = Field(
        description="When something was last chosen for the type; null if nothing is."
    )


class GlobalPreferences(Answered):
    """What holds for all types that say nothing else."""

    all_push_enabled: bool
    all_email_enabled: bool
    default_digest_frequency: DigestFrequency
    default_digest_time: AnsweredTime
    default_digest_day: int
    quiet_hours_start: AnsweredTime | None
    quiet_hours_end: AnsweredTime | None
    quiet_hours_days: list[int]
    updated_at: AnsweredInstant | None = Field(
        description="When something was last chosen for all; null if nothing is."
    )


class UpdatedGlobalPreferences(GlobalPreferences):
    """What holds for all types, and what follows for each."""

    items: list[TypePreference]


class PreferenceList(Answered):
    """What holds for each of the seven types, and for all."""

    items: list[TypePreference]
    of_all: GlobalPreferences = Field(serialization_alias="global")
