"""What email providers post back (REQ-014)."""

from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.dependencies import WEBHOOK, Context
from app.api.json_body import JsonRoute, MalformedBody, parse
from app.api.routing import v1_routes
from app.errors import ErrorDetail, ValidationFailed
from app.schemas.webhook import ResendEvent, WebhookAnswer

DOCUMENTED: Final[dict[str, Any]] = {
    "security": [WEBHOOK],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ResendEvent.model_json_schema()}},
    },
}

router = v1_routes(prefix="/webhooks", tags=["webhooks"], route_class=JsonRoute)


@router.post("/resend", openapi_extra=DOCUMENTED)
async def resend_webhook(request: Request, context: Context) -> WebhookAnswer:
    """What became of an email, signed by Resend (as Standard Webhooks, or Svix, has it).

    A repetition has no effect, nor has what is unknown: another event, somebody else's email.

    Raises:
        Unavailable: no secret is configured; Resend tries again for a day.
        InvalidSignature: not Resend's, or more than five minutes old or early.
        ValidationFailed: signed, and no event.
    """
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400) from None  # which nobody reads
    message_id = context.email_events.message_id(request.headers, body)
    await context.email_events.receive(message_id, _event(body))
    return WebhookAnswer()


def _event(body: bytes) -> ResendEvent:
    value = parse(body)
    if isinstance(value, MalformedBody):
        raise ValidationFailed(details=[value.detail])
    try:
        return ResendEvent.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise ValidationFailed(
            details=[
                ErrorDetail(
                    path=".".join(str(part) for part in item["loc"]),
                    code=item["type"],
                    message=item["msg"],
                )
                for item in problems[:20]
            ]
        ) from None
