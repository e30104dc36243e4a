"""Email through Resend's HTTP API (REQ-014): `POST /emails`, and `/emails/batch` for up to 100.

Errors and limits follow https://resend.com/docs/api-reference/errors and …/rate-limit, keys
https://resend.com/docs/dashboard/emails/idempotency-keys.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, cast
from uuid import UUID

import httpx
import orjson

from app.channels.base import Deferred, Failed, Retry
from app.channels.email.allowance import Allowance
from app.channels.email.letter import Letter
from app.channels.email.lines import mailbox
from app.channels.email.provider import Answer, Fault, Parcel, Refused, Taken, Unknown
from app.channels.retry_after import retry_after
from app.config import Settings
from app.policy.kinds import Reason

BATCH: Final = 100  # letters
BATCH_BYTES: Final = 4 * 1024 * 1024
PLACES: Final = 50
QUOTA_PAUSE: Final = 1_800.0  # seconds until it is seen whether a quota has room again
LIMIT_PAUSE: Final = 1.0  # where Resend does not say how long
TEXT_LIMIT: Final = 100

REQUEST_TIMEOUT = 408
CONFLICT = 409
TOO_MANY_REQUESTS = 429
FIRST_SERVER_ERROR = 500
# The account or the address of the API is ours to mend; the mail is not at fault.
OURS_TO_MEND = (401, 403, 404, 405)
QUOTAS = ("daily_quota_exceeded", "monthly_quota_exceeded")


class ResendProvider:
    """Makes requests of Resend, or of the sandbox where no provider is configured.

    Args:
        settings: address, key, sender and time limit.
        client: shared HTTP client; the caller closes it.
        clock: the present instant.
        allowance: what is known of its limits.
    """

    name: ClassVar[str] = "resend"

    def __init__(
        self,
        settings: Settings,
        client: httpx.AsyncClient,
        clock: Callable[[], datetime],
        allowance: Allowance | None = None,
    ) -> None:
        self.places = PLACES
        self.allowance = allowance or Allowance()
        self._client = client
        self._clock = clock
        self._seconds = settings.provider_timeout_seconds
        self._sender = mailbox(settings.resend_from_name, settings.resend_from_email)
        key = settings.resend_api_key
        if key is None:
            self._url, self._key = f"{settings.sandbox_url}/resend", "re_sandbox"
        else:
            self._url, self._key = settings.resend_api_url, key.get_secret_value()

    def parcels(self, letters: Sequence[Letter]) -> list[Parcel]:
        """Up to 100 letters and `BATCH_BYTES` each; one alone is a request of its own kind."""
        parcels: list[Parcel] = []
        group: list[Letter] = []
        messages: list[bytes] = []
        for letter in letters:
            message = orjson.dumps(self._message(letter))
            is_full = len(group) == BATCH or sum(map(len, messages)) + len(message) > BATCH_BYTES
            if group and is_full:
                parcels.append(_parcel(group, messages))
                group, messages = [], []
            group.append(letter)
            messages.append(message)
        return [*parcels, _parcel(group, messages)] if group else parcels

    async def post(self, key: UUID, payload: bytes) -> Answer:
        """Make a request under an idempotency key."""
        self.allowance.sent()
        try:
            # The client's own timeouts begin anew with every byte.
            async with asyncio.timeout(self._seconds):
                response = await self._client.post(
                    f"{self._url}/emails{'/batch' if _is_batch(payload) else ''}",
                    content=payload,
                    headers={
                        "Authorization": f"Bearer {self._key}",
                        "Content-Type": "application/json",
                        "Idempotency-Key": str(key),
                    },
                    timeout=httpx.Timeout(self._seconds, connect=self._seconds / 2),
                )
        except BaseException as error:
            self.allowance.lost()
            outcome = Retry(Reason.PROVIDER_UNAVAILABLE, type(error).__name__)
            match error:
                case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.PoolTimeout():
                    return Refused(outcome, Fault.OF_PROVIDER, is_unwell=True)
                case httpx.HTTPError() | TimeoutError():
                    return Unknown(outcome)
                case _:
                    raise
        self.allowance.answered(response.headers)
        return self._answer(response, payload)

    def _answer(self, response: httpx.Response, payload: bytes) -> Answer:
        if response.is_success:
            return Taken(_provider_ids(response, _is_batch(payload)))
        status, name = response.status_code, _error_name(response)
        detail = f"{status} {name}".strip()
        after = retry_after(response.headers.get("retry-after"), self._clock())
        if status == TOO_MANY_REQUESTS:
            return self._limited(name in QUOTAS, detail, after)
        if status >= FIRST_SERVER_ERROR or status == REQUEST_TIMEOUT:
            return Unknown(Retry(Reason.PROVIDER_UNAVAILABLE, detail, after))
        if status == CONFLICT and name != "invalid_idempotent_request":
            # The same request is still being answered, to another worker or to one that died.
            outcome = Retry(Reason.PROVIDER_UNAVAILABLE, detail, after)
            return Unknown(outcome, is_unwell=False)
        if status in OURS_TO_MEND or response.is_redirect:
            return Refused(Retry(Reason.PROVIDER_REJECTED, detail), Fault.OF_PROVIDER)
        return Refused(Failed(Reason.PROVIDER_REJECTED, detail), Fault.OF_CONTENT)

    def _limited(self, is_quota: bool, detail: str, after: float | None) -> Refused:
        pause = max(after or 0.0, QUOTA_PAUSE) if is_quota else after or LIMIT_PAUSE
        self.allowance.pause(pause)
        outcome = Retry(Reason.PROVIDER_LIMIT, detail, pause)
        if is_quota:
            # A day's quota outlasts all attempts, and says nothing of the letter.
            outcome = Deferred(Reason.PROVIDER_LIMIT, detail, pause)
        return Refused(outcome, Fault.OF_PROVIDER)

    def _message(self, letter: Letter) -> dict[str, Any]:
        return {
            "from": self._sender,
            "to": [letter.to],
            "subject": letter.subject,
            "html": letter.html,
            "text": letter.text,
            "headers": dict(letter.headers),
            "tags": [
                {"name": _tag(name), "value": _tag(value)} for name, value in letter.tags.items()
            ],
        }


def _parcel(letters: Sequence[Letter], messages: Sequence[bytes]) -> Parcel:
    payload = messages[0] if len(messages) == 1 else b"[" + b",".join(messages) + b"]"
    return Parcel(tuple(letters), payload)


def _is_batch(payload: bytes) -> bool:
    return payload.startswith(b"[")


def _tag(text: str) -> str:
    """As Resend takes it: letters, digits, underscores and dashes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:256]


def _provider_ids(response: httpx.Response, is_batch: bool) -> list[str | None]:
    try:
        answer = response.json()
        answered = cast("list[Any]", answer["data"]) if is_batch else [answer]
        return [_printable(str(item["id"])) for item in answered]
    except (ValueError, KeyError, TypeError):
        return []


def _error_name(response: httpx.Response) -> str:
    try:
        return _printable(str(response.json()["name"]))
    except (ValueError, KeyError, TypeError):
        return ""


def _printable(text: str) -> str:
    return "".join(character for character in text[:TEXT_LIMIT] if character.isprintable())
