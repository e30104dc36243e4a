"""Resend's routes: `POST /emails`, `POST /emails/batch`, `GET /emails/{id}`.

Bodies follow https://resend.com/docs/api-reference/emails/send-email, `…/send-batch-emails` and
`…/retrieve-email`; idempotency follows https://resend.com/docs/dashboard/emails/idempotency-keys.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, cast
from uuid import uuid4

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.sandbox.mailbox import Clock, Mail, Mailbox, Promise, Tag
from app.sandbox.mime import message_id
from app.sandbox.resend.errors import ResendError
from app.sandbox.resend.payload import EmailPayload, parse_email
from app.sandbox.resend.webhooks import Webhooks

MAX_BATCH = 100


class RetrievedEmail(BaseModel):
    """`GET /emails/{id}`."""

    object: str = "email"
    id: str
    message_id: str
    sender: str = Field(serialization_alias="from")
    to: list[str]
    cc: list[str]
    bcc: list[str]
    reply_to: list[str]
    subject: str
    html: str | None
    text: str | None
    created_at: str
    scheduled_at: None = None
    last_event: str
    tags: list[Tag]


class _Composed(NamedTuple):
    mails: list[Mail]
    answer: object


_Compose = Callable[[object, str | None, datetime], _Composed]


def resend_routes(mailbox: Mailbox, clock: Clock, webhooks: Webhooks) -> FastAPI:
    """The routes over a mailbox; every error has Resend's shape."""
    app = FastAPI(openapi_url=None)

    @app.post("/emails")
    async def send_email(request: Request) -> Response:
        return await send_once(request, _single)

    @app.post("/emails/batch")
    async def send_batch(request: Request) -> Response:
        permissive = request.headers.get("x-batch-validation") == "permissive"
        return await send_once(request, _permissive_batch if permissive else _strict_batch)

    @app.get("/emails/{email_id}")
    async def retrieve_email(email_id: str) -> RetrievedEmail:
        mail = mailbox.find(email_id)
        if mail is None:
            raise ResendError(404, message="Email not found")
        return _retrieved(mail, webhooks.last_event(email_id) or "delivered")

    async def send_once(request: Request, compose: _Compose) -> Response:
        body = _json(await request.body())
        key = request.headers.get("idempotency-key")
        fingerprint = _fingerprint(request.url.path, body)
        promise = None if key is None else mailbox.promised(key)
        if promise is not None:
            if promise.fingerprint != fingerprint:
                raise ResendError(409, "invalid_idempotent_request")
            return _answer(promise.answer)
        now = clock()
        composed = compose(body, key, now)
        answer = orjson.dumps(composed.answer).decode()
        promise = None if key is None else Promise(key, fingerprint, answer, now)
        mailbox.accept(composed.mails, promise)
        webhooks.accepted(composed.mails)
        return _answer(answer)

    @app.exception_handler(ResendError)
    async def refused(_request: Request, error: Exception) -> Response:
        return cast(ResendError, error).response()

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: Exception) -> Response:
        return ResendError(cast(HTTPException, error).status_code).response()

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> Response:
        return ResendError(500).response()

    _ = (send_email, send_batch, retrieve_email, refused, no_such_route, failed)
    return app


def _single(body: object, key: str | None, at: datetime) -> _Composed:
    mail = _mail(parse_email(body), key, at)
    return _Composed([mail], {"id": mail.id})


def _strict_batch(body: object, key: str | None, at: datetime) -> _Composed:
    mails = [_mail(parse_email(item), key, at) for item in _items(body)]
    return _Composed(mails, {"data": [{"id": mail.id} for mail in mails]})


def _permissive_batch(body: object, key: str | None, at: datetime) -> _Composed:
    mails: list[Mail] = []
    errors: list[dict[str, int | str]] = []
    for index, item in enumerate(_items(body)):
        try:
            mails.append(_mail(parse_email(item), key, at))
        except ResendError as error:
            errors.append({"index": index, "message": error.message})
    return _Composed(mails, {"data": [{"id": mail.id} for mail in mails], "errors": errors})


def _items(body: object) -> list[object]:
    if not isinstance(body, list):
        raise ResendError(422, message="The batch must be a JSON array of emails.")
    items = cast("list[object]", body)
    if not 1 <= len(items) <= MAX_BATCH:
        raise ResendError(422, message=f"The batch must have between 1 and {MAX_BATCH} emails.")
    return items


def _mail(payload: EmailPayload, key: str | None, at: datetime) -> Mail:
    return Mail(
        id=str(uuid4()),
        idempotency_key=key,
        sender=payload.sender,
        to=payload.to,
        cc=payload.cc or [],
        bcc=payload.bcc or [],
        reply_to=payload.reply_to or [],
        subject=payload.subject,
        html=payload.html,
        text=payload.text,
        headers=payload.headers or {},
        tags=[Tag(name=tag.name, value=tag.value) for tag in payload.tags or []],
        received_at=at,
    )


def _retrieved(mail: Mail, last_event: str) -> RetrievedEmail:
    return RetrievedEmail(
        id=mail.id,
        message_id=message_id(mail),
        sender=mail.sender,
        to=mail.to,
        cc=mail.cc,
        bcc=mail.bcc,
        reply_to=mail.reply_to,
        subject=mail.subject,
        html=mail.html,
        text=mail.text,
        created_at=mail.received_at.strftime("%Y-%m-%d %H:%M:%S.%f+00"),
        last_event=last_event,
        tags=mail.tags,
    )


def _json(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ResendError(400, message="The request body must be valid JSON.") from None


def _fingerprint(path: str, body: object) -> str:
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(path.encode() + b"\n" + canonical).hexdigest()


def _answer(content: str) -> Response:
    return Response(content, media_type="application/json")
