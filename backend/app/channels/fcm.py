"""Push to apps through Firebase Cloud Messaging's HTTP v1 API (REQ-007), one request each."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from urllib.parse import quote
from uuid import UUID

import httpx
import structlog

from app.channels.base import (
    Claim,
    Deferred,
    Device,
    Failed,
    Outcome,
    Report,
    Retry,
    Sent,
    Skipped,
    TokenVerdict,
    fcm_token_context,
)
from app.channels.breaker import Breakers, NotNow, Place
from app.channels.fcm_answer import error_of, outcome_of
from app.channels.fcm_credentials import Access, FcmCredentials, NoAccess
from app.channels.fcm_message import closing_of, message_of, trial_of
from app.channels.push_content import has_outlived
from app.config import Settings
from app.policy.kinds import Reason
from app.security.ack_tokens import AckTokens
from app.security.authorities import public_authorities
from app.security.connections import ConnectionPool
from app.security.encryption import Cipher, DecryptionFailed

log = structlog.get_logger()

AT_ONCE: Final = 50  # requests; of 100 streams a connection has, some may have been given up
IDLE_CONNECTIONS: Final = 10
IDLE_SECONDS: Final = 60.0  # that a connection is kept for the next push
SHORTEST_WAIT: Final = 1.0  # seconds


class _Transport(httpx.AsyncHTTPTransport):
    """httpx's, over connections that no lost call can spoil."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls)
        self._pool = ConnectionPool(
            ssl_context=tls,
            max_connections=AT_ONCE,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            http2=True,
        )


