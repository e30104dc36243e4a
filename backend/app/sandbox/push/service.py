"""The push service as senders meet it: `POST /{device}` (RFC 8030, 5; RFC 8291, 4; RFC 8292)."""

import re
from typing import cast

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from app.sandbox.fault_gate import LOST
from app.sandbox.mailbox import Clock
from app.sandbox.push.base64url import decoded
from app.sandbox.push.browsers import MAX_TTL, Browser, Browsers, SentBy, SentHeaders
from app.sandbox.push.encryption import MAX_BODY, opened
from app.sandbox.push.errors import PushRefused
from app.sandbox.push.vapid import verified_sender

_URGENCIES = {"very-low", "low", "normal", "high"}
_TTL = re.compile(r"[0-9]{1,10}")
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")


def push_service(browsers: Browsers, clock: Clock) -> FastAPI:
    """The route over the books; it answers 201 with `Location`, or why it does not."""
    app = FastAPI(openapi_url=None)

    @app.post("/{device}")
    async def send(device: str, request: Request) -> Response:
        browser = _subscribed(browsers, device)
        headers = _headers(request)
        vapid = verified_sender(
            request.headers.get("authorization"),
            origin=origin(request),
            application_server_key=_server_key(browser),
            now=clock(),
        )
        body = await request.body()
        if len(body) > MAX_BODY:
            raise PushRefused(413)
        plaintext = opened(body, private_key=browser.key, auth=decoded(browser.auth))
        message = browsers.accept(
            browser,
            endpoint=f"{origin(request)}/push/{device}",
            headers=headers,
            vapid=SentBy(key=vapid.key, claims=vapid.claims),
            payload=_payload(plaintext),
            size=len(body),
            keep=not getattr(request.state, LOST, False),
        )
        kept_for = min(int(headers.TTL), int(MAX_TTL.total_seconds()))
        location = f"{origin(request)}/push/messages/{message.id}"
        return Response(status_code=201, headers={"location": location, "ttl": str(kept_for)})

    @app.exception_handler(PushRefused)
    async def refused(_request: Request, error: Exception) -> Response:
        return cast(PushRefused, error).response()

    @app.exception_handler(HTTPException)
    async def no_such_route(_request: Request, error: Exception) -> Response:
        return PushRefused(cast(HTTPException, error).status_code).response()

    _ = (send, refused, no_such_route)
    return app


def origin(request: Request) -> str:
    """The origin this request came to, such as `http://127.0.0.1:8025`."""
    return f"http://{request.headers['host']}"


def _subscribed(browsers: Browsers, device: str) -> Browser:
    browser = browsers.ledger.device_at(device)
    if browser is None:
        raise PushRefused(410 if browsers.ledger.is_gone(device) else 404)
    return browser


def _server_key(browser: Browser) -> bytes | None:
    key = browser.application_server_key
    return None if key is None else decoded(key)


def _headers(request: Request) -> SentHeaders:
    ttl = request.headers.get("ttl")
    if ttl is None or _TTL.fullmatch(ttl) is None:
        raise PushRefused(400, "BadTtl", "TTL must be there, and a number of seconds.")
    if request.headers.get("content-encoding") != "aes128gcm":
        raise PushRefused(400, "BadContentEncoding", "Content-Encoding must be aes128gcm.")
    urgency = request.headers.get("urgency")
    if urgency is not None and urgency not in _URGENCIES:
        raise PushRefused(400, "BadUrgency", "Urgency must be very-low, low, normal or high.")
    topic = request.headers.get("topic")
    if topic is not None and _TOPIC.fullmatch(topic) is None:
        message = "Topic must have 1 to 32 characters of the URL-safe base64 alphabet."
        raise PushRefused(400, "BadTopic", message)
    return SentHeaders(TTL=ttl, Urgency=urgency, Topic=topic)


def _payload(plaintext: bytes) -> object:
    try:
        return orjson.loads(plaintext)
    except orjson.JSONDecodeError:
        return plaintext.decode(errors="replace")
