"""What a receiver asks for with `Retry-After` (RFC 9110, 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 86_400.0  # seconds; whatever is asked for


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, or None when nothing usable was asked for.

    Args:
        value: the header: seconds, or a date.
        now: an aware instant.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            wanted = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        # An HTTP date is always in UTC, even where a sender forgot to say so.
        aware = wanted if wanted.tzinfo is not None else wanted.replace(tzinfo=UTC)
        seconds = (aware - now).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT)
