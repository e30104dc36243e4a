"""Filters that say numbers, dates and lists as a language does (REQ-004)."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale
from babel.dates import format_date, format_datetime, format_time
from babel.lists import format_list
from babel.numbers import format_currency, format_decimal
from jinja2.runtime import Context
from jinja2.utils import pass_context

from app.locales import locale_of

NAME: Final = " conventions"
"""Under which they stand in a template's context; no template can spell it."""

LENGTHS: Final = ("short", "medium", "long", "full")
LIST_STYLES: Final = ("standard", "or", "unit")
MAX_EXPONENT: Final = 40  # a number of more digits is no amount of anything
CURRENCY = re.compile(r"[A-Z]{3}")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Unfit(ValueError):
    """A filter got a value it is not for; the message holds nothing of the value."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """How a job's numbers and dates are said."""

    locale: Locale
    timezone: tzinfo

    @classmethod
    def of(cls, language: str, timezone: str) -> "Conventions":
        """Those of a BCP 47 tag and an IANA name; English and UTC where they are not known."""
        try:
            zone: tzinfo = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            zone = UTC
        return cls(locale_of(language), zone)


def _of(context: Context) -> Conventions:
    return context[NAME]


@pass_context
def plural(context: Context, count: float, *, other: str, **forms: str) -> str:
    """The form for a count by the language's plural rules; `{count}` in it is the number.

    Args:
        other: the form where none is given for the category.
        forms: by CLDR's categories `zero`, `one`, `two`, `few`, `many`.
    """
    number = _number(count)
    unknown = forms.keys() - {"zero", "one", "two", "few", "many"}
    if unknown:
        raise Unfit("plural takes zero, one, two, few, many and other")
    locale = _of(context).locale
    form = forms.get(locale.plural_form(abs(number)), other)
    return form.replace("{count}", format_decimal(number, locale=locale), 1)


@pass_context
def number(context: Context, value: float | str, digits: int | None = None) -> str:
    """A number in the language's digits and grouping.

    Args:
        digits: after the point, exactly; None shows up to three.
    """
    places = None if digits is None else f"#,##0.{'0' * min(max(digits, 0), 20)}".rstrip(".")
    return format_decimal(_number(value), places, locale=_of(context).locale)


@pass_context
def currency(context: Context, amount: float | str, code: str) -> str:
    """An amount of money.

    Args:
        code: of the currency (ISO 4217), such as `EUR`.
    """
    if not CURRENCY.fullmatch(str(code)):
        raise Unfit("currency needs a code of three capital letters, such as EUR")
    return format_currency(_number(amount), str(code), locale=_of(context).locale)


@pass_context
def date_(context: Context, value: str, length: str = "medium") -> str:
    """The day of an instant in the user's timezone, or a day as it is (ISO 8601)."""
    conventions = _of(context)
    day = _day(value) or _instant(value).astimezone(conventions.timezone).date()
    return format_date(day, _length(length), locale=conventions.locale)


@pass_context
def time_(context: Context, value: str, length: str = "short") -> str:
    """The time of an instant (ISO 8601 with offset) in the user's timezone."""
    conventions, instant = _of(context), _instant(value)
    zone = conventions.timezone
    return format_time(instant, _length(length), tzinfo=zone, locale=conventions.locale)


@pass_context
def datetime_(context: Context, value: str, length: str = "medium") -> str:
    """Day and time of an instant (ISO 8601 with offset) in the user's timezone."""
    conventions, instant = _of(context), _instant(value)
    zone = conventions.timezone
    return format_datetime(instant, _length(length), tzinfo=zone, locale=conventions.locale)


@pass_context
def listing(context: Context, items: Iterable[object], style: str = "standard") -> str:
    """Items in a sentence: `a, b and c`; with `or` for the style `or`."""
    if style not in LIST_STYLES:
        raise Unfit(f"listing takes one of the styles {', '.join(LIST_STYLES)}")
    if isinstance(items, str | Mapping):
        raise Unfit("listing needs a list")
    return format_list([str(item) for item in items], style, locale=_of(context).locale)


def _number(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Unfit("a number is needed")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Unfit("a number is needed") from None
    if not number.is_finite() or abs(number.adjusted()) > MAX_EXPONENT:
        raise Unfit("a number of ordinary size is needed")
    return number


def _day(value: object) -> date | None:
    """A day without a time, None if it is not one."""
    return date.fromisoformat(value) if isinstance(value, str) and DATE.fullmatch(value) else None


def _instant(value: object) -> datetime:
    try:
        instant = datetime.fromisoformat(str(value))
    except ValueError:
        raise Unfit("an ISO 8601 date and time with an offset is needed") from None
    if instant.tzinfo is None:
        raise Unfit("an ISO 8601 date and time with an offset is needed")
    return instant


def _length(length: str) -> Any:
    if length not in LENGTHS:
        raise Unfit(f"dates and times take one of {', '.join(LENGTHS)}")
    return length


FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "plural": plural,
    "number": number,
    "currency": currency,
    "date": date_,
    "time": time_,
    "datetime": datetime_,
    "listing": listing,
}
