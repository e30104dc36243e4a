"""Removes what has served its time."""

from app.db.database import Database
from app.pipeline.deliver import Clock
from app.pipeline.idempotency import forget_expired


class Tidier:
    """Tidies up when it is told to.

    Args:
        clock: the present instant.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def tidy(self) -> int:
        """Delete idempotency keys whose day is over; returns how many.

        Raises:
            Unavailable: PostgreSQL is away; the next time does it.
        """
        async with self._database.group_as_service() as driver:
            return await forget_expired(driver, self._clock())
