"""The web programs: the API with the page and the socket path, and the gateway alone."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from app.api.context import AppContext
from app.api.dependencies import SECURITY_SCHEMES
from app.api.errors import install_error_handlers
from app.api.health import router as health_router
from app.api.limit_headers import LIMIT_HEADERS
from app.api.metrics import router as metrics_router
from app.api.middleware import CORRELATION_HEADER, BodyLimit, RequestContext
from app.api.routing import take
from app.api.v1.notifications.websocket import SocketShortcut
from app.api.v1.notifications.websocket import router as websocket_router
from app.api.v1.router import ROUTERS
from app.channels.fcm import open_fcm
from app.collector import leave_startup_alone
from app.config import Settings
from app.db.database import Database
from app.pipeline.announce import Announcer
from app.pipeline.callbacks import callback_queue
from app.pipeline.commit import GroupCommit
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Clock, utc_now
from app.pipeline.doorbell import StreamBroker, StreamDoorbell
from app.pipeline.keyring import Keyring
from app.pipeline.templates import Templates
from app.ratelimit.global_limit import GlobalLimit
from app.ratelimit.queue_bound import QueueBound
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.realtime.gateway import Gateway
from app.rendering.fair import FairRenderer
from app.security.ack_tokens import AckTokens
from app.security.address_rules import AddressRules
from app.security.email_tokens import EmailTokens
from app.security.encryption import Cipher
from app.security.jwt import TokenVerifier
from app.security.outbound import Outbound
from app.serve import serve
from app.services.action_service import ActionService
from app.services.batch_service import BatchService
from app.services.callback_service import CallbackService
from app.services.cancel_service import CancelService
from app.services.choice_changes import ChoiceChanges
from app.services.dead_letter_service import DeadLetterService
from app.services.demo_service import (
    choose_instant_email,
    seed_demo_users,
    subscribe_demo_devices,
)
from app.services.email_event_service import EmailEventService
from app.services.email_tracking_service import EmailTrackingService
from app.services.explain_service import ExplainService
from app.services.inbox_changes import InboxChanges
from app.services.inbox_commands import InboxCommands
from app.services.inbox_service import InboxService
from app.services.notification_service import NotificationService
from app.services.preference_service import PreferenceService
from app.services.push_service import PushService
from app.services.receipt_service import ReceiptService
from app.services.settings_service import SettingsService
from app.services.subscription_counts import SubscriptionCounts
from app.services.template_service import TemplateService
from app.services.trace_service import TraceService
from app.services.unsubscribe_service import UnsubscribeService
from app.services.user_service import UserService
from app.services.wording import Wording

MAX_BODY_BYTES = 1024 * 1024
PAGE = Path(__file__).parents[2] / "frontend" / "app" / "dist"
PATHS_OF_PAGE = ("/", "/preferences")
VERSION = "0.1.0"
Background = Callable[[AppContext], Coroutine[Any, Any, None]]
COMMON_ROUTERS = (health_router, metrics_router, websocket_router)


class Application(FastAPI):
    """FastAPI, which is told of the credentials that are read from requests directly."""

    def openapi(self) -> dict[str, Any]:
        """The API's description."""
        schema = super().openapi()
        schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
        return schema


