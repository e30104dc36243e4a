"""Operators look after what failed for good here (section 8.4)."""

from typing import Annotated
from uuid import UUID

from fastapi import Query

from app.api.dependencies import Context, Operator
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.policy.kinds import Channel, Reason
from app.schemas.delivery import (
    DeadLetterPage,
    RetriedDeadLetter,
    RetriedDeadLetters,
    RetryDeadLetters,
)
from app.services.dead_letter_service import Filter

router = v1_routes(prefix="/internal/dead-letters", tags=["operations"], route_class=JsonRoute)


@router.get("")
async def list_dead_letters(
    caller: Operator,
    context: Context,
    channel: Channel | None = None,
    reason: Reason | None = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Items per page.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=512, description="`next_cursor` of a page.")
    ] = None,
) -> DeadLetterPage:
    """Deliveries that failed for good, newest failure first."""
    wanted = Filter(channel=channel, reason=reason)
    return await context.dead_letters.page(wanted, limit=limit, cursor=cursor)


@router.post("/retry", status_code=202)
async def retry_dead_letters(
    wanted: RetryDeadLetters, caller: Operator, context: Context
) -> RetriedDeadLetters:
    """Put dead letters into the queue again, oldest failure first, at most 1,000."""
    chosen = Filter(
        ids=None if wanted.ids is None else tuple(wanted.ids),
        channel=wanted.channel,
        reason=wanted.reason,
        before=wanted.before,
    )
    return RetriedDeadLetters(retried=await context.dead_letters.retry_all(chosen, by=caller.name))


@router.post("/{delivery_id}/retry", status_code=202)
async def retry_dead_letter(
    delivery_id: UUID, caller: Operator, context: Context
) -> RetriedDeadLetter:
    """Put one into the queue again; when it was retried before, its state is answered."""
    return await context.dead_letters.retry(delivery_id, by=caller.name)
