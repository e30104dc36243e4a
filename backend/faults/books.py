"""What is written in PostgreSQL about the users of one trial, and what must hold of it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

NOTIFICATIONS = text("""
    SELECT n.id, n.user_id, n.position, n.seq, n.read_at IS NULL AS unread,
           n.position IS NOT NULL AND n.deleted_at IS NULL AND n.expired_at IS NULL AS visible,
           coalesce(jsonb_agg(k.outcomes) FILTER (WHERE k.stage = 'create'), '[]') AS decisions
    FROM notifications n LEFT JOIN notification_decisions k ON k.notification_id = n.id
    WHERE n.user_id = ANY(CAST(:users AS uuid[])) GROUP BY n.id
""")
DELIVERIES = text("""
    SELECT id, notification_id, channel, device_id, status, reason, attempts, expired_leases
    FROM notification_deliveries WHERE user_id = ANY(CAST(:users AS uuid[]))
""")
INBOXES = text("""
    SELECT user_id, seq, unread FROM inbox_state WHERE user_id = ANY(CAST(:users AS uuid[]))
""")
REPEATED_OUTCOMES = text("""
    SELECT count(*) FROM (
        SELECT FROM notification_events
        WHERE user_id = ANY(CAST(:users AS uuid[])) AND event IN ('sent', 'failed', 'skipped')
        GROUP BY notification_id, channel, device_id HAVING count(*) > 1
    ) AS repeated
""")

DEAD = ("failed", "skipped", "bounced", "cancelled")


@dataclass(frozen=True, slots=True)
class Books:
    """The rows of some users.

    Args:
        repeated_outcomes: deliveries whose end was recorded more than once.
    """

    notifications: Mapping[UUID, RowMapping]
    deliveries: Sequence[RowMapping]
    inboxes: Mapping[UUID, RowMapping]
    repeated_outcomes: int

    @classmethod
    async def read(cls, connection: AsyncConnection, users: Collection[UUID]) -> "Books":
        """Read them in one snapshot."""
        of = {"users": list(users)}

        async def rows(query: Any) -> Sequence[RowMapping]:
            return (await connection.execute(query, of)).mappings().all()

        return cls(
            notifications={row["id"]: row for row in await rows(NOTIFICATIONS)},
            deliveries=await rows(DELIVERIES),
            inboxes={row["user_id"]: row for row in await rows(INBOXES)},
            repeated_outcomes=(await connection.execute(REPEATED_OUTCOMES, of)).scalar_one(),
        )

    @property
    def pending(self) -> int:
        """Deliveries that have not ended."""
        return sum(row["status"] == "pending" for row in self.deliveries)

    @property
    def dead(self) -> Counter[str]:
        """Deliveries that ended without being sent, by reason."""
        return Counter(str(row["reason"] or "") for row in self.deliveries if row["status"] in DEAD)

    def ids_of(self, user_id: UUID) -> set[UUID]:
        """Notifications that are stored for a user."""
        return {item for item, row in self.notifications.items() if row["user_id"] == user_id}

    def visible_of(self, user_id: UUID) -> set[UUID]:
        """Notifications that a user's notification center has to list."""
        return {item for item in self.ids_of(user_id) if self.notifications[item]["visible"]}

    def of_channel(self, channel: str) -> Mapping[UUID, RowMapping]:
        """Each notification's delivery through a channel."""
        return {row["notification_id"]: row for row in self.deliveries if row["channel"] == channel}

    def problems(self, accepted: Collection[UUID]) -> Iterator[str]:
        """Promises that these rows break, each in a sentence.

        Args:
            accepted: notifications whose caller was answered 202.
        """
        if lost := set(accepted) - self.notifications.keys():
            yield f"{len(lost)} accepted notifications are not stored"
        if self.pending:
            yield f"{self.pending} deliveries have not ended"
        if self.repeated_outcomes:
            yield f"{self.repeated_outcomes} deliveries ended more than once"
        if self.dead[""]:
            yield f"{self.dead['']} deliveries died without a reason"
        yield from self._halves()
        yield from self._disorder()

    def _halves(self) -> Iterator[str]:
        channels: dict[UUID, list[str]] = defaultdict(list)
        for row in self.deliveries:
            decided_for = channels[row["notification_id"]]
            if row["channel"] != "push" or "push" not in decided_for:  # one for each device
                decided_for.append(row["channel"])
        halves = 0
        for item, row in self.notifications.items():
            decided = [
                outcome["channel"]
                for outcomes in row["decisions"]
                for outcome in outcomes
                if outcome["action"] != "skip"
            ]
            once = len(row["decisions"]) == 1
            halves += not once or sorted(decided) != sorted(channels[item])
        if halves:
            yield f"{halves} notifications are stored in part"

    def _disorder(self) -> Iterator[str]:
        for user_id, inbox in self.inboxes.items():
            rows = [row for row in self.notifications.values() if row["user_id"] == user_id]
            yield from _misnumbered(inbox["seq"], rows)
            unread = sum(row["unread"] and row["visible"] for row in rows)
            counted = sum(inbox["unread"].values())
            if unread != counted:
                yield f"an inbox counts {counted} unread and has {unread}"


def _misnumbered(last: int, rows: Sequence[RowMapping]) -> Iterator[str]:
    """Numbers that cannot have been given to an inbox's changes one after the other."""
    positions = sorted(row["position"] or 0 for row in rows)
    changes = [row["seq"] or 0 for row in rows]
    untouched = all(row["seq"] == row["position"] for row in rows)
    if untouched and positions != list(range(1, last + 1)):
        yield f"an inbox at {last} has positions {positions}"
    elif len(set(positions)) < len(rows) or 0 in positions:
        yield f"positions were given twice or not at all: {positions}"
    elif max(changes, default=0) > last or any(row["seq"] < row["position"] for row in rows):
        yield f"an inbox at {last} has changes {sorted(changes)}"
