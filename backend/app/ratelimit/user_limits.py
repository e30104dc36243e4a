"""Who may send one more push or email to a user now (REQ-022).

Redis says who is first among workers that ask at once; where it is away, the users' locks in
PostgreSQL do. Neither is relied on. What is admitted is written to PostgreSQL before it is sent,
and only then looked at once more: of workers that admitted too many between them, as after Redis
forgot, the last to write sees it, and takes back what there is no room for.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.db.database import Database, Driver, is_busy
from app.policy.kinds import Channel
from app.policy.limits import Limit
from app.ratelimit.lines import Line, UserChannel, read_lines
from app.ratelimit.redis_lines import RedisLines
from app.realtime.inboxes import Inbox, lock_free_inboxes, lock_inboxes

SOON = timedelta(seconds=2)
"""When to ask again for a user whose lock somebody holds for long."""

COUNT = "UPDATE notification_deliveries SET counted_at = $2 WHERE id = ANY($1::uuid[])"
# Whoever has taken them over meanwhile has counted them at another instant.
UNCOUNT = """
    UPDATE notification_deliveries SET counted_at = NULL
    WHERE id = ANY($1::uuid[]) AND counted_at = $2
"""


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


Answers = dict[Ask, datetime | None]
Lock = Callable[[Driver, Collection[UUID]], Awaitable[Mapping[UUID, Inbox]]]


class UserLimits:
    """Sliding windows over all workers; critical notifications are not asked for here.

    Args:
        limits: how much of each channel a user gets.
        redis: what is asked first; None decides in PostgreSQL alone.
    """

    def __init__(
        self,
        database: Database,
        limits: Mapping[Channel, Limit],
        redis: RedisLines | None = None,
    ) -> None:
        self._database = database
        self._limits = limits
        self._redis = redis

    async def admit(
        self, asks: Sequence[Ask], lines: Mapping[UserChannel, Line], now: datetime
    ) -> Answers:
        """Count those that there is room for.

        Args:
            asks: what is to go out; for one user those that were created first come first.
            lines: what PostgreSQL knew of the users a moment ago.
            now: an aware instant.

        Returns:
            For each ask None if it may go out now, else when it is its turn.

        Raises:
            Unavailable: PostgreSQL cannot be reached.
        """
        try:
            answers = await self._admit_by_redis(asks, lines, now)
            await self._count(_admitted(answers), now)
            answers |= await self._settle([ask for ask in asks if ask not in answers], now)
            doubtful = await self._too_many(_admitted(answers), now)
            return answers | await self._settle(doubtful, now, anew=True)
        except Exception as error:
            if not is_busy(error):
                raise
            # What was counted by then keeps its room, and is looked at again.
            return dict.fromkeys(asks, now + SOON)

    async def _admit_by_redis(
        self, asks: Sequence[Ask], lines: Mapping[UserChannel, Line], now: datetime
    ) -> Answers:
        """What Redis says of those whose server answers."""
        if self._redis is None:
            return {}
        asked: dict[UserChannel, list[UUID]] = defaultdict(list)
        for ask in asks:
            asked[ask.line].append(ask.notification_id)
        turns = await self._redis.admit(asked, lines, now)
        return {ask: turns[ask.line][ask.notification_id] for ask in asks if ask.line in turns}

    async def _count(self, asks: Sequence[Ask], now: datetime) -> None:
        if asks:
            async with self._database.group_as_service() as driver:
                await driver.execute(COUNT, _deliveries(asks), now)

    async def _too_many(self, asks: Sequence[Ask], now: datetime) -> list[Ask]:
        """Those of users who were given more than their limit, by whomever."""
        if not asks:
            return []
        async with self._database.group_as_service() as driver:
            lines = await read_lines(driver, (ask.line for ask in asks), self._limits, now)
        return [
            ask for ask in asks if len(lines[ask.line].counted) > self._limits[ask.channel].most
        ]

    async def _settle(self, asks: Sequence[Ask], now: datetime, *, anew: bool = False) -> Answers:
        """Decide and count under the users' locks.

        Args:
            anew: whether the asks were counted too hastily; those that find no room count no more.
        """
        if not asks:
            return {}
        try:
            return await self._settle_locked(asks, now, lock_inboxes, anew=anew)
        except Exception as error:
            if not is_busy(error):
                raise
        # One of the users is held for long: the others do without that one.
        return await self._settle_locked(asks, now, lock_free_inboxes, anew=anew)

    async def _settle_locked(
        self, asks: Sequence[Ask], now: datetime, lock: Lock, *, anew: bool
    ) -> Answers:
        async with self._database.group_as_service() as driver:
            locked = await lock(driver, {ask.user_id for ask in asks})
            mine = _deliveries(asks) if anew else ()
            wanted = (ask.line for ask in asks)
            lines = await read_lines(driver, wanted, self._limits, now, without=mine)
            decide = self._retake if anew else self._take
            answers = {
                ask: decide(ask, lines[ask.line], now) if ask.user_id in locked else now + SOON
                for ask in asks
            }
            if anew:
                refused = [ask for ask, turn in answers.items() if turn is not None]
                await driver.execute(UNCOUNT, _deliveries(refused), now)
            else:
                await driver.execute(COUNT, _deliveries(_admitted(answers)), now)
        return answers

    def _take(self, ask: Ask, line: Line, now: datetime) -> datetime | None:
        return line.admit(ask.notification_id, self._limits[ask.channel], now)

    def _retake(self, ask: Ask, line: Line, now: datetime) -> datetime | None:
        """Decide anew what is in hand; of others it is not known whether they go or give way.

        So what counts for another of the user's devices counts, but gives no right to go where
        there are too many: then each gives way, until one finds no more than there is room for.
        """
        limit = self._limits[ask.channel]
        if ask.notification_id in line.counted and len(line.counted) > limit.most:
            ahead = line.ahead_of(ask.notification_id)
            return limit.frees_at([*line.counted.values()], now, ahead=ahead)
        return self._take(ask, line, now)


def _admitted(answers: Answers) -> list[Ask]:
    return [ask for ask, turn in answers.items() if turn is None]


def _deliveries(asks: Iterable[Ask]) -> list[UUID]:
    return [id_ for ask in asks for id_ in ask.delivery_ids]
