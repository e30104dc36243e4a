"""What Resend tells about a mail after it took it: kinds of events and the bodies of webhooks.

Shapes follow https://resend.com/docs/webhooks/event-types and the types of Resend's own SDK
(`webhook-event.interface.ts`), where `tags` is an object.
"""

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any, Literal

from app.sandbox.mailbox import Mail, bare_address
from app.sandbox.mime import message_id

EventType = Literal[
    "sent",
    "delivered",
    "delivery_delayed",
    "opened",
    "clicked",
    "bounced",
    "complained",
    "suppressed",
    "failed",
]
Bounce = Literal["hard", "soft", "undetermined"]

_BOUNCES: dict[Bounce, tuple[str, str, str]] = {
    "hard": (
        "Permanent",
        "General",
        "smtp; 550 5.1.1 The email account that you tried to reach does not exist",
    ),
    "soft": ("Transient", "MailboxFull", "smtp; 452 4.2.2 The recipient's mailbox is full"),
    "undetermined": ("Undetermined", "Undetermined", "smtp; 554 5.0.0 The mail was refused"),
}
_EXPLAINED: dict[Bounce, str] = {
    "hard": "The recipient's email provider sent a hard bounce message.",
    "soft": "The recipient's inbox was full.",
    "undetermined": "The recipient's email provider sent a bounce message without a reason.",
}
_TEST_ADDRESS = re.compile(r"(bounced|complained|suppressed)(\+[^@]*)?@resend\.dev")
# A complaint comes from somebody who got the mail.
_FATES: dict[str, tuple[EventType, ...]] = {
    "bounced": ("bounced",),
    "complained": ("delivered", "complained"),
    "suppressed": ("suppressed",),
}
_LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*["'](https?://[^"']+)["']""", re.IGNORECASE)
_BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 "
    "Safari/537.36"
)


def fates(mail: Mail) -> list[tuple[EventType, list[str]]]:
    """What becomes of a mail by itself once it is sent, in order, and of which recipients.

    Resend's test addresses bounce, complain and are suppressed; everybody else gets the mail.
    """
    found: dict[tuple[EventType, ...], list[str]] = {}
    for recipient in mail.to:
        match = _TEST_ADDRESS.fullmatch(bare_address(recipient))
        fate = _FATES[match[1]] if match else ("delivered",)
        found.setdefault(fate, []).append(recipient)
    return [(event, recipients) for fate, recipients in found.items() for event in fate]


def first_link(mail: Mail) -> str:
    """The first address that the mail links to, or one that nobody would mind."""
    match = _LINK.search(mail.html or "")
    return unescape(match[1]) if match else "https://example.com/"


def event_body(
    event: EventType,
    mail: Mail,
    *,
    at: datetime,
    to: list[str],
    bounce: Bounce = "hard",
    link: str | None = None,
    user_agent: str | None = None,
) -> dict[str, Any]:
    """The body of a webhook.

    Args:
        at: when the event happened.
        to: the recipients it is about.
        bounce: how a mail that bounced did.
        link: what was clicked; the mail's first link by default.
        user_agent: what it was clicked with.
    """
    data: dict[str, Any] = {
        "created_at": mail.received_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "email_id": mail.id,
        "message_id": message_id(mail),
        "from": mail.sender,
        "to": to,
        "subject": mail.subject,
    }
    if mail.tags:
        data["tags"] = {tag.name: tag.value for tag in mail.tags}
    match event:
        case "bounced":
            kind, sub_kind, diagnostic = _BOUNCES[bounce]
            data["bounce"] = {
                "diagnosticCode": [diagnostic],
                "message": _EXPLAINED[bounce],
                "subType": sub_kind,
                "type": kind,
            }
        case "clicked":
            data["click"] = {
                "ipAddress": "127.0.0.1",
                "link": link or first_link(mail),
                "timestamp": _instant(at),
                "userAgent": user_agent or _BROWSER,
            }
        case "suppressed":
            data["suppressed"] = {
                "message": "The recipient is on the account's suppression list.",
                "type": "OnAccountSuppressionList",
            }
        case "failed":
            data["failed"] = {"reason": "reached_daily_quota"}
        case _:
            pass
    return {"type": f"email.{event}", "created_at": _instant(at), "data": data}


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