def fcm_client(settings: Settings, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """The HTTP client that `FcmSender` shares; the caller closes it.

    Requests share one connection where HTTP/2 is spoken, which is over TLS. Redirects are not
    followed.

    Args:
        tls: whom to believe; by default the public authorities.
    """
    return httpx.AsyncClient(
        transport=_Transport(tls or public_authorities("h2")),
        timeout=settings.provider_timeout_seconds,
    )


@asynccontextmanager
async def open_fcm(
    settings: Settings, clock: Callable[[], datetime]
) -> AsyncGenerator["FcmSender | None"]:
    """A sender with a client of its own, None where FCM is not configured."""
    if not settings.fcm_configured:
        yield None
        return
    keys = settings.encryption_keys
    async with fcm_client(settings) as client:
        yield FcmSender(settings, client, Cipher(keys), AckTokens(keys).issue, clock)


class FcmSender:
    """Sends claims to apps, tries tokens, and has phones close what was read elsewhere.

    Args:
        settings: the account, the API's address, links' base and the time limit.
        client: of `fcm_client`; the caller closes it.
        cipher: decrypts the phones' tokens.
        ack_token: makes the token with which an app acknowledges a delivery, from its id.
        clock: the present instant.
        breakers: FCM's health; by default this sender's own view.
    """

    def __init__(
        self,
        settings: Settings,
        client: httpx.AsyncClient,
        cipher: Cipher,
        ack_token: Callable[[UUID], str],
        clock: Callable[[], datetime],
        breakers: Breakers | None = None,
    ) -> None:
        self._client = client
        self._cipher = cipher
        self._ack_token = ack_token
        self._clock = clock
        self._base_url = settings.base_url
        self._seconds = settings.provider_timeout_seconds
        self._api = (
            f"{settings.sandbox_url}/fcm" if settings.uses_sandbox_fcm else settings.fcm_api_url
        )
        self._credentials = FcmCredentials(settings, client, clock)
        self._breakers = breakers or Breakers(AT_ONCE)

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send each claim as a request of its own, all at once: a slow one delays no other."""

        async def send_one(claim: Claim) -> None:
            try:
                outcome = await self._send(claim)
            except Exception as error:
                log.exception("fcm_send_failed", delivery_id=str(claim.id))
                outcome = Retry(Reason.INTERNAL_ERROR, type(error).__name__)
            report(claim, outcome)

        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(send_one(claim))

    async def close(self, device: Device, ids: Sequence[UUID], badge: int) -> Outcome:
        """Have a phone close notifications; returns what became of the request.

        Args:
            ids: at most `fcm_message.CLOSED_AT_ONCE` notifications.
            badge: what the user has not read, absolute.
        """
        token = self._token(device)
        if isinstance(token, str):
            return await self._post(closing_of(token, ids, badge, self._clock()))
        return token

    async def validate(self, token: str) -> TokenVerdict:
        """What FCM says of a token; nothing is sent to it."""
        outcome = await self._post(trial_of(token))
        match outcome:
            case Sent():
                return TokenVerdict.VALID
            case Failed():
                # Beside the token there is nothing in it that could be at fault.
                return TokenVerdict.INVALID
            case _:
                return TokenVerdict.UNKNOWN

    async def _send(self, claim: Claim) -> Outcome:
        if claim.device is None:
            return Skipped(Reason.NO_DEVICE)
        token = self._token(claim.device)
        if not isinstance(token, str):
            return token
        now, ack_token = self._clock(), self._ack_token(claim.id)
        outcome = await self._post(
            message_of(claim, token, ack_token=ack_token, base_url=self._base_url, now=now)
        )
        if isinstance(outcome, Deferred) and has_outlived(claim, now):
            # So that it ends some time.
            return Retry(outcome.reason, outcome.detail, outcome.after)
        return outcome

    def _token(self, device: Device) -> str | Retry:
        try:
            sealed = device.fcm_token or b""
            return self._cipher.decrypt(sealed, context=fcm_token_context(device.id)).decode()
        except DecryptionFailed as error:
            log.error("fcm_token_unreadable", subscription_id=str(device.id), cause=str(error))
            # A key that is missing is ours to put back; the phone is not at fault.
            return Retry(Reason.INTERNAL_ERROR, "Its token is unreadable.")

    async def _post(self, message: bytes) -> Outcome:
        try:
            async with self._breakers.place(self._api) as place:
                return await self._attempt(message, place)
        except NotNow as refused:
            return Deferred(Reason.PROVIDER_UNAVAILABLE, str(refused), refused.after)

    async def _attempt(self, message: bytes, place: Place) -> Outcome:
        try:
            # The client's own timeouts begin anew with every byte.
            async with asyncio.timeout(self._seconds):
                response = await self._answer(message)
        except NoAccess as error:
            return _without_access(error)
        except (httpx.HTTPError, TimeoutError) as error:
            return _unavailable(Retry(Reason.PROVIDER_UNAVAILABLE, type(error).__name__), place)
        outcome = outcome_of(response, self._clock())
        if isinstance(outcome, Retry) and outcome.reason is Reason.PROVIDER_UNAVAILABLE:
            return _unavailable(outcome, place)
        place.answered()
        return outcome

    async def _answer(self, message: bytes) -> httpx.Response:
        access = await self._credentials.access()
        response = await self._request(message, access)
        if not response.is_success and error_of(response).is_unauthenticated:
            self._credentials.refuse(access)
            response = await self._request(message, await self._credentials.access())
        return response

    async def _request(self, message: bytes, access: Access) -> httpx.Response:
        try:
            return await self._call(message, access)
        except httpx.ProtocolError:
            # That a connection is at its end says nothing of FCM, and the next one is fresh.
            # Should both arrive, the second replaces the first.
            return await self._call(message, access)

    async def _call(self, message: bytes, access: Access) -> httpx.Response:
        return await self._client.post(
            f"{self._api}/v1/projects/{quote(access.project_id, safe='')}/messages:send",
            content=message,
            headers={
                "Authorization": f"Bearer {access.token}",
                "Content-Type": "application/json; charset=utf-8",
            },
        )


def _unavailable(outcome: Retry, place: Place) -> Outcome:
    """No attempt, if FCM was known to be ill."""
    ill_for = place.failed()
    if ill_for is None:
        return outcome
    return Deferred(outcome.reason, outcome.detail, max(ill_for, outcome.after or 0.0))


def _without_access(error: NoAccess) -> Outcome:
    """Nothing was sent: no attempt, unless operators have to mend the account."""
    if error.reason is Reason.PROVIDER_UNAVAILABLE:
        return Deferred(error.reason, error.detail, max(error.after, SHORTEST_WAIT))
    return Retry(error.reason, error.detail, error.after)
