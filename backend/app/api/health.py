"""What watches the program asks (outside /api): liveness and readiness."""

import asyncio
from typing import Literal

from pydantic import BaseModel

from app.api.dependencies import Context
from app.api.routing import routes
from app.errors import Unavailable
from app.realtime.connection import REDIS_FAULTS

router = routes(tags=["health"])

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
