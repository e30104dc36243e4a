"""Routes of internal services (requirements 5.5)."""

from uuid import UUID

from fastapi import Response

from app.api.dependencies import Context, InternalCaller
from app.api.idempotency import IdempotencyKeyHeader, tell_if_repeated
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.schemas.delivery import CancelledNotification
from app.schemas.notification import CreateNotification, SendAccepted
from app.schemas.user import StoredUser, UpsertUser

router = v1_routes(prefix="/internal", tags=["internal"], route_class=JsonRoute)


@router.post("/notifications/send", status_code=202)
async def send_notification(
    wanted: CreateNotification,
    caller: InternalCaller,
    context: Context,
    key: IdempotencyKeyHeader,
    response: Response,
) -> SendAccepted:
    """Store a notification for one user; it is delivered from then on, whatever fails."""
    receipt = await context.notifications.create(caller.name, wanted, key)
    tell_if_repeated(response, is_repeated=receipt.is_repeated)
    return SendAccepted(
        notification_id=receipt.id,
        status="scheduled" if receipt.is_scheduled else "queued",
        masked=list(receipt.masked),
    )


@router.delete("/notifications/{notification_id}")
async def cancel_notification(
    notification_id: UUID, caller: InternalCaller, context: Context
) -> CancelledNotification:
    """Cancel what has not been delivered; what was stays, in the inbox too."""
    return await context.cancellation.cancel(notification_id, by=caller.name)


@router.put("/users/{user_id}")
async def upsert_user(
    user_id: UUID, wanted: UpsertUser, caller: InternalCaller, context: Context
) -> StoredUser:
    """Report a user's address, name, timezone, language and attributes."""
    return await context.users.upsert(user_id, wanted)
