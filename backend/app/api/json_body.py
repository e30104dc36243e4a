"""Request bodies as JSON, parsed so that no body, however odd, is worse than a 422.

orjson refuses what JSON does not allow (NaN, lone surrogates) and bounds the nesting; NUL, which
JSON allows and PostgreSQL does not, is refused here for all fields at once.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.errors import ErrorDetail

MALFORMED_BODY = "notify.malformed_body"


@dataclass(frozen=True, slots=True)
class MalformedBody:
    """A body that is not usable JSON; kept in the scope, so that credentials are judged first.

    Args:
        problem: a sentence for the caller.
        path: the top-level field at fault, empty for the body as a whole.
    """

    problem: str
    path: str = ""

    @property
    def detail(self) -> ErrorDetail:
        """What the caller is told."""
        return {"path": self.path, "code": "json_invalid", "message": self.problem}


def parse(raw: bytes) -> object:
    """The body's value, or a `MalformedBody`."""
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return MalformedBody(f"The body is not valid JSON: {error.msg}.")
    if b"\\u0000" not in raw:
        return value
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {"": value}
    try:
        holding = [name for name, field in fields.items() if _holds_nul([name, field])]
    except orjson.JSONEncodeError:
        return MalformedBody("The body is nested too deeply.")
    if holding:
        path = holding[0].replace("\0", "")
        return MalformedBody("The character U+0000 cannot be stored.", path)
    return cast("object", value)


def _holds_nul(value: object) -> bool:
    # Written anew, an escaped backslash before `u0000` can be told from the character.
    return b"\\u0000" in orjson.dumps(value).replace(b"\\\\", b"")


class _JsonRequest(Request):
    async def json(self) -> Any:
        value = parse(await self.body())
        if isinstance(value, MalformedBody):
            self.scope[MALFORMED_BODY] = value
            return b""  # which no model takes; an object's attributes might do for one
        return value


class JsonRoute(APIRoute):
    """A route whose body is parsed by `parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, given requests that parse their own way."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json
