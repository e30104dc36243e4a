"""Renders every error in the one shape callers know."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.api.json_body import MALFORMED_BODY, MalformedBody
from app.api.middleware import CORRELATION_HEADER
from app.errors import (
    BodyTooLarge,
    ErrorDetail,
    MethodNotAllowed,
    NotFound,
    NotifyError,
    ValidationFailed,
)
from app.security.redact import mask_text

log = structlog.get_logger()

# Where FastAPI found a value says nothing to a caller: they know their own fields.
LOCATIONS = ("body", "query", "path", "header", "cookie")
MAX_DETAILS = 100  # fields told of; a body may have many more
MAX_PATH = 200  # characters


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    details: list[ErrorDetail]


class ErrorAnswer(BaseModel):
    """The answer to every request that fails."""

    error: ErrorBody
    correlation_id: str


def install_error_handlers(app: FastAPI) -> None:
    """Render the application's, FastAPI's and unexpected errors alike."""
    app.add_exception_handler(NotifyError, _render_ours)
    app.add_exception_handler(RequestValidationError, _render_validation)
    app.add_exception_handler(HTTPException, _render_http)
    app.add_exception_handler(Exception, _render_unexpected)


def answer(request: Request, error: NotifyError) -> JSONResponse:
    """The response that tells of an error."""
    return _answer(request, error.status, error.code, error.message, error.details, error.headers)


def _answer(
    request: Request,
    status: int,
    code: str,
    message: str,
    details: list[ErrorDetail],
    headers: dict[str, str],
) -> JSONResponse:
    correlation_id: str = request.scope.get("correlation_id", "")
    body = {"error": {"code": code, "message": message, "details": details}}
    # Answers to unexpected errors do not pass the middleware that adds it to all others.
    return JSONResponse(
        {**body, "correlation_id": correlation_id},
        status_code=status,
        headers={**headers, CORRELATION_HEADER: correlation_id},
    )


async def _render_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, NotifyError)  # noqa: S101 -- registered for this class only
    return answer(request, error)


async def _render_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- registered for this class only
    malformed: MalformedBody | None = request.scope.get(MALFORMED_BODY)
    if malformed is None:
        told = [_detail(item) for item in error.errors()[:MAX_DETAILS]]
    else:
        told = [malformed.detail]
    return answer(request, ValidationFailed(details=told))


def _detail(item: Any) -> ErrorDetail:
    location = [str(part) for part in item["loc"]]
    named = location[1:] if location and location[0] in LOCATIONS else location
    # Names are the caller's, too; a secret that stands among them is not told back.
    path = mask_text(".".join(named)[:MAX_PATH])
    if path and item["type"] == "model_type":
        return {"path": path, "code": "object_expected", "message": "must be an object"}
    if item["type"] in {"model_attributes_type", "model_type"}:
        message = "Send a JSON object, with Content-Type: application/json."
        return {"path": path, "code": "object_expected", "message": message}
    return {
        "path": path,
        "code": item["type"],
        "message": item["msg"].removeprefix("Value error, "),
    }


HTTP_ERRORS: dict[int, type[NotifyError]] = {
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
}


async def _render_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for this class only
    headers = dict(error.headers or {})
    known = HTTP_ERRORS.get(error.status_code)
    if known is not None:
        return answer(request, known(headers=headers))
    code = str(error.detail).lower().replace(" ", "_")
    return _answer(request, error.status_code, code, f"{error.detail}.", [], headers)


async def _render_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected_error", exc_info=error, path=request.url.path)
    return answer(request, NotifyError())
