"""The mailbox as a page: its files, the feed it polls, and mails' HTML for its frame."""

import re
import secrets
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.errors import NotFound
from app.sandbox.faults import Faults, FaultStatus
from app.sandbox.mailbox import Entry, Mailbox, Provider, Tag
from app.sandbox.resend import Webhooks
from app.sandbox.resend.events import EventType

MAX_SHOWN = 200

Scheme = Literal["light", "dark"]

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# Mails are other people's markup: no scripts, nothing loaded but our own images, no way to the page
# around them. Links open outside the frame.
_MAIL_POLICY = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data: {images_from}; font-src data:; form-action 'none'; "
    "frame-ancestors 'self'"
)
_LINKS_LEAVE_FRAME = '<base target="_blank">'
_ASKED_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_OWN_SCHEME = re.compile(r"(?<!prefers-)\bcolor-scheme\b", re.IGNORECASE)
_ANSWERS = {True: "(min-width: 0)", False: "(max-width: 0)"}
_BEFORE_CONTENT = re.compile(r"<head(\s[^>]*)?>|<html(\s[^>]*)?>|<!doctype[^>]*>", re.IGNORECASE)
_FOLDER = files("app.sandbox") / "static"
_ASSETS = {
    "devices.css": "text/css",
    "devices.js": "text/javascript",
    "events.js": "text/javascript",
    "mailbox.css": "text/css",
    "mailbox.js": "text/javascript",
    "shared.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Summary(BaseModel):
    """What the page's list shows of a mail."""

    id: str
    sender: str = Field(serialization_alias="from")
    to: list[str]
    subject: str
    tags: list[Tag]
    received_at: str
    via: Provider
    attempts: int
    last_event: EventType | None


class Feed(BaseModel):
    """The newest mails to a recipient, how many there are, and the faults in force."""

    items: list[Summary]
    total: int
    faults: list[FaultStatus]


def page_routes(
    mailbox: Mailbox, faults: Faults, webhooks: Webhooks, *, images_from: str
) -> APIRouter:
    """`/`, `/mails/{id}/view`, `/mails/{id}/html`, `/feed` and `/static/…`.

    Args:
        mailbox: the mails.
        faults: the rules in force.
        webhooks: know what was told of each mail.
        images_from: the program's own origin, from which mails may load images.
    """
    router = APIRouter()
    started = secrets.token_hex(4)

    @router.get("/")
    @router.get("/mails/{mail_id}/view")
    async def page() -> Response:
        return page_response("mailbox.html")

    @router.get("/static/{name}")
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise NotFound
        return Response(
            (_FOLDER / name).read_bytes(),
            media_type=_ASSETS[name],
            headers={"cache-control": "no-cache"},
        )

    @router.get("/mails/{mail_id}/html")
    async def mail_html(mail_id: str, scheme: Scheme | None = None) -> Response:
        mail = mailbox.find(mail_id)
        if mail is None or mail.html is None:
            raise NotFound("No mail with an HTML part has this id.")
        return Response(
            framed(mail.html, scheme),
            media_type="text/html",
            headers={"content-security-policy": _MAIL_POLICY.format(images_from=images_from)},
        )

    @router.get("/feed")
    async def feed(
        request: Request, recipient: Annotated[str, Query(max_length=320)] = ""
    ) -> Response:
        versions = f"{mailbox.version}-{faults.version}-{webhooks.version}"
        etag = {"etag": f'"{started}-{versions}"'}
        if request.headers.get("if-none-match") == etag["etag"]:
            return Response(status_code=304, headers=etag)
        content = _feed(mailbox, faults, webhooks, recipient.strip().lower())
        return Response(
            content.model_dump_json(by_alias=True), media_type="application/json", headers=etag
        )

    _ = (page, asset, mail_html, feed)
    return router


def page_response(name: str) -> Response:
    """A page of the sandbox, which loads nothing but its own files."""
    return Response(
        (_FOLDER / name).read_bytes(),
        media_type="text/html",
        headers={"content-security-policy": _PAGE_POLICY},
    )


def framed(html: str, scheme: Scheme | None = None) -> str:
    """The mail's HTML with its links leading out of the frame it is shown in.

    Args:
        html: as it was sent.
        scheme: shows it as a mail program of that colour does, whatever the browser's is. Frames
            take that from the browser alone, so the mail's own questions for it are answered here.
    """
    added = _LINKS_LEAVE_FRAME
    if scheme is not None:
        if scheme == "light" or _OWN_SCHEME.search(html):
            added += f"<style>:root{{color-scheme:{scheme}!important}}</style>"
        html = _ASKED_SCHEME.sub(lambda asked: _ANSWERS[asked[1].lower() == scheme], html)
    end = max((match.end() for match in _BEFORE_CONTENT.finditer(html[:4096])), default=0)
    return html[:end] + added + html[end:]


def _feed(mailbox: Mailbox, faults: Faults, webhooks: Webhooks, recipient: str) -> Feed:
    def keep(entry: Entry) -> bool:
        return any(recipient in address for address in entry.addresses)

    entries, total = mailbox.newest(keep, MAX_SHOWN)
    items = [
        _summary(entry, mailbox.attempts(entry), webhooks.last_event(entry.id)) for entry in entries
    ]
    return Feed(items=items, total=total, faults=faults.status())


def _summary(entry: Entry, attempts: int, last_event: EventType | None) -> Summary:
    return Summary(
        id=entry.id,
        sender=entry.sender,
        to=entry.to,
        subject=entry.subject,
        tags=entry.tags,
        received_at=entry.received_at.isoformat(),
        via=entry.via,
        attempts=attempts,
        last_event=last_event,
    )
