"""Metrics for Prometheus (outside /api)."""

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.dependencies import Context, operator
from app.api.routing import routes
from app.loopback import is_loopback
from app.observability.metrics import exposition

router = routes(tags=["health"])

# What comes through a proxy on this machine looks local; one of these tells that it is not.
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, context: Context) -> Response:
    """Metrics of this process; for loopback, or an operator."""
    if not _is_local(request):
        await operator(request)
    content = exposition(await context.subscription_counts.read())
    return Response(content, media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    return is_loopback(request.client.host)
