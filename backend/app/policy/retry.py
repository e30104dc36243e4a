"""When to try again (section 8.4): exponential backoff with full jitter. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of retrying, in seconds and attempts.

    Args:
        base: ceiling of the first wait; it doubles with every attempt.
        cap: ceiling of any wait.
        max_attempts: attempts after which a delivery fails for good.
    """

    base: float
    cap: float
    max_attempts: int

    def next_attempt(
        self, now: datetime, *, attempts: int, luck: float, retry_after: float | None = None
    ) -> datetime | None:
        """The instant of the next attempt, or None when the attempts are used up.

        Args:
            now: an aware instant.
            attempts: how many were made, at least 1.
            luck: a random number in [0, 1) that spreads waits over the whole interval.
            retry_after: seconds the provider asked for; never undercut.
        """
        if attempts >= self.max_attempts:
            return None
        ceiling = min(self.cap, self.base * 2 ** min(attempts - 1, 32))
        return now + timedelta(seconds=max(luck * ceiling, retry_after or 0.0))
