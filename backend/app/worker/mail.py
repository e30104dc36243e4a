"""The mailer of a worker, with the providers that it sends through, and who writes the letters."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import httpx

from app.channels.email.compose import Composer
from app.channels.email.letter import Mailer
from app.channels.email.mailer import ProviderMailer
from app.channels.email.provider import Provider
from app.channels.email.requests import NewRequest, OpenRequest, RequestStore
from app.channels.email.resend import PLACES, ResendProvider
from app.channels.email.smtp import SmtpProvider
from app.config import Settings
from app.db.database import Database
from app.pipeline.coalescing import Coalescer
from app.pipeline.deliver import Clock
from app.security.authorities import public_authorities
from app.security.email_tokens import EmailTokens
from app.security.encryption import Cipher

AT_ONCE: Final = 500  # letters looked up, or requests stored, by one query
STORED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Mail:
    """What emails are written and sent with."""

    composer: Composer
    mailer: Mailer


@asynccontextmanager
async def open_mail(
    settings: Settings, database: Database, clock: Clock
) -> AsyncGenerator[Mail | None]:
    """Build it, and close its clients in the end; None where email is not configured."""
    if not settings.email_configured:
        yield None
        return
    keys = settings.encryption_keys
    async with AsyncExitStack() as stack:
        providers: list[Provider] = []
        if settings.resend_api_key is not None or settings.uses_sandbox_mail:
            client = await stack.enter_async_context(
                httpx.AsyncClient(
                    verify=public_authorities(),
                    # Critical letters have as many places again.
                    limits=httpx.Limits(max_connections=2 * PLACES),
                    follow_redirects=False,
                )
            )
            providers.append(ResendProvider(settings, client, clock))
        if settings.smtp_url is not None:
            smtp = SmtpProvider(settings, settings.smtp_url, clock)
            providers.append(await stack.enter_async_context(smtp))
        store = RequestStore(database, Cipher(keys))
        requests = await stack.enter_async_context(SharedRequests(store))
        mailer = await stack.enter_async_context(
            ProviderMailer(settings, providers, requests, clock)
        )
        yield Mail(Composer(settings, EmailTokens(keys)), mailer)


class SharedRequests:
    """The store of requests, where those who ask at the same time share a query.

    Use it as an asynchronous context manager.
    """

    def __init__(self, store: RequestStore) -> None:
        self._store = store
        self._found = Coalescer[UUID, OpenRequest | None](store.find, limit=AT_ONCE)
        self._kept = Coalescer[NewRequest, None](store.keep, limit=STORED_AT_ONCE)
        self._forgotten = Coalescer[UUID, None](store.forget, limit=AT_ONCE)

    async def __aenter__(self) -> Self:
        for coalescer in (self._found, self._kept, self._forgotten):
            await coalescer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for coalescer in (self._forgotten, self._kept, self._found):
            await coalescer.__aexit__(kind, error, trace)

    async def find(self, letter_id: UUID) -> OpenRequest | None:
        """The request that a letter is in."""
        return await self._found.submit(letter_id)

    async def keep(self, request: NewRequest) -> None:
        """Store a request, and where its letters' links lead; raises `AlreadyOpen`."""
        await self._kept.submit(request)

    async def forget(self, request_id: UUID) -> None:
        """Forget a request that took no effect."""
        await self._forgotten.submit(request_id)

    def unseal(self, request: OpenRequest) -> bytes:
        """Its payload; raises `DecryptionFailed`."""
        return self._store.unseal(request)
