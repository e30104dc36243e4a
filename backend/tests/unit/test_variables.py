from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from app.errors import ValidationFailed
from app.rendering.variables import TYPES, declared, values_of


def refused(schema: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> list[str]:
    """Path and code of each fault."""
    with pytest.raises(ValidationFailed) as caught:
        values_of(declared(schema), given)
    return [f"{detail['path']} {detail['code']}" for detail in caught.value.details]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "", ""),
        ("string", "Ada", "Ada"),
        ("integer", 3, 3),
        ("integer", -3.0, -3),
        ("integer", 2**53, 2**53),
        ("number", 3, 3),
        ("number", 2.5, 2.5),
        ("boolean", False, False),
        ("datetime", "2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00+00:00"),
        ("datetime", "2026-03-01T10:00:00.5Z", "2026-03-01T10:00:00.500000+00:00"),
    ],
)
def test_a_value_of_the_declared_type_is_taken(
    kind: str, value: JsonValue, expected: JsonValue
) -> None:
    values = values_of(declared({"it": kind}), {"it": value, "other": 1})
    assert values == {"it": expected}
    assert type(values["it"]) is type(expected)


WRONG: dict[str, list[JsonValue]] = {
    "string": [1, True, ["a"], {}],
    "integer": [True, "3", 3.5, 2**53 + 1, 1e300, [3]],
    "number": [True, "3", {}, []],
    "boolean": [0, 1, "true", []],
    "datetime": [
        0, "now", "2026-03-01", "2026-03-01T10:00:00", "9999-12-31T23:59:59-01:00", "1e3",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_of_another_type_is_refused(kind: str) -> None:
    for value in WRONG[kind]:
        assert refused({"it": kind}, {"it": value}) == ["variables.it wrong_type"], value


def test_what_is_required_has_to_be_given() -> None:
    schema: dict[str, JsonValue] = {
        "short": "string",
        "long": {"type": "string"},
        "said": {"type": "string", "required": True},
        "optional": {"type": "integer", "required": False},
        "filled": {"type": "integer", "default": 7},
    }
    assert refused(schema, {"long": None}) == [
        "variables.short missing",
        "variables.long missing",
        "variables.said missing",
    ]
    given: dict[str, JsonValue] = {"short": "a", "long": "b", "said": "c"}
    filled = {**given, "optional": None, "filled": 7}
    assert values_of(declared(schema), given) == filled
    assert values_of(declared(schema), {**given, "filled": None}) == filled
    assert values_of(declared(schema), {**given, "filled": 8, "optional": 9}) == {
        **filled,
        "filled": 8,
        "optional": 9,
    }


@pytest.mark.parametrize(
    "said",
    [
        "text",
        None,
        1,
        [],
        {},
        {"type": "text"},
        {"type": ["string"]},
        {"type": "string", "requires": True},
        {"type": "string", "required": "yes"},
        {"type": "integer", "default": "1"},
        {"type": "integer", "default": True},
        {"type": "datetime", "default": "2026-03-01"},
    ],
)
def test_a_declaration_that_cannot_be_used_is_refused(said: JsonValue) -> None:
    assert refused({"it": said}, {}) == ["variables.it invalid_variable"]


@pytest.mark.parametrize("name", ["", "_it", "1st", "a-b", "a b", "ä", "a" * 101, "__class__"])
def test_so_is_a_name_no_template_could_use(name: str) -> None:
    assert refused({name: "string"}, {}) == [f"variables.{name} invalid_variable"]


json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
names = st.sampled_from(["a", "b", "c"])
types = st.sampled_from(TYPES)
declarations: st.SearchStrategy[Any] = types | st.fixed_dictionaries(
    {"type": types, "required": st.booleans()}
)


@settings(derandomize=True, database=None, max_examples=300)
@given(st.dictionaries(names, declarations), st.dictionaries(names, json))
def test_whatever_is_given_all_declared_names_and_no_others_are_there(
    schema: dict[str, JsonValue], given: dict[str, JsonValue]
) -> None:
    found = declared(schema)
    try:
        values = values_of(found, given)
    except ValidationFailed as error:
        told = {detail["path"].removeprefix("variables.") for detail in error.details}
        assert told <= schema.keys()
        return
    assert values.keys() == schema.keys()
    assert all(value is not None or not found[name].required for name, value in values.items())
    # What was taken once is taken again, as it is.
    assert values_of(found, values) == values
