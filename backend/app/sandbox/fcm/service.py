"""FCM as senders meet it: `POST /token` and `POST /v1/projects/{project}/messages:send`."""

from typing import cast
from urllib.parse import parse_qs
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from app.sandbox.fault_gate import LOST
from app.sandbox.fcm.accounts import PROJECT, TOKEN_LIFETIME, ServiceAccount
from app.sandbox.fcm.errors import PERMISSION_DENIED, FcmRefused, OAuthRefused
from app.sandbox.fcm.message import check_size, parse_request
from app.sandbox.fcm.phones import Phone, Phones

# What FCM calls every message that it only checks.
CHECKED = f"projects/{PROJECT}/messages/fake_message_id"


def fcm_service(phones: Phones, account: ServiceAccount) -> FastAPI:
    """The routes over the books; every error has Google's shape."""
    app = FastAPI(openapi_url=None)

    @app.post("/token")
    async def exchange(request: Request) -> Response:
        form = parse_qs((await request.body()).decode(errors="replace"))
        token = account.exchange(
            form.get("grant_type", [""])[0],
            form.get("assertion", [""])[0],
            token_uri=token_uri(request),
        )
        lifetime = int(TOKEN_LIFETIME.total_seconds())
        return JSONResponse({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})

    @app.post("/v1/projects/{project}/messages:send")
    async def send(project: str, request: Request) -> Response:
        account.check(request.headers.get("authorization"))
        if project != PROJECT:
            message = (
                "Permission 'cloudmessaging.messages.create' denied on resource "
                f"'//cloudresourcemanager.googleapis.com/projects/{project}' (or it may not exist)."
            )
            raise FcmRefused(403, PERMISSION_DENIED, message)
        asked, message = parse_request(await request.body())
        phone = _registered(phones, asked.message.token or "")
        check_size(message, phone.platform)
        name = CHECKED if asked.validate_only else f"projects/{PROJECT}/messages/{uuid4()}"
        if not getattr(request.state, LOST, False):
            phones.accept(phone, message, name=name, validate_only=asked.validate_only)
        return JSONResponse({"name": name})

    @app.exception_handler(FcmRefused)
    async def refused(_request: Request, error: Exception) -> Response:
        return cast(FcmRefused, error).response()

    @app.exception_handler(OAuthRefused)
    async def not_granted(_request: Request, error: Exception) -> Response:
        return cast(OAuthRefused, error).response()

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: Exception) -> Response:
        status = cast(HTTPException, error).status_code
        return FcmRefused(status, None, "The requested URL was not found.").response()

    _ = (exchange, send, refused, not_granted, no_such_route)
    return app


def token_uri(request: Request) -> str:
    """The token address under the name this request came to."""
    return f"http://{request.headers['host']}/fcm/token"


def _registered(phones: Phones, token: str) -> Phone:
    phone = phones.ledger.device_at(token)
    if phone is not None:
        return phone
    if phones.ledger.is_gone(token):
        raise FcmRefused(404, "UNREGISTERED")
    text = "The registration token is not a valid FCM registration token"
    violation = ("message.token", "Invalid registration token")
    raise FcmRefused(400, "INVALID_ARGUMENT", text, [violation])
