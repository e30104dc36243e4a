"""Keeps one ill service from taking the places and the attempts of all others.

Each origin has a number of places, and a circuit breaker in front of them:

- *closed*: calls go out, at most as many at once as there are places. Who comes when all are taken
  waits in line, but not long, and not at all while nothing is answered: an origin that hangs must
  not hold the slots of its channel.
- *open*, after 5 faults in a row: nothing goes out, for 1 s and each time twice as long, up to a
  minute.
- *half-open*: one call, the probe, says whether it opens again or closes.

A fault is a call without a proper answer: a timeout, a broken connection, a 5xx. What comes while
the origin is known to be ill is put off, each for a time of its own, so that not all come at once
when it is well again.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

FAULTS_ALLOWED: Final = 5  # in a row; the fifth opens
FIRST_OPEN: Final = 1.0  # seconds
LONGEST_OPEN: Final = 60.0
LONGEST_LINE: Final = 2.0  # seconds to wait for a place, or without an answer while all are taken
ORIGINS_KNOWN: Final = 1_000


class NotNow(Exception):
    """Nothing was sent, and nothing should be for `after` seconds; the message says why."""

    def __init__(self, reason: str, after: float) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(slots=True)
class Breaker:
    """What is known of one origin's health; instants and durations are in seconds.

    Args:
        luck: a random number in [0, 1) each time.
    """

    luck: Callable[[], float]
    faults: int = 0
    opened: int = 0  # times in a row
    open_until: float | None = None
    probe: object | None = None  # the call that is out to see

    @property
    def is_ill(self) -> bool:
        """Whether it is open or half-open."""
        return self.open_until is not None

    def refusal(self, now: float) -> float | None:
        """Seconds to stay away, spread over as long as it is open; None when a call may go out."""
        if self.open_until is None:
            return None
        if now >= self.open_until and self.probe is None:
            return None
        return max(0.0, self.open_until - now) + self.open_seconds * (0.5 + self.luck())

    def starts(self, call: object) -> None:
        """A call goes out; it is the probe where one is needed."""
        if self.is_ill:
            self.probe = call

    def ended(self, call: object) -> None:
        """A call came back, whatever became of it."""
        if self.probe is call:
            self.probe = None

    def answered(self) -> None:
        """The origin is well, whatever it was before."""
        self.faults = self.opened = 0
        self.open_until = self.probe = None

    def failed(self, call: object, now: float) -> float | None:
        """A call had no proper answer.

        Returns:
            Seconds until it is due again when the origin was known to be ill, so that this was no
            attempt; None when it was one.
        """
        was_ill = self.is_ill
        if was_ill and self.probe is not call:
            return self.refusal(now) or self.open_seconds * self.luck()
        self.faults += 1
        if not was_ill and self.faults < FAULTS_ALLOWED:
            return None
        self.opened += 1
        self.probe = None
        # Of many senders that opened at once, not all probe at once.
        self.open_until = now + self.open_seconds * (0.75 + 0.5 * self.luck())
        return self.refusal(now) if was_ill else None

    @property
    def open_seconds(self) -> float:
        """How long it is open this time, but for the jitter."""
        return min(LONGEST_OPEN, FIRST_OPEN * 2 ** min(self.opened - 1, 32))


@dataclass(slots=True)
class _Origin:
    breaker: Breaker
    places: asyncio.Semaphore
    inside: int = 0  # in a place or in line
    full_since: float | None = None  # nothing was answered since then


class Place:
    """A call that may go out; say what became of it, or nothing if it was not sent after all."""

    def __init__(self, breaker: Breaker, clock: Callable[[], float]) -> None:
        self._breaker = breaker
        self._clock = clock
        breaker.starts(self)

    @property
    def is_probe(self) -> bool:
        """Whether it is to find out if the origin is well again."""
        return self._breaker.probe is self

    def answered(self) -> None:
        """The origin answered properly, if only to refuse."""
        self._breaker.answered()

    def failed(self) -> float | None:
        """No proper answer; returns what `Breaker.failed` says."""
        return self._breaker.failed(self, self._clock())


@dataclass(slots=True)
class Breakers:
    """The places and the breaker of each origin, of those used last.

    Args:
        places: calls to one origin at once.
        clock: seconds that never go back.
        luck: a random number in [0, 1), for jitter.
        line: seconds to wait for a place.
    """

    places: int
    clock: Callable[[], float] = monotonic
    luck: Callable[[], float] = random.random
    line: float = LONGEST_LINE
    _origins: OrderedDict[str, _Origin] = field(default_factory=OrderedDict[str, _Origin])

    @asynccontextmanager
    async def place(self, origin: str) -> AsyncGenerator[Place]:
        """A place for one call to the origin, as long as the context lasts.

        Raises:
            NotNow: it is ill, or all its places are taken.
        """
        known = self._known(origin)
        known.inside += 1
        try:
            await self._enter(known)
            place = Place(known.breaker, self.clock)
            try:
                yield place
            finally:
                known.breaker.ended(place)
                known.full_since = None
                known.places.release()
        finally:
            known.inside -= 1

    async def _enter(self, known: _Origin) -> None:
        """Take a place."""
        self._refuse_ill(known)
        if known.full_since is not None and self.clock() - known.full_since >= self.line:
            raise NotNow("It answers nothing.", self._later())
        if known.places.locked():
            try:
                async with asyncio.timeout(self.line):
                    await known.places.acquire()
            except TimeoutError:
                raise NotNow("It answers slowly.", self._later()) from None
        else:
            await known.places.acquire()
        try:
            self._refuse_ill(known)  # it may have fallen ill since
        except NotNow:
            known.places.release()
            raise
        if known.places.locked():
            known.full_since = self.clock()

    def _refuse_ill(self, known: _Origin) -> None:
        after = known.breaker.refusal(self.clock())
        if after is not None:
            raise NotNow("It is known to be ill.", after)

    def _later(self) -> float:
        return self.line * (1.0 + self.luck())

    def _known(self, origin: str) -> _Origin:
        known = self._origins.get(origin)
        if known is None:
            known = _Origin(Breaker(self.luck), asyncio.Semaphore(self.places))
            self._origins[origin] = known
            self._forget()
        self._origins.move_to_end(origin)
        return known

    def _forget(self) -> None:
        """Forget those used longest ago, if nobody calls there."""
        for name in list(self._origins)[: max(0, len(self._origins) - ORIGINS_KNOWN)]:
            if self._origins[name].inside == 0:
                del self._origins[name]
