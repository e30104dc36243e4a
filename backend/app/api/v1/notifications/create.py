"""Services post notifications here (REQ-003, REQ-005; requirements 5.1)."""

from uuid import UUID

from fastapi import APIRouter, Response

from app.api.dependencies import CallingService, Context, ServiceOrOperator
from app.api.idempotency import IdempotencyKeyHeader, tell_if_repeated
from app.api.json_body import JsonRoute
from app.errors import Forbidden
from app.pipeline.receipt import Receipt
from app.schemas.notification import (
    BatchAccepted,
    BatchStatus,
    CreateBatch,
    CreateNotification,
    NotificationAccepted,
)

router = APIRouter(prefix="/notifications", tags=["create"], route_class=JsonRoute)


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


@router.post("/bulk", status_code=202)
async def create_batch(
    wanted: CreateBatch,
    caller: ServiceOrOperator,
    context: Context,
    key: IdempotencyKeyHeader,
    response: Response,
) -> BatchAccepted:
    """Store one notification for many users; workers expand it."""
    if wanted.override and not caller.is_operator:
        raise Forbidden("Only operators may override.")
    stored = await context.batches.create(caller.name, wanted, key)
    tell_if_repeated(response, is_repeated=stored.is_repeated)
    return BatchAccepted(
        batch_id=stored.id,
        recipient_count=stored.recipient_count,
        status="processing" if stored.recipient_count else "completed",
        masked=list(stored.masked),
    )


@router.get("/bulk/{batch_id}")
async def batch_status(batch_id: UUID, caller: ServiceOrOperator, context: Context) -> BatchStatus:
    """How far a batch is, in recipients."""
    return await context.batches.status(
        batch_id, service=None if caller.is_operator else caller.name
    )
