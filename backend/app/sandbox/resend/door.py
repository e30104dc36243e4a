"""What a request passes before Resend's routes: counting, API key, rate limit, key in progress."""

import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.sandbox.faults import Faults
from app.sandbox.mailbox import Mailbox
from app.sandbox.resend.errors import ResendError

MAX_KEY_LENGTH = 256
# Far above a real account's few requests a second; a `rate_limit` fault brings that here.
REQUESTS_PER_SECOND = 1000


class ResendDoor:
    """ASGI: lets requests in that have an API key and come neither too fast nor twice at once.

    A repeated idempotency key waits for nothing: while its first request is being handled, the
    second is refused (`concurrent_idempotent_requests`).

    Args:
        routes: answers requests that only read.
        gate: answers requests that send, faults included.
        mailbox: counts the requests that send, refused ones too.
        faults: may lower the rate limit.
    """

    def __init__(self, routes: ASGIApp, gate: ASGIApp, mailbox: Mailbox, faults: Faults) -> None:
        self._routes = routes
        self._gate = gate
        self._mailbox = mailbox
        self._faults = faults
        self._window = _OneSecond()
        self._in_progress: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or let it in."""
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sends = scope["method"] == "POST"
        key = headers.get("idempotency-key")
        if sends:
            self._mailbox.count_request(key)
        limit = self._faults.requests_per_second("resend") or REQUESTS_PER_SECOND
        remaining = limit - self._window.count(self._faults.generation)
        send = _with_rate(send, limit, max(0, remaining))
        if not _has_api_key(headers):
            await ResendError(401).response()(scope, receive, send)
        elif remaining < 0:
            await ResendError(429).response({"retry-after": "1"})(scope, receive, send)
        elif not sends:
            await self._routes(scope, receive, send)
        elif key is None:
            await self._gate(scope, receive, send)
        else:
            await self._once_at_a_time(key, scope, receive, send)

    async def _once_at_a_time(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        if not 1 <= len(key) <= MAX_KEY_LENGTH:
            error = ResendError(400, "invalid_idempotency_key")
            await error.response()(scope, receive, send)
            return
        if key in self._in_progress:
            await ResendError(409).response()(scope, receive, send)
            return
        self._in_progress.add(key)
        try:
            await self._gate(scope, receive, send)
        finally:
            self._in_progress.discard(key)


class _OneSecond:
    def __init__(self) -> None:
        self._window = (0, 0)
        self._requests = 0

    def count(self, generation: int) -> int:
        """How many requests this second has had under these rules, this one included."""
        window = (generation, int(time.monotonic()))
        if window != self._window:
            self._window, self._requests = window, 0
        self._requests += 1
        return self._requests


def _with_rate(send: Send, limit: int, remaining: int) -> Send:
    async def send_with_rate(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("ratelimit-limit", str(limit))
            headers.setdefault("ratelimit-remaining", str(remaining))
            headers.setdefault("ratelimit-reset", "1")
        await send(message)

    return send_with_rate


def _has_api_key(headers: Headers) -> bool:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(key.strip())
