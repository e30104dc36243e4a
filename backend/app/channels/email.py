"""Email through Resend's HTTP API (REQ-014): title and body of one notification, one request each.

The delivery's id is the idempotency key, so a request whose outcome is unknown is repeated
without a second mail.
"""

import asyncio
from collections.abc import Sequence
from html import escape
from math import isfinite
from typing import Any, ClassVar

import httpx

from app.channels.base import Claim, Failed, Outcome, Report, Retry, Sent
from app.config import Settings
from app.policy.kinds import Channel, Reason

TOO_MANY_REQUESTS = 429
FIRST_SERVER_ERROR = 500
REFUSED_CREDENTIALS = (401, 403)
TEXT_LIMIT = 200
LONGEST_WAIT = 86_400.0  # seconds; whatever a provider asks for


class EmailChannel:
    """Sends claims as emails.

    Args:
        settings: provider, sender and time limit.
        client: shared HTTP client; the caller closes it.
    """

    channel: ClassVar[Channel] = Channel.EMAIL

    def __init__(self, settings: Settings, client: httpx.AsyncClient) -> None:
        self._client = client
        self._timeout = settings.provider_timeout_seconds
        self._sender = f"{settings.resend_from_name} <{settings.resend_from_email}>"
        if settings.uses_sandbox_mail:
            self._url = f"{settings.sandbox_url}/resend/emails"
            self._key = "re_sandbox"
        else:
            self._url = f"{settings.resend_api_url}/emails"
            self._key = (
                settings.resend_api_key.get_secret_value() if settings.resend_api_key else ""
            )

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send each claim as a request of its own, all at once: a slow one delays no other."""

        async def send_one(claim: Claim) -> None:
            report(claim, await self._send(claim))

        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(send_one(claim))

    async def _send(self, claim: Claim) -> Outcome:
        if claim.email is None:
            return Failed(Reason.NO_ADDRESS, "The user has no email address any more.")
        try:
            # The client's own timeouts begin anew with every byte.
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    self._url,
                    json=self._message(claim, claim.email),
                    headers={
                        "Authorization": f"Bearer {self._key}",
                        "Idempotency-Key": str(claim.id),
                    },
                    timeout=self._timeout,
                )
        except (httpx.HTTPError, TimeoutError) as error:
            return Retry(Reason.PROVIDER_UNAVAILABLE, type(error).__name__)
        return outcome_of(response)

    def _message(self, claim: Claim, address: str) -> dict[str, Any]:
        return {
            "from": self._sender,
            "to": [address],
            "subject": " ".join(claim.title.split()),
            "html": f"<h1>{escape(claim.title)}</h1>\n{claim.body_html}\n",
            "text": f"{claim.title}\n\n{claim.body}\n",
            "tags": [{"name": "notification_id", "value": str(claim.notification_id)}],
        }


def outcome_of(response: httpx.Response) -> Outcome:
    """What Resend's answer means for the delivery."""
    if response.is_success:
        return Sent(_provider_id(response))
    status, name = response.status_code, _error_name(response)
    detail = f"{status} {name}".strip()
    if status == TOO_MANY_REQUESTS:
        return Retry(Reason.PROVIDER_LIMIT, detail, after=_retry_after(response))
    if status >= FIRST_SERVER_ERROR or name == "concurrent_idempotent_requests":
        return Retry(Reason.PROVIDER_UNAVAILABLE, detail, after=_retry_after(response))
    if status in REFUSED_CREDENTIALS:
        # The key is ours to mend; the mail is not at fault.
        return Retry(Reason.PROVIDER_REJECTED, detail)
    return Failed(Reason.PROVIDER_REJECTED, detail)


def _provider_id(response: httpx.Response) -> str | None:
    try:
        return _printable(str(response.json()["id"]))
    except (ValueError, KeyError, TypeError):
        return None


def _error_name(response: httpx.Response) -> str:
    try:
        return _printable(str(response.json()["name"]))
    except (ValueError, KeyError, TypeError):
        return ""


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None
    return min(max(0.0, seconds), LONGEST_WAIT) if isfinite(seconds) else None


def _printable(text: str) -> str:
    return "".join(character for character in text[:TEXT_LIMIT] if character.isprintable())
