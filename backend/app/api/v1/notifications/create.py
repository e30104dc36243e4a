"""Services post notifications here (REQ-003, REQ-005; requirements 5.1)."""

from uuid import UUID

from fastapi import APIRouter

from app.api.dependencies import CallingService, Context, ServiceOrOperator
from app.api.json_body import JsonRoute
from app.pipeline.enqueue import Prepared
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
    wanted: CreateNotification, caller: CallingService, context: Context
) -> NotificationAccepted:
    """Store a notification for one user; it is delivered from then on, whatever fails."""
    return accepted(await context.notifications.create(caller.name, wanted))


def accepted(prepared: Prepared) -> NotificationAccepted:
    """The answer to a create call."""
    return NotificationAccepted(
        id=prepared.draft.id,
        status="scheduled" if prepared.is_scheduled else "queued",
        channels=prepared.channels,
        created_at=prepared.draft.created_at,
    )


@router.post("/bulk", status_code=202)
async def create_batch(
    wanted: CreateBatch, caller: CallingService, context: Context
) -> BatchAccepted:
    """Store one notification for many users; workers expand it."""
    return await context.notifications.create_batch(caller.name, wanted)


@router.get("/bulk/{batch_id}")
async def batch_status(batch_id: UUID, caller: ServiceOrOperator, context: Context) -> BatchStatus:
    """How far a batch is, in recipients."""
    return await context.notifications.batch_status(
        batch_id, service=None if caller.is_operator else caller.name
    )
