"""Browsers and phones as a page: its file, and the feed it polls."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.sandbox.faults import Faults, FaultStatus
from app.sandbox.fcm import Phones
from app.sandbox.fcm.phones import FcmMessage
from app.sandbox.ledger import Entry
from app.sandbox.mailbox import Clock
from app.sandbox.pages import page_response
from app.sandbox.push import Browsers
from app.sandbox.push.browsers import PushMessage

MAX_SHOWN = 100
MAX_DEVICES_SHOWN = 50
MAX_SUMMARY = 200
EXPIRY_SHOWN_WITHIN_SECONDS = 15

ShownPlatform = Literal["web", "android", "ios"]


class Arrival(BaseModel):
    """What the page's list shows of a message; a title that is empty was not to be seen."""

    service: Literal["push", "fcm"]
    id: str
    device_name: str
    platform: ShownPlatform
    title: str
    text: str
    at: datetime
    state: str


class ShownDevice(BaseModel):
    """A browser or phone; `address` is the last part of its endpoint, or its token."""

    name: str
    platform: ShownPlatform
    address: str


class DeviceFeed(BaseModel):
    """The newest messages and devices, how many there are, and the faults in force."""

    items: Sequence[Arrival]
    total: int
    devices: Sequence[ShownDevice]
    device_count: int
    faults: Sequence[FaultStatus]


def device_page_routes(
    browsers: Browsers, phones: Phones, faults: Faults, clock: Clock
) -> APIRouter:
    """`/devices`, `/devices/{service}/{id}` and `/devices/feed`."""
    router = APIRouter(prefix="/devices")
    started = secrets.token_hex(4)

    @router.get("")
    @router.get("/push/{message_id}")
    @router.get("/fcm/{message_id}")
    async def page() -> Response:
        return page_response("devices.html")

    @router.get("/feed")
    async def feed(
        request: Request, device: Annotated[str, Query(max_length=320)] = ""
    ) -> Response:
        # Waiting messages expire with time alone.
        period = int(clock().timestamp()) // EXPIRY_SHOWN_WITHIN_SECONDS
        versions = (browsers.ledger.version, phones.ledger.version, faults.version, period)
        etag = {"etag": f'"{started}-{"-".join(map(str, versions))}"'}
        if request.headers.get("if-none-match") == etag["etag"]:
            return Response(status_code=304, headers=etag)
        content = _feed(browsers, phones, faults, device.strip().lower())
        return Response(content.model_dump_json(), media_type="application/json", headers=etag)

    _ = (page, feed)
    return router


def _feed(browsers: Browsers, phones: Phones, faults: Faults, wanted: str) -> DeviceFeed:
    def keep(entry: Entry) -> bool:
        return wanted in entry.device_name.lower()

    pushed, pushed_total = browsers.ledger.newest(keep, MAX_SHOWN)
    sent, sent_total = phones.ledger.newest(keep, MAX_SHOWN)
    items = [_web_arrival(browsers.read(entry)) for entry in pushed]
    items += [_phone_arrival(phones.ledger.read(entry)) for entry in sent]
    items.sort(key=lambda item: item.at, reverse=True)
    made = sorted(
        [*browsers.ledger.devices(), *phones.ledger.devices()],
        key=lambda device: device.created_at,
        reverse=True,
    )
    return DeviceFeed(
        items=items[:MAX_SHOWN],
        total=pushed_total + sent_total,
        devices=[
            ShownDevice(
                name=device.name,
                platform=getattr(device, "platform", "web"),
                address=device.address,
            )
            for device in made[:MAX_DEVICES_SHOWN]
        ],
        device_count=len(made),
        faults=faults.status(),
    )


def _web_arrival(message: PushMessage) -> Arrival:
    payload = message.payload
    if isinstance(payload, str):
        title, text = payload, ""
    else:
        title, text = _words(_part(payload, "notification"))
    return _arrival("push", message, "web", title, text)


def _phone_arrival(message: FcmMessage) -> Arrival:
    title, text = _words(_part(message.message, "notification"))
    if not title:
        title, text = _words(_part(_part(message.message, "android"), "notification"))
    return _arrival("fcm", message, message.platform, title, text)


def _arrival(
    service: Literal["push", "fcm"],
    message: PushMessage | FcmMessage,
    platform: ShownPlatform,
    title: str,
    text: str,
) -> Arrival:
    return Arrival(
        service=service,
        id=message.id,
        device_name=message.device_name,
        platform=platform,
        title=title[:MAX_SUMMARY],
        text=text[:MAX_SUMMARY],
        at=message.at,
        state=message.state,
    )


def _part(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    part = cast("Mapping[str, Any]", value).get(name)
    return cast("Mapping[str, Any]", part) if isinstance(part, Mapping) else {}


def _words(notification: Mapping[str, Any]) -> tuple[str, str]:
    return str(notification.get("title") or ""), str(notification.get("body") or "")
