"""Which addresses may stand behind a link or a button (SEC-001, SEC-005 A03, REQ-013)."""

import re
from typing import Final

MAX_ADDRESS: Final = 2_048  # characters

# Browsers read a backslash as a slash and skip tabs and newlines inside an address; the others
# are invisible, or turn around what a reader sees.
UNSAFE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^\s|\s$"
)
# No userinfo: `https://bank.example@evil.example` leads to the second.
WEB: Final = re.compile(
    r"""
    https?:// (?: \[[0-9a-f:.]+\] | [^\s/?#@:\[\]<>"^`{|}%]+ ) (?: :[0-9]{1,5} )?
    (?: [/?#] | $ )
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_safe_link(target: str) -> bool:
    """Whether a link of a body may lead there: relative to this site, http, https or mailto."""
    return _is_plain(target) and (
        _is_relative(target) or WEB.match(target) is not None or target[:7].lower() == "mailto:"
    )


def is_safe_address(target: str) -> bool:
    """Whether a button of a notification may lead there: relative to this site, or https."""
    return _is_plain(target) and (
        _is_relative(target) or (target[:8].lower() == "https://" and WEB.match(target) is not None)
    )


def _is_plain(target: str) -> bool:
    return UNSAFE.search(target) is None


def _is_relative(target: str) -> bool:
    return target.startswith(("/", "?", "#")) and not target.startswith("//")
