"""Posts a click on a named action to the service that registered for it (REQ-013).

Every attempt carries the same `webhook-id` and body, so a receiver can tell a repeated call from a
second click, and is signed anew after Standard Webhooks.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

import orjson
from pydantic import JsonValue

from app.channels.base import Failed, Retry
from app.channels.retry_after import retry_after
from app.config import Settings
from app.policy.kinds import Reason
from app.schemas.base import MAX_NESTING, nesting
from app.security.address_rules import AddressRefused
from app.security.encryption import Cipher, DecryptionFailed
from app.security.outbound import Answer, Outbound, Unreachable
from app.security.webhooks import signed_headers

MAX_RESULT: Final = 16 * 1024  # bytes
TOO_MANY_REQUESTS: Final = 429
CLIENT_ERRORS: Final = range(400, 500)
# Of these 4xx the same request may fare better later.
PASSING: Final = frozenset({408, 409, 425, TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class Call:
    """A click that is leased to this process, with all that posting it needs.

    Args:
        attempts: attempts made, this one included.
        url: where to, None when nobody is registered any more.
        secret: the signing secret's ciphertext.
    """

    notification_id: UUID
    user_id: UUID
    action: str
    label: str | None
    clicked_at: datetime
    attempts: int
    lease_token: UUID
    notification_type: str
    data: dict[str, JsonValue]
    url: str | None
    secret: bytes | None

    @property
    def message_id(self) -> str:
        """The same for every attempt, and for no other click."""
        return f"act_{uuid5(self.notification_id, self.action).hex}"


@dataclass(frozen=True, slots=True)
class Completed:
    """The receiver did it.

    Args:
        result: the JSON it answered; None when it was none, or too much.
    """

    result: JsonValue


Verdict = Completed | Retry | Failed


class CallbackSender:
    """Posts clicks.

    Args:
        settings: the time one request may take.
        outbound: the client for addresses that services gave us.
        cipher: decrypts the signing secrets.
    """

    def __init__(self, settings: Settings, outbound: Outbound, cipher: Cipher) -> None:
        self._seconds = settings.provider_timeout_seconds
        self._outbound = outbound
        self._cipher = cipher

    async def send(self, call: Call, now: datetime) -> Verdict:
        """Post a click once; returns what its answer means.

        Args:
            now: the instant of this attempt.
        """
        if call.url is None or call.secret is None:
            return Failed(Reason.CALLBACK_REMOVED, "Nobody is registered for it any more.")
        try:
            secret = self._cipher.decrypt(call.secret, context=secret_context(call.action))
        except DecryptionFailed as error:
            return Retry(Reason.INTERNAL_ERROR, str(error))
        body = _body(call)
        headers = signed_headers(secret.decode(), call.message_id, int(now.timestamp()), body)
        headers["Content-Type"] = "application/json"
        try:
            answer = await self._outbound.post(
                call.url, body, headers, seconds=self._seconds, most=MAX_RESULT
            )
        except AddressRefused as error:
            return Failed(Reason.ADDRESS_REFUSED, f"The address {error}.")
        except Unreachable as error:
            return Retry(Reason.PROVIDER_UNAVAILABLE, str(error))
        return verdict_of(answer, now)


def secret_context(name: str) -> str:
    """Where the signing secret of an action lives, which its ciphertext is bound to."""
    return f"action_callbacks/{name}/secret"


def verdict_of(answer: Answer, now: datetime) -> Verdict:
    """What a receiver's answer means for the click."""
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004 -- what HTTP calls a success
        return Completed(_result(answer.body))
    if status in CLIENT_ERRORS and status not in PASSING:
        return Failed(Reason.PROVIDER_REJECTED, str(status))
    reason = Reason.PROVIDER_LIMIT if status == TOO_MANY_REQUESTS else Reason.PROVIDER_UNAVAILABLE
    return Retry(reason, str(status), after=retry_after(answer.headers.get("retry-after"), now))


def _body(call: Call) -> bytes:
    clicked_at = call.clicked_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return orjson.dumps(
        {
            "type": "notification.action",
            "timestamp": clicked_at,
            "data": {
                "notification_id": str(call.notification_id),
                "user_id": str(call.user_id),
                "action": call.action,
                "label": call.label,
                "clicked_at": clicked_at,
                "notification_type": call.notification_type,
                "data": call.data,
            },
        }
    )


def _result(body: bytes | None) -> JsonValue:
    """The answered JSON, if PostgreSQL and every client can take it."""
    try:
        value: JsonValue = orjson.loads(body or b"null")
    except orjson.JSONDecodeError:
        return None
    if nesting(value) > MAX_NESTING:
        return None
    # Written anew, an escaped backslash before `u0000` can be told from the character.
    has_nul = b"\\u0000" in orjson.dumps(value).replace(b"\\\\", b"")
    return None if has_nul else value
