"""Services register here where clicks on their actions are posted (REQ-013)."""

from typing import Annotated

from fastapi import Path

from app.api.dependencies import Context, InternalCaller
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.schemas.actions import ACTION_NAME
from app.schemas.callback import ActionCallback, PutActionCallback

router = v1_routes(
    prefix="/internal/action-callbacks", tags=["action callbacks"], route_class=JsonRoute
)

Name = Annotated[
    str, Path(pattern=ACTION_NAME, description="The action's name.", examples=["accept"])
]


@router.put("/{name}")
async def put_action_callback(
    name: Name, wanted: PutActionCallback, caller: InternalCaller, context: Context
) -> ActionCallback:
    """Post clicks on the action there from now on; the secret is made once and then kept."""
    return await context.callbacks.put(name, wanted.url)


@router.get("/{name}")
async def get_action_callback(
    name: Name, caller: InternalCaller, context: Context
) -> ActionCallback:
    """Where clicks on the action are posted."""
    return await context.callbacks.get(name)


@router.delete("/{name}", status_code=204)
async def delete_action_callback(name: Name, caller: InternalCaller, context: Context) -> None:
    """Post them no more; calls that were not answered yet are given up."""
    await context.callbacks.delete(name)
