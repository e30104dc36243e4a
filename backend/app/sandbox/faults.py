"""Making a provider fail on request: rules, and the gate in front of each provider that obeys them.

status       answers an error instead of handling the request
delay        waits, then handles it
hang         does not answer until the client gives up
drop         closes the connection without handling it
drop_after   handles it, then closes the connection: the sender cannot know the outcome
redirect     answers an address to go to instead
lose         checks and answers it as ever, but delivers nothing
rate_limit   lowers the provider's requests per second
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_HANG_SECONDS = 120.0
ABORT_CONNECTION = "abort_connection"
LOST = "lost"

Provider = Literal["resend", "push", "fcm", "fcm_oauth"]
Addressees = Callable[[Scope, bytes], Collection[str]]

_PRINTABLE_ASCII = r"^[\x21-\x7e]+$"
_SHOWN = {"push": "Push service", "fcm": "FCM", "fcm_oauth": "FCM's token address"}


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _CountedRule(_Rule):
    """A rule for single requests: how many of them it hits, and how likely each one is hit.

    `to` narrows it to one addressee. Of `push` that is a browser's name, the last part of its
    endpoint, or an origin (`http://localhost:8025`); of `fcm` a phone's name or a token.
    """

    provider: Provider
    to: str | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    @model_validator(mode="after")
    def _addressable(self) -> Self:
        if self.to is not None and self.provider not in {"push", "fcm"}:
            raise ValueError(f"`to` narrows rules for push and fcm, not for {self.provider}")
        return self


class StatusFault(_CountedRule):
    """Answer this status, with the provider's own error body.

    `retry_after` is in seconds; `retry_after_as` has the header say them, or the date they end.
    `name` is the provider's word for the error, by default the usual one of the status: Resend's
    error type, the push service's reason, FCM's error code, OAuth's error.
    """

    kind: Literal["status"]
    status: Annotated[int, Field(ge=400, le=599)]
    retry_after: Annotated[int, Field(ge=0)] | None = None
    retry_after_as: Literal["seconds", "date"] = "seconds"
    name: str | None = None
    message: str | None = None

    def headers(self) -> dict[str, str]:
        """`Retry-After`, if the rule asks for it."""
        if self.retry_after is None:
            return {}
        if self.retry_after_as == "seconds":
            return {"retry-after": str(self.retry_after)}
        # A date has no fractions; rounded up, so that it is never earlier than asked for.
        ends = int(time.time()) + 1 + self.retry_after
        return {"retry-after": formatdate(ends, usegmt=True)}


class DelayFault(_CountedRule):
    """Wait before handling the request; it is handled even if the client has gone by then."""

    kind: Literal["delay"]
    seconds: Annotated[float, Field(gt=0, le=MAX_HANG_SECONDS)]


class HangFault(_CountedRule):
    """Neither handle nor answer; after this time the connection is dropped."""

    kind: Literal["hang"]
    seconds: Annotated[float, Field(gt=0, le=MAX_HANG_SECONDS)] = MAX_HANG_SECONDS


class DropFault(_CountedRule):
    """Close the connection instead of handling the request."""

    kind: Literal["drop"]


class DropAfterFault(_CountedRule):
    """Handle the request, then close the connection instead of answering."""

    kind: Literal["drop_after"]


class RedirectFault(_CountedRule):
    """Answer a redirect instead of handling the request."""

    kind: Literal["redirect"]
    location: Annotated[str, Field(pattern=_PRINTABLE_ASCII)]
    status: Literal[301, 302, 303, 307, 308] = 307


class LoseFault(_CountedRule):
    """Check and answer the request as ever, and deliver nothing."""

    kind: Literal["lose"]

    @model_validator(mode="after")
    def _losable(self) -> Self:
        if self.provider not in {"push", "fcm"}:
            raise ValueError(f"{self.provider} cannot lose messages")
        return self


class RateLimitFault(_Rule):
    """Let Resend take only so many requests in each second."""

    kind: Literal["rate_limit"]
    provider: Literal["resend"]
    requests_per_second: Annotated[int, Field(ge=1)]


CountedFault = (
    StatusFault | DelayFault | HangFault | DropFault | DropAfterFault | RedirectFault | LoseFault
)
Fault = Annotated[CountedFault | RateLimitFault, Field(discriminator="kind")]


class FaultStatus(BaseModel):
    """A rule as it stands: `remaining` is null where it never wears off, and 0 once it has."""

    rule: Fault
    hits: int
    remaining: int | None
    summary: str


@dataclass(slots=True)
class _Installed:
    rule: CountedFault | RateLimitFault
    random: Random
    hits: int = 0

    @property
    def remaining(self) -> int | None:
        times = None if isinstance(self.rule, RateLimitFault) else self.rule.times
        return None if times is None else times - self.hits


class Faults:
    """The rules in force. The first rule that fits a request hits it, alone."""

    def __init__(self) -> None:
        self._installed: list[_Installed] = []
        self._released = asyncio.Event()
        self.version = 0

    def replace(self, rules: Sequence[CountedFault | RateLimitFault]) -> None:
        """Put these rules in the place of all others, each with its counters at the start."""
        # Repeatable randomness is the point: the same seed hits the same requests.
        self._installed = [
            _Installed(rule, Random(0 if isinstance(rule, RateLimitFault) else rule.seed))  # noqa: S311
            for rule in rules
        ]
        self.version += 1

    def status(self) -> list[FaultStatus]:
        """Every rule with its counters, in the order they are tried."""
        return [
            FaultStatus(
                rule=installed.rule,
                hits=installed.hits,
                remaining=installed.remaining,
                summary=_summary(installed),
            )
            for installed in self._installed
        ]

    def next(self, provider: Provider, addressees: Collection[str] = ()) -> CountedFault | None:
        """The rule that hits this request, its counters moved on; `None` if none does."""
        for installed in self._installed:
            rule = installed.rule
            if rule.provider != provider or isinstance(rule, RateLimitFault):
                continue
            if rule.to is not None and rule.to not in addressees:
                continue
            if installed.remaining == 0 or installed.random.random() >= rule.probability:
                continue
            installed.hits += 1
            self.version += 1
            return rule
        return None

    def requests_per_second(self, provider: Provider) -> int | None:
        """The lowered limit of a provider, if a rule lowers it."""
        for installed in self._installed:
            if isinstance(installed.rule, RateLimitFault) and installed.rule.provider == provider:
                return installed.rule.requests_per_second
        return None

    def release(self) -> None:
        """Let go of the requests held by delays and hangs, now and from now on."""
        self._released.set()

    async def hold(self, seconds: float) -> None:
        """Wait this long, or until `release`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)


