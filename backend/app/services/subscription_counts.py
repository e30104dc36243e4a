"""How many devices there are, for those who watch the program and for the keyring's operators."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from sqlalchemy import text

from app.db.database import Database
from app.errors import Unavailable

CACHED_SECONDS: Final = 10.0

COUNT: Final = text("""
    SELECT kind, coalesce(vapid_key_id, '') AS key_id, count(*) AS number
    FROM push_subscriptions GROUP BY kind, vapid_key_id
""")

Counts = Mapping[tuple[str, str], int]


class SubscriptionCounts:
    """Counts once for everybody who asks within some seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counts = {}
        self._fresh_until = 0.0
        self._counting = asyncio.Lock()

    async def read(self) -> Counts:
        """Subscriptions by kind and key, the key empty where none is known.

        They are none while PostgreSQL is away: what cannot be counted is not told.
        """
        async with self._counting:
            if time.monotonic() >= self._fresh_until:
                try:
                    async with self._database.as_service() as connection:
                        rows = (await connection.execute(COUNT)).all()
                except Unavailable:
                    return {}
                self._counts = {(row.kind, row.key_id): row.number for row in rows}
                self._fresh_until = time.monotonic() + CACHED_SECONDS
            return self._counts
