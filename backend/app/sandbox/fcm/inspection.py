"""What people and tests ask of FCM: phones, the account to send as, and what arrived."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app.errors import NotFound
from app.sandbox.fcm.accounts import ServiceAccount
from app.sandbox.fcm.phones import FcmMessage, Phone, Phones, Platform
from app.sandbox.fcm.service import token_uri
from app.sandbox.ledger import DeviceName, Entry

MAX_LISTED = 10_000


class Install(BaseModel):
    """What the phone runs."""

    platform: Platform


class InstalledPhone(BaseModel):
    """A phone and the token of the app on it."""

    name: str
    platform: Platform
    token: str


class PhoneList(BaseModel):
    """Phones, from the first made to the last."""

    items: Sequence[InstalledPhone]


class FcmMessageList(BaseModel):
    """Messages, newest first; `total` counts those beyond the limit too."""

    items: Sequence[FcmMessage]
    total: int


def fcm_inspection_routes(phones: Phones, account: ServiceAccount) -> APIRouter:
    """`/fcm/service-account.json`, `/fcm/phones…` and `/fcm/messages…`."""
    router = APIRouter(prefix="/fcm")
    ledger = phones.ledger

    @router.get("/service-account.json")
    async def service_account(request: Request) -> dict[str, str]:
        return account.document(token_uri(request))

    @router.get("/phones")
    async def list_phones() -> PhoneList:
        return PhoneList(items=[_installed(phone) for phone in ledger.devices()])

    @router.put("/phones/{name}")
    async def install(name: DeviceName, body: Install, response: Response) -> InstalledPhone:
        phone, is_new = phones.install(name, body.platform)
        response.status_code = 201 if is_new else 200
        return _installed(phone)

    @router.get("/phones/{name}")
    async def get_phone(name: str) -> InstalledPhone:
        phone = ledger.device(name)
        if phone is None:
            raise NotFound("No phone has this name.")
        return _installed(phone)

    @router.delete("/phones/{name}", status_code=204)
    async def uninstall(name: str) -> Response:
        if not ledger.remove(name):
            raise NotFound("No phone has this name.")
        return Response(status_code=204)

    @router.get("/messages")
    async def list_messages(
        token: str | None = None, limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100
    ) -> FcmMessageList:
        def keep(entry: Entry) -> bool:
            return token is None or token in (entry.device, entry.device_name)

        entries, total = ledger.newest(keep, limit)
        return FcmMessageList(items=[ledger.read(entry) for entry in entries], total=total)

    @router.delete("/messages", status_code=204)
    async def empty() -> Response:
        ledger.empty()
        return Response(status_code=204)

    @router.get("/messages/{message_id}")
    async def get_message(message_id: str) -> FcmMessage:
        message = ledger.find(message_id)
        if message is None:
            raise NotFound("No message has this id.")
        return message

    _ = (service_account, list_phones, install, get_phone, uninstall)
    _ = (list_messages, empty, get_message)
    return router


def _installed(phone: Phone) -> InstalledPhone:
    return InstalledPhone(name=phone.name, platform=phone.platform, token=phone.address)