class FaultGate:
    """ASGI: lets every request meet the rule that is due for it.

    Args:
        app: the provider's routes.
        provider: whose rules apply.
        faults: the rules in force.
        refusal: renders a `status` rule in the provider's shape.
        addressees: names whom a request with this body is for, so that rules may pick them out.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        provider: Provider,
        faults: Faults,
        refusal: Callable[[StatusFault], Response],
        addressees: Addressees | None = None,
    ) -> None:
        self._app = app
        self._provider: Provider = provider
        self._faults = faults
        self._refusal = refusal
        self._addressees = addressees

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, or fail it as its rule says."""
        # Taken in first: the body may say whom it is for, and a client that leaves while its
        # request is delayed has still sent it.
        request = await _whole_request(receive)
        receive = _then(request, receive)
        match self._faults.next(self._provider, self._addressed(scope, request)):
            case None:
                await self._app(scope, receive, send)
            case StatusFault() as fault:
                await self._refusal(fault)(scope, receive, send)
            case DelayFault(seconds=seconds):
                await self._faults.hold(seconds)
                await self._app(scope, receive, send)
            case HangFault(seconds=seconds):
                await self._hang(seconds, receive)
                await drop_connection(scope, receive)
            case DropFault():
                await drop_connection(scope, receive)
            case DropAfterFault():
                await self._app(scope, receive, _discard)
                await drop_connection(scope, receive)
            case RedirectFault(location=location, status=status):
                answer = Response(status_code=status, headers={"location": location})
                await answer(scope, receive, send)
            case LoseFault():
                scope.setdefault("state", {})[LOST] = True
                await self._app(scope, receive, send)

    def _addressed(self, scope: Scope, request: Sequence[Message]) -> Collection[str]:
        if self._addressees is None:
            return ()
        return self._addressees(scope, b"".join(part.get("body", b"") for part in request))

    async def _hang(self, seconds: float, receive: Receive) -> None:
        gone = asyncio.ensure_future(_client_gone(receive))
        held = asyncio.ensure_future(self._faults.hold(seconds))
        await asyncio.wait((gone, held), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (gone, held):
            waiting.cancel()
        await asyncio.gather(gone, held, return_exceptions=True)


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Reset the request's connection, so that its client gets an error and no response.

    Raises:
        RuntimeError: the application is not served by `app.sandbox.server`.
    """
    abort = cast("dict[str, Any]", scope.get("state", {})).get(ABORT_CONNECTION)
    if abort is None:
        raise RuntimeError("connections can only be dropped under app.sandbox.server")
    cast("Callable[[], None]", abort)()
    await _client_gone(receive)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole_request(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _then(messages: list[Message], receive: Receive) -> Receive:
    waiting = deque(messages)

    async def receive_again() -> Message:
        return waiting.popleft() if waiting else await receive()

    return receive_again


async def _discard(message: Message) -> None:
    pass


def _summary(installed: _Installed) -> str:
    rule = installed.rule
    provider = _SHOWN.get(rule.provider, rule.provider.capitalize())
    match rule:
        case StatusFault(status=status, retry_after=None):
            effect = f"answers {status}"
        case StatusFault(status=status, retry_after=retry_after):
            effect = f"answers {status}, retry after {retry_after} s"
        case DelayFault(seconds=seconds):
            effect = f"answers {seconds:g} s late"
        case HangFault():
            effect = "never answers"
        case DropFault():
            effect = "drops connections"
        case DropAfterFault():
            effect = "accepts, then drops connections"
        case RedirectFault(location=location):
            effect = f"redirects to {location}"
        case LoseFault():
            effect = "accepts and loses messages"
        case RateLimitFault(requests_per_second=limit):
            return f"{provider} takes {limit} requests a second"
    if rule.to is not None:
        effect = f"{effect} (only for {rule.to})"
    chance = "" if rule.probability == 1 else f" with probability {rule.probability:g}"
    span = "until removed"
    if installed.remaining is not None:
        span = f"{installed.remaining} more {'time' if installed.remaining == 1 else 'times'}"
    return f"{provider} {effect}{chance}, {span}"
