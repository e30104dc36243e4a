"""What FCM's answers mean for a delivery and its device (REQ-006, REQ-007).

An error carries a status of Google's and, when it comes from FCM itself, a code of its own. No
token and none of FCM's sentences are repeated: they may quote what was sent.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import httpx
from pydantic import BaseModel, Field, ValidationError

from app.channels.base import Deferred, DeviceFate, Failed, Outcome, Retry, Sent
from app.channels.retry_after import retry_after
from app.policy.kinds import Reason

FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
QUOTA_WAIT: Final = 60.0  # seconds, as FCM's documentation asks where it names no time
SHORTEST_WAIT: Final = 1.0
TOKEN_FIELD: Final = "message.token"  # noqa: S105 -- a field's name

REDIRECTION: Final = range(300, 400)
UNAUTHENTICATED: Final = 401
# Not the message's fault: our account, project or address is to be mended.
OURS_TO_MEND: Final = frozenset({401, 403, 404, 405, 407})
REQUEST_TIMEOUT: Final = 408
TOO_MANY_REQUESTS: Final = 429
FIRST_SERVER_ERROR: Final = 500

CODE: Final = re.compile(r"[A-Z][A-Z_]{0,39}")
FIELD: Final = re.compile(r"[A-Za-z0-9_.\[\]]{1,80}")

EXPLAINED: Final = {
    "THIRD_PARTY_AUTH_ERROR": "the Firebase project has no valid APNs key for this app",
    "SENDER_ID_MISMATCH": "the token belongs to another Firebase project",
    "PERMISSION_DENIED": "the service account may not send for this project",
}


@dataclass(frozen=True, slots=True)
class FcmError:
    """An answer that is not a success.

    Args:
        code: FCM's own, such as `UNREGISTERED`; empty when the error is not from FCM itself.
        google_status: such as `NOT_FOUND`; empty when Google did not answer it.
        fields: of the request, that are at fault.
        of_token: whether the token is at fault.
    """

    status: int
    code: str
    google_status: str
    fields: tuple[str, ...]
    of_token: bool

    @property
    def detail(self) -> str:
        """For operators: nothing of what was sent."""
        name = self.code or self.google_status
        parts = [f"{self.status} {name}".strip(), EXPLAINED.get(name, ""), ", ".join(self.fields)]
        return ": ".join(part for part in parts if part)

    @property
    def is_unauthenticated(self) -> bool:
        """Whether a new access token may help."""
        return self.status == UNAUTHENTICATED and self.code != "THIRD_PARTY_AUTH_ERROR"


def outcome_of(response: httpx.Response, now: datetime) -> Outcome:
    """What an answer means for the delivery.

    Args:
        now: the instant it came.
    """
    if response.is_success:
        return Sent(_message_id(response))
    error = error_of(response)
    after = retry_after(response.headers.get("retry-after"), now)
    match error:
        case FcmError(code="UNREGISTERED"):
            return Failed(Reason.DEVICE_GONE, error.detail, DeviceFate.REMOVE)
        case FcmError(code="SENDER_ID_MISMATCH"):
            return Failed(Reason.DEVICE_REFUSED, error.detail, DeviceFate.DISABLE)
        case FcmError(of_token=True):
            return Failed(Reason.DEVICE_REFUSED, error.detail, DeviceFate.COUNT)
        case FcmError(code="QUOTA_EXCEEDED") | FcmError(status=429):
            wait = QUOTA_WAIT if after is None else max(after, SHORTEST_WAIT)
            return Deferred(Reason.PROVIDER_LIMIT, error.detail, wait)
        case FcmError(status=status) if status >= FIRST_SERVER_ERROR or status == REQUEST_TIMEOUT:
            return Retry(Reason.PROVIDER_UNAVAILABLE, error.detail, after)
        case FcmError(status=status) if status in OURS_TO_MEND or status in REDIRECTION:
            return Retry(Reason.PROVIDER_REJECTED, error.detail)
        case _:
            return Failed(Reason.PROVIDER_REJECTED, error.detail)


def error_of(response: httpx.Response) -> FcmError:
    """The error that an answer tells of, as far as it can be read."""
    try:
        told = _Answer.model_validate_json(response.content).error
    except ValidationError:
        told = _Told()
    code = next((item.error_code for item in told.details if item.kind == FCM_ERROR), "")
    named = [violation.field for item in told.details for violation in item.violations]
    # FCM names a bad token in its sentence alone, unless the request itself could not be read.
    of_sentence = (
        code == "INVALID_ARGUMENT" and not named and "registration token" in told.message.lower()
    )
    return FcmError(
        status=response.status_code,
        code=_code(code),
        google_status=_code(told.status),
        fields=tuple(name for name in named if FIELD.fullmatch(name))[:5],
        of_token=TOKEN_FIELD in named or of_sentence,
    )


def _message_id(response: httpx.Response) -> str | None:
    try:
        name = _Accepted.model_validate_json(response.content).name
    except ValidationError:
        return None
    last = name.rpartition("/")[2]
    return last if last.isascii() and last.isprintable() and last else None


def _code(text: str) -> str:
    return text if CODE.fullmatch(text) else ""


class _Accepted(BaseModel):
    name: str


class _Violation(BaseModel):
    field: str = ""


class _Detail(BaseModel):
    kind: str = Field("", alias="@type")
    error_code: str = Field("", alias="errorCode")
    violations: list[_Violation] = Field([], alias="fieldViolations")


class _Told(BaseModel):
    status: str = ""
    message: str = ""
    details: list[_Detail] = []


class _Answer(BaseModel):
    error: _Told = _Told()
