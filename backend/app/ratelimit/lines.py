"""What PostgreSQL knows of users' limits of pushes and emails (REQ-022)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.db.database import Driver
from app.policy.kinds import Channel
from app.policy.limits import Limit

# Ids of notifications are in the order in which they were created. Of a line that long only its
# beginning matters: whoever comes after it asks again when told to.
READ_LINES = """
    SELECT u.user_id, u.channel, c.ids, c.instants,
           ARRAY(
               SELECT DISTINCT d.notification_id FROM notification_deliveries d
               WHERE d.user_id = u.user_id AND d.channel = u.channel
                 AND d.status = 'pending' AND d.reason = 'user_limit'
               ORDER BY d.notification_id LIMIT 5000
           ) AS waiting
    FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS u (user_id, channel, since)
    CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(notification_id), '{}') AS ids,
               coalesce(array_agg(counted_at), '{}') AS instants
        FROM (
            SELECT d.notification_id, d.counted_at FROM notification_deliveries d
            WHERE d.user_id = u.user_id AND d.channel = u.channel AND d.counted_at > u.since
              AND d.id <> ALL($4::uuid[])
            ORDER BY d.counted_at
        ) AS counted
    ) AS c
"""

UserChannel = tuple[UUID, Channel]


@dataclass(slots=True)
class Line:
    """One user's use of one channel.

    Args:
        counted: notifications that count now, each with when it last went out.
        waiting: notifications that are held until there is room.
    """

    counted: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    waiting: set[UUID] = field(default_factory=set[UUID])

    def ahead_of(self, notification_id: UUID) -> int:
        """How many wait that were created before."""
        return sum(1 for id_ in self.waiting if id_ < notification_id and id_ not in self.counted)

    def admit(self, notification_id: UUID, limit: Limit, now: datetime) -> datetime | None:
        """Count a notification if there is room, and else put it into the line.

        One that counts already keeps its room, and counts from now on.

        Returns:
            None if it was counted, else the instant at which it is its turn.
        """
        if notification_id in self.counted:
            frees_at = None
        else:
            ahead = self.ahead_of(notification_id)
            frees_at = limit.frees_at([*self.counted.values()], now, ahead=ahead)
        if frees_at is None:
            self.counted[notification_id] = now
            self.waiting.discard(notification_id)
        else:
            self.waiting.add(notification_id)
        return frees_at


async def read_lines(
    driver: Driver,
    wanted: Iterable[UserChannel],
    limits: Mapping[Channel, Limit],
    now: datetime,
    *,
    without: Iterable[UUID] = (),
) -> dict[UserChannel, Line]:
    """How users stand with their limits.

    Args:
        driver: a transaction as the service role.
        without: deliveries that do not count, as if they had never gone out.
    """
    pairs = sorted(set(wanted))
    if not pairs:
        return {}
    rows = await driver.fetch(
        READ_LINES,
        [user_id for user_id, _ in pairs],
        [channel.value for _, channel in pairs],
        [now - limits[channel].window for _, channel in pairs],
        list(without),
    )
    return {
        (row["user_id"], Channel(row["channel"])): Line(
            dict(zip(row["ids"], row["instants"], strict=True)), set(row["waiting"])
        )
        for row in rows
    }
