"""What happens to an inbox after a notification became visible (REQ-011, REQ-012).

A user reads, unreads or deletes, or time lets a notification expire. Each is a change of the inbox
with a number of its own, made under the inbox's lock and told to the user's sessions. So whoever
has a snapshot and all the messages since has what a fresh snapshot would show.
"""

# ruff: noqa: S608 -- composed of nothing but the constants below

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from app.db.database import Database, Driver, is_busy
from app.errors import Busy, NotFound
from app.pipeline.leaving import FOLLOWS
from app.realtime import frames
from app.realtime.backplane import Change
from app.realtime.inboxes import Inbox, WrongCount, lock_inboxes, recount, save_inboxes

log = structlog.get_logger()

BUSY_MESSAGE = "The inbox is busy; try again."
OVERDUE_AT_ONCE = 200  # so that no inbox is held for long

VISIBLE = "n.position IS NOT NULL AND n.deleted_at IS NULL AND n.expired_at IS NULL"

READ_ONE = f"""
    SELECT n.type, n.read_at, n.seq FROM notifications n
    WHERE n.id = $1 AND n.user_id = $2 AND {VISIBLE}
"""

# Who has read a notification need not be told of it elsewhere. What a worker holds just now, or
# has tried already, is on its way and is let go.
DROP_HELD = f"""
    leaving AS (
        SELECT d.id, d.notification_id, d.user_id, d.channel, d.device_id, d.reason, d.summarises,
               d.next_attempt_at AS due, $1::timestamptz AS ended_at
        FROM notification_deliveries d
        WHERE d.notification_id IN (SELECT id FROM changed)
          AND d.channel IN ('push', 'email') AND d.status = 'pending'
          AND d.lease_token IS NULL AND d.attempts = 0
          AND (d.digest_slot IS NOT NULL OR d.next_attempt_at > $1)
        FOR NO KEY UPDATE OF d SKIP LOCKED
    ), dropped AS (
        UPDATE notification_deliveries d
        SET status = 'skipped', reason = 'read_elsewhere', next_attempt_at = NULL
        FROM leaving l WHERE d.id = l.id
        RETURNING d.notification_id, d.user_id, d.channel, d.device_id
    ), {FOLLOWS}, told AS (
        INSERT INTO notification_events (
            notification_id, user_id, channel, event, reason, device_id, at
        )
        SELECT notification_id, user_id, channel, 'skipped', 'read_elsewhere', device_id, $1
        FROM dropped
    )
"""

# What a phone shows of it is to be closed there (`app.pipeline.closings`); what is being sent just
# now, when that is over. Who has no phone pays for asking that, however much was changed.
CLOSE = """
    closing AS (
        INSERT INTO push_closings (
            device_id, notification_id, user_id, next_attempt_at, created_at
        )
        SELECT d.device_id, d.notification_id, d.user_id,
               CASE WHEN d.status = 'pending' THEN d.next_attempt_at ELSE $1 END, $1
        FROM notification_deliveries d
        JOIN push_subscriptions p ON p.id = d.device_id
        WHERE d.notification_id IN (SELECT id FROM changed) AND d.channel = 'push'
          AND (d.status IN ('sent', 'delivered')
               OR d.status = 'pending' AND d.lease_token IS NOT NULL)
          AND p.user_id = {user} AND p.kind = 'fcm' AND p.is_active
          AND (SELECT EXISTS (
              SELECT FROM push_subscriptions o
              WHERE o.user_id = {user} AND o.kind = 'fcm' AND o.is_active
          ))
        ON CONFLICT DO NOTHING
    )
"""

READ = f"""
    WITH changed AS (
        UPDATE notifications n SET read_at = $1, seq = $4
        WHERE n.id = $2 AND n.user_id = $3 RETURNING n.id
    ), {DROP_HELD}, {CLOSE.format(user="$3")}
    SELECT FROM changed
"""

UNREAD = "UPDATE notifications SET read_at = NULL, seq = $3 WHERE id = $1 AND user_id = $2"

