"""Messages from the server to a socket, as bytes (requirements 5.4, contract, WebSocket).

Every function is pure. Instants are RFC 3339 in UTC with `Z`; `seq` stands at the top level of
everything that is about the inbox.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

import orjson
from pydantic import JsonValue

from app.realtime.backplane import Change
from app.realtime.inboxes import Inbox
from app.realtime.messages import ServerMessage


class ErrorCode(StrEnum):
    """What an `error` message is about."""

    AUTH_FAILED = "AUTH_FAILED"
    AUTH_TIMEOUT = "AUTH_TIMEOUT"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 -- a code
    INVALID_MESSAGE = "INVALID_MESSAGE"
    NOT_FOUND = "NOT_FOUND"
    RATE_LIMITED = "RATE_LIMITED"


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A notification as its user sees it in the inbox.

    Args:
        seq: number of the last change of this notification.
        position: number of the change that made it visible; newest and oldest go by it.
    """

    id: UUID
    type: str
    priority: str
    title: str
    body: str
    body_html: str
    data: dict[str, JsonValue]
    read_at: datetime | None
    created_at: datetime
    expires_at: datetime | None
    seq: int
    position: int


def visible_change(item: InboxItem, inbox: Inbox) -> Change:
    """What live sessions are told when a notification becomes visible (REQ-010).

    Args:
        item: the notification, its `seq` being the position it was given.
        inbox: the user's inbox, already advanced to that position.
    """
    return change_of(inbox, notification(item, seq=item.seq, unread_count=inbox.unread_count))


def change_of(inbox: Inbox, message: bytes) -> Change:
    """The inbox's last change as live sessions are told of it: its message, then the counts."""
    counts = unread_count(inbox.unread, seq=inbox.seq)
    return Change(inbox.user_id, inbox.seq, (message, counts))


def authenticated(
    *,
    user_id: UUID,
    seq: int,
    unread_count: int,
    recovered: bool,
    heartbeat_interval: int,
    expires_at: datetime,
) -> bytes:
    """The answer to a valid token.

    Args:
        seq: where the inbox stands; what follows brings the client there.
        recovered: whether what was missed since the client's `since` follows.
        heartbeat_interval: seconds between the pings that the client is asked for.
        expires_at: when the token ends, and the socket with it unless it is renewed.
    """
    return _encode(
        {
            "type": "authenticated",
            "user_id": str(user_id),
            "seq": seq,
            "unread_count": unread_count,
            "recovered": recovered,
            "heartbeat_interval": heartbeat_interval,
            "expires_at": expires_at.astimezone(UTC),
        }
    )


def notification(item: InboxItem, *, seq: int, unread_count: int) -> bytes:
    """A notification became visible with change `seq`; `unread_count` is absolute.

    What is told later carries the notification as it is by then.
    """
    return _encode(
        {
            "type": "notification",
            "seq": seq,
            "unread_count": unread_count,
            "data": {
                "id": str(item.id),
                "type": item.type,
                "priority": item.priority,
                "title": item.title,
                "body": item.body,
                "body_html": item.body_html,
                "data": item.data,
                "read_at": _instant(item.read_at),
                "created_at": item.created_at.astimezone(UTC),
                "expires_at": _instant(item.expires_at),
                "seq": item.seq,
                "position": item.position,
            },
        }
    )


def unread_count(by_type: Mapping[str, int], *, seq: int) -> bytes:
    """The unread notifications after the change numbered `seq`, in all and by type."""
    return _encode(
        {
            "type": "unread_count",
            "count": sum(by_type.values()),
            "by_type": {kind: count for kind, count in by_type.items() if count},
            "seq": seq,
        }
    )


def read_status_updated(
    notification_id: UUID, *, read_at: datetime | None, seq: int, unread_count: int
) -> bytes:
    """A notification was read, or is unread again when `read_at` is None (REQ-012)."""
    return _encode(
        {
            "type": "read_status_updated",
            "notification_id": str(notification_id),
            "read_at": _instant(read_at),
            "seq": seq,
            "unread_count": unread_count,
        }
    )


def all_read(
    *,
    up_to: int,
    notification_type: str | None,
    read_at: datetime,
    seq: int,
    unread_count: int,
) -> bytes:
    """Everything that became visible at or before `up_to` was read, as one change (REQ-012).

    Args:
        notification_type: the only type this is about, None for all.
    """
    return _encode(
        {
            "type": "read_status_updated",
            "notification_id": None,
            "up_to": up_to,
            "notification_type": notification_type,
            "read_at": _instant(read_at),
            "seq": seq,
            "unread_count": unread_count,
        }
    )


def notification_deleted(notification_id: UUID, *, seq: int, unread_count: int) -> bytes:
    """A notification was deleted, or has expired."""
    return _encode(
        {
            "type": "notification_deleted",
            "notification_id": str(notification_id),
            "seq": seq,
            "unread_count": unread_count,
        }
    )


def sync_complete(*, seq: int) -> bytes:
    """Everything up to `seq` has been told; what comes now is live."""
    return _encode({"type": "sync_complete", "seq": seq})


def pong(*, at: datetime, seq: int) -> bytes:
    """The answer to a ping: the server's time, and the position that this socket has reached."""
    return _encode({"type": "pong", "timestamp": at.astimezone(UTC), "seq": seq})


def error(code: ErrorCode, message: str) -> bytes:
    """Something the client sent was refused; `message` is a sentence for a person."""
    return _encode({"type": "error", "code": code.value, "message": message})


def _instant(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)


def _encode(message: ServerMessage) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_UTC_Z)
