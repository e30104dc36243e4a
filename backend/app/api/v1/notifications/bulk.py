"""One notification for many users (REQ-005, REQ-023; requirements 5.1)."""

from uuid import UUID

from fastapi import Response

from app.api.dependencies import Context, ServiceOrOperator
from app.api.idempotency import IdempotencyKeyHeader, tell_if_repeated
from app.api.limit_headers import LimitedRoute
from app.api.routing import v1_routes
from app.errors import Forbidden
from app.schemas.notification import BatchAccepted, BatchStatus, CreateBatch

router = v1_routes(prefix="/notifications/bulk", tags=["create"], route_class=LimitedRoute)


@router.post("", status_code=202)
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


@router.get("/{batch_id}")
async def batch_status(batch_id: UUID, caller: ServiceOrOperator, context: Context) -> BatchStatus:
    """How far a batch is, in recipients."""
    return await context.batches.status(
        batch_id, service=None if caller.is_operator else caller.name
    )
