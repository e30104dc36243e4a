"""The sandbox's application: providers, inspection and its pages behind one guard."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse

from app.config import ConfigurationError, Settings
from app.errors import NotifyError
from app.sandbox.device_pages import device_page_routes
from app.sandbox.faults import Faults
from app.sandbox.fcm import Phones, ServiceAccount, create_fcm, fcm_inspection_routes
from app.sandbox.guard import LoopbackGuard
from app.sandbox.inspection import inspection_routes
from app.sandbox.journal import JournalInUse
from app.sandbox.mailbox import Clock, Mailbox, utc_now
from app.sandbox.pages import page_routes
from app.sandbox.push import Browsers, create_push, push_inspection_routes
from app.sandbox.resend import create_resend


def create_sandbox_app(
    settings: Settings, *, faults: Faults | None = None, clock: Clock = utc_now
) -> FastAPI:
    """The sandbox over `DATA_DIR/sandbox`, which it holds until its lifespan ends.

    Args:
        settings: say where data lies and that this is development.
        faults: the rules to begin with; none by default.
        clock: tells the time of arrivals and expiries.

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

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        mailbox.close()
        browsers.ledger.close()
        phones.ledger.close()

    app = FastAPI(title="notify sandbox", lifespan=lifespan, openapi_url=None)
    app.add_middleware(LoopbackGuard)
    app.add_exception_handler(NotifyError, _render)
    app.add_exception_handler(RequestValidationError, _render_invalid)
    app.include_router(page_routes(mailbox, faults))
    app.include_router(device_page_routes(browsers, phones, faults, clock))
    app.include_router(
        inspection_routes(mailbox, faults, browsers.ledger.reset, phones.ledger.reset)
    )
    app.include_router(push_inspection_routes(browsers))
    app.include_router(fcm_inspection_routes(phones, account))
    app.mount("/push", create_push(browsers, faults, clock))
    app.mount("/fcm", create_fcm(phones, account, faults))
    app.mount("/resend", create_resend(mailbox, faults, clock))
    return app


def require_development(settings: Settings) -> None:
    """Refuse to run where real users are.

    Raises:
        ConfigurationError: `APP_ENV` is not `development`.
    """
    if not settings.is_development:
        raise ConfigurationError("APP_ENV: the sandbox runs in development only")


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
