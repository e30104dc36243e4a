"""All routes under /api/v1, static paths before those with parameters."""

from fastapi import APIRouter

from app.api.v1 import internal
from app.api.v1.notifications import create, inbox

router = APIRouter(prefix="/api/v1")
router.include_router(create.router)
router.include_router(inbox.router)
router.include_router(internal.router)
