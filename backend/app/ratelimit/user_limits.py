"""Who may send one more push or email to a user now (REQ-022)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.db.database import Database, is_busy
from app.policy.kinds import Channel
from app.policy.limits import Limit
from app.ratelimit.lines import Line, UserChannel, read_lines
from app.realtime.inboxes import lock_inboxes

SOON = timedelta(seconds=2)
"""When to ask again for what others may, or may not, be sending just now."""

# What others have claimed and not told the outcome of: it may be on its way.
READ_IN_FLIGHT = """
    SELECT user_id, channel, count(DISTINCT notification_id) AS number
    FROM notification_deliveries
    WHERE user_id = ANY($1::uuid[]) AND channel = ANY($2::text[]) AND id <> ALL($3::uuid[])
      AND status = 'pending' AND lease_token IS NOT NULL AND counted_at IS NULL
    GROUP BY user_id, channel
"""

COUNT = "UPDATE notification_deliveries SET counted_at = $2 WHERE id = ANY($1::uuid[])"


@dataclass(frozen=True, slots=True)
class Ask:
    """A notification that is to go out to a user on a channel.

    Args:
        delivery_ids: those of it that are in hand, one for each device.
    """

    user_id: UUID
    channel: Channel
    notification_id: UUID
    delivery_ids: tuple[UUID, ...]

    @property
    def line(self) -> UserChannel:
        """Whose limit it uses up."""
        return self.user_id, self.channel


class UserLimits:
    """Sliding windows over all workers; critical notifications are not asked for here.

    Args:
        limits: how much of each channel a user gets.
    """

    def __init__(self, database: Database, limits: Mapping[Channel, Limit]) -> None:
        self._database = database
        self._limits = limits

    async def admit(
        self, asks: Sequence[Ask], lines: Mapping[UserChannel, Line], now: datetime
    ) -> dict[Ask, datetime | None]:
        """Count those that there is room for.

        Args:
            asks: what is to go out; for one user those that were created first come first.
            lines: what PostgreSQL knew of the users a moment ago.
            now: an aware instant.

        Returns:
            For each ask None if it may go out now, else when it is its turn.

        Raises:
            Unavailable: neither Redis nor PostgreSQL can be reached.
        """
        return await self._admit_in_postgres(asks, now)

    async def _admit_in_postgres(
        self, asks: Sequence[Ask], now: datetime
    ) -> dict[Ask, datetime | None]:
        """The same under the users' locks, for as long as Redis is away."""
        try:
            async with self._database.group_as_service() as driver:
                users = {ask.user_id for ask in asks}
                await lock_inboxes(driver, users)
                lines = await read_lines(driver, (ask.line for ask in asks), self._limits, now)
                mine = [id_ for ask in asks for id_ in ask.delivery_ids]
                channels = sorted({ask.channel.value for ask in asks})
                rows = await driver.fetch(READ_IN_FLIGHT, sorted(users), channels, mine)
                in_flight = {
                    (row["user_id"], Channel(row["channel"])): row["number"] for row in rows
                }
                answers: dict[Ask, datetime | None] = {}
                for ask in asks:
                    limit, line = self._limits[ask.channel], lines[ask.line]
                    used = len(limit.used([*line.counted.values()], now))
                    others = in_flight.get(ask.line, 0)
                    if (
                        used < limit.most <= used + others
                        and ask.notification_id not in line.counted
                    ):
                        answers[ask] = now + SOON
                    else:
                        answers[ask] = line.admit(ask.notification_id, limit, now)
                admitted = [id_ for ask in asks if answers[ask] is None for id_ in ask.delivery_ids]
                await driver.execute(COUNT, admitted, now)
        except Exception as error:
            if not is_busy(error):
                raise
            return dict.fromkeys(asks, now + SOON)
        return answers
