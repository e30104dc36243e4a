"""What would happen, and what happened, with the reasons (REQ-002, REQ-017; the contract)."""

from uuid import UUID

from app.api.dependencies import Context, CurrentUser, InternalCaller, UserOrOperator
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.schemas.explain import Explanation, PreviewPreferences, Trace
from app.schemas.notification import CreateNotification

router = v1_routes(tags=["explaining"], route_class=JsonRoute)


@router.post("/internal/notifications/explain")
async def explain_notification(
    wanted: CreateNotification, caller: InternalCaller, context: Context
) -> Explanation:
    """What creating this notification would decide now, channel by channel; stores nothing."""
    return await context.explaining.explain(wanted)


@router.post("/notifications/preferences/preview")
async def preview_preferences(
    wanted: PreviewPreferences, user_id: CurrentUser, context: Context
) -> Explanation:
    """What would happen to such a notification for the user now, and why; stores nothing."""
    return await context.explaining.preview(user_id, wanted)


@router.get("/notifications/{notification_id}/trace")
async def trace_notification(
    notification_id: UUID, seen_by: UserOrOperator, context: Context
) -> Trace:
    """All that was decided and has happened, with the reasons; operators see any user's."""
    return await context.traces.trace(notification_id, seen_by=seen_by)
