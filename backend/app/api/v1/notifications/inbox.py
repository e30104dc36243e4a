"""The notification center's reads (REQ-011; requirements 5.1)."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.api.dependencies import Context, CurrentUser
from app.api.json_body import JsonRoute
from app.policy.kinds import NotificationType, Priority
from app.schemas.notification import NotificationItem, NotificationPage, UnreadCount
from app.services.inbox_service import ListedItem

router = APIRouter(prefix="/notifications", tags=["inbox"], route_class=JsonRoute)

Limit = Annotated[int, Query(ge=1, le=100, description="Items per page.")]
Cursor = Annotated[str | None, Query(max_length=512, description="`next_cursor` of a page.")]


@router.get("")
async def list_notifications(
    user_id: CurrentUser, context: Context, limit: Limit = 20, cursor: Cursor = None
) -> NotificationPage:
    """The user's notifications, newest first."""
    page = await context.inbox.page(user_id, limit=limit, cursor=cursor)
    return NotificationPage(
        items=[_item(listed) for listed in page.items],
        unread_count=page.snapshot.unread_count,
        next_cursor=page.next_cursor,
        has_more=page.has_more,
        seq=page.snapshot.seq,
    )


@router.get("/unread-count")
async def unread_count(user_id: CurrentUser, context: Context) -> UnreadCount:
    """How many notifications are unread, in all and by type."""
    state = await context.inbox.state(user_id)
    by_type = {NotificationType(kind): count for kind, count in state.by_type.items()}
    return UnreadCount(count=state.unread_count, by_type=by_type)


@router.get("/{notification_id}")
async def get_notification(
    notification_id: UUID, user_id: CurrentUser, context: Context
) -> NotificationItem:
    """One notification of the user."""
    return _item(await context.inbox.get(user_id, notification_id))


def _item(listed: ListedItem) -> NotificationItem:
    shown = listed.item
    return NotificationItem(
        id=shown.id,
        type=NotificationType(shown.type),
        priority=Priority(shown.priority),
        title=shown.title,
        body=shown.body,
        body_html=shown.body_html,
        data=shown.data,
        read_at=shown.read_at,
        created_at=shown.created_at,
        expires_at=shown.expires_at,
        delivery_status=dict(listed.delivery_status),
        seq=shown.seq,
    )