@asynccontextmanager
async def open_context(settings: Settings, clock: Clock) -> AsyncGenerator[AppContext]:
    """Build what requests need, and close it when the program ends."""
    async with AsyncExitStack() as stack:
        database = Database(settings)
        stack.push_async_callback(database.close)
        redis = redis_client(settings)
        stack.push_async_callback(redis.aclose)
        broker = StreamBroker(redis_url(settings))
        stack.push_async_callback(broker.shutdown)
        backplane = Backplane(redis)
        announcer = await stack.enter_async_context(Announcer(backplane, StreamDoorbell(broker)))
        defaults = Defaults.from_settings(settings)
        audience = Audience(defaults)
        limit = GlobalLimit(settings, database, clock)
        bound = await stack.enter_async_context(
            QueueBound(settings.notification_queue_size, database, clock)
        )
        groups = await stack.enter_async_context(GroupCommit(database, announcer, audience, bound))
        renderer = await stack.enter_async_context(FairRenderer())
        templates = await stack.enter_async_context(Templates(database))
        wording = Wording(templates, renderer, settings.default_timezone.key)
        tokens = TokenVerifier(settings)
        await stack.enter_async_context(tokens.running())
        changes = InboxChanges(database, announcer.announce, clock)
        rules = AddressRules.from_settings(settings)
        outbound = await stack.enter_async_context(Outbound(rules))
        queue = callback_queue(settings, database, outbound, clock)
        actions = await stack.enter_async_context(ActionService(database, changes, queue))
        inbox = InboxService(database, settings, changes.expire)
        commands = InboxCommands(changes, at_once=max(1, settings.database_pool_size // 2))
        keys = settings.encryption_keys
        fcm = await stack.enter_async_context(open_fcm(settings, clock))
        validate = None if fcm is None else fcm.validate
        push = PushService(database, keys, outbound, validate, announcer.announce, clock)
        choices = ChoiceChanges(database, defaults, announcer.announce, clock)
        preferences = PreferenceService(database, choices, defaults.preferences, clock)
        letters = EmailTokens(keys)
        own_links = f"{settings.base_url}/api/v1/email/"
        gateway = Gateway(settings, tokens, inbox, commands=commands.by_type())
        await stack.enter_async_context(gateway.running(backplane))
        yield AppContext(
            settings=settings,
            database=database,
            redis=redis,
            tokens=tokens,
            gateway=gateway,
            notifications=NotificationService(groups, wording, clock),
            batches=BatchService(settings, database, announcer, wording, limit, bound, clock),
            global_limit=limit,
            inbox=inbox,
            changes=changes,
            actions=actions,
            callbacks=CallbackService(database, Cipher(keys), rules, clock),
            users=UserService(database, defaults, clock),
            email_events=EmailEventService(database, settings.webhook_secrets, own_links, clock),
            tracking=EmailTrackingService(database, letters, clock),
            unsubscribing=UnsubscribeService(database, letters, preferences),
            preferences=preferences,
            user_settings=SettingsService(database, choices, clock),
            dead_letters=DeadLetterService(settings, database, announcer.announce, clock),
            cancellation=CancelService(database, clock),
            keyring=Keyring(settings, database, clock),
            push=push,
            receipts=ReceiptService(database, AckTokens(keys), changes, clock),
            subscription_counts=SubscriptionCounts(database),
            explaining=ExplainService(database, audience, wording, clock),
            traces=TraceService(database),
            templates=TemplateService(settings, database, renderer, clock),
        )


def create_app(
    settings: Settings, clock: Clock = utc_now, beside: Background | None = None
) -> FastAPI:
    """The API, the page and the socket path.

    Args:
        settings: with both URLs filled in.
        clock: the present instant; injected so that time can be driven.
        beside: what runs while requests are served, until it ends or they do.
    """
    app = _bare_app(settings, clock, beside)
    take(app, *ROUTERS, *COMMON_ROUTERS)
    if settings.is_development:
        from app.api.demo import router as demo_router  # noqa: PLC0415 -- absent in production

        take(app, demo_router)
    if PAGE.is_dir():
        app.mount("/assets", StaticFiles(directory=PAGE / "assets"), name="assets")
        for path in PATHS_OF_PAGE:
            app.add_api_route(path, _page, include_in_schema=False)
        app.add_api_route("/sw.js", _service_worker, include_in_schema=False)
    return app


async def _page() -> FileResponse:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def _service_worker() -> FileResponse:
    path, headers = PAGE / "sw.js", {"Cache-Control": "no-cache"}
    return FileResponse(path, headers=headers, media_type="text/javascript")


def create_gateway_app(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    """The socket path and the health routes."""
    app = _bare_app(settings, clock)
    take(app, *COMMON_ROUTERS)
    return app


def _bare_app(settings: Settings, clock: Clock, beside: Background | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_context(settings, clock) as context:
            app.state.context = context
            app.state.gateway = context.gateway
            async with _running(beside, context):
                yield

    app = Application(
        title="notify",
        version=VERSION,
        summary="Notifications that lose nothing and explain every decision.",
        lifespan=lifespan,
        redoc_url=None,
    )
    install_error_handlers(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", CORRELATION_HEADER],
            expose_headers=[CORRELATION_HEADER, "Retry-After", *LIMIT_HEADERS],
        )
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    app.add_middleware(RequestContext)
    return app


@asynccontextmanager
async def _running(work: Background | None, context: AppContext) -> AsyncGenerator[None]:
    if work is None:
        yield
        return
    task = asyncio.create_task(work(context))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _equip_demo(context: AppContext) -> None:
    await choose_instant_email(context.preferences)
    await subscribe_demo_devices(context.settings.sandbox_url, context.keyring, context.push)


async def run_api(settings: Settings) -> None:
    """Serve the API until SIGTERM or SIGINT."""
    if settings.is_development:
        database = Database(settings)
        try:
            await seed_demo_users(database, Defaults.from_settings(settings))
        finally:
            await database.close()
    beside = _equip_demo if settings.is_development else None
    app = create_app(settings, beside=beside)
    await _serve(app, settings.api_host, settings.api_port)


async def run_gateway(settings: Settings) -> None:
    """Serve the socket path until SIGTERM or SIGINT."""
    app = create_gateway_app(settings)
    await _serve(app, settings.gateway_host, settings.ws_port)


async def _serve(app: FastAPI, host: str, port: int) -> None:
    async def drain() -> None:
        # The lifespan, which has not run yet, makes the gateway.
        await app.state.gateway.drain()

    leave_startup_alone()
    await serve(SocketShortcut(app), host, port, drain=drain)
