"""Letters that wait for company, so that many share a request.

As long as the provider takes plenty and few requests are under way, a letter goes at once. What
comes while `AT_ONCE` are under way goes together as soon as one of them is done, so requests grow
with the load; and where the provider takes few, what comes within `LINGER` goes together.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from app.channels.email.allowance import Allowance
from app.channels.email.letter import Letter, MailOutcome

LINGER: Final = 0.5  # seconds
FULL: Final = 100  # letters that need no more company
AT_ONCE: Final = 4  # requests under way, above which letters gather


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
    """Hands on letters, each by itself while there are few, else together.

    Args:
        allowance: of the provider that they are for.
        hand_on: starts sending letters, in one request or as few as it takes; the task ends with
            the last of these.
        ticks: seconds that never go back.
        has_other: whether another provider takes letters that this one refuses.
    """

    def __init__(
        self,
        allowance: Allowance,
        hand_on: Callable[[list[Waiting]], asyncio.Task[None]],
        ticks: Callable[[], float],
        *,
        has_other: bool,
    ) -> None:
        self._has_other = has_other
        self._allowance = allowance
        self._hand_on = hand_on
        self._ticks = ticks
        self._waiting: list[Waiting] = []
        self._under_way = 0
        self._stirred = asyncio.Event()  # one came, or a request is done

    def add(self, waiting: Waiting) -> None:
        """Let a letter wait."""
        self._waiting.append(waiting)
        self._stirred.set()

    async def run(self) -> NoReturn:
        """Hand on what comes, until cancelled."""
        while True:
            self._stirred.clear()
            if not self._waiting:
                await self._stirred.wait()
                continue
            await self._linger()
            letters, self._waiting = self._waiting, []
            if self._goes_at_once(len(letters)):
                for letter in letters:
                    self._start([letter])
            else:
                self._start(letters)

    def _goes_at_once(self, requests: int) -> bool:
        """Whether so many requests may be made now without waiting for company."""
        if self._under_way + requests > AT_ONCE:
            return False
        if self._allowance.refuses:
            return self._has_other
        return self._allowance.has_plenty_for(requests)

    async def _linger(self) -> None:
        over = self._waiting[0].since + LINGER
        while (
            len(self._waiting) < FULL
            and not self._goes_at_once(1)
            and (left := over - self._ticks()) > 0
        ):
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._stirred.wait()

    def _start(self, letters: list[Waiting]) -> None:
        self._under_way += 1
        self._hand_on(letters).add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._under_way -= 1
        self._stirred.set()
