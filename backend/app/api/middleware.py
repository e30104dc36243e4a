"""What every HTTP answer carries: a correlation id and security headers (task 11.3)."""

import re
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.status import HTTP_413_CONTENT_TOO_LARGE
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CORRELATION_HEADER = "X-Correlation-ID"
ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

MAX_LENGTH_DIGITS = 20

# React sets styles through the CSSOM, which this policy allows.
PAGE_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: https:; "
    "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
# Swagger UI's page loads its script and style from a CDN and starts it inline.
DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "img-src 'self' data: https://fastapi.tiangolo.com; frame-ancestors 'none'"
)

CORRELATION_NAME = CORRELATION_HEADER.lower().encode()
SAFETY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
HEADERS = (*SAFETY_HEADERS, (b"content-security-policy", PAGE_POLICY.encode()))
DOCS_HEADERS = (*SAFETY_HEADERS, (b"content-security-policy", DOCS_POLICY.encode()))
API_HEADERS = (*HEADERS, (b"cache-control", b"no-store"))


class RequestContext:
    """Takes or makes the correlation id, binds it to the logs and answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(CORRELATION_HEADER, "")
        correlation_id = given if ACCEPTABLE_ID.fullmatch(given) else uuid4().hex
        scope["correlation_id"] = correlation_id
        added = _headers_of(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own: list[tuple[bytes, bytes]] = message.get("headers", [])
                named = {name for name, _ in own}
                message["headers"] = [
                    (CORRELATION_NAME, correlation_id.encode()),
                    *(header for header in added if header[0] not in named),
                    *(header for header in own if header[0] != CORRELATION_NAME),
                ]
            await send(message)

        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            await self._app(scope, receive, send_with_headers)


def _headers_of(path: str) -> tuple[tuple[bytes, bytes], ...]:
    if path.startswith("/api/"):
        return API_HEADERS
    return DOCS_HEADERS if path == "/docs" else HEADERS


class BodyLimit:
    """Refuses request bodies that are too large, by their declared length or while they arrive.

    The framework's own limit answers in plain text where the length is declared.

    Args:
        limit: bytes a body may have.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with a `receive` that raises a 413 past the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = self._limit + 1 if self._is_declared_too_large(scope) else 0

        async def receive_some() -> Message:
            nonlocal received
            if received <= self._limit:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self._limit:
                    return message
            raise HTTPException(HTTP_413_CONTENT_TOO_LARGE)

        await self._app(scope, receive_some, send)

    def _is_declared_too_large(self, scope: Scope) -> bool:
        declared = Headers(scope=scope).get("Content-Length", "")
        return declared.isdecimal() and int(declared[:MAX_LENGTH_DIGITS]) > self._limit