READ_ALL = f"""
    WITH changed AS (
        UPDATE notifications n SET read_at = $1, seq = $5
        WHERE n.user_id = $2 AND n.position <= $3 AND ($4::text IS NULL OR n.type = $4)
          AND n.read_at IS NULL AND {VISIBLE}
        RETURNING n.id, n.type
    ), {DROP_HELD}, {CLOSE.format(user="$2")}
    SELECT type, count(*) AS number FROM changed GROUP BY type
"""

DELETE = f"""
    WITH changed AS (
        UPDATE notifications n SET deleted_at = $1, seq = $4
        WHERE n.id = $2 AND n.user_id = $3 RETURNING n.id
    ), {DROP_HELD}, {CLOSE.format(user="$3")}
    SELECT FROM changed
"""

READ_OVERDUE = f"""
    SELECT n.id, n.user_id, n.type, n.read_at IS NULL AS is_unread FROM notifications n
    WHERE n.user_id = ANY($1::uuid[]) AND n.expires_at <= $2 AND {VISIBLE}
    ORDER BY n.expires_at, n.user_id, n.position LIMIT $3
"""

EXPIRE = """
    UPDATE notifications n SET expired_at = $1, seq = v.seq
    FROM unnest($2::uuid[], $3::bigint[]) AS v (id, seq) WHERE n.id = v.id
"""


@dataclass(frozen=True, slots=True)
class ReadStatus:
    """Whether a notification is read, and where the inbox stands.

    Args:
        seq: number of the notification's last change.
        unread_count: of the inbox, absolute.
    """

    id: UUID
    read_at: datetime | None
    seq: int
    unread_count: int


@dataclass(frozen=True, slots=True)
class AllRead:
    """What was read at once.

    Args:
        updated_count: notifications that were unread.
        up_to: what became visible at or before this number.
        notification_type: the only type this is about, None for all.
        seq: number of the inbox's last change.
    """

    updated_count: int
    up_to: int
    notification_type: str | None
    read_at: datetime
    seq: int
    unread_count: int


@dataclass(slots=True)
class InboxEdit:
    """A locked inbox of one user, and what has been done to it so far.

    Args:
        driver: the transaction that holds the lock.
        now: the instant that everything in it happens at.
        changes: what live sessions are told once the transaction is committed.
    """

    driver: Driver
    inbox: Inbox
    now: datetime
    changes: list[Change] = field(default_factory=list[Change])

    async def read(self, notification_id: UUID) -> ReadStatus:
        """Mark as read; what is read already keeps its first `read_at`.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        row = await self._visible(notification_id)
        if row["read_at"] is not None:
            return self._status(notification_id, row["read_at"], row["seq"])
        self.inbox.count(row["type"], -1)
        seq = self.inbox.advance()
        await self.driver.execute(READ, self.now, notification_id, self.inbox.user_id, seq)
        return self._told(self._status(notification_id, self.now, seq))

    async def unread(self, notification_id: UUID) -> ReadStatus:
        """Mark as unread again.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        row = await self._visible(notification_id)
        if row["read_at"] is None:
            return self._status(notification_id, None, row["seq"])
        self.inbox.count(row["type"], 1)
        seq = self.inbox.advance()
        await self.driver.execute(UNREAD, notification_id, self.inbox.user_id, seq)
        return self._told(self._status(notification_id, None, seq))

    async def read_all(self, up_to: int | None, notification_type: str | None) -> AllRead:
        """Mark as read, as one change, what became visible at or before `up_to`.

        Args:
            up_to: all that is visible when it is None.
            notification_type: the only type to mark, None for all.
        """
        reached = self.inbox.seq if up_to is None else min(up_to, self.inbox.seq)
        rows = await self.driver.fetch(
            READ_ALL, self.now, self.inbox.user_id, reached, notification_type, self.inbox.seq + 1
        )
        for row in rows:
            self.inbox.count(row["type"], -row["number"])
        if rows:
            self.inbox.advance()
        done = AllRead(
            updated_count=sum(row["number"] for row in rows),
            up_to=reached,
            notification_type=notification_type,
            read_at=self.now,
            seq=self.inbox.seq,
            unread_count=self.inbox.unread_count,
        )
        if rows:
            self._tell(all_read_frame(done))
        return done

    async def delete(self, notification_id: UUID) -> None:
        """Take out of the inbox for good; history keeps it.

        Raises:
            NotFound: the user has no such notification in the inbox.
        """
        row = await self._visible(notification_id)
        if row["read_at"] is None:
            self.inbox.count(row["type"], -1)
        seq = self.inbox.advance()
        await self.driver.execute(DELETE, self.now, notification_id, self.inbox.user_id, seq)
        self._tell(
            frames.notification_deleted(
                notification_id, seq=seq, unread_count=self.inbox.unread_count
            )
        )

    async def _visible(self, notification_id: UUID) -> Mapping[str, Any]:
        rows = await self.driver.fetch(READ_ONE, notification_id, self.inbox.user_id)
        if not rows:
            raise NotFound
        return rows[0]

    def _status(self, notification_id: UUID, read_at: datetime | None, seq: int) -> ReadStatus:
        return ReadStatus(notification_id, read_at, seq, self.inbox.unread_count)

    def _told(self, status: ReadStatus) -> ReadStatus:
        self._tell(read_status_frame(status))
        return status

    def _tell(self, frame: bytes) -> None:
        self.changes.append(frames.change_of(self.inbox, frame))


