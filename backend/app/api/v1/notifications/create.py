"""Services post notifications here (REQ-003; requirements 5.1)."""

from fastapi import Response

from app.api.dependencies import CallingService, Context
from app.api.idempotency import IdempotencyKeyHeader, tell_if_repeated
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.pipeline.receipt import Receipt
from app.schemas.notification import CreateNotification, NotificationAccepted

router = v1_routes(prefix="/notifications", tags=["create"], route_class=JsonRoute)


@router.post("", status_code=202)
async def create_notification(
    wanted: CreateNotification,
    caller: CallingService,
    context: Context,
    key: IdempotencyKeyHeader,
    response: Response,
) -> NotificationAccepted:
    """Store a notification for one user; it is delivered from then on, whatever fails."""
    receipt = await context.notifications.create(caller.name, wanted, key)
    tell_if_repeated(response, is_repeated=receipt.is_repeated)
    return accepted(receipt)


def accepted(receipt: Receipt) -> NotificationAccepted:
    """The answer to a create call."""
    return NotificationAccepted(
        id=receipt.id,
        status="scheduled" if receipt.is_scheduled else "queued",
        channels=list(receipt.channels),
        created_at=receipt.created_at,
        masked=list(receipt.masked),
    )
