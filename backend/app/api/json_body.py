"""Request bodies as JSON, parsed so that no body, however odd, is worse than a 422.

orjson refuses what JSON does not allow (NaN, lone surrogates) and bounds the nesting; NUL, which
JSON allows and PostgreSQL does not, is refused here for all fields at once.
"""

import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import orjson
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.dependencies import REQUIREMENTS
from app.api.idempotency import HEADER_PARAMETER, idempotency_key
from app.errors import ErrorDetail, ValidationFailed

JSON_SUBTYPE = re.compile(r"(.+\+)?json", re.IGNORECASE)
NO_CONTENT = 204
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
    """A route whose body is parsed by `parse`, and which documents who may call it.

    Routes that take nothing but a body, the caller and the context are run directly: finding out
    anew for each request what a function depends on costs more than storing a notification.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        extra: dict[str, Any] = dict(self.openapi_extra or {})
        for dependency in self.dependant.dependencies:
            if (requirements := REQUIREMENTS.get(_call(dependency))) is not None:
                extra["security"] = requirements
            if dependency.call is idempotency_key:
                extra["parameters"] = [HEADER_PARAMETER]
        self.openapi_extra = extra

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, given requests that parse their own way."""
        if (direct := self._direct_handler()) is not None:
            return direct
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json

    def _direct_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]] | None:
        wants = self.dependant
        if (
            len(wants.body_params) != 1
            or self.status_code == NO_CONTENT
            or wants.path_params
            or wants.query_params
            or any(not _takes_request_only(dependency) for dependency in wants.dependencies)
        ):
            return None
        (body,) = wants.body_params
        model = body.field_info.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        solvers = [(item.name, _call(item)) for item in wants.dependencies]
        response_name = wants.response_param_name
        endpoint, status = self.endpoint, self.status_code or 200

        async def handle(request: Request) -> Response:
            values: dict[str | None, Any] = {name: await solve(request) for name, solve in solvers}
            values.pop(None, None)  # what the router asks for, and hands to nobody
            values[body.name] = _validated(model, await _received(request))
            response = Response(None, status, media_type="application/json")
            if response_name is not None:
                values[response_name] = response
            answer = cast("BaseModel", await endpoint(**cast("dict[str, Any]", values)))
            response.body = answer.__pydantic_serializer__.to_json(answer)
            response.headers["Content-Length"] = str(len(response.body))
            return response

        return handle


def _call(dependency: Dependant) -> Callable[[Request], Awaitable[Any]]:
    return cast("Callable[[Request], Awaitable[Any]]", dependency.call)


def _takes_request_only(dependency: Dependant) -> bool:
    return dependency.request_param_name == "request" and not (
        dependency.dependencies or dependency.query_params or dependency.header_params
    )


async def _received(request: Request) -> object:
    kind, _, subtype = request.headers.get("Content-Type", "").partition(";")[0].partition("/")
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise HTTPException(400) from None  # which nobody reads
    if kind.strip().lower() != "application" or not JSON_SUBTYPE.fullmatch(subtype.strip()):
        return raw
    return parse(raw)


def _validated(model: type[BaseModel], value: object) -> BaseModel:
    if isinstance(value, MalformedBody):
        raise ValidationFailed(details=[value.detail])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        ) from None
