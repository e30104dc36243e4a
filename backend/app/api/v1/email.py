"""Where the links in emails lead: no signing in, no cookies, no script (REQ-014, RFC 8058)."""

import re
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import Path, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.dependencies import Context
from app.api.errors import ErrorAnswer
from app.api.json_body import JsonRoute
from app.api.mail_pages import accepted_words, closed_page, unsubscribe_page
from app.api.routing import v1_routes
from app.errors import ErrorDetail, NotFound, ValidationFailed
from app.locales import phrases_of
from app.security.sealed import NotSealed
from app.services.unsubscribe_service import Choice, UnknownLink, VoidLink

PIXEL: Final = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)  # a GIF of one transparent pixel
HTML: Final[dict[str, Any]] = {"text/html": {"schema": {"type": "string"}}}
PAGE: Final[dict[str, Any]] = {"content": HTML}
NO_LINK: Final[dict[int | str, dict[str, Any]]] = {
    404: PAGE | {"description": "Nobody was given this link, or its user is gone."},
    410: PAGE | {"description": "It was sent to another address than the user's present one."},
}
NO_PIXEL: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/gif": {}}, "description": "One transparent pixel."},
    404: {"model": ErrorAnswer, "description": "Nobody was given this token."},
}
NO_TARGET: Final[dict[int | str, dict[str, Any]]] = {
    302: {"description": "To where the link leads."},
    404: PAGE | {"description": "Nobody was given this link, or its letter is gone."},
}
FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "Without a choice, what the email with the link was about is stopped.",
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "List-Unsubscribe": {"type": "string", "enum": ["One-Click"]},
                        "choice": {"type": "string", "enum": [item.value for item in Choice]},
                        "was_chosen": {"type": "string", "enum": ["yes"]},
                    },
                }
            }
        },
    }
}

MOST_FIELDS: Final = 20
BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s";]{1,70}))', re.IGNORECASE)
FIELD_NAME: Final = re.compile(rb';\s*name="?([A-Za-z_-]{1,100})', re.IGNORECASE)

router = v1_routes(prefix="/email", tags=["email"], route_class=JsonRoute)

Token = Annotated[str, Path(description="From the link in the email.")]


@router.head("/unsubscribe/{token}", include_in_schema=False)
@router.get("/unsubscribe/{token}", response_class=HTMLResponse, responses=NO_LINK)
async def show_unsubscribe(token: Token, request: Request, context: Context) -> HTMLResponse:
    """A page that says what emails come, and lets one choose; it changes nothing."""
    try:
        holding = await context.unsubscribing.look(token)
    except (UnknownLink, VoidLink) as error:
        return _refusal(request, context, error)
    return unsubscribe_page(context.settings, holding)


@router.post(
    "/unsubscribe/{token}", response_class=HTMLResponse, responses=NO_LINK, openapi_extra=FORM
)
async def unsubscribe(token: Token, request: Request, context: Context) -> HTMLResponse:
    """Unsubscribe by one click (RFC 8058), or do what was chosen on the page; answers the page.

    The link of a notification's email stops its type, that of a digest all email.
    """
    fields = await _fields(request)
    choice = _choice(fields.get("choice"))
    try:
        holding = await context.unsubscribing.choose(
            token, choice, was_chosen=fields.get("was_chosen") == "yes"
        )
    except (UnknownLink, VoidLink) as error:
        return _refusal(request, context, error)
    if choice is None:
        choice = Choice.STOP_ALL if holding.type is None else Choice.STOP_TYPE
    return unsubscribe_page(context.settings, holding, choice)


@router.head("/open/{token}", include_in_schema=False)
@router.get("/open/{token}", response_class=Response, responses=NO_PIXEL)
async def email_opened(token: Token, request: Request, context: Context) -> Response:
    """The pixel of a letter."""
    try:
        await context.tracking.opened(token, request.headers, counts=request.method == "GET")
    except NotSealed:
        raise NotFound from None
    return Response(PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store, private"})


@router.head("/click/{token}", include_in_schema=False)
@router.get("/click/{token}", status_code=302, response_class=Response, responses=NO_TARGET)
async def email_clicked(token: Token, request: Request, context: Context) -> Response:
    """On to where a link of a letter leads: to what was stored with the letter, nowhere else."""
    try:
        target = await context.tracking.clicked(
            token, request.headers, counts=request.method == "GET"
        )
    except NotSealed:
        target = None
    if target is None:
        words = accepted_words(request.headers.get("Accept-Language"))
        return closed_page(context.settings, words, "nowhere", 404)
    return RedirectResponse(target, 302, headers={"Cache-Control": "no-store"})


def _refusal(request: Request, context: Context, error: UnknownLink | VoidLink) -> HTMLResponse:
    if isinstance(error, VoidLink) and error.locale is not None:
        words = phrases_of(error.locale)
    else:
        words = accepted_words(request.headers.get("Accept-Language"))
    name, status = ("void", 410) if isinstance(error, VoidLink) else ("unknown", 404)
    return closed_page(context.settings, words, name, status)


def _choice(given: str | None) -> Choice | None:
    if given is None:
        return None
    try:
        return Choice(given)
    except ValueError:
        known = ", ".join(Choice)
        detail = ErrorDetail(path="choice", code="enum", message=f"must be one of {known}")
        raise ValidationFailed(details=[detail]) from None


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a form, in either encoding; of any other body none."""
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400) from None  # which nobody reads
    content_type = request.headers.get("Content-Type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        boundary = BOUNDARY.search(content_type)
        return _parts((boundary[1] or boundary[2]).encode("latin-1"), body) if boundary else {}
    if kind != "application/x-www-form-urlencoded":
        return {}
    try:
        fields = parse_qs(
            body.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _parts(boundary: bytes, body: bytes) -> dict[str, str]:
    """The fields of RFC 7578; what is no field is passed over.

    Written out, as the standard library's parser goes into parts of parts: anybody may post here,
    and takes seconds of it, or a RecursionError, with a body of a few KiB.
    """
    fields: dict[str, str] = {}
    parts = (b"\n" + body.replace(b"\r\n", b"\n")).split(b"\n--" + boundary, MOST_FIELDS + 1)
    for part in parts[1 : MOST_FIELDS + 1]:
        head, _, value = part.partition(b"\n\n")
        if name := FIELD_NAME.search(head):
            fields[name[1].decode()] = value.decode("latin-1").strip()
    return fields
