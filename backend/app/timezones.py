"""The timezones that people can choose."""

from functools import cache
from zoneinfo import available_timezones


@cache
def known_timezones() -> frozenset[str]:
    """The IANA names; listing them reads directories, so once."""
    return frozenset(available_timezones() - {"localtime", "Factory"})  # the machine's own


def checked_timezone(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: nobody can choose it.
    """
    if name not in known_timezones():
        raise ValueError("must be an IANA timezone such as Europe/Berlin")
    return name
