"""How many requests a provider takes, by what it says in its answers.

Resend counts requests in windows of a second over a whole account (`ratelimit-limit`,
`-remaining`, `-reset`), which other workers use too. So what it said last is the truth, less what
is on its way; once the window is over, a whole one is assumed.
"""

import asyncio
from collections.abc import Callable, Mapping
from math import isfinite
from time import monotonic
from typing import Final

from app.channels.breaker import NotNow

FIRST_LIMIT: Final = 5  # requests a second, until Resend says more; its default
WINDOW: Final = 1.0  # seconds
LONGEST_WINDOW: Final = 60.0
PLENTY: Final = 2  # requests left for each that is wanted
BEHIND_CRITICAL: Final = 0.01  # seconds between two looks whether it is an ordinary one's turn


class Allowance:
    """What is left of a provider's limit.

    Args:
        limit: requests a window, None for a provider without such limits.
        ticks: seconds that never go back.
    """

    def __init__(
        self, limit: int | None = FIRST_LIMIT, ticks: Callable[[], float] = monotonic
    ) -> None:
        self._limit = limit
        self._ticks = ticks
        self._left = float(limit or 0)
        self._renewed_at = 0.0
        self._paused_until = 0.0
        self._on_the_way = 0
        self._critical = 0

    def has_plenty_for(self, requests: int) -> bool:
        """Whether so many requests leave as much again for others."""
        self._renew()
        if self._limit is None:
            return True
        return not self.refuses and self._left >= PLENTY * requests

    @property
    def refuses(self) -> bool:
        """Whether the provider said that it takes nothing for a while."""
        return self._ticks() < self._paused_until

    async def turn(self, *, until: float, is_critical: bool, is_patient: bool) -> None:
        """Wait until a request may be made; critical ones go first.

        Args:
            until: by `ticks`, how long to wait at most.
            is_patient: waits also while the provider refuses.

        Raises:
            NotNow: it would take longer.
        """
        self._critical += is_critical
        try:
            while (wait := self._wait(is_critical)) > 0:
                if self._ticks() + wait > until or (self.refuses and not is_patient):
                    raise NotNow("It takes no more for now.", wait)
                await asyncio.sleep(wait)
        finally:
            self._critical -= is_critical
        self._left -= 1

    def sent(self) -> None:
        """A request goes out; `answered` or `lost` follows."""
        self._on_the_way += 1

    def lost(self) -> None:
        """Nothing was answered."""
        self._on_the_way -= 1

    def answered(self, headers: Mapping[str, str]) -> None:
        """Take in what an answer said of the limits."""
        self._on_the_way -= 1
        limit = _number(headers.get("ratelimit-limit"))
        left = _number(headers.get("ratelimit-remaining"))
        if limit is None or limit < 1 or left is None:
            return
        reset = _number(headers.get("ratelimit-reset"))
        self._limit = int(limit)
        self._left = left - self._on_the_way
        self._renewed_at = self._ticks() + min(WINDOW if reset is None else reset, LONGEST_WINDOW)

    def pause(self, seconds: float) -> None:
        """The provider takes nothing for a while."""
        self._paused_until = max(self._paused_until, self._ticks() + seconds)

    def _wait(self, is_critical: bool) -> float:
        """Seconds until it is worth looking again, 0 when it is this one's turn."""
        now = self._ticks()
        self._renew()
        if now < self._paused_until:
            return self._paused_until - now
        if self._limit is not None and self._left < 1:
            return max(self._renewed_at - now, BEHIND_CRITICAL)
        return BEHIND_CRITICAL if self._critical and not is_critical else 0.0

    def _renew(self) -> None:
        now = self._ticks()
        if self._limit is not None and now >= self._renewed_at:
            self._left, self._renewed_at = float(self._limit), now + WINDOW


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if isfinite(number) else None
