"""Keys and names of calling services (SEC-004)."""

import hmac
from collections.abc import Iterable

MAX_NAME_LENGTH = 200


def key_is_valid(given: str | None, accepted: Iterable[str]) -> bool:
    """Whether `given` is one of the accepted service keys, in time independent of its content."""
    if given is None:
        return False
    matches = [hmac.compare_digest(given.encode(), key.encode()) for key in accepted]
    return any(matches)


def name_is_valid(name: str | None) -> bool:
    """Whether a service calls itself something that can be stored and shown."""
    return name is not None and 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable()
