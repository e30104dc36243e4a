"""The mailer: letters in, outcomes out, through one provider or two (REQ-014).

What becomes of a letter:

- It is in a request that was made before (`app.channels.email.requests`): that is made again as
  it was, at its own provider, and nothing else.
- Otherwise it goes to the first provider: a critical one alone and at once, others as
  `app.channels.email.gathering` has it. A refusal that concerns the provider, not the letter,
  sends it on to the next provider; so does one that takes no requests just now.
- A batch that is refused for its content is sent letter by letter, so that one costs no other.

No letter stays longer than its delivery's lease: a request begins within `patience`, so that it
ends, however slow, before the lease does. What would have to wait longer is put off.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID, uuid4

import structlog

from app.channels.base import Deferred, Failed, Retry, Sent
from app.channels.breaker import LONGEST_LINE, Breakers, NotNow, Place
from app.channels.email.gathering import Gathering, Waiting
from app.channels.email.letter import Letter, MailOutcome
from app.channels.email.lines import checked
from app.channels.email.provider import Answer, Fault, Parcel, Provider, Refused, Taken, Unknown
from app.channels.email.requests import AlreadyOpen, NewRequest, OpenRequest, Requests
from app.config import Settings
from app.errors import Unavailable
from app.policy.kinds import Reason

log = structlog.get_logger()

GIVEN_UP_AFTER: Final = timedelta(hours=23)  # providers keep keys for 24
LOOKS: Final = 3  # at the open requests, before a letter is put off
SOON: Final = 1.0  # seconds
ANSWERS_KNOWN: Final = 500
# Of the time between a provider's time limit and the lease; the rest is for the books.
PATIENT_FOR: Final = 0.75
NO_TIME: Final = NotNow("There is no time left.", SOON)

Result = TypeVar("Result")


class ProviderMailer:
    """Sends letters; an asynchronous context manager, which ends what is on its way.

    Args:
        settings: the time limits.
        providers: at least one, the preferred one first.
        requests: the store of requests.
        clock: the present instant.
        ticks: seconds that never go back.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Sequence[Provider],
        requests: Requests,
        clock: Callable[[], datetime],
        ticks: Callable[[], float] = monotonic,
    ) -> None:
        self._providers = providers
        self._requests = requests
        self._clock = clock
        self._ticks = ticks
        spare = settings.delivery_lease_seconds - settings.provider_timeout_seconds
        self._patience = PATIENT_FOR * spare
        line = min(LONGEST_LINE, self._patience)
        # Critical letters have places of their own, which no hanging ordinary one takes.
        self._breakers = {
            (provider.name, is_critical): Breakers(provider.places, ticks, line=line)
            for provider in providers
            for is_critical in (False, True)
        }
        self._gathering = Gathering(
            providers[0].allowance, self._start, ticks, has_other=len(providers) > 1
        )
        self._inside: set[UUID] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._repeating: dict[UUID, asyncio.Task[Answer]] = {}
        self._taken: dict[UUID, Taken] = {}  # of batches that were repeated lately

    async def __aenter__(self) -> Self:
        self._run(self._gathering.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, letter: Letter) -> MailOutcome:
        """Send a letter, with others that are sent at the same time where that is possible.

        A letter whose outcome was unknown is sent again in the request it was sent in.
        """
        good = checked(letter)
        if isinstance(good, Failed):
            return good
        if letter.id in self._inside:
            return Deferred(Reason.INTERNAL_ERROR, "It is being sent already.", SOON)
        self._inside.add(letter.id)
        try:
            return await self._send(good)
        except Unavailable:
            return Deferred(Reason.INTERNAL_ERROR, "PostgreSQL is away.", SOON)
        except Exception as error:
            log.exception("letter_failed", letter_id=str(letter.id))
            return Retry(Reason.INTERNAL_ERROR, type(error).__name__)
        finally:
            self._inside.discard(letter.id)

    async def _send(self, letter: Letter) -> MailOutcome:
        now = self._ticks()
        for _ in range(LOOKS):
            request = await self._requests.find(letter.id)
            if request is not None:
                outcome = await self._again(request, letter, now + self._patience)
                if outcome is not None:
                    return outcome
            waiting = Waiting(
                letter, now, now + self._patience, asyncio.get_running_loop().create_future()
            )
            if letter.is_critical or request is not None:
                self._start([waiting])
            else:
                self._gathering.add(waiting)
            with suppress(AlreadyOpen):  # another worker was first
                return await waiting.outcome
        return Deferred(Reason.INTERNAL_ERROR, "Others are sending it.", SOON)

    # --- what was sent before

    async def _again(
        self, request: OpenRequest, letter: Letter, until: float
    ) -> MailOutcome | None:
        """Make a letter's request again; None when it may be sent by itself now."""
        if self._clock() - request.created_at >= GIVEN_UP_AFTER:
            return Failed(Reason.OUTCOME_UNKNOWN, "The provider did not say whether it took it.")
        answer = self._taken.get(request.id) or await self._repeated(request, letter, until)
        match answer:
            case Taken():
                return _sent(answer, request.place)
            case Refused(outcome=Failed()) if request.id != letter.id:
                return None  # a batch, of which another letter may be at fault
            case Refused() | Unknown():
                return answer.outcome

    async def _repeated(self, request: OpenRequest, letter: Letter, until: float) -> Answer:
        """The answer to a request, made once for all of its letters that are here."""
        task = self._repeating.get(request.id)
        if task is None:
            task = self._run(self._repeat(request, until, is_critical=letter.is_critical))
            self._repeating[request.id] = task
            task.add_done_callback(lambda _: self._repeating.pop(request.id, None))
        return await asyncio.shield(task)

    async def _repeat(self, request: OpenRequest, until: float, *, is_critical: bool) -> Answer:
        provider = next((one for one in self._providers if one.name == request.provider), None)
        if provider is None:
            detail = f"{request.provider} may have it, and is not configured any more."
            return Unknown(Retry(Reason.PROVIDER_UNAVAILABLE, detail))
        payload = self._requests.unseal(request)
        try:
            async with self._turn(provider, until, is_critical) as place:
                answer = await _posted(provider, request.id, payload, place)
        except NotNow as refused:
            return _put_off(provider, refused)
        match answer:
            case Taken():
                self._remember(request.id, answer)
            case Refused(outcome=Failed()):
                await self._requests.forget(request.id)
            case _:
                pass  # whatever else it says, it does not say what became of the first try
        return answer

    def _remember(self, request_id: UUID, answer: Taken) -> None:
        """So that the other letters of a batch, tried again later, need no request each."""
        self._taken[request_id] = answer
        for oldest in list(islice(self._taken, max(0, len(self._taken) - ANSWERS_KNOWN))):
            del self._taken[oldest]

    # --- what was not

    def _start(self, letters: list[Waiting]) -> asyncio.Task[None]:
        """Send letters through the first provider that takes them."""
        return self._run(self._settle(letters, 0))

    async def _settle(self, letters: Sequence[Waiting], index: int, *, alone: bool = False) -> None:
        """Send letters through the provider of this index, or a later one."""
        try:
            here = {one.letter.id: one for one in letters if not one.outcome.done()}
            groups = [[one] for one in here.values()] if alone else [list(here.values())]
            parcels = [
                parcel
                for group in groups
                for parcel in self._providers[index].parcels([one.letter for one in group])
            ]
            async with asyncio.TaskGroup() as tasks:
                for parcel in parcels:
                    members = [here[letter.id] for letter in parcel.letters]
                    tasks.create_task(self._parcel(parcel, members, index))
        except asyncio.CancelledError:
            for one in letters:
                one.outcome.cancel()
            raise
        except Exception as error:
            _fail(letters, error)

    async def _parcel(self, parcel: Parcel, letters: Sequence[Waiting], index: int) -> None:
        try:
            answer = await self._first_try(parcel, letters, index)
        except Exception as error:
            _fail(letters, error)
            return
        match answer:
            case Taken():
                for place, one in enumerate(letters):
                    one.settle(_sent(answer, place))
            case Refused(fault=Fault.OF_CONTENT) if len(letters) > 1:
                await self._settle(letters, index, alone=True)
            case Refused(fault=Fault.OF_PROVIDER) if index + 1 < len(self._providers):
                await self._settle(letters, index + 1)
            case Refused() | Unknown():
                for one in letters:
                    one.settle(answer.outcome)

    async def _first_try(self, parcel: Parcel, letters: Sequence[Waiting], index: int) -> Answer:
        """Store a request and make it; forget it when it took no effect."""
        provider = self._providers[index]
        is_last = index + 1 == len(self._providers)
        is_critical = any(one.letter.is_critical for one in letters)
        until = min(one.until for one in letters)
        request = NewRequest(
            _key(parcel),
            provider.name,
            parcel.letters,
            parcel.payload,
            self._clock(),
        )
        try:
            async with self._turn(provider, until, is_critical, is_patient=is_last) as place:
                await self._requests.keep(request)
                if self._ticks() > until:
                    answer = _put_off(provider, NO_TIME)
                else:
                    answer = await _posted(provider, request.id, parcel.payload, place)
        except NotNow as refused:
            return _put_off(provider, refused)
        if isinstance(answer, Refused):
            await self._requests.forget(request.id)
        return answer

    @asynccontextmanager
    async def _turn(
        self, provider: Provider, until: float, is_critical: bool, *, is_patient: bool = True
    ) -> AsyncGenerator[Place]:
        """A provider's leave to make one request, and a place for it.

        Raises:
            NotNow: it would have to wait for longer than `until`, or the provider is ill.
        """
        await provider.allowance.turn(until=until, is_critical=is_critical, is_patient=is_patient)
        async with self._breakers[provider.name, is_critical].place(provider.name) as place:
            if self._ticks() > until:
                raise NO_TIME
            yield place

    def _run(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _posted(provider: Provider, key: UUID, payload: bytes, place: Place) -> Answer:
    """Make a request; no attempt, if the provider was known to be ill and still is."""
    answer = await provider.post(key, payload)
    if isinstance(answer, Taken) or not answer.is_unwell:
        place.answered()
        return answer
    ill_for = place.failed()
    told = answer.outcome
    if ill_for is None or isinstance(told, Failed):
        return answer
    return replace(
        answer, outcome=Deferred(told.reason, told.detail, max(ill_for, told.after or 0.0))
    )


def _key(parcel: Parcel) -> UUID:
    """The id of a letter that goes alone for the first time, else a new one."""
    first, *others = parcel.letters
    return uuid4() if others or first.is_once_more else first.id


def _put_off(provider: Provider, refused: NotNow) -> Refused:
    limited = provider.allowance.refuses
    reason = Reason.PROVIDER_LIMIT if limited else Reason.PROVIDER_UNAVAILABLE
    return Refused(Deferred(reason, str(refused), refused.after), Fault.OF_PROVIDER)


def _sent(answer: Taken, place: int) -> Sent:
    ids = answer.provider_ids
    return Sent(ids[place] if place < len(ids) else None)


def _fail(letters: Sequence[Waiting], error: Exception) -> None:
    for one in letters:
        one.fail(error)
