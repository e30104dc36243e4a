"""The sandbox's application: providers, inspection and its pages behind one guard."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from app.config import ConfigurationError, Settings
from app.errors import NotifyError
from app.sandbox.device_pages import device_page_routes
from app.sandbox.faults import Faults
from app.sandbox.fcm import Phones, ServiceAccount, create_fcm, fcm_inspection_routes
from app.sandbox.guard import LoopbackGuard
from app.sandbox.inspection import Addresses, inspection_routes
from app.sandbox.journal import JournalInUse
from app.sandbox.mailbox import Clock, Mailbox, utc_now
from app.sandbox.pages import page_routes
from app.sandbox.push import Browsers, create_push, push_inspection_routes
from app.sandbox.resend import PAUSES, Webhooks, create_resend, webhook_routes
from app.sandbox.smtp import MailServer


def create_sandbox_app(
    settings: Settings,
    *,
    faults: Faults | None = None,
    clock: Clock = utc_now,
    smtp: socket.socket | None = None,
    webhooks_to: str | None = None,
    webhook_pauses: Sequence[float] = PAUSES,
) -> FastAPI:
    """The sandbox over `DATA_DIR/sandbox`, which it holds until its lifespan ends.

    Args:
        settings: say where data lies and that this is development.
        faults: the rules to begin with; none by default.
        clock: tells the time of arrivals and expiries.
        smtp: a listener, to take mail over SMTP as well.
        webhooks_to: where to post what becomes of mails; nowhere by default.
        webhook_pauses: seconds between attempts to post one.

    Raises:
        ConfigurationError: in production, or when another sandbox uses this directory.
    """
    require_development(settings)
    folder = settings.data_dir / "sandbox"
    try:
        mailbox = Mailbox(folder / "mail.jsonl", clock=clock)
        browsers = Browsers(folder / "push" / "push.jsonl", clock)
        phones = Phones(folder / "fcm" / "fcm.jsonl", clock)
    except JournalInUse:
        raise ConfigurationError("DATA_DIR: another sandbox is using it") from None
    account = ServiceAccount(folder / "fcm" / "service-account.pem", clock)
    faults = faults or Faults()
    webhooks = Webhooks(webhooks_to, _webhook_secret(settings), faults, clock, webhook_pauses)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with AsyncExitStack() as running:
            if smtp is not None:
                server = MailServer(mailbox, faults, clock)
                await running.enter_async_context(server.serving(smtp))
            await running.enter_async_context(_in_background(webhooks))
            yield
        mailbox.close()
        browsers.ledger.close()
        phones.ledger.close()

    app = FastAPI(title="notify sandbox", lifespan=lifespan, openapi_url=None)
    app.add_middleware(LoopbackGuard)
    app.add_exception_handler(NotifyError, _render)
    app.add_exception_handler(RequestValidationError, _render_invalid)
    app.include_router(page_routes(mailbox, faults, webhooks, images_from=_origin(settings)))
    app.include_router(webhook_routes(mailbox, webhooks))
    app.include_router(device_page_routes(browsers, phones, faults, clock))
    app.include_router(
        inspection_routes(
            mailbox,
            faults,
            _addresses(smtp, webhooks_to),
            webhooks.forget,
            browsers.ledger.reset,
            phones.ledger.reset,
        )
    )
    app.include_router(push_inspection_routes(browsers))
    app.include_router(fcm_inspection_routes(phones, account))
    app.mount("/push", create_push(browsers, faults, clock))
    app.mount("/fcm", create_fcm(phones, account, faults))
    app.mount("/resend", create_resend(mailbox, faults, clock, webhooks))
    return app


def require_development(settings: Settings) -> None:
    """Refuse to run where real users are.

    Raises:
        ConfigurationError: `APP_ENV` is not `development`.
    """
    if not settings.is_development:
        raise ConfigurationError("APP_ENV: the sandbox runs in development only")


@asynccontextmanager
async def _in_background(webhooks: Webhooks) -> AsyncGenerator[None]:
    posting = asyncio.create_task(webhooks.run())
    try:
        yield
    finally:
        posting.cancel()
        with suppress(asyncio.CancelledError):
            await posting


def _webhook_secret(settings: Settings) -> str:
    secret = settings.resend_webhook_secret
    return secret.get_secret_value() if secret else ""


def _addresses(smtp: socket.socket | None, webhooks_to: str | None) -> Addresses:
    if smtp is None:
        return Addresses(smtp=None, webhooks_to=webhooks_to)
    host, port = smtp.getsockname()
    return Addresses(smtp=f"smtp://{host}:{port}", webhooks_to=webhooks_to)


def _origin(settings: Settings) -> str:
    parts = urlsplit(settings.base_url)
    return f"{parts.scheme}://{parts.netloc}"


async def _render(_request: Request, error: Exception) -> Response:
    shown = cast(NotifyError, error)
    body = {"code": shown.code, "message": shown.message, "details": shown.details}
    return JSONResponse({"error": body}, status_code=shown.status, headers=shown.headers)


async def _render_invalid(_request: Request, error: Exception) -> Response:
    details = [
        {
            "path": ".".join(str(part) for part in found["loc"]),
            "code": found["type"],
            "message": found["msg"],
        }
        for found in cast(RequestValidationError, error).errors()
    ]
    body = {"code": "validation_error", "message": "Invalid request.", "details": details}
    return JSONResponse({"error": body}, status_code=422)
