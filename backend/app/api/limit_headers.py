"""How the global limit stands, in the headers of every answer to a bulk call (REQ-023)."""

from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.api.context import AppContext
from app.api.json_body import JsonRoute

LIMIT_HEADERS = {
    "X-RateLimit-Limit": "Bulk recipients per minute, over all services.",
    "X-RateLimit-Remaining": "Recipients that there is room for now.",
    "X-RateLimit-Reset": "Seconds from now until the limit is unused again.",
}
DOCUMENTED = {
    name: {
        "description": description,
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    }
    for name, description in LIMIT_HEADERS.items()
}
NAMES = [name.lower().encode() for name in LIMIT_HEADERS]


class LimitedRoute(JsonRoute):
    """A route whose answers, errors too, carry the headers, and which documents them."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        answers = {"responses": {status: {"headers": DOCUMENTED} for status in self._statuses()}}
        self.openapi_extra = {**(self.openapi_extra or {}), **answers}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        context: AppContext = scope["app"].state.context

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                standing = await context.global_limit.standing()
                values = (standing.limit, standing.remaining, standing.reset)
                told = [
                    (name, str(value).encode()) for name, value in zip(NAMES, values, strict=True)
                ]
                message["headers"] = [*message.get("headers", []), *told]
            await send(message)

        await super().handle(scope, receive, send_with_headers)

    def _statuses(self) -> tuple[str, ...]:
        return str(self.status_code or 200), "422", "default"
