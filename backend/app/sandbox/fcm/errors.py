"""Errors in Google's shapes.

https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode and
https://cloud.google.com/apis/design/errors for FCM; RFC 6749, 5.2 for the token address.
"""

from collections.abc import Sequence

from starlette.responses import JSONResponse, Response

from app.sandbox.faults import StatusFault

PERMISSION_DENIED = "IAM_PERMISSION_DENIED"

_TYPES = "type.googleapis.com"
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "THIRD_PARTY_AUTH_ERROR",
    403: "SENDER_ID_MISMATCH",
    404: "UNREGISTERED",
    429: "QUOTA_EXCEEDED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_MESSAGES = {
    "INVALID_ARGUMENT": "Request contains an invalid argument.",
    "INTERNAL": "Internal error encountered.",
    "QUOTA_EXCEEDED": "Resource has been exhausted (e.g. check quota).",
    "SENDER_ID_MISMATCH": "SenderId mismatch",
    "THIRD_PARTY_AUTH_ERROR": "Auth error from APNS or Web Push Service",
    "UNAVAILABLE": "The service is currently unavailable.",
    "UNREGISTERED": "Requested entity was not found.",
}
_OTHER_MESSAGE = "The request failed."


class FcmRefused(Exception):
    """A request FCM refuses.

    Args:
        status: the HTTP status.
        code: FCM's own error code, or the reason Google's front gives; `None` names neither.
        message: a sentence; by default the usual one of that code.
        violations: fields at fault, each as path and sentence.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str | None = None,
        violations: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.status = status
        self.code = code
        self.message = message or _MESSAGES.get(code or "", _OTHER_MESSAGE)
        self.violations = violations
        super().__init__(self.message)

    def response(self, headers: dict[str, str] | None = None) -> Response:
        """The HTTP response: `{"error": {"code", "message", "status", "details"}}`."""
        details: list[object] = []
        if self.code in _CODES.values():
            fcm_error = f"{_TYPES}/google.firebase.fcm.v1.FcmError"
            details.append({"@type": fcm_error, "errorCode": self.code})
        elif self.code is not None:
            info = {"@type": f"{_TYPES}/google.rpc.ErrorInfo", "reason": self.code}
            details.append({**info, "domain": "googleapis.com"})
        if self.violations:
            fields = [{"field": path, "description": text} for path, text in self.violations]
            bad_request = f"{_TYPES}/google.rpc.BadRequest"
            details.append({"@type": bad_request, "fieldViolations": fields})
        error = {
            "code": self.status,
            "message": self.message,
            "status": _STATUSES.get(self.status, "UNKNOWN"),
            **({"details": details} if details else {}),
        }
        return JSONResponse({"error": error}, status_code=self.status, headers=headers)


class OAuthRefused(Exception):
    """An assertion the token address refuses, always with 400."""

    def __init__(self, error: str, description: str) -> None:
        self.error = error
        self.description = description
        super().__init__(description)

    def response(self, status: int = 400, headers: dict[str, str] | None = None) -> Response:
        """The HTTP response: `{"error", "error_description"}`."""
        body = {"error": self.error, "error_description": self.description}
        return JSONResponse(body, status_code=status, headers=headers)


def faulty_send(fault: StatusFault) -> Response:
    """What a `status` fault of provider `fcm` answers."""
    code = fault.name or _CODES.get(fault.status)
    return FcmRefused(fault.status, code, fault.message).response(fault.headers())


def faulty_token(fault: StatusFault) -> Response:
    """What a `status` fault of provider `fcm_oauth` answers."""
    name = fault.name or ("invalid_grant" if fault.status == 400 else "internal_failure")  # noqa: PLR2004 -- Bad Request, known by its number
    refused = OAuthRefused(name, fault.message or _OTHER_MESSAGE)
    return refused.response(fault.status, fault.headers())
