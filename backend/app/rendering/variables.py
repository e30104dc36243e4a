"""What a template declares that it needs, and whether a call gives it (REQ-004; the contract)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal, cast, get_args

from pydantic import JsonValue, TypeAdapter, ValidationError

from app.errors import ErrorDetail, ValidationFailed
from app.schemas.base import Instant

VariableType = Literal["string", "integer", "number", "boolean", "datetime"]
TYPES: Final = get_args(VariableType)
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
MAX_WHOLE: Final = 2**53  # beyond it 1.0 more is no other number

instant = TypeAdapter[Any](Instant)


@dataclass(frozen=True, slots=True)
class Variable:
    """One that a template declares.

    Args:
        required: whether a call has to give it.
        default: what it is where a call does not.
    """

    type: VariableType
    required: bool = True
    default: JsonValue = None


def declared(schema: Mapping[str, JsonValue]) -> dict[str, Variable]:
    """The variables that a template's column `variables` declares.

    Args:
        schema: by name a type, which is then required, or an object of `type`, `required` and
            `default`; required unless it says otherwise, or has a default.

    Raises:
        ValidationFailed: a name, a type or a default that cannot be used, with the path
            `variables.NAME`.
    """
    found: dict[str, Variable] = {}
    faults: list[ErrorDetail] = []
    for name, said in schema.items():
        try:
            found[name] = _variable(name, said)
        except ValueError as error:
            faults.append(_fault(name, "invalid_variable", str(error)))
    if faults:
        raise ValidationFailed(details=faults)
    return found


def values_of(
    variables: Mapping[str, Variable], given: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """What the template gets: every variable it declares, and no other.

    Args:
        given: `data` overlaid by `variables`; null counts as not given.

    Returns:
        Values of the declared types: whole numbers without a fraction, instants in UTC, None for
        what is optional and was not given.

    Raises:
        ValidationFailed: one is missing or of another type, with the path `variables.NAME`.
    """
    values: dict[str, JsonValue] = {}
    faults: list[ErrorDetail] = []
    for name, variable in variables.items():
        value = given.get(name)
        if value is None:
            values[name] = variable.default
            if variable.required:
                faults.append(_fault(name, "missing", "is required by the template"))
            continue
        try:
            values[name] = READ[variable.type](value)
        except ValueError as error:
            faults.append(_fault(name, "wrong_type", str(error)))
    if faults:
        raise ValidationFailed(details=faults)
    return values


def _variable(name: str, said: JsonValue) -> Variable:
    if not NAME.fullmatch(name):
        raise ValueError("names are of letters, digits and _, and begin with a letter")
    fields = {"type": said} if isinstance(said, str) else said
    if not isinstance(fields, dict) or not fields.keys() <= {"type", "required", "default"}:
        raise ValueError("must be a type, or an object of type, required and default")
    kind, required = fields.get("type"), fields.get("required", True)
    if kind not in TYPES:
        raise ValueError(f"the type must be one of {', '.join(TYPES)}")
    if not isinstance(required, bool):
        raise ValueError("required must be true or false")
    kind, default = cast("VariableType", kind), fields.get("default")
    if default is None:
        return Variable(kind, required)
    return Variable(kind, required=False, default=READ[kind](default))


def _fault(name: str, code: str, message: str) -> ErrorDetail:
    return {"path": f"variables.{name}", "code": code, "message": message}


def _string(value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _integer(value: JsonValue) -> JsonValue:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or abs(cast("float", value)) > MAX_WHOLE:
        raise ValueError("must be a whole number")
    return int(cast("float", value))


def _number(value: JsonValue) -> JsonValue:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("must be a number")
    return value


def _boolean(value: JsonValue) -> JsonValue:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _datetime(value: JsonValue) -> JsonValue:
    try:
        return instant.validate_python(value).isoformat()
    except ValidationError:
        raise ValueError("must be an ISO 8601 date and time with an offset") from None


READ: Final[Mapping[VariableType, Callable[[JsonValue], JsonValue]]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "datetime": _datetime,
}
