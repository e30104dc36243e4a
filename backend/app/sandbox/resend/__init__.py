"""Resend's API on loopback, over the sandbox's mailbox."""

from starlette.types import ASGIApp

from app.sandbox.fault_gate import FaultGate
from app.sandbox.faults import Faults
from app.sandbox.mailbox import Clock, Mailbox
from app.sandbox.resend.door import ResendDoor
from app.sandbox.resend.errors import faulty_response
from app.sandbox.resend.routes import resend_routes

__all__ = ["create_resend"]


def create_resend(mailbox: Mailbox, faults: Faults, clock: Clock) -> ASGIApp:
    """Resend's API, to be mounted where `RESEND_API_URL` points.

    Args:
        mailbox: takes the mails.
        faults: the rules for provider `resend`; they hit POST requests.
        clock: tells when a mail is received.
    """
    routes = resend_routes(mailbox, clock)
    gate = FaultGate(routes, provider="resend", faults=faults, refusal=faulty_response)
    return ResendDoor(routes, gate, mailbox, faults)
