"""A push service on loopback: browsers that subscribe, and the messages they can decrypt."""

from collections.abc import Collection

from starlette.types import ASGIApp, Scope

from app.sandbox.fault_gate import FaultGate
from app.sandbox.faults import Faults
from app.sandbox.mailbox import Clock
from app.sandbox.push.browsers import Browsers
from app.sandbox.push.errors import faulty_response
from app.sandbox.push.inspection import push_inspection_routes
from app.sandbox.push.service import push_service

__all__ = ["Browsers", "create_push", "push_inspection_routes"]


def create_push(browsers: Browsers, faults: Faults, clock: Clock) -> ASGIApp:
    """The push service, to be mounted at `/push` behind the routes of inspection.

    Args:
        browsers: take the messages.
        faults: the rules for provider `push`; a browser's name, the last part of its endpoint and
            the origin asked are what they may be narrowed to.
        clock: tells when a message arrives and a token expires.
    """

    def addressees(scope: Scope, _body: bytes) -> Collection[str]:
        device = str(scope["path"]).rpartition("/")[2]
        browser = browsers.ledger.device_at(device)
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return {device, f"http://{host}", *([] if browser is None else [browser.name])}

    return FaultGate(
        push_service(browsers, clock),
        provider="push",
        faults=faults,
        refusal=faulty_response,
        addressees=addressees,
    )
