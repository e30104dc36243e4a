"""Where the links in emails lead: no signing in, no cookies, no script (REQ-014, RFC 8058)."""

from email.message import Message
from email.parser import BytesParser
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.dependencies import Context
from app.api.errors import ErrorAnswer
from app.api.json_body import JsonRoute
from app.api.mail_pages import accepted_words, closed_page, unsubscribe_page
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

router = APIRouter(prefix="/email", tags=["email"], route_class=JsonRoute)

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
    given = Message()
    given["Content-Type"] = request.headers.get("Content-Type", "")
    if given.get_content_type() == "multipart/form-data":
        return _parts(request.headers["Content-Type"].encode("latin-1"), body)
    if given.get_content_type() != "application/x-www-form-urlencoded":
        return {}
    try:
        fields = parse_qs(body.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _parts(content_type: bytes, body: bytes) -> dict[str, str]:
    head = b"Content-Type: " + content_type + b"\r\n\r\n"
    message = BytesParser().parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.walk():
        name = part.get_param("name", header="Content-Disposition")
        if isinstance(name, str) and not part.is_multipart():
            value = part.get_payload(decode=True)
            fields[name] = value.decode("latin-1").strip() if isinstance(value, bytes) else ""
    return fields
