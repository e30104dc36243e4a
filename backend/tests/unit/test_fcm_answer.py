"""What FCM's answers mean (REQ-006, REQ-007); shapes as Google documents and sends them."""

from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from app.channels.base import Deferred, DeviceFate, Failed, Outcome, Retry, Sent
from app.channels.fcm_answer import error_of, outcome_of
from app.policy.kinds import Reason
from tests.pushing import NOW

TYPES = "type.googleapis.com"
TOKEN = "c0ffee:APA91b-secret"
NOT_A_TOKEN = f"The registration token {TOKEN} is not a valid FCM registration token"


def answer(
    status: int,
    google_status: str = "",
    code: str | None = None,
    *,
    message: str = f"Something with {TOKEN}.",
    fields: tuple[str, ...] = (),
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    details: list[dict[str, Any]] = []
    if code is not None:
        details.append({"@type": f"{TYPES}/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if fields:
        violations = [{"field": field, "description": message} for field in fields]
        details.append({"@type": f"{TYPES}/google.rpc.BadRequest", "fieldViolations": violations})
    error = {"code": status, "message": message, "status": google_status, "details": details}
    return httpx.Response(status, json={"error": error}, headers=headers)


def after(value: str) -> dict[str, str]:
    return {"Retry-After": value}


GONE = Failed(Reason.DEVICE_GONE, "404 UNREGISTERED", DeviceFate.REMOVE)
FOREIGN = "403 SENDER_ID_MISMATCH: the token belongs to another Firebase project"
NO_APNS = "401 THIRD_PARTY_AUTH_ERROR: the Firebase project has no valid APNs key for this app"
DENIED = "403 PERMISSION_DENIED: the service account may not send for this project"
BAD = "INVALID_ARGUMENT"
IN_THREE_MINUTES = format_datetime(NOW + timedelta(minutes=3), usegmt=True)
TABLE: list[tuple[httpx.Response, Outcome]] = [
    (httpx.Response(200, json={"name": "projects/p/messages/0:12%34"}), Sent("0:12%34")),
    (httpx.Response(200, json={}), Sent()),
    (httpx.Response(200, text="<html>"), Sent()),
    (answer(404, "NOT_FOUND", "UNREGISTERED"), GONE),
    # Without FCM's own word for it the address or the project is wrong, not the phone.
    (answer(404, "NOT_FOUND"), Retry(Reason.PROVIDER_REJECTED, "404 NOT_FOUND")),
    (httpx.Response(404, text="<html>"), Retry(Reason.PROVIDER_REJECTED, "404")),
    (
        answer(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        Failed(Reason.DEVICE_REFUSED, FOREIGN, DeviceFate.DISABLE),
    ),
    (answer(403, "PERMISSION_DENIED"), Retry(Reason.PROVIDER_REJECTED, DENIED)),
    (
        answer(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
        Retry(Reason.PROVIDER_REJECTED, NO_APNS),
    ),
    (answer(401, "UNAUTHENTICATED"), Retry(Reason.PROVIDER_REJECTED, "401 UNAUTHENTICATED")),
    (
        answer(400, BAD, fields=("message.data[0].value", f"secret {TOKEN}")),
        Failed(Reason.PROVIDER_REJECTED, "400 INVALID_ARGUMENT: message.data[0].value"),
    ),
    (answer(400, BAD, BAD), Failed(Reason.PROVIDER_REJECTED, "400 INVALID_ARGUMENT")),
    (
        answer(400, BAD, BAD, fields=("message.token",)),
        Failed(
            Reason.DEVICE_REFUSED, "400 INVALID_ARGUMENT: message.token", DeviceFate.COUNT
        ),
    ),
    (
        answer(400, BAD, BAD, message=NOT_A_TOKEN),
        Failed(Reason.DEVICE_REFUSED, "400 INVALID_ARGUMENT", DeviceFate.COUNT),
    ),
    (
        answer(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        Deferred(Reason.PROVIDER_LIMIT, "429 QUOTA_EXCEEDED", 60.0),
    ),
    (
        answer(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", headers=after("7")),
        Deferred(Reason.PROVIDER_LIMIT, "429 QUOTA_EXCEEDED", 7.0),
    ),
    (
        httpx.Response(429, headers=after(IN_THREE_MINUTES)),
        Deferred(Reason.PROVIDER_LIMIT, "429", 180.0),
    ),
    (
        answer(503, "UNAVAILABLE", "UNAVAILABLE", headers=after("5")),
        Retry(Reason.PROVIDER_UNAVAILABLE, "503 UNAVAILABLE", 5.0),
    ),
    (
        answer(500, "INTERNAL", "INTERNAL"),
        Retry(Reason.PROVIDER_UNAVAILABLE, "500 INTERNAL"),
    ),
    (httpx.Response(502, text="<html>"), Retry(Reason.PROVIDER_UNAVAILABLE, "502")),
    (httpx.Response(302), Retry(Reason.PROVIDER_REJECTED, "302")),
    (httpx.Response(413), Failed(Reason.PROVIDER_REJECTED, "413")),
    (
        httpx.Response(400, json={"error": {"details": [{"fieldViolations": 5}]}}),
        Failed(Reason.PROVIDER_REJECTED, "400"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("response", "outcome"), TABLE)
def test_what_an_answer_means(response: httpx.Response, outcome: Outcome) -> None:
    assert outcome_of(response, NOW) == outcome
    assert TOKEN not in repr(outcome_of(response, NOW))


def test_a_new_access_token_helps_where_ours_was_refused() -> None:
    assert error_of(answer(401, "UNAUTHENTICATED")).is_unauthenticated
    assert not error_of(answer(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")).is_unauthenticated
    assert not error_of(answer(403, "PERMISSION_DENIED")).is_unauthenticated
