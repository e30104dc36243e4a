"""What tests and people do with Resend's webhooks: see them, cause them, repeat and spoil them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.errors import NotFound, Unavailable, ValidationFailed
from app.sandbox.mailbox import Mail, Mailbox
from app.sandbox.mime import write_message
from app.sandbox.resend.events import Bounce, EventType
from app.sandbox.resend.webhooks import Signature, State, Webhook, Webhooks

MAX_LISTED = 10_000
MAX_DELAY_SECONDS = 3600.0


class WantedEvent(BaseModel):
    """Something that is to have happened to a mail, and how its webhook is to arrive.

    `delay` is in seconds. `id` is the webhook's, of an earlier one for a repeat with another body.
    `timestamp_offset` is added to the seconds in `svix-timestamp`. `at` is the event's own time,
    for webhooks that overtake each other. `link` and `user_agent` are a click's.
    """

    model_config = ConfigDict(extra="forbid")

    type: EventType
    bounce: Bounce = "hard"
    to: Annotated[list[str], Field(min_length=1)] | None = None
    link: str | None = None
    user_agent: str | None = None
    at: AwareDatetime | None = None
    delay: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS)] = 0
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")] | None = None
    signature: Signature = "valid"
    timestamp_offset: Annotated[int, Field(ge=-(10**6), le=10**6)] = 0


class ShownAttempt(BaseModel):
    """One post: the status it was answered, or what went wrong."""

    at: str
    status: int | None
    error: str | None


class ShownWebhook(BaseModel):
    """A webhook as it stands; `body` is what is posted, as text."""

    id: str
    mail_id: str
    type: EventType
    state: State
    signature: Signature
    created_at: str
    attempts: list[ShownAttempt]
    body: str


class WebhookList(BaseModel):
    """Webhooks, and where they go; null when they are switched off."""

    address: str | None
    items: list[ShownWebhook]


def webhook_routes(mailbox: Mailbox, webhooks: Webhooks) -> APIRouter:
    """`/mails/{id}/events`, `/mails/{id}/source` and `/webhooks…`."""
    router = APIRouter()

    @router.get("/mails/{mail_id}/source")
    async def mail_source(mail_id: str) -> Response:
        mail = found(mail_id)
        source = mailbox.source(mail_id) or write_message(mail)
        return Response(source, media_type="text/plain; charset=utf-8")

    @router.get("/mails/{mail_id}/events")
    async def mail_events(mail_id: str) -> WebhookList:
        found(mail_id)
        return shown(webhooks.of_mail(mail_id))

    @router.post("/mails/{mail_id}/events", status_code=202)
    async def tell(mail_id: str, wanted: WantedEvent) -> ShownWebhook:
        mail = found(mail_id)
        if mail.via != "resend":
            raise ValidationFailed("Nobody tells what becomes of a mail that came over SMTP.")
        if webhooks.address is None:
            raise Unavailable("Webhooks are switched off.")
        webhook = webhooks.tell(
            mail,
            wanted.type,
            after=wanted.delay,
            webhook_id=wanted.id,
            signature=wanted.signature,
            seconds_ahead=wanted.timestamp_offset,
            at=wanted.at,
            to=wanted.to,
            bounce=wanted.bounce,
            link=wanted.link,
            user_agent=wanted.user_agent,
        )
        return _shown(webhook)

    @router.get("/webhooks")
    async def list_webhooks(
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> WebhookList:
        return shown(webhooks.newest(limit))

    @router.get("/webhooks/{webhook_id}")
    async def get_webhook(webhook_id: str) -> ShownWebhook:
        return _shown(known(webhook_id))

    @router.post("/webhooks/{webhook_id}/repeat", status_code=202)
    async def repeat(webhook_id: str) -> ShownWebhook:
        webhook = known(webhook_id)
        webhooks.repeat(webhook)
        return _shown(webhook)

    def found(mail_id: str) -> Mail:
        mail = mailbox.find(mail_id)
        if mail is None:
            raise NotFound("No mail has this id.")
        return mail

    def known(webhook_id: str) -> Webhook:
        webhook = webhooks.find(webhook_id)
        if webhook is None:
            raise NotFound("No webhook has this id.")
        return webhook

    def shown(listed: list[Webhook]) -> WebhookList:
        return WebhookList(address=webhooks.address, items=[_shown(item) for item in listed])

    _ = (mail_source, mail_events, tell, list_webhooks, get_webhook, repeat)
    return router


def _shown(webhook: Webhook) -> ShownWebhook:
    return ShownWebhook(
        id=webhook.id,
        mail_id=webhook.mail_id,
        type=webhook.type,
        state=webhook.state,
        signature=webhook.signature,
        created_at=webhook.created_at.isoformat(),
        attempts=[
            ShownAttempt(at=attempt.at.isoformat(), status=attempt.status, error=attempt.error)
            for attempt in webhook.attempts
        ],
        body=webhook.body.decode(),
    )
