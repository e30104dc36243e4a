"""What the push service answers when it takes no message."""

from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from app.sandbox.faults import StatusFault

KEY_MISMATCH = "VapidPkHashMismatch"

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: KEY_MISMATCH,
    404: "UnknownEndpoint",
    405: "MethodNotAllowed",
    406: "Throttled",
    410: "ExpiredSubscription",
    413: "PayloadTooLarge",
    429: "TooManyRequests",
    500: "InternalServerError",
    502: "BadGateway",
    503: "ServiceUnavailable",
}
_MESSAGES = {
    KEY_MISMATCH: "The VAPID key is not the one this subscription was made with.",
    "BadRequest": "The request is malformed.",
    "ExpiredSubscription": "The browser is no longer subscribed here.",
    "InternalServerError": "Something went wrong at the push service.",
    "MethodNotAllowed": "Messages are sent with POST.",
    "PayloadTooLarge": "The encrypted body has more than 4096 bytes.",
    "ServiceUnavailable": "The push service is temporarily unavailable.",
    "Throttled": "Messages come too fast.",
    "TooManyRequests": "Messages come too fast.",
    "Unauthorized": "The VAPID token is not valid.",
    "UnknownEndpoint": "No browser was ever subscribed here.",
}
_OTHER_MESSAGE = "The request failed."


class PushRefused(Exception):
    """A message the push service does not take.

    Args:
        status: the HTTP status (RFC 8030, 5; RFC 8292, 4.2).
        reason: a stable word for it; by default the usual one of that status.
        message: a sentence; by default the usual one of that reason.
    """

    def __init__(self, status: int, reason: str | None = None, message: str | None = None) -> None:
        self.status = status
        self.reason = reason or _REASONS.get(status, "Refused")
        self.message = message or _MESSAGES.get(self.reason, _OTHER_MESSAGE)
        super().__init__(self.message)

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The HTTP response: `{"code", "error", "message", "reason"}`."""
        body = {
            "code": self.status,
            "error": _phrase(self.status),
            "message": self.message,
            "reason": self.reason,
        }
        return JSONResponse(body, status_code=self.status, headers=headers)


def faulty_response(fault: StatusFault) -> Response:
    """What a `status` fault answers; Apple's 400 for another key's signature is Apple's alone."""
    if (fault.status, fault.name) == (400, KEY_MISMATCH):
        return JSONResponse({"reason": KEY_MISMATCH}, status_code=400, headers=fault.headers())
    return PushRefused(fault.status, fault.name, fault.message).response(fault.headers())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
