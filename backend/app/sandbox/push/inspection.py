"""What people and tests ask of the push service: subscribing browsers, and what reached them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.errors import NotFound, ValidationFailed
from app.sandbox.ledger import DeviceName, Entry
from app.sandbox.push.base64url import decoded, encoded
from app.sandbox.push.browsers import Browser, Browsers, PushMessage
from app.sandbox.push.service import origin
from app.sandbox.push.vapid import public_key

MAX_LISTED = 10_000


class Subscribe(BaseModel):
    """The sender's public key the browser is to subscribe for; null = any sender's."""

    application_server_key: str | None = None


class Keys(BaseModel):
    """What senders encrypt for, in base64url."""

    p256dh: str
    auth: str


class Subscription(BaseModel):
    """A `PushSubscription` as `toJSON()` shows it, with the browser's name."""

    name: str
    endpoint: str
    keys: Keys
    expirationTime: None = None  # noqa: N815 -- the name in the Push API


class ListedBrowser(Subscription):
    """A subscription and the key it was made for."""

    device: str
    application_server_key: str | None
    created_at: datetime


class BrowserList(BaseModel):
    """Browsers, from the first made to the last."""

    items: Sequence[ListedBrowser]


class PushMessageList(BaseModel):
    """Messages, newest first; `total` counts those beyond the limit too."""

    items: Sequence[PushMessage]
    total: int


def push_inspection_routes(browsers: Browsers) -> APIRouter:
    """`/push/browsers`, `/push/browsers/{name}`, `…/fetch`, `/push/messages`, `…/{id}`."""
    router = APIRouter(prefix="/push")
    ledger = browsers.ledger

    @router.get("/browsers")
    async def list_browsers(request: Request) -> BrowserList:
        items = [
            ListedBrowser(
                **_subscription(browser, request).model_dump(),
                device=browser.address,
                application_server_key=browser.application_server_key,
                created_at=browser.created_at,
            )
            for browser in ledger.devices()
        ]
        return BrowserList(items=items)

    @router.put("/browsers/{name}")
    async def subscribe(
        name: DeviceName, request: Request, response: Response, body: Subscribe | None = None
    ) -> Subscription:
        key = None if body is None else body.application_server_key
        browser, is_new = browsers.subscribe(name, None if key is None else _checked(key))
        response.status_code = 201 if is_new else 200
        return _subscription(browser, request)

    @router.get("/browsers/{name}")
    async def get_browser(name: str, request: Request) -> Subscription:
        return _subscription(_known(name), request)

    @router.delete("/browsers/{name}", status_code=204)
    async def unsubscribe(name: str) -> Response:
        if not ledger.remove(name):
            raise NotFound("No browser has this name.")
        return Response(status_code=204)

    @router.post("/browsers/{name}/fetch")
    async def fetch(name: str) -> PushMessageList:
        messages = browsers.fetch(_known(name))
        return PushMessageList(items=messages, total=len(messages))

    @router.get("/messages")
    async def list_messages(
        device: str | None = None, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100
    ) -> PushMessageList:
        def keep(entry: Entry) -> bool:
            return device is None or device in (entry.device, entry.device_name)

        entries, total = ledger.newest(keep, limit)
        return PushMessageList(items=[browsers.read(entry) for entry in entries], total=total)

    @router.delete("/messages", status_code=204)
    async def empty() -> Response:
        ledger.empty()
        return Response(status_code=204)

    @router.get("/messages/{message_id}")
    async def get_message(message_id: str) -> PushMessage:
        message = browsers.find(message_id)
        if message is None:
            raise NotFound("No message has this id.")
        return message

    def _known(name: str) -> Browser:
        browser = ledger.device(name)
        if browser is None:
            raise NotFound("No browser has this name.")
        return browser

    _ = (list_browsers, subscribe, get_browser, unsubscribe, fetch)
    _ = (list_messages, empty, get_message)
    return router


def _subscription(browser: Browser, request: Request) -> Subscription:
    return Subscription(
        name=browser.name,
        endpoint=f"{origin(request)}/push/{browser.address}",
        keys=Keys(p256dh=browser.p256dh, auth=browser.auth),
    )


def _checked(key: str) -> str:
    try:
        point = decoded(key)
        public_key(point)
    except ValueError as error:
        raise ValidationFailed(
            details=[
                {
                    "path": "application_server_key",
                    "code": "invalid_key",
                    "message": f"The key {error}.",
                }
            ]
        ) from None
    # Written in one way, so that padding alone makes no other key.
    return encoded(point)
