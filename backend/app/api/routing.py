"""Routers whose routes are complete, so that applications take them as they are.

What an application includes it would make anew, with all that describes it, at the first requests.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from app.api.errors import ErrorAnswer

PREFIX = "/api/v1"
EVERY_ERROR: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorAnswer, "description": "Fields that cannot be used, each with its path."},
    "default": {"model": ErrorAnswer, "description": "The error, with a stable code."},
}


def routes(prefix: str = "", **options: Any) -> APIRouter:
    """A router.

    Args:
        prefix: of all its paths.
        options: as `APIRouter` takes them.
    """
    return APIRouter(
        prefix=prefix,
        responses=EVERY_ERROR,
        generate_unique_id_function=_operation_id,
        **options,
    )


def v1_routes(prefix: str = "", **options: Any) -> APIRouter:
    """A router below `/api/v1`; arguments as for `routes`."""
    return routes(PREFIX + prefix, **options)


def take(app: FastAPI, *routers: APIRouter) -> None:
    """Serve the routes of routers, tried in this order."""
    for router in routers:
        app.router.routes.extend(router.routes)


def _operation_id(route: APIRoute) -> str:
    return route.name
