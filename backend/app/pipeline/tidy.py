"""Removes what has served its time, and renews what is to be renewed."""

from datetime import timedelta

from app.channels.email import requests
from app.db.database import Database
from app.pipeline.deliver import Clock
from app.pipeline.idempotency import forget_expired
from app.pipeline.keyring import Keyring
from app.pipeline.webhook_receipts import forget_received


class Tidier:
    """Tidies up when it is told to; however many do so at once, each thing is done once.

    Args:
        keyring: holds the VAPID keys.
        rotation: how long a VAPID key is offered before another takes its place.
        retention: how long the links of emails lead somewhere.
        clock: the present instant.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        rotation: timedelta,
        retention: timedelta,
        clock: Clock,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._rotation = rotation
        self._retention = retention
        self._clock = clock

    async def tidy(self) -> int:
        """Delete idempotency keys and webhooks whose time is over, and settled email requests.

        Sees to the VAPID keys too (SEC-003).

        Returns:
            How many keys and webhooks were deleted.

        Raises:
            Unavailable: PostgreSQL is away; the next time does it.
        """
        async with self._database.group_as_service() as driver:
            forgotten = await forget_expired(driver, self._clock())
            forgotten += await forget_received(driver, self._clock())
        now = self._clock()
        await requests.tidy(self._database, now, links_since=now - self._retention)
        await self._keyring.rotate_when_older_than(self._rotation)
        await self._keyring.retire()
        return forgotten
