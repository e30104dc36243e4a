"""Errors that callers see, each with a stable code and an HTTP status.

    NotifyError
    ├── ValidationFailed      422 validation_error
    ├── UnknownUser           422 unknown_user
    ├── TooManyRecipients     400 too_many_recipients
    ├── NotAuthenticated      401 not_authenticated
    ├── InvalidAckToken       401 invalid_ack_token
    ├── InvalidSignature      401 invalid_signature
    ├── Forbidden             403 forbidden
    ├── NotFound              404 not_found
    ├── MethodNotAllowed      405 method_not_allowed
    ├── IdempotencyConflict   409 idempotency_conflict
    ├── EndpointInUse         409 endpoint_in_use
    ├── TemplateExists        409 template_exists
    ├── BodyTooLarge          413 body_too_large
    ├── RateLimited           429 rate_limited
    ├── QueueFull             429 queue_full
    └── Unavailable           503 unavailable

One handler (`app.api.errors`) renders them all; `docs/errors.md` lists them.
"""

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import TypedDict  # Pydantic needs it before Python 3.12


class ErrorDetail(TypedDict):
    """One field at fault: its path as dotted text, a stable code and a sentence."""

    path: str
    code: str
    message: str


class NotifyError(Exception):
    """Base of all errors a caller may see.

    Args:
        message: a sentence for a person; the class's own by default.
        details: the fields at fault.
        headers: response headers to add, such as `Retry-After`.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Something went wrong on our side."

    def __init__(
        self,
        message: str | None = None,
        *,
        details: Sequence[ErrorDetail] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.details = list(details)
        self.headers = headers or {}
        super().__init__(self.message)


class ValidationFailed(NotifyError):
    """The request does not have the shape or the values asked for."""

    status = 422
    code = "validation_error"
    default_message = "The request has invalid fields."


class UnknownUser(NotifyError):
    """A notification was addressed to a user that does not exist."""

    status = 422
    code = "unknown_user"
    default_message = "No user has this id."


class TooManyRecipients(NotifyError):
    """A bulk call names more recipients than one batch may have (REQ-005)."""

    status = 400
    code = "too_many_recipients"
    default_message = "The batch has too many recipients."


class NotAuthenticated(NotifyError):
    """No credentials, or bad ones (SEC-004)."""

    status = 401
    code = "not_authenticated"
    default_message = "Valid credentials are required."

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": "Bearer"})


class InvalidAckToken(NotifyError):
    """A push is acknowledged with a token that was not given out (section 5.2)."""

    status = 401
    code = "invalid_ack_token"
    default_message = "Take the ack_token from the push."


class InvalidSignature(NotifyError):
    """A webhook is not signed by its provider, or not now (REQ-014)."""

    status = 401
    code = "invalid_signature"
    default_message = "The webhook is not signed as it should be."


class Forbidden(NotifyError):
    """Valid credentials that lack the right (SEC-004)."""

    status = 403
    code = "forbidden"
    default_message = "These credentials do not allow this."


class NotFound(NotifyError):
    """It does not exist, or belongs to somebody else (SEC-002)."""

    status = 404
    code = "not_found"
    default_message = "There is nothing here."


class MethodNotAllowed(NotifyError):
    """The address is for other methods, which `Allow` names."""

    status = 405
    code = "method_not_allowed"
    default_message = "This address is for other methods."


class IdempotencyConflict(NotifyError):
    """The idempotency key was used before, for another request."""

    status = 409
    code = "idempotency_conflict"
    default_message = "This idempotency key was used for another request."


class EndpointInUse(NotifyError):
    """Another user subscribed with this push endpoint, and with other keys (SEC-003)."""

    status = 409
    code = "endpoint_in_use"
    default_message = "Another user has this endpoint; subscribe the browser anew."


class TemplateExists(NotifyError):
    """There is a template with this name in this language already (REQ-004)."""

    status = 409
    code = "template_exists"
    default_message = "This template is there already in this language; PUT adds a version."


class BodyTooLarge(NotifyError):
    """The request body exceeds 1 MiB."""

    status = 413
    code = "body_too_large"
    default_message = "The request body may have at most 1 MiB."


class RateLimited(NotifyError):
    """A bulk call has more recipients than the global limit has room for just now (REQ-023).

    Args:
        retry_after: whole seconds after which there is room, if nobody else takes it.
    """

    status = 429
    code = "rate_limited"
    default_message = "Bulk calls have used up what may be sent in a minute; try again later."

    def __init__(self, message: str | None = None, *, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class QueueFull(NotifyError):
    """Too many deliveries wait already; what is not critical is refused, not stored (REQ-022)."""

    status = 429
    code = "queue_full"
    default_message = "Too many deliveries are waiting; nothing was stored, try again later."

    def __init__(self, message: str | None = None, *, retry_after: int = 5) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class Unavailable(NotifyError):
    """A part that this request needs is down; trying again is safe."""

    status = 503
    code = "unavailable"
    default_message = "A needed part is unavailable; try again."

    def __init__(self, message: str | None = None, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class Busy(Unavailable):
    """Others were changing the same at the same time; trying again is safe."""
