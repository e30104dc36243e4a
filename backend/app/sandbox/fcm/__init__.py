"""FCM's HTTP v1 API and Google's token address on loopback, with phones to send to."""

from collections.abc import Collection
from typing import Any

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from app.sandbox.fault_gate import FaultGate
from app.sandbox.faults import Faults
from app.sandbox.fcm.accounts import ServiceAccount
from app.sandbox.fcm.errors import faulty_send, faulty_token
from app.sandbox.fcm.inspection import fcm_inspection_routes
from app.sandbox.fcm.phones import Phones
from app.sandbox.fcm.service import fcm_service

__all__ = ["Phones", "ServiceAccount", "create_fcm", "fcm_inspection_routes"]


def create_fcm(phones: Phones, account: ServiceAccount, faults: Faults) -> ASGIApp:
    """FCM, to be mounted at `/fcm` behind the routes of inspection.

    Args:
        phones: take the messages.
        account: whose access tokens are taken.
        faults: the rules for provider `fcm`, which may be narrowed to a token or a phone's name,
            and for provider `fcm_oauth`, which hit the token address.
    """

    def addressees(_scope: Scope, body: bytes) -> Collection[str]:
        token = _token(body)
        phone = phones.ledger.device_at(token)
        return {token, *([] if phone is None else [phone.name])}

    service = fcm_service(phones, account)
    oauth = FaultGate(service, provider="fcm_oauth", faults=faults, refusal=faulty_token)
    sending = FaultGate(
        service, provider="fcm", faults=faults, refusal=faulty_send, addressees=addressees
    )

    async def fcm(scope: Scope, receive: Receive, send: Send) -> None:
        gate = oauth if str(scope["path"]).endswith("/token") else sending
        await gate(scope, receive, send)

    return fcm


def _token(body: bytes) -> str:
    try:
        content: Any = orjson.loads(body)
        return str(content["message"]["token"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
