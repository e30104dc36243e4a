"""Making a provider fail on request: the rules, which the gate in front of each provider obeys.

status       answers an error instead of handling the request
delay        waits, then handles it
hang         does not answer until the client gives up
drop         closes the connection without handling it
drop_after   handles it, then closes the connection: the sender cannot know the outcome
redirect     answers an address to go to instead
lose         checks and answers it as ever, but delivers nothing; a webhook is never posted
duplicate    posts a webhook twice
rate_limit   lowers the provider's requests per second
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_HANG_SECONDS = 120.0

Provider = Literal["resend", "push", "fcm", "fcm_oauth", "smtp", "smtp_rcpt", "webhook"]

_PRINTABLE_ASCII = r"^[\x21-\x7e]+$"
_SHOWN = {
    "push": "Push service",
    "fcm": "FCM",
    "fcm_oauth": "FCM's token address",
    "smtp": "SMTP",
    "smtp_rcpt": "SMTP, asked for a recipient,",
    "webhook": "The sender of webhooks",
}
_EFFECTS = {
    "hang": "never answers",
    "drop": "drops connections",
    "drop_after": "accepts, then drops connections",
    "lose": "accepts and loses messages",
    "duplicate": "posts them twice",
}
_HTTP: tuple[Provider, ...] = ("resend", "push", "fcm", "fcm_oauth")
_SMTP: tuple[Provider, ...] = ("smtp", "smtp_rcpt")
_NAMED: tuple[Provider, ...] = ("push", "fcm", "smtp", "smtp_rcpt", "webhook")


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _CountedRule(_Rule):
    """A rule for single requests: how many of them it hits, and how likely each one is hit.

    `to` narrows it to one addressee. Of `push` that is a browser's name, the last part of its
    endpoint, or an origin (`http://localhost:8025`); of `fcm` a phone's name or a token; of
    `smtp` and `smtp_rcpt` a recipient's address; of `webhook` that, or an event's type. `smtp`
    is the answer to a mail's data, `smtp_rcpt` the answer to one recipient.
    """

    takes: ClassVar[tuple[Provider, ...]] = (*_HTTP, *_SMTP)

    provider: Provider
    to: str | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.provider not in self.takes:
            raise ValueError(f"{self.provider} cannot do this; {', '.join(self.takes)} can")
        if self.to is not None and self.provider not in _NAMED:
            raise ValueError(f"`to` narrows rules for {', '.join(_NAMED)}, not {self.provider}")
        return self


class StatusFault(_CountedRule):
    """Answer this status, with the provider's own error body.

    `retry_after` is in seconds; `retry_after_as` has the header say them, or the date they end.
    `name` is the provider's word for the error, by default the usual one of the status: Resend's
    error type, the push service's reason, FCM's error code, OAuth's error. SMTP has only the
    `message`.
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

    takes = (*_HTTP, *_SMTP, "webhook")

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

    takes = _HTTP

    kind: Literal["redirect"]
    location: Annotated[str, Field(pattern=_PRINTABLE_ASCII)]
    status: Literal[301, 302, 303, 307, 308] = 307


class LoseFault(_CountedRule):
    """Check and answer the request as ever, and deliver nothing."""

    takes = ("push", "fcm", "webhook")

    kind: Literal["lose"]


class DuplicateFault(_CountedRule):
    """Post the webhook a second time under the same id."""

    takes = ("webhook",)

    kind: Literal["duplicate"]


class RateLimitFault(_Rule):
    """Let Resend take only so many requests in each second."""

    kind: Literal["rate_limit"]
    provider: Literal["resend"]
    requests_per_second: Annotated[int, Field(ge=1)]


CountedFault = (
    StatusFault
    | DelayFault
    | HangFault
    | DropFault
    | DropAfterFault
    | RedirectFault
    | LoseFault
    | DuplicateFault
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
        self._resets = 0
        self.generation = 0  # of the rules, from one replacement to the next
        self.version = 0  # of the rules and their counters

    def replace(self, rules: Sequence[CountedFault | RateLimitFault]) -> None:
        """Put these rules in the place of all others, each with its counters at the start."""
        # Repeatable randomness is the point: the same seed hits the same requests.
        self._installed = [
            _Installed(rule, Random(0 if isinstance(rule, RateLimitFault) else rule.seed))  # noqa: S311
            for rule in rules
        ]
        self.generation += 1
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

    def reset(self) -> None:
        """Forget the rules, and the requests that they hold."""
        self.replace([])
        self._resets += 1
        self._released.set()
        self._released = asyncio.Event()

    async def hold(self, seconds: float) -> bool:
        """Wait this long, or until `release`; says whether the request still counts after it."""
        resets = self._resets
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)
        return resets == self._resets


def _summary(installed: _Installed) -> str:
    rule = installed.rule
    provider = _SHOWN.get(rule.provider, rule.provider.capitalize())
    if isinstance(rule, RateLimitFault):
        return f"{provider} takes {rule.requests_per_second} requests a second"
    effect = _effect(rule)
    if rule.to is not None:
        effect = f"{effect} (only for {rule.to})"
    chance = "" if rule.probability == 1 else f" with probability {rule.probability:g}"
    span = "until removed"
    if installed.remaining is not None:
        span = f"{installed.remaining} more {'time' if installed.remaining == 1 else 'times'}"
    return f"{provider} {effect}{chance}, {span}"


def _effect(rule: CountedFault) -> str:
    match rule:
        case StatusFault(status=status, retry_after=None):
            return f"answers {status}"
        case StatusFault(status=status, retry_after=retry_after):
            return f"answers {status}, retry after {retry_after} s"
        case DelayFault(provider="webhook", seconds=seconds):
            return f"is {seconds:g} s late"
        case DelayFault(seconds=seconds):
            return f"answers {seconds:g} s late"
        case RedirectFault(location=location):
            return f"redirects to {location}"
        case LoseFault(provider="webhook"):
            return "loses them"
        case _:
            return _EFFECTS[rule.kind]