@asynccontextmanager
async def editing(database: Database, user_id: UUID, now: datetime) -> AsyncGenerator[InboxEdit]:
    """Change a user's inbox in one transaction, as that user.

    What is overdue expires first, so that nobody reads what is not there any more.

    Raises:
        Unavailable: PostgreSQL is away.
        Busy: the inbox stayed locked, or had to be counted anew.
    """
    try:
        async with database.change_as_user(user_id) as driver:
            inboxes = await lock_inboxes(driver, [user_id])
            edit = InboxEdit(driver, inboxes.get(user_id) or Inbox(user_id, 0, {}), now)
            edit.changes += await expire_overdue(driver, inboxes, now)
            yield edit
            if edit.changes:
                await save_inboxes(driver, inboxes.values())
    except WrongCount as error:
        await count_anew(database, error)
        raise Busy(BUSY_MESSAGE) from error
    except Exception as error:
        if is_busy(error):
            raise Busy(BUSY_MESSAGE) from error
        raise


async def count_anew(database: Database, error: WrongCount) -> None:
    """Put an unread count right that turned out to be wrong."""
    async with database.group_as_service() as driver:
        await recount(driver, error.user_id)
    log.error("unread_counted_anew", user_id=str(error.user_id))


async def expire_overdue(
    driver: Driver, inboxes: Mapping[UUID, Inbox], now: datetime
) -> list[Change]:
    """Take some of what has expired out of locked inboxes, each with a number of its own.

    Returns:
        What live sessions are told; the caller saves the inboxes.
    """
    overdue = await driver.fetch(READ_OVERDUE, list(inboxes), now, OVERDUE_AT_ONCE)
    changes: list[Change] = []
    for row in overdue:
        inbox = inboxes[row["user_id"]]
        if row["is_unread"]:
            inbox.count(row["type"], -1)
        frame = frames.notification_deleted(
            row["id"], seq=inbox.advance(), unread_count=inbox.unread_count
        )
        changes.append(frames.change_of(inbox, frame))
    if overdue:
        await driver.execute(
            EXPIRE, now, [row["id"] for row in overdue], [change.seq for change in changes]
        )
    return changes


def read_status_frame(status: ReadStatus) -> bytes:
    """The message that tells of it."""
    return frames.read_status_updated(
        status.id, read_at=status.read_at, seq=status.seq, unread_count=status.unread_count
    )


def all_read_frame(done: AllRead) -> bytes:
    """The message that tells of it."""
    return frames.all_read(
        up_to=done.up_to,
        notification_type=done.notification_type,
        read_at=done.read_at,
        seq=done.seq,
        unread_count=done.unread_count,
    )
