"""Errors in Resend's shape (https://resend.com/docs/api-reference/errors)."""

from starlette.responses import JSONResponse, Response

from app.sandbox.faults import StatusFault

_NAMES = {
    400: "validation_error",
    401: "missing_api_key",
    403: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    409: "concurrent_idempotent_requests",
    422: "validation_error",
    429: "rate_limit_exceeded",
    451: "security_error",
    500: "application_error",
}
_OTHER_NAME = "internal_server_error"
_MESSAGES = {
    "application_error": "An unexpected error occurred.",
    "concurrent_idempotent_requests": "Same idempotency key used while original request is still "
    "in progress.",
    "daily_quota_exceeded": "You have reached your daily email sending quota.",
    "internal_server_error": "An unexpected error occurred.",
    "invalid_api_key": "API key is invalid.",
    "invalid_from_address": "Invalid from field.",
    "invalid_idempotency_key": "The key must be between 1-256 chars.",
    "invalid_idempotent_request": "Same idempotency key used with a different request payload.",
    "method_not_allowed": "Method is not allowed for the requested path.",
    "missing_api_key": "Missing API key in the authorization header.",
    "monthly_quota_exceeded": "You have reached your monthly email sending quota.",
    "not_found": "The requested endpoint does not exist.",
    "missing_required_field": "The request body is missing one or more required fields.",
    "rate_limit_exceeded": "Too many requests. Please limit the number of requests per second.",
    "restricted_api_key": "This API key is restricted to only send emails.",
    "security_error": "We may have found a security issue with the request.",
    "validation_error": "We found an error with one or more fields in the request.",
}
_OTHER_MESSAGE = "The request failed."


class ResendError(Exception):
    """A request that Resend refuses.

    Args:
        status: the HTTP status.
        name: Resend's error type; by default the usual one of that status.
        message: a sentence; by default the usual one of that type.
    """

    def __init__(self, status: int, name: str | None = None, message: str | None = None) -> None:
        self.status = status
        self.name = name or _NAMES.get(status, _OTHER_NAME)
        self.message = message or _MESSAGES.get(self.name, _OTHER_MESSAGE)
        super().__init__(self.message)

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The HTTP response: `{"statusCode", "name", "message"}`."""
        body = {"statusCode": self.status, "name": self.name, "message": self.message}
        return JSONResponse(body, status_code=self.status, headers=headers)


def faulty_response(fault: StatusFault) -> Response:
    """What a `status` fault answers."""
    headers = fault.headers()
    error = ResendError(fault.status, fault.name, fault.message)
    if fault.retry_after is not None and error.name == "rate_limit_exceeded":
        headers |= {"ratelimit-remaining": "0", "ratelimit-reset": str(fault.retry_after)}
    return error.response(headers)
