"""What watches the program asks (outside /api): liveness, readiness, metrics."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from app.api.dependencies import Context, operator
from app.errors import Unavailable
from app.loopback import is_loopback
from app.realtime.connection import REDIS_FAULTS

router = APIRouter(tags=["health"])

PROBE_SECONDS = 1.0


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and what is missing."""

    status: Literal["ready", "degraded"]
    degraded: bool
    reasons: list[str]


@router.get("/healthz")
async def liveness() -> Liveness:
    """The process is alive."""
    return Liveness()


@router.get("/readyz")
async def readiness(context: Context) -> Readiness:
    """200 while PostgreSQL answers; without Redis it is degraded, and still ready."""
    if not await context.database.is_reachable():
        raise Unavailable("PostgreSQL cannot be reached.")
    reasons: list[str] = []
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await context.redis.ping()
    except REDIS_FAULTS:
        reasons.append("redis_unavailable")
    status = "degraded" if reasons else "ready"
    return Readiness(status=status, degraded=bool(reasons), reasons=reasons)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Prometheus metrics of this process; for loopback, or an operator."""
    if request.client is None or not is_loopback(request.client.host):
        await operator(request)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
