"""A bucket that fills at a steady rate, and from which whoever comes takes (REQ-023). Pure.

Levels are counted in parts of a token, of which each microsecond adds a whole number. So sums are
exact: nothing is minted by rounding, and what was said to fit then does fit.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

PARTS = 60_000_000
"""Of one token; as many as a minute has microseconds."""

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Level:
    """How full a bucket was at an aware instant, in parts of tokens."""

    parts: int
    at: datetime

    @property
    def tokens(self) -> int:
        """Whole tokens."""
        return self.parts // PARTS


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """How fast a bucket fills, and how much it holds.

    Args:
        per_minute: tokens that are added in a minute, evenly.
        burst: tokens it holds.
    """

    per_minute: int
    burst: int

    def full(self, now: datetime) -> Level:
        """The bucket that nobody has taken from."""
        return Level(self.burst * PARTS, now)

    def refilled(self, level: Level, now: datetime) -> Level:
        """A level as it is later; a clock that is behind takes nothing away, and adds nothing."""
        passed = max(0, (now - level.at) // MICROSECOND)
        parts = min(self.burst * PARTS, level.parts + passed * self.per_minute)
        return Level(parts, max(level.at, now))

    def taken(self, level: Level, tokens: int, now: datetime) -> Level | None:
        """The level once so many tokens were taken; None if there are not as many."""
        level = self.refilled(level, now)
        left = level.parts - tokens * PARTS
        return None if left < 0 else Level(left, level.at)

    def seconds_until(self, level: Level, tokens: int, now: datetime) -> int:
        """Whole seconds from now until there are so many tokens, at most `burst`; 0: there are."""
        level = self.refilled(level, now)
        missing = tokens * PARTS - level.parts
        if missing <= 0:
            return 0
        microseconds = (level.at - now) // MICROSECOND - (-missing // self.per_minute)
        return -(-microseconds // 1_000_000)

    def seconds_until_full(self, level: Level, now: datetime) -> int:
        """Whole seconds from now until it is full; 0: it is."""
        return self.seconds_until(level, self.burst, now)
