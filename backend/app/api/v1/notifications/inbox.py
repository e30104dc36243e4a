"""The notification center: what is in it, and its read state (REQ-011, REQ-012; section 5.1)."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query

from app.api.dependencies import Context, CurrentUser
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.policy.kinds import NotificationType, Priority, Sort
from app.schemas.notification import (
    AllReadUpdated,
    GoneNotification,
    MarkAllRead,
    NotificationItem,
    NotificationPage,
    ReadStatusUpdated,
    SyncedNotifications,
    UnreadCount,
)
from app.services.inbox_service import GoneItem, InboxFilter, ListedItem

router = v1_routes(prefix="/notifications", tags=["inbox"], route_class=JsonRoute)

Limit = Annotated[int, Query(ge=1, le=100, description="Items per page.")]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`next_cursor` of a page of the same list.")
]
Since = Annotated[
    int, Query(ge=0, le=2**63 - 1, description="The highest `seq` that you have taken in.")
]


def chosen(
    type: NotificationType | None = None,
    priority: Priority | None = None,
    is_read: bool | None = None,
    sort: Sort = Sort.NEWEST,
) -> InboxFilter:
    """What of the inbox is asked for."""
    return InboxFilter(type=type, priority=priority, is_read=is_read, sort=sort)


@router.get("")
async def list_notifications(
    user_id: CurrentUser,
    context: Context,
    chosen: Annotated[InboxFilter, Depends(chosen)],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> NotificationPage:
    """The user's notifications; `unread_count` is that of the whole inbox."""
    page = await context.inbox.page(user_id, limit=limit, cursor=cursor, chosen=chosen)
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


@router.get("/sync")
async def sync(user_id: CurrentUser, context: Context, since: Since) -> SyncedNotifications:
    """What changed since `since`; with `has_more`, ask again from the `seq` of the answer."""
    synced = await context.inbox.sync(user_id, since)
    return SyncedNotifications(
        items=[
            GoneNotification(id=entry.id, seq=entry.seq)
            if isinstance(entry, GoneItem)
            else _item(entry)
            for entry in synced.items
        ],
        seq=synced.seq,
        unread_count=synced.unread_count,
        recovered=synced.recovered,
        has_more=synced.has_more,
    )


@router.post("/read-all")
async def mark_all_read(
    user_id: CurrentUser, context: Context, body: MarkAllRead | None = None
) -> AllReadUpdated:
    """Mark everything as read, or what became visible up to a `seq`, or one type."""
    up_to, kind = (body.up_to, body.type) if body is not None else (None, None)
    done = await context.changes.mark_all_read(user_id, up_to=up_to, notification_type=kind)
    return AllReadUpdated(updated_count=done.updated_count)


@router.get("/{notification_id}")
async def get_notification(
    notification_id: UUID, user_id: CurrentUser, context: Context
) -> NotificationItem:
    """One notification of the user."""
    return _item(await context.inbox.get(user_id, notification_id))


@router.patch("/{notification_id}/read")
async def mark_read(
    notification_id: UUID, user_id: CurrentUser, context: Context
) -> ReadStatusUpdated:
    """Mark as read; doing it again keeps the first `read_at`."""
    status = await context.changes.mark_read(user_id, notification_id)
    return ReadStatusUpdated(id=status.id, read_at=status.read_at)


@router.patch("/{notification_id}/unread")
async def mark_unread(
    notification_id: UUID, user_id: CurrentUser, context: Context
) -> ReadStatusUpdated:
    """Mark as unread again."""
    status = await context.changes.mark_unread(user_id, notification_id)
    return ReadStatusUpdated(id=status.id, read_at=status.read_at)


@router.delete("/{notification_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_notification(
    notification_id: UUID, user_id: CurrentUser, context: Context
) -> None:
    """Take a notification out of the inbox for good."""
    await context.changes.delete(user_id, notification_id)


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
        position=shown.position,
    )
