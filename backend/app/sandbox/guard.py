"""Who may talk to the sandbox: programs and pages of this machine, by a loopback name."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_HOST = re.compile(
    r"(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?", re.IGNORECASE
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class LoopbackGuard:
    """ASGI: answers 403 to names that are not loopback and to pages of other origins.

    A foreign name that resolves to 127.0.0.1 (DNS rebinding) still arrives under its own name, and
    a foreign page's request carries its `Origin`. Answers get the headers that keep a browser from
    running, framing or keeping them, unless the route has set its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if _is_local(Headers(scope=scope)):
            await self._app(scope, receive, send_guarded)
            return
        error = {"code": "forbidden", "message": "The sandbox answers to loopback names only."}
        await JSONResponse({"error": error}, status_code=403)(scope, receive, send_guarded)


def _is_local(headers: Headers) -> bool:
    hosts = headers.getlist("host")
    origins = headers.getlist("origin")
    return (
        len(hosts) == 1
        and _LOOPBACK_HOST.fullmatch(hosts[0]) is not None
        and all(origin == f"http://{hosts[0]}" for origin in origins)
    )
