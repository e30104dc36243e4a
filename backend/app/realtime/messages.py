"""Every message of the socket, as types (requirements 5.4; contract, WebSocket).

`app.realtime.frames` builds the server's, type-checked against these, and `asyncapi.yaml` is made
of both. Docstrings are its descriptions.
"""

from datetime import datetime
from typing import (
    Annotated,
    Literal,
    NotRequired,  # Pydantic needs it before Python 3.12
)

from pydantic import Field, JsonValue
from typing_extensions import TypedDict

from app.policy.kinds import NotificationType, Priority

Kind = Annotated[str, Field(json_schema_extra={"enum": [kind.value for kind in NotificationType]})]
PriorityName = Annotated[str, Field(json_schema_extra={"enum": [rank.value for rank in Priority]})]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Seq = Annotated[int, Field(ge=0, description="Number of the inbox's change this tells of.")]
Position = Annotated[int, Field(ge=0, le=2**63 - 1)]
Unread = Annotated[int, Field(ge=0, description="Unread notifications in all, absolute.")]
Instant = Annotated[datetime, Field(description="RFC 3339, in UTC.")]


class ItemData(TypedDict):
    """A notification as its user sees it in the inbox."""

    id: Id
    type: Kind
    priority: PriorityName
    title: str
    body: str
    body_html: str
    data: dict[str, JsonValue]
    read_at: datetime | None
    created_at: datetime
    expires_at: datetime | None
    seq: Annotated[int, Field(ge=0, description="Number of its last change.")]
    position: Annotated[int, Field(ge=0, description="Number of the change that showed it.")]


class Authenticated(TypedDict):
    """The answer to a valid token; what follows brings the client to `seq`."""

    type: Literal["authenticated"]
    user_id: Id
    seq: Seq
    unread_count: Unread
    recovered: Annotated[bool, Field(description="Whether all that changed since `since` follows.")]
    heartbeat_interval: Annotated[int, Field(ge=1, description="Seconds between two pings.")]
    expires_at: Annotated[datetime, Field(description="The socket ends then, unless renewed.")]


class NotificationShown(TypedDict):
    """A notification became visible."""

    type: Literal["notification"]
    seq: Seq
    unread_count: Unread
    data: ItemData


class ReadStatusUpdated(TypedDict):
    """A notification was read, or is unread again; or several were read at once."""

    type: Literal["read_status_updated"]
    notification_id: Annotated[
        Id | None, Field(description="Null when everything up to `up_to` was read.")
    ]
    read_at: Annotated[datetime | None, Field(description="Null: unread again.")]
    seq: Seq
    unread_count: Unread
    up_to: NotRequired[Annotated[int, Field(ge=0, description="What was visible by then.")]]
    notification_type: NotRequired[
        Annotated[Kind | None, Field(description="The only type that was read; null: all.")]
    ]


class NotificationDeleted(TypedDict):
    """A notification was deleted, or has expired."""

    type: Literal["notification_deleted"]
    notification_id: Id
    seq: Seq
    unread_count: Unread


class UnreadCount(TypedDict):
    """The counts after a change, whose `seq` it repeats."""

    type: Literal["unread_count"]
    count: Unread
    by_type: Annotated[dict[Kind, int], Field(description="Zeros are left out.")]
    seq: Seq


class SyncComplete(TypedDict):
    """All up to `seq` has been told; what comes now is live."""

    type: Literal["sync_complete"]
    seq: Seq


class Pong(TypedDict):
    """The answer to a ping, with the position that this socket has reached."""

    type: Literal["pong"]
    timestamp: Instant
    seq: Seq


class Error(TypedDict):
    """Something the client sent was refused; the message is a sentence for a person."""

    type: Literal["error"]
    code: Literal[
        "AUTH_FAILED",
        "AUTH_TIMEOUT",
        "TOKEN_EXPIRED",
        "INVALID_MESSAGE",
        "NOT_FOUND",
        "RATE_LIMITED",
    ]
    message: str


ServerMessage = (
    Authenticated
    | NotificationShown
    | ReadStatusUpdated
    | NotificationDeleted
    | UnreadCount
    | SyncComplete
    | Pong
    | Error
)


class Authenticate(TypedDict):
    """The first message, within 10 seconds; again before `expires_at`, to renew."""

    type: Literal["authenticate"]
    token: Annotated[str, Field(description="The user's access token.")]
    since: NotRequired[Annotated[Position | None, Field(description="The highest `seq` known.")]]


class Ping(TypedDict):
    """Says that the client is there, every `heartbeat_interval` seconds."""

    type: Literal["ping"]


class Ack(TypedDict):
    """Everything up to `seq` was shown: in-app deliveries become `delivered`."""

    type: Literal["ack"]
    seq: Position


class MarkRead(TypedDict):
    """Mark a notification as read; all sessions are told by `read_status_updated`."""

    type: Literal["mark_read"]
    notification_id: Id


class MarkUnread(TypedDict):
    """Mark a notification as unread again."""

    type: Literal["mark_unread"]
    notification_id: Id


class MarkAllRead(TypedDict):
    """Mark as read, as one change, everything, or what `up_to` and `notification_type` say."""

    type: Literal["mark_all_read"]
    up_to: NotRequired[
        Annotated[Position | None, Field(description="Only what was visible by then.")]
    ]
    notification_type: NotRequired[Kind | None]


ClientMessage = Authenticate | Ping | Ack | MarkRead | MarkUnread | MarkAllRead
