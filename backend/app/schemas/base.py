"""Values that several schemas share, and the limits of what callers may send."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, cast

import orjson
from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    StringConstraints,
)

from app.security.lines import plain_line
from app.timezones import checked_timezone

MAX_NESTING = 32
MAX_DATA_BYTES = 32 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_TITLE = 255
MAX_RAW_TITLE = 2_000
LAST_YEAR = 9000
LOCALE_PATTERN = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$"

JsonObject = dict[str, JsonValue]
Container = dict[str, object] | list[object]


class Received(BaseModel):
    """Base of what callers send: unknown fields are an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class Answered(BaseModel):
    """Base of what callers get."""

    model_config = ConfigDict(frozen=True)


def nesting(value: object) -> int:
    """How deep objects and arrays lie inside each other, counted to one past the limit."""
    depth, level = 0, _containers([value])
    while level and depth <= MAX_NESTING:
        depth += 1
        level = [
            child
            for container in level
            for child in _containers(
                container.values() if isinstance(container, dict) else container
            )
        ]
    return depth


def _containers(values: Iterable[object]) -> list[Container]:
    return [cast("Container", value) for value in values if isinstance(value, dict | list)]


def shallow(value: object) -> object:
    """The value, which is not nested too deeply.

    Raises:
        ValueError: it is.
    """
    if nesting(value) > MAX_NESTING:
        raise ValueError(f"must not be nested deeper than {MAX_NESTING} levels")
    return value


def small(value: JsonObject) -> JsonObject:
    """The object, whose JSON in UTF-8 is not too long.

    Raises:
        ValueError: it is.
    """
    if len(orjson.dumps(value)) > MAX_DATA_BYTES:
        raise ValueError(f"must have at most {MAX_DATA_BYTES // 1024} KiB")
    return value


def one_line(value: str, most: int) -> str:
    """The value as one plain line of 1 to `most` characters.

    Raises:
        ValueError: nothing is left of it, or too much.
    """
    line = plain_line(value)
    if not line:
        raise ValueError("must not be empty")
    if len(line) > most:
        raise ValueError(f"must have at most {most} characters")
    return line


def _title(value: str) -> str:
    return one_line(value, MAX_TITLE)


def _body(value: str) -> str:
    if len(value.encode()) > MAX_BODY_BYTES:
        raise ValueError(f"must have at most {MAX_BODY_BYTES // 1024} KiB")
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _iso_text(value: object) -> object:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("must be an ISO 8601 date and time with an offset")
    return value


def _in_utc(value: datetime) -> datetime:
    if not 1970 < value.year < LAST_YEAR:  # noqa: PLR2004 -- the epoch
        raise ValueError("is too far away")
    return value.astimezone(UTC)


def _email(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False, test_environment=True).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def _with_z(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Title = Annotated[
    str, Field(max_length=MAX_RAW_TITLE, examples=["New task assigned"]), AfterValidator(_title)
]
MarkdownBody = Annotated[
    str,
    Field(max_length=MAX_BODY_BYTES, examples=["Please review **PR #123**."]),
    AfterValidator(_body),
]
SmallObject = Annotated[
    JsonObject,
    BeforeValidator(shallow, json_schema_input_type=JsonObject),
    AfterValidator(small),
]
Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_iso_text, json_schema_input_type=AwareDatetime),
    AfterValidator(_in_utc),
]
AnsweredInstant = Annotated[
    datetime, PlainSerializer(_with_z, return_type=str, when_used="json"), Field()
]
TimezoneName = Annotated[str, AfterValidator(checked_timezone), Field(examples=["Europe/Berlin"])]
EmailAddress = Annotated[
    str, AfterValidator(_email), Field(max_length=254, examples=["ada@example.com"])
]
Locale = Annotated[
    str, StringConstraints(pattern=LOCALE_PATTERN, max_length=35), Field(examples=["de-AT"])
]
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
IdempotencyKey = Annotated[
    str,
    StringConstraints(pattern=f"^{IDEMPOTENCY_KEY.pattern}$"),
    Field(examples=["order-4711-shipped"]),
]
