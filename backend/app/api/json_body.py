"""Request bodies as JSON, parsed so that no body, however odd, is worse than a 422.

orjson refuses what JSON does not allow (NaN, lone surrogates) and bounds the nesting; NUL, which
JSON allows and PostgreSQL does not, is refused here for all fields at once.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


@dataclass(frozen=True, slots=True)
class MalformedBody:
    """Stands in for a body that is not usable JSON, so that credentials are judged first.

    Args:
        problem: a sentence for the caller.
    """

    problem: str


def parse(raw: bytes) -> object:
    """The body's value, or a `MalformedBody`."""
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return MalformedBody(f"The body is not valid JSON: {error.msg}.")
    if b"\\u0000" not in raw:
        return value
    try:
        # Written anew, an escaped backslash before `u0000` can be told from the character.
        holds_nul = b"\\u0000" in orjson.dumps(value).replace(b"\\\\", b"")
    except orjson.JSONEncodeError:
        return MalformedBody("The body is nested too deeply.")
    if holds_nul:
        return MalformedBody("The body holds the character U+0000, which cannot be stored.")
    return value


class _JsonRequest(Request):
    async def json(self) -> Any:
        return parse(await self.body())


class JsonRoute(APIRoute):
    """A route whose body is parsed by `parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, given requests that parse their own way."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json
