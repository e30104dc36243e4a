"""Users click a notification's actions here (REQ-013)."""

from typing import Annotated
from uuid import UUID

from fastapi import Path

from app.api.dependencies import Context, CurrentUser
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.schemas.actions import ACTION_NAME
from app.schemas.callback import ClickedAction

router = v1_routes(prefix="/notifications", tags=["actions"], route_class=JsonRoute)

# A name, or the place of a button among the notification's actions.
NAME_OR_INDEX = rf"{ACTION_NAME}|^[0-9]{{1,4}}$"


@router.post("/{notification_id}/actions/{action}")
async def click_action(
    notification_id: UUID,
    action: Annotated[
        str,
        Path(
            pattern=NAME_OR_INDEX,
            description="Name of one of the notification's actions, `read` or `dismiss`; for a "
            "button that leads to an address its index, from 0.",
            examples=["accept"],
        ),
    ],
    user_id: CurrentUser,
    context: Context,
) -> ClickedAction:
    """Run an action once, and mark the notification read; a repeat answers what came of it."""
    return await context.actions.click(user_id, notification_id, action)
