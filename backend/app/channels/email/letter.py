"""What an email is once it is written: the same for every provider (REQ-014)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from app.channels.base import Deferred, Failed, Retry, Sent

MailOutcome = Sent | Retry | Deferred | Failed


@dataclass(frozen=True, slots=True)
class Letter:
    """An email, ready to be sent.

    Args:
        id: of its delivery, or its digest; the idempotency key where it is sent alone.
        to: the bare address.
        subject: one line.
        headers: beyond those that every email has; one line each.
        tags: what webhooks about it tell of it again.
        is_critical: goes ahead of others, and waits for none.
        is_once_more: a provider has taken it before, so its id is the key of another request.
        links: where its tracked links lead, by their place.
    """

    id: UUID
    user_id: UUID
    to: str
    subject: str
    html: str
    text: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    is_critical: bool = False
    is_once_more: bool = False
    links: tuple[str, ...] = ()


class Mailer(Protocol):
    """Sends letters through whatever providers there are."""

    async def send(self, letter: Letter) -> MailOutcome:
        """Send a letter, with others that are sent at the same time where that is possible.

        A letter whose outcome was unknown is sent again in the request it was sent in, so that
        the provider takes it once.
        """
        ...
