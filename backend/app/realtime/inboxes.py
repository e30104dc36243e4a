"""Inbox positions: every change of an inbox takes the user's next `seq`, under a lock (REQ-011).

Whoever changes an inbox opens and locks it here, in the order of user ids, advances it in memory
and saves it in the same transaction. Missing inboxes are opened before any is locked: a
transaction that waits for another's new inbox holds no lock yet, so none wait in a circle.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db.database import Driver, dumps

OPEN = """
    INSERT INTO inbox_state (user_id)
    SELECT id FROM users u
    WHERE id = ANY($1::uuid[])
      AND NOT EXISTS (SELECT FROM inbox_state i WHERE i.user_id = u.id)
    ORDER BY id
    ON CONFLICT DO NOTHING
"""

LOCK = """
    SELECT user_id, seq, unread FROM inbox_state
    WHERE user_id = ANY($1::uuid[])
    ORDER BY user_id FOR UPDATE
"""
LOCK_FREE = f"{LOCK} SKIP LOCKED"

SAVE = """
    UPDATE inbox_state i SET seq = v.seq, unread = v.unread::jsonb
    FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS v (user_id, seq, unread)
    WHERE i.user_id = v.user_id
"""


# What is kept must never differ from this.
RECOUNT = """
    UPDATE inbox_state i SET unread = coalesce((
        SELECT jsonb_object_agg(counted.type, counted.number) FROM (
            SELECT n.type, count(*) AS number FROM notifications n
            WHERE n.user_id = i.user_id AND n.position IS NOT NULL AND n.read_at IS NULL
              AND n.deleted_at IS NULL AND n.expired_at IS NULL
            GROUP BY n.type
        ) counted
    ), '{}')
    WHERE i.user_id = $1
"""


class WrongCount(Exception):
    """An inbox counts fewer unread notifications than there are, as after a repair by hand."""

    def __init__(self, user_id: UUID) -> None:
        super().__init__("the unread count is wrong")
        self.user_id = user_id


@dataclass(slots=True)
class Inbox:
    """A locked inbox, advanced in memory until it is saved.

    Args:
        seq: number of the last change.
        unread: unread notifications by type, zeros left out.
    """

    user_id: UUID
    seq: int
    unread: dict[str, int]

    @property
    def unread_count(self) -> int:
        """Unread notifications of all types."""
        return sum(self.unread.values())

    def advance(self) -> int:
        """The number of one more change."""
        self.seq += 1
        return self.seq

    def admit(self, notification_type: str) -> int:
        """Count one more unread notification and return its position."""
        self.count(notification_type, 1)
        return self.advance()

    def count(self, notification_type: str, change: int) -> None:
        """Let so many more of a type, or fewer, be unread.

        Raises:
            WrongCount: fewer than none would be.
        """
        count = self.unread.pop(notification_type, 0) + change
        if count < 0:
            raise WrongCount(self.user_id)
        if count:
            self.unread[notification_type] = count


async def open_inboxes(driver: Driver, user_ids: Collection[UUID]) -> None:
    """Give an inbox to those of the users that exist and have none; call it before locking."""
    await driver.execute(OPEN, sorted(user_ids))


async def lock_inboxes(driver: Driver, user_ids: Collection[UUID]) -> dict[UUID, Inbox]:
    """Lock the users' inboxes until the transaction ends; users without one are left out."""
    rows = await driver.fetch(LOCK, sorted(user_ids))
    return {row["user_id"]: inbox_of(row) for row in rows}


async def lock_free_inboxes(driver: Driver, user_ids: Collection[UUID]) -> dict[UUID, Inbox]:
    """Lock those of the users' inboxes that nobody holds, without waiting."""
    rows = await driver.fetch(LOCK_FREE, sorted(user_ids))
    return {row["user_id"]: inbox_of(row) for row in rows}


def inbox_of(row: Mapping[str, Any]) -> Inbox:
    """A locked row of `inbox_state`."""
    return Inbox(row["user_id"], row["seq"], dict(row["unread"]))


async def recount(driver: Driver, user_id: UUID) -> None:
    """Count anew what is unread; a transaction of its own."""
    await driver.execute(RECOUNT, user_id)


async def save_inboxes(driver: Driver, inboxes: Iterable[Inbox]) -> None:
    """Write locked inboxes back."""
    await driver.execute(SAVE, *inbox_columns(inboxes))


def inbox_columns(inboxes: Iterable[Inbox]) -> tuple[list[UUID], list[int], list[str]]:
    """Ids, numbers and counts of inboxes, as `SAVE` takes them."""
    changed = list(inboxes)
    return (
        [inbox.user_id for inbox in changed],
        [inbox.seq for inbox in changed],
        [dumps(inbox.unread) for inbox in changed],
    )
