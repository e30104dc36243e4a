"""Inbox positions: every change of an inbox takes the user's next `seq`, under a lock.

Whoever changes an inbox opens and locks it here, in the order of user ids, advances it in memory
and saves it in the same transaction. Missing inboxes are opened before any is locked: a
transaction that waits for another's new inbox holds no lock yet, so none wait in a circle.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import dumps

OPEN = text("""
    INSERT INTO inbox_state (user_id)
    SELECT id FROM users WHERE id = ANY(CAST(:user_ids AS uuid[])) ORDER BY id
    ON CONFLICT DO NOTHING
""")

LOCK = text("""
    SELECT user_id, seq, unread FROM inbox_state
    WHERE user_id = ANY(CAST(:user_ids AS uuid[]))
    ORDER BY user_id FOR UPDATE
""")

SAVE = text("""
    UPDATE inbox_state i SET seq = v.seq, unread = v.unread::jsonb
    FROM unnest(
        CAST(:user_ids AS uuid[]), CAST(:seqs AS bigint[]), CAST(:unreads AS text[])
    ) AS v (user_id, seq, unread)
    WHERE i.user_id = v.user_id
""")


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

    def admit(self, notification_type: str) -> int:
        """Count one more unread notification and return its position."""
        self.seq += 1
        self.unread[notification_type] = self.unread.get(notification_type, 0) + 1
        return self.seq


async def open_inboxes(connection: AsyncConnection, user_ids: Collection[UUID]) -> None:
    """Give an inbox to those of the users that exist and have none; call it before locking."""
    await connection.execute(OPEN, {"user_ids": sorted(user_ids)})


async def lock_inboxes(
    connection: AsyncConnection, user_ids: Collection[UUID]
) -> dict[UUID, Inbox]:
    """Lock the users' inboxes until the transaction ends; users without one are left out."""
    rows = await connection.execute(LOCK, {"user_ids": sorted(user_ids)})
    return {row.user_id: Inbox(row.user_id, row.seq, dict(row.unread)) for row in rows}


async def save_inboxes(connection: AsyncConnection, inboxes: Iterable[Inbox]) -> None:
    """Write locked inboxes back."""
    changed = list(inboxes)
    await connection.execute(
        SAVE,
        {
            "user_ids": [inbox.user_id for inbox in changed],
            "seqs": [inbox.seq for inbox in changed],
            "unreads": [dumps(inbox.unread) for inbox in changed],
        },
    )
