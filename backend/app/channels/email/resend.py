"""Email through Resend's HTTP API (REQ-014), one request a letter.

The letter's id is the idempotency key, so a request whose outcome is unknown is repeated without
a second mail.
"""

import asyncio
from math import isfinite
from typing import Any

import httpx

from app.channels.base import Failed, Retry, Sent
from app.channels.email.letter import Letter, MailOutcome
from app.config import Settings
from app.policy.kinds import Reason

TOO_MANY_REQUESTS = 429
FIRST_SERVER_ERROR = 500
REFUSED_CREDENTIALS = (401, 403)
TEXT_LIMIT = 200
LONGEST_WAIT = 86_400.0  # seconds; whatever a provider asks for


class ResendMailer:
    """Sends letters through Resend.

    Args:
        settings: provider, sender and time limit.
        client: shared HTTP client; the caller closes it.
    """

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

    async def send(self, letter: Letter) -> MailOutcome:
        """Send one letter."""
        try:
            # The client's own timeouts begin anew with every byte.
            async with asyncio.timeout(self._timeout):
                response = await self._client.post(
                    self._url,
                    json=self._message(letter),
                    headers={
                        "Authorization": f"Bearer {self._key}",
                        "Idempotency-Key": str(letter.id),
                    },
                    timeout=self._timeout,
                )
        except (httpx.HTTPError, TimeoutError) as error:
            return Retry(Reason.PROVIDER_UNAVAILABLE, type(error).__name__)
        return outcome_of(response)

    def _message(self, letter: Letter) -> dict[str, Any]:
        return {
            "from": self._sender,
            "to": [letter.to],
            "subject": letter.subject,
            "html": letter.html,
            "text": letter.text,
            "headers": dict(letter.headers),
            "tags": [{"name": name, "value": value} for name, value in letter.tags.items()],
        }


def outcome_of(response: httpx.Response) -> MailOutcome:
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
