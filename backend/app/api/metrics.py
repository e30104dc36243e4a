"""Metrics for Prometheus (outside /api)."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.dependencies import Context, operator
from app.loopback import is_loopback
from app.observability.metrics import exposition

router = APIRouter(tags=["health"])


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, context: Context) -> Response:
    """Metrics of this process; for loopback, or an operator."""
    if request.client is None or not is_loopback(request.client.host):
        await operator(request)
    content = exposition(await context.subscription_counts.read())
    return Response(content, media_type=CONTENT_TYPE_LATEST)
