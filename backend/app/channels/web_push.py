"""Web Push (REQ-006): one encrypted message to one browser, through its push service (RFC 8030).

What a push service answers, and what becomes of the delivery and of the device:

| answer | delivery | device |
| --- | --- | --- |
| 2xx | `Sent`, named by the end of `Location` | used |
| 404, 410 | `Failed(device_gone)` | removed |
| 413 | once more with half the text, then `Failed(payload_too_large)` | – |
| 429; 406 of Windows' service | `Deferred(provider_limit)` for `Retry-After`, or 30 s | – |
| 401, 403, Apple's 400 `VapidPkHashMismatch` | once more with each other key, newest first | |
| … one of them is taken | as that one is answered; `Sent` tells the key | used |
| … none is: 401, Apple's 403 `BadJwtToken` | `Retry(provider_rejected)`: our clock or contact | – |
| … none is, and its own is missing here | `Retry(internal_error)`: ours to put back | – |
| … none is: all others | `Failed(device_refused)` | counted |
| 5xx, 408, 425, none, none in time | `Retry(provider_unavailable)`, obeying `Retry-After` | – |
| … when the service was known to be ill | `Deferred(provider_unavailable)`, as by the breaker | – |
| 3xx, other 4xx | `Failed(device_refused)` | counted |
| the address is not public (any more) | `Failed(address_refused)` | counted |
| the device's keys are none | `Failed(device_refused)` | counted |

Mozilla's service answers a foreign key with 401, Google's with 403, Apple's with either of its two.
What has been put off for longer than it was to live is retried instead, so that it ends some time.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from re import compile as pattern
from typing import ClassVar, Final, cast
from uuid import UUID

import orjson
import structlog

from app.channels.base import (
    Claim,
    Deferred,
    DeviceFate,
    Failed,
    Outcome,
    Report,
    Retry,
    Sent,
    Skipped,
)
from app.channels.breaker import Breakers, NotNow, Place
from app.channels.push_content import has_outlived, time_to_live
from app.channels.retry_after import retry_after
from app.channels.vapid import Keyring, VapidKey, VapidTokens
from app.channels.web_push_encryption import Encryption, UnusableKeys
from app.channels.web_push_payload import (
    MAX_PLAINTEXT,
    payload_of,
    topic_of,
    urgency_of,
)
from app.config import Settings
from app.policy.kinds import Channel, Reason
from app.security.address_rules import AddressRefused, Target
from app.security.outbound import Answer, Outbound, Unreachable

log = structlog.get_logger()

PUSHES_TO_ONE_ORIGIN: Final = 50
MAX_ANSWER: Final = 4 * 1024  # bytes
LIMIT_SECONDS: Final = 30.0  # to stay away when a limit does not say
MAX_PROVIDER_ID: Final = 64
UNPRINTABLE: Final = pattern(r"[^\x21-\x7e]")
WINDOWS: Final = ".notify.windows.com"

OK: Final = range(200, 300)
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_ACCEPTABLE = 400, 401, 403, 406
TOO_LARGE, TOO_MANY_REQUESTS, FIRST_SERVER_ERROR = 413, 429, 500
GONE: Final = frozenset({404, 410})
PASSING: Final = frozenset({408, 425})
REDIRECTS: Final = range(300, 400)
FOREIGN_KEY: Final = "VapidPkHashMismatch"
BAD_TOKEN: Final = "BadJwtToken"  # noqa: S105 -- what Apple calls it


@dataclass(frozen=True, slots=True)
class _Push:
    """A claim, and where it goes."""

    claim: Claim
    target: Target
    endpoint: str
    p256dh: str
    auth: str


class WebPushSender:
    """Sends claims to browsers.

    Args:
        settings: our address, our contact, and the time one attempt may take.
        keyring: our VAPID keys.
        outbound: the client for addresses that browsers gave us, with `PUSHES_TO_ONE_ORIGIN`.
        ack_token: what a browser tells of a delivery with.
        clock: the present instant.
        breakers: the health of push services; by default this sender's own view.
    """

    channel: ClassVar[Channel] = Channel.PUSH

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        outbound: Outbound,
        ack_token: Callable[[UUID], str],
        clock: Callable[[], datetime],
        breakers: Breakers | None = None,
    ) -> None:
        self._base_url = settings.base_url
        self._seconds = settings.provider_timeout_seconds
        self._keyring = keyring
        self._outbound = outbound
        self._ack_token = ack_token
        self._clock = clock
        self._breakers = breakers or Breakers(PUSHES_TO_ONE_ORIGIN)
        self._tokens = VapidTokens(settings.vapid_subject, clock)
        self._encryption = Encryption()

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send each claim on its own, all at once: a slow push service delays no other."""

        async def send_one(claim: Claim) -> None:
            try:
                outcome = await self._send(claim)
            except Exception as error:
                log.exception("web_push_failed", delivery_id=str(claim.id))
                outcome = Retry(Reason.INTERNAL_ERROR, type(error).__name__)
            report(claim, outcome)

        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(send_one(claim))

    async def _send(self, claim: Claim) -> Outcome:
        if claim.data.get("silent") is True:
            return Skipped(Reason.SILENT_NEEDS_FCM)
        device = claim.device
        if device is None or not (device.endpoint and device.p256dh and device.auth):
            return _refused("It is no browser's subscription.")
        try:
            target = self._outbound.rules.parse(device.endpoint)
            push = _Push(claim, target, device.endpoint, device.p256dh, device.auth)
            async with self._breakers.place(target.origin) as place:
                outcome = await self._attempt(push, place)
        except AddressRefused as error:
            return Failed(Reason.ADDRESS_REFUSED, f"The address {error}.", DeviceFate.COUNT)
        except NotNow as refused:
            outcome = Deferred(Reason.PROVIDER_UNAVAILABLE, str(refused), refused.after)
        if isinstance(outcome, Deferred) and has_outlived(claim, self._clock()):
            return Retry(outcome.reason, outcome.detail, outcome.after)
        return outcome

    async def _attempt(self, push: _Push, place: Place) -> Outcome:
        """One attempt, which may take several requests."""
        try:
            async with asyncio.timeout(self._seconds):
                answer, key = await self._answer(push)
        except TimeoutError:
            return _unavailable("no answer in time", place)
        except Unreachable as error:
            return _unavailable(str(error), place)
        except UnusableKeys:
            return _refused("Its keys can't be used.")
        now = self._clock()
        if answer.status >= FIRST_SERVER_ERROR:
            return _unavailable(str(answer.status), place, _wait(answer, now))
        place.answered()
        if is_foreign_key(answer) and not await self._has_its_key(push):
            return Retry(Reason.INTERNAL_ERROR, "The VAPID key it subscribed with is missing.")
        outcome = outcome_of(answer, push.target.host, now)
        if isinstance(outcome, Sent) and key.id != _stored_key_id(push):
            return Sent(outcome.provider_id, key.id)
        return outcome

    async def _has_its_key(self, push: _Push) -> bool:
        """Whether the key that it is known to have subscribed with, if any, can sign."""
        key_id = _stored_key_id(push)
        return key_id is None or await self._keyring.get(key_id) is not None

    async def _answer(self, push: _Push) -> tuple[Answer, VapidKey]:
        """The answer that counts, and the key it was given to."""
        key_id = _stored_key_id(push)
        stored = await self._keyring.get(key_id) if key_id is not None else None
        key = stored or await self._keyring.newest()
        answer = await self._post(push, key)
        if is_foreign_key(answer):
            for other in await self._keyring.all():
                if other.id != key.id:
                    again = await self._post(push, other)
                    if not is_foreign_key(again):
                        answer, key = again, other
                        break
        if answer.status == TOO_LARGE:
            answer = await self._post(push, key, MAX_PLAINTEXT // 2)
        return answer, key

    async def _post(self, push: _Push, key: VapidKey, limit: int = MAX_PLAINTEXT) -> Answer:
        claim = push.claim
        message = payload_of(claim, self._base_url, self._ack_token(claim.id), limit)
        body = self._encryption.encrypt(message, p256dh=push.p256dh, auth=push.auth)
        headers = {
            "Authorization": self._tokens.authorization(push.target.origin, key),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(time_to_live(claim, self._clock())),
            "Urgency": urgency_of(claim),
        }
        topic = topic_of(claim)
        if topic is not None:
            headers["Topic"] = topic
        return await self._outbound.post(
            push.endpoint, body, headers, seconds=self._seconds, most=MAX_ANSWER
        )


def outcome_of(answer: Answer, host: str, now: datetime) -> Outcome:
    """What an answer below 500 means, after every key was tried.

    Args:
        host: of the push service.
    """
    status, reason = answer.status, _reason(answer)
    detail = f"{status} {reason}".strip()
    if status in OK:
        return Sent(_provider_id(answer))
    if status in GONE:
        return Failed(Reason.DEVICE_GONE, detail, DeviceFate.REMOVE)
    if status == TOO_LARGE:
        return Failed(Reason.PAYLOAD_TOO_LARGE, detail)
    if status == TOO_MANY_REQUESTS or (status == NOT_ACCEPTABLE and host.endswith(WINDOWS)):
        after = _wait(answer, now)
        return Deferred(Reason.PROVIDER_LIMIT, detail, LIMIT_SECONDS if after is None else after)
    if status == UNAUTHORIZED or (status == FORBIDDEN and reason == BAD_TOKEN):
        # Our clock or our contact is at fault, not the device.
        return Retry(Reason.PROVIDER_REJECTED, detail)
    if status in PASSING:
        return Retry(Reason.PROVIDER_UNAVAILABLE, detail, _wait(answer, now))
    if status in REDIRECTS:
        return _refused(f"{status}: redirects are not followed.")
    return _refused(detail)


def is_foreign_key(answer: Answer) -> bool:
    """Whether another key of ours may be the one that the browser subscribed with."""
    status = answer.status
    return status in (UNAUTHORIZED, FORBIDDEN) or (
        status == BAD_REQUEST and _reason(answer) == FOREIGN_KEY
    )


def _unavailable(detail: str, place: Place, asked: float | None = None) -> Outcome:
    ill_for = place.failed()
    if ill_for is None:
        return Retry(Reason.PROVIDER_UNAVAILABLE, detail, asked)
    return Deferred(Reason.PROVIDER_UNAVAILABLE, detail, max(ill_for, asked or 0.0))


def _refused(detail: str) -> Failed:
    return Failed(Reason.DEVICE_REFUSED, detail, DeviceFate.COUNT)


def _stored_key_id(push: _Push) -> str | None:
    return push.claim.device.vapid_key_id if push.claim.device else None


def _wait(answer: Answer, now: datetime) -> float | None:
    return retry_after(answer.headers.get("retry-after"), now)


def _reason(answer: Answer) -> str:
    """What Apple calls the error."""
    try:
        told: object = orjson.loads(answer.body or b"null")
    except orjson.JSONDecodeError:
        return ""
    reason = cast("dict[str, object]", told).get("reason") if isinstance(told, dict) else None
    return _printable(reason) if isinstance(reason, str) else ""


def _provider_id(answer: Answer) -> str | None:
    return _printable(answer.headers.get("location", "").rstrip("/").rpartition("/")[2]) or None


def _printable(text: str) -> str:
    return UNPRINTABLE.sub("", text)[:MAX_PROVIDER_ID]
