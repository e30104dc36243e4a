"""The keyring as its operators see it (SEC-003)."""

from typing import Final, Literal

from sqlalchemy import text

from app.db.database import Database
from app.pipeline.keyring import Keyring
from app.schemas.base import Answered, AnsweredInstant
from app.security.vapid_keys import encoded

LIST: Final = text("""
    SELECT k.id, k.public_key, k.created_at, k.retired_at, coalesce(p.number, 0) AS subscriptions
    FROM vapid_keys k
    LEFT JOIN (
        SELECT vapid_key_id, count(*) AS number FROM push_subscriptions GROUP BY vapid_key_id
    ) p ON p.vapid_key_id = k.id
    ORDER BY k.created_at DESC, k.id DESC
""")


class ListedKey(Answered):
    """A VAPID key, without its private half.

    Args:
        state: `newest` is offered to browsers; `superseded` still signs for those that subscribed
            with it; of a `retired` one the private half is erased.
        subscriptions: that are known to be bound to it.
    """

    key_id: str
    public_key: str
    created_at: AnsweredInstant
    retired_at: AnsweredInstant | None
    subscriptions: int
    state: Literal["newest", "superseded", "retired"]


class VapidService:
    """Shows the keys and adds one."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    async def listed(self) -> list[ListedKey]:
        """All keys there ever were, newest first.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        newest = await self._keyring.newest()  # which an installation's first look makes
        async with self._database.as_service() as connection:
            rows = (await connection.execute(LIST)).all()
        return [
            ListedKey(
                key_id=row.id,
                public_key=encoded(row.public_key),
                created_at=row.created_at,
                retired_at=row.retired_at,
                subscriptions=row.subscriptions,
                state="retired"
                if row.retired_at is not None
                else "newest"
                if row.id == newest.id
                else "superseded",
            )
            for row in rows
        ]

    async def rotate(self) -> str:
        """Add a key that is the newest from now on; returns its id.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return (await self._keyring.rotate()).id
