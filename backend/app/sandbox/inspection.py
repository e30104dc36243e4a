"""What tests and people ask the sandbox: which mails arrived, how often, and what is to fail."""

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import AwareDatetime, BaseModel

from app.errors import NotFound
from app.sandbox.faults import Fault, Faults, FaultStatus
from app.sandbox.mailbox import Entry, Mail, Mailbox, bare_address

MAX_LISTED = 10_000


class MailList(BaseModel):
    """Mails, newest first; `total` counts those beyond the limit too."""

    items: list[Mail]
    total: int


class KeyArrivals(BaseModel):
    """Requests that carried an idempotency key, and the mails stored for it."""

    idempotency_key: str | None
    requests: int
    mails: int


class ArrivalList(BaseModel):
    """Arrivals by idempotency key in order of first arrival, and their sums.

    The null key stands for all requests that had none.
    """

    items: list[KeyArrivals]
    requests: int
    mails: int


class Addresses(BaseModel):
    """Where mail is taken over SMTP, and where webhooks go; null where that is off."""

    smtp: str | None
    webhooks_to: str | None


class FaultList(BaseModel):
    """The rules in force, in the order they are tried."""

    items: list[FaultStatus]


def inspection_routes(
    mailbox: Mailbox, faults: Faults, addresses: Addresses, *resets: Callable[[], None]
) -> APIRouter:
    """`/healthz`, `/addresses`, `/mails`, `/arrivals`, `/faults` and `/state`.

    Args:
        mailbox: the mails.
        faults: the rules in force.
        addresses: of what else there is.
        resets: forget what other providers keep, when everything is to be forgotten.
    """
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/addresses")
    async def list_addresses() -> Addresses:
        return addresses

    @router.get("/mails")
    async def list_mails(
        to: str | None = None,
        since: AwareDatetime | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> MailList:
        address = None if to is None else bare_address(to)

        def keep(entry: Entry) -> bool:
            return (address is None or address in entry.addresses) and (
                since is None or entry.received_at >= since
            )

        entries, total = mailbox.newest(keep, limit)
        return MailList(items=[mailbox.read(entry) for entry in entries], total=total)

    @router.delete("/mails", status_code=204)
    async def empty_mailbox() -> Response:
        mailbox.empty()
        return Response(status_code=204)

    @router.get("/mails/{mail_id}")
    async def get_mail(mail_id: str) -> Mail:
        mail = mailbox.find(mail_id)
        if mail is None:
            raise NotFound("No mail has this id.")
        return mail

    @router.get("/arrivals")
    async def list_arrivals(idempotency_key: str | None = None) -> ArrivalList:
        items = [
            KeyArrivals(idempotency_key=key, requests=counted.requests, mails=counted.mails)
            for key, counted in mailbox.arrivals().items()
            if idempotency_key is None or key == idempotency_key
        ]
        return ArrivalList(
            items=items,
            requests=sum(item.requests for item in items),
            mails=sum(item.mails for item in items),
        )

    @router.get("/faults")
    async def list_faults() -> FaultList:
        return FaultList(items=faults.status())

    @router.put("/faults")
    async def replace_faults(rules: Annotated[Fault | list[Fault], Body()]) -> FaultList:
        faults.replace(rules if isinstance(rules, Sequence) else [rules])
        return FaultList(items=faults.status())

    @router.delete("/faults", status_code=204)
    async def remove_faults() -> Response:
        faults.replace([])
        return Response(status_code=204)

    @router.delete("/state", status_code=204)
    async def reset() -> Response:
        faults.reset()
        mailbox.reset()
        for forget in resets:
            forget()
        return Response(status_code=204)

    _ = (healthz, list_addresses, list_mails, empty_mailbox, get_mail, list_arrivals)
    _ = (list_faults, replace_faults, remove_faults, reset)
    return router
