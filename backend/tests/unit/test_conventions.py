"""Plurals, numbers, dates and lists as languages have them (REQ-004), with CLDR's own examples."""

from typing import Any

import pytest

from app.rendering.conventions import NAME, Conventions
from app.rendering.environment import Refused, Sandbox, compiled

SANDBOX = Sandbox()
INSTANT = "2026-03-01T22:30:00+00:00"


def say(source: str, language: str = "en", timezone: str = "UTC", **values: Any) -> str:
    conventions = Conventions.of(language, timezone)
    said = compiled(SANDBOX, source).text({**values, NAME: conventions}, 1_000)
    return said.replace("\u202f", " ").replace("\xa0", " ")  # which space it is changes with CLDR


FORMS = "zero='zero', one='one', two='two', few='few', many='many', other='other'"


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", {0: "other", 1: "one", 2: "other", 1.5: "other", -1: "one"}),
        ("de-AT", {0: "other", 1: "one", 2: "other"}),
        ("fr", {0: "one", 1: "one", 2: "other"}),
        ("ar", {0: "zero", 1: "one", 2: "two", 3: "few", 11: "many", 100: "other"}),
        ("pl", {1: "one", 2: "few", 5: "many", 22: "few", 1.5: "other"}),
        ("ja", {0: "other", 1: "other"}),
        ("tlh", {1: "one", 2: "other"}),  # nobody knows it here: as in English
    ],
)
def test_a_plural_is_chosen_by_the_rules_of_the_language(
    language: str, expected: dict[float, str]
) -> None:
    source = f"{{{{ n | plural({FORMS}) }}}}"
    # Latin letters in Arabic text stand in a pair of marks of direction.
    assert {n: say(source, language, n=n).strip("\u2068\u2069") for n in expected} == expected


def test_a_plural_shows_its_number_and_needs_only_other() -> None:
    source = "{{ n | plural(one='{count} task', other='{count} tasks') }}"
    assert [say(source, n=n) for n in (1, 1234)] == ["1 task", "1,234 tasks"]
    assert say("{{ 1 | plural(other='{count} Aufgaben') }}", "de") == "1 Aufgaben"


@pytest.mark.parametrize(
    ("source", "language", "expected"),
    [
        ("{{ 1234567.891 | number }}", "en", "1,234,567.891"),
        ("{{ 1234567.891 | number }}", "de", "1.234.567,891"),
        ("{{ 1234567.891 | number }}", "fr", "1 234 567,891"),
        ("{{ 1234567.891 | number }}", "en-IN", "12,34,567.891"),
        ("{{ '3' | number(2) }}", "en", "3.00"),
        ("{{ 2.5 | number(0) }}", "en", "2"),
        ("{{ 1234.5 | currency('EUR') }}", "en", "€1,234.50"),
        ("{{ 1234.5 | currency('EUR') }}", "de", "1.234,50 €"),
        ("{{ 1234.5 | currency('JPY') }}", "en", "¥1,234"),
        ("{{ ['a', 'b', 'c'] | listing }}", "en", "a, b, and c"),
        ("{{ ['a', 'b', 'c'] | listing }}", "en-GB", "a, b and c"),
        ("{{ ['a', 'b'] | listing }}", "ar", "\u2068a وb\u2069"),
        ("{{ ['a', 'b'] | listing('or') }}", "de", "a oder b"),
        ("{{ ['a'] | listing }}{{ [] | listing }}", "de", "a"),
    ],
)
def test_numbers_and_lists_are_said_as_in_the_language(
    source: str, language: str, expected: str
) -> None:
    assert say(source, language) == expected


@pytest.mark.parametrize(
    ("source", "language", "timezone", "expected"),
    [
        ("{{ at | date }}", "en", "UTC", "Mar 1, 2026"),
        ("{{ at | date }}", "en-GB", "UTC", "1 Mar 2026"),
        ("{{ at | date }}", "de", "Asia/Kolkata", "02.03.2026"),
        ("{{ at | date('full') }}", "de", "UTC", "Sonntag, 1. März 2026"),
        ("{{ '2026-03-01' | date }}", "en", "Pacific/Apia", "Mar 1, 2026"),
        ("{{ at | time }}", "en", "America/New_York", "5:30 PM"),
        ("{{ at | time }}", "de", "America/New_York", "17:30"),
        ("{{ at | datetime('short') }}", "en", "UTC", "3/1/26, 10:30 PM"),
        ("{{ at | time }}", "de", "Mars/Olympus", "22:30"),  # as in UTC
    ],
)
def test_an_instant_is_said_in_the_timezone(
    source: str, language: str, timezone: str, expected: str
) -> None:
    assert say(source, language, timezone, at=INSTANT) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ true | number }}",
        "{{ [] | number }}",
        "{{ 'nan' | number }}",
        "{{ '1e99' | currency('EUR') }}",
        "{{ 1 | currency('eur') }}",
        "{{ 'a' | plural(other='b') }}",
        "{{ 1 | plural(others='b') }}",
        "{{ 1 | plural(other='b', others='c') }}",
        "{{ '2026-03-01T10:00:00' | datetime }}",
        "{{ '2026-13-01' | date }}",
        "{{ 'soon' | time }}",
        "{{ 1 | date }}",
        "{{ '2026-03-01' | date('yyyy') }}",
        "{{ 'abc' | listing }}",
        "{{ ['a'] | listing('nor') }}",
    ],
)
def test_what_a_filter_is_not_for_is_refused(source: str) -> None:
    with pytest.raises(Refused) as caught:
        say(source)
    assert caught.value.code == "failed"
