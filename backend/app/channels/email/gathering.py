"""Letters that wait for company: those that come within half a second share a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from app.channels.email.allowance import Allowance
from app.channels.email.letter import Letter, MailOutcome

LINGER: Final = 0.5  # seconds
FULL: Final = 100  # letters that need no more company


@dataclass(eq=False, slots=True)
class Waiting:
    """A letter whose sender waits for its outcome.

    Args:
        since: when it came, in the mailer's seconds.
        until: when its last request has to have begun.
    """

    letter: Letter
    since: float
    until: float
    outcome: asyncio.Future[MailOutcome]

    def settle(self, outcome: MailOutcome) -> None:
        """Tell its sender, if that still listens."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Tell its sender of a fault of ours."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


class Gathering:
    """Hands on letters, each by itself while the provider takes plenty, else together.

    Args:
        allowance: of the provider that they are for.
        hand_on: starts sending letters, in one request or as few as it takes.
        ticks: seconds that never go back.
        has_other: whether another provider takes letters that this one refuses.
    """

    def __init__(
        self,
        allowance: Allowance,
        hand_on: Callable[[list[Waiting]], object],
        ticks: Callable[[], float],
        *,
        has_other: bool,
    ) -> None:
        self._has_other = has_other
        self._allowance = allowance
        self._hand_on = hand_on
        self._ticks = ticks
        self._waiting: list[Waiting] = []
        self._came = asyncio.Event()

    def add(self, waiting: Waiting) -> None:
        """Let a letter wait."""
        self._waiting.append(waiting)
        self._came.set()

    async def run(self) -> NoReturn:
        """Hand on what comes, until cancelled."""
        while True:
            await self._came.wait()
            if self._goes_at_once:
                for waiting in self._take():
                    self._hand_on([waiting])
            else:
                await self._linger()
                self._hand_on(self._take())

    @property
    def _goes_at_once(self) -> bool:
        if self._allowance.refuses:
            return self._has_other
        return self._allowance.has_plenty_for(len(self._waiting))

    async def _linger(self) -> None:
        over = self._waiting[0].since + LINGER
        while (left := over - self._ticks()) > 0 and len(self._waiting) < FULL:
            self._came.clear()
            try:
                async with asyncio.timeout(left):
                    await self._came.wait()
            except TimeoutError:
                return

    def _take(self) -> list[Waiting]:
        taken, self._waiting = self._waiting, []
        self._came.clear()
        return taken
