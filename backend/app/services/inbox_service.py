"""Reading inboxes (REQ-010, REQ-011): for the gateway, and page by page for the center.

What a session synced, acknowledged, listed or fetched counts as delivered in-app. Every answer is
read in one statement with the inbox's state, so the two describe the same instant. What is overdue
then expires first, as a change like any other, so that no answer shows or counts it.
"""

import struct
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.engine import RowMapping

from app.config import Settings
from app.db.database import Database
from app.errors import Busy, NotFound
from app.policy.kinds import Channel, DeliveryStatus, NotificationType, Priority, Sort
from app.realtime.frames import InboxItem
from app.realtime.reader import Backlog, InboxSnapshot, NetChange, NetChanges
from app.services import inbox_queries as queries
from app.services.cursors import Cursors

CHANGES_AT_ONCE = 200
BYTES_AT_ONCE = 256 * 1024  # of content; a part has at most one notification more
MOST_AT_ONCE = 1_000  # changes that share a number; who missed more lists the inbox anew
UNDELIVERED_AT_ONCE = 100
UNDELIVERED_BYTES = 1024 * 1024
BEFORE_ALL, AFTER_ALL = 0, 2**63 - 1  # no position is either
CURSOR = struct.Struct(">BQ")

# The best device of a push comes first.
BEST_FIRST = (
    DeliveryStatus.DELIVERED,
    DeliveryStatus.SENT,
    DeliveryStatus.PENDING,
    DeliveryStatus.FAILED,
    DeliveryStatus.BOUNCED,
    DeliveryStatus.SKIPPED,
    DeliveryStatus.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class InboxFilter:
    """What of an inbox is listed, and in which order."""

    type: NotificationType | None = None
    priority: Priority | None = None
    is_read: bool | None = None
    sort: Sort = Sort.NEWEST

    @property
    def query(self) -> Any:
        """The statement that lists it."""
        return queries.read_page(
            self.sort,
            by_type=self.type is not None,
            by_priority=self.priority is not None,
            is_read=self.is_read,
        )

    @property
    def values(self) -> dict[str, str]:
        """What the statement compares with."""
        named = {"type": self.type, "priority": self.priority}
        return {name: value.value for name, value in named.items() if value is not None}

    def scope(self, user_id: UUID) -> bytes:
        """What a cursor of this list is bound to."""
        return user_id.bytes + repr((self.sort, self.values, self.is_read)).encode()


@dataclass(frozen=True, slots=True)
class ListedItem:
    """A notification in the center.

    Args:
        delivery_status: state of each channel that was decided, a push's best device for all.
    """

    item: InboxItem
    delivery_status: Mapping[Channel, DeliveryStatus]


@dataclass(frozen=True, slots=True)
class GoneItem:
    """A notification that left the inbox with change `seq`."""

    id: UUID
    seq: int


@dataclass(frozen=True, slots=True)
class Synced:
    """What changed since a position, net, in the order of `seq`.

    Args:
        seq: position of a client that has taken all of it in.
        recovered: False when the position asked for cannot be served; then fetch the list anew.
    """

    items: Sequence[ListedItem | GoneItem]
    seq: int
    unread_count: int
    recovered: bool
    has_more: bool


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Part of an inbox.

    Args:
        snapshot: the inbox at the same instant; its `seq` is the position the page reflects.
        next_cursor: what continues the list, None at its end.
    """

    snapshot: InboxSnapshot
    items: Sequence[ListedItem]
    next_cursor: str | None

    @property
    def has_more(self) -> bool:
        """Whether further notifications follow."""
        return self.next_cursor is not None


class InboxService:
    """Inboxes as their users see them; implements `app.realtime.reader.InboxReader`.

    Visible is what has a position, is not deleted and has not expired. Everything raises
    `Unavailable` while PostgreSQL cannot be reached.

    Args:
        database: user data are read under the user's own role, positions of many as the service.
        settings: its encryption keys sign the cursors.
        expire: lets expire some of what is overdue in a user's inbox; whether anything was.
    """

    def __init__(
        self, database: Database, settings: Settings, expire: Callable[[UUID], Awaitable[bool]]
    ) -> None:
        self._database = database
        self._expire = expire
        self._cursors = Cursors(settings.encryption_keys, "inbox")

    async def state(self, user_id: UUID) -> InboxSnapshot:
        """Where the user's inbox stands; all zero for a user who never had anything."""
        return _snapshot(await self._read(user_id, queries.READ_STATE))

    async def changes_since(
        self, user_id: UUID, since: int, limit: int = CHANGES_AT_ONCE
    ) -> NetChanges:
        """Net changes after position `since`, ordered by their numbers.

        What changed, but is not new, comes without its content.

        Args:
            limit: after about so many the answer is cut; its `reached` continues it.

        Returns:
            A state that cannot be resumed from `since` when too many share a number.
        """
        rows = await self._read(
            user_id,
            queries.READ_CHANGES,
            since=since,
            limit=limit,
            most=MOST_AT_ONCE + 1,
            bytes=BYTES_AT_ONCE,
        )
        snapshot, present = _snapshot(rows), _present(rows)
        found = present[0]["found"] if present else 0
        if found > MOST_AT_ONCE:
            return NetChanges(replace(snapshot, floor_seq=snapshot.seq), (), snapshot.seq)
        changes = [
            NetChange(row["id"], row["at"], row["is_new"], None if row["is_gone"] else _item(row))
            for row in present
        ]
        is_cut = len(changes) >= limit or len(changes) < found
        return NetChanges(snapshot, changes, changes[-1].seq if is_cut else snapshot.seq)

    async def undelivered(self, user_id: UUID, limit: int = UNDELIVERED_AT_ONCE) -> Backlog:
        """Visible notifications that nobody has acknowledged, oldest first."""
        rows = await self._read(
            user_id, queries.READ_UNDELIVERED, limit=limit, bytes=UNDELIVERED_BYTES
        )
        return Backlog(_snapshot(rows), [_item(row) for row in _present(rows)])

    async def positions(self, user_ids: Collection[UUID]) -> dict[UUID, int]:
        """Position of each user's inbox, in one query; users without an inbox are left out."""
        async with self._database.as_service() as connection:
            rows = await connection.execute(queries.READ_POSITIONS, {"user_ids": list(user_ids)})
            return {row.user_id: row.seq for row in rows}

    async def acknowledge(self, reached: Mapping[UUID, int]) -> None:
        """Mark as delivered in-app what became visible to each user up to the position given."""
        async with self._database.as_service() as connection:
            await connection.execute(
                queries.ACKNOWLEDGE, {"user_ids": list(reached), "seqs": list(reached.values())}
            )

    async def page(
        self,
        user_id: UUID,
        *,
        limit: int,
        cursor: str | None = None,
        chosen: InboxFilter | None = None,
    ) -> InboxPage:
        """A page of the inbox; what it shows is delivered (REQ-011).

        Args:
            limit: notifications on a page, at least 1.
            cursor: `next_cursor` of the page before.
            chosen: what to list; everything, newest first, by default.

        Raises:
            ValidationFailed: the cursor is not one that this user was given for this list.
        """
        chosen = chosen or InboxFilter()
        scope = chosen.scope(user_id)
        if cursor is None:
            rank, after = 0, BEFORE_ALL if chosen.sort is Sort.OLDEST else AFTER_ALL
        else:
            rank, after = CURSOR.unpack(self._cursors.open(scope, cursor))
        place = {"rank": rank} if chosen.sort is Sort.PRIORITY else {}
        # One more than asked for tells whether another page follows.
        rows = await self._read(
            user_id, chosen.query, after=after, limit=limit + 1, **place, **chosen.values
        )
        present = _present(rows)
        shown, next_cursor = present[:limit], None
        if len(present) > limit:
            last = shown[-1]
            reached = CURSOR.pack(Priority(last["priority"]).rank, last["position"])
            next_cursor = self._cursors.seal(scope, reached)
        items = await self._list(user_id, [_item(row) for row in shown])
        return InboxPage(_snapshot(rows), items, next_cursor)

    async def sync(self, user_id: UUID, since: int) -> Synced:
        """What changed since a position, or the first part of it; it is delivered thereby.

        Args:
            since: a `seq` that the client was told.
        """
        part = await self.changes_since(user_id, since)
        state = part.snapshot
        if not state.can_resume(since):
            return Synced((), state.seq, state.unread_count, recovered=False, has_more=False)
        # What became visible and changed since is told once, as it is, with its last change.
        last = [
            change
            for change in part.changes
            if change.item is None or change.item.seq == change.seq
        ]
        present = [change.id for change in last if change.item is not None]
        rows = await self._fetch(user_id, queries.READ_SOME, ids=present) if present else ()
        items = [_item(row) for row in rows]
        listed = {entry.item.id: entry for entry in await self._list(user_id, items)}
        return Synced(
            [listed.get(change.id) or GoneItem(change.id, change.seq) for change in last],
            part.reached,
            state.unread_count,
            recovered=True,
            has_more=not part.is_last,
        )

    async def get(self, user_id: UUID, notification_id: UUID) -> ListedItem:
        """One visible notification; it is delivered thereby.

        Raises:
            NotFound: there is none, or it is another user's.
        """
        rows = _present(await self._read(user_id, queries.READ_ONE, id=notification_id))
        if not rows:
            raise NotFound
        return (await self._list(user_id, [_item(rows[0])]))[0]

    async def mark_delivered(self, user_id: UUID, ids: Collection[UUID]) -> None:
        """Mark notifications as delivered in-app; those that are already stay as they are."""
        async with self._database.as_service() as connection:
            await connection.execute(queries.MARK_DELIVERED, {"user_id": user_id, "ids": list(ids)})

    async def _list(self, user_id: UUID, items: Sequence[InboxItem]) -> list[ListedItem]:
        """The items with their deliveries, which are thereby marked as delivered in-app."""
        if not items:
            return []
        deliveries = await self._fetch(
            user_id, queries.READ_DELIVERIES, ids=[item.id for item in items]
        )
        statuses = best_statuses(
            (row["notification_id"], Channel(row["channel"]), DeliveryStatus(row["status"]))
            for row in deliveries
        )
        fresh = {
            notification_id
            for notification_id, of_channel in statuses.items()
            if of_channel.get(Channel.IN_APP) is DeliveryStatus.SENT
        }
        if fresh:
            await self.mark_delivered(user_id, fresh)
            for notification_id in fresh:
                statuses[notification_id][Channel.IN_APP] = DeliveryStatus.DELIVERED
        return [ListedItem(item, statuses.get(item.id, {})) for item in items]

    async def _read(self, user_id: UUID, query: Any, **values: Any) -> Sequence[RowMapping]:
        """Rows with the inbox's state beside each, none for a user who never had anything."""
        rows = await self._fetch(user_id, query, **values)
        with suppress(Busy):  # whoever holds the inbox lets it expire as well
            while rows and rows[0]["is_overdue"] and await self._expire(user_id):
                rows = await self._fetch(user_id, query, **values)
        return rows

    async def _fetch(self, user_id: UUID, query: Any, **values: Any) -> Sequence[RowMapping]:
        async with self._database.as_user(user_id) as connection:
            result = await connection.execute(query, {"user_id": user_id, **values})
            return result.mappings().all()


def best_statuses(
    deliveries: Iterable[tuple[UUID, Channel, DeliveryStatus]],
) -> dict[UUID, dict[Channel, DeliveryStatus]]:
    """Each notification's channels with the state of their best delivery, channels in order."""
    best: dict[UUID, dict[Channel, DeliveryStatus]] = {}
    for notification_id, channel, status in deliveries:
        of_channel = best.setdefault(notification_id, {})
        known = of_channel.get(channel)
        of_channel[channel] = min(known or status, status, key=BEST_FIRST.index)
    return {
        notification_id: {
            channel: of_channel[channel] for channel in Channel if channel in of_channel
        }
        for notification_id, of_channel in best.items()
    }


def _present(rows: Sequence[RowMapping]) -> list[RowMapping]:
    return [row for row in rows if row["id"] is not None]


def _snapshot(rows: Sequence[RowMapping]) -> InboxSnapshot:
    if not rows:
        return InboxSnapshot()
    row = rows[0]
    return InboxSnapshot(row["inbox_seq"], row["floor_seq"], row["unread"])


def _item(row: RowMapping) -> InboxItem:
    created_at: datetime = row["created_at"]
    return InboxItem(
        id=row["id"],
        type=row["type"],
        priority=row["priority"],
        title=row["title"],
        body=row["body"],
        body_html=row["body_html"],
        data=row["data"],
        read_at=row["read_at"],
        created_at=created_at,
        expires_at=row["expires_at"],
        seq=row["seq"],
        position=row["position"],
    )
