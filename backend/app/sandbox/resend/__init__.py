"""Resend's API on loopback, over the sandbox's mailbox."""

from starlette.types import ASGIApp

from app.sandbox.fault_gate import FaultGate
from app.sandbox.faults import Faults
from app.sandbox.mailbox import Clock, Mailbox
from app.sandbox.resend.door import ResendDoor
from app.sandbox.resend.errors import faulty_response
from app.sandbox.resend.inspection import webhook_routes
from app.sandbox.resend.routes import resend_routes
from app.sandbox.resend.webhooks import PAUSES, Webhooks

__all__ = ["PAUSES", "Webhooks", "create_resend", "webhook_routes"]


def create_resend(mailbox: Mailbox, faults: Faults, clock: Clock, webhooks: Webhooks) -> ASGIApp:
    """Resend's API, to be mounted where `RESEND_API_URL` points.

    Args:
        mailbox: takes the mails.
        faults: the rules for provider `resend`; they hit POST requests.
        clock: tells when a mail is received.
        webhooks: tell what becomes of mails.
    """
    routes = resend_routes(mailbox, clock, webhooks)
    gate = FaultGate(routes, provider="resend", faults=faults, refusal=faulty_response)
    return ResendDoor(routes, gate, mailbox, faults)
