"""How many notifications a user gets in a sliding window of time (REQ-022). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many in any window of that length."""

    most: int
    window: timedelta

    def used(self, counted: Sequence[datetime], now: datetime) -> list[datetime]:
        """Those of the instants that still count, the oldest first.

        One that lies a whole window back does not count any more.
        """
        return sorted(instant for instant in counted if instant > now - self.window)

    def frees_at(
        self, counted: Sequence[datetime], now: datetime, *, ahead: int = 0
    ) -> datetime | None:
        """When there is room for one more, behind those that wait already.

        Args:
            counted: when earlier ones were counted, in any order.
            now: an aware instant.
            ahead: how many wait for room and go first.

        Returns:
            None if there is room now, else an instant after `now`: when it is the one's turn, if
            those ahead go out as soon as there is room for them.
        """
        used = self.used(counted, now)
        free = self.most - len(used)
        if ahead < free:
            return None
        # Those ahead that have room now count from now on; each later one follows the `most`-th
        # before it by a window.
        taken = [*used, *[now] * max(0, free)][-self.most :]
        turn = ahead - max(0, free)
        return taken[turn % self.most] + self.window * (1 + turn // self.most)
