"""Addresses that nothing is sent to, as operators see them (REQ-014)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.db.database import Database, driver_of
from app.pipeline.suppression import ADDRESS_DIGEST, Suppressed

SHOWN_BYTES: Final = 6

READ: Final = """
    SELECT substring(address_digest FOR $1) AS shown, reason, suppressed_at
    FROM email_suppressions WHERE suppressed_at IS NOT NULL
    ORDER BY suppressed_at DESC, address_digest LIMIT $2
"""
LIFT: Final = f"""
    DELETE FROM email_suppressions
    WHERE address_digest = {ADDRESS_DIGEST.format(address="$1::text")}
    RETURNING suppressed_at IS NOT NULL AS was_suppressed
"""  # noqa: S608 -- composed of a constant


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that nothing is sent to.

    Args:
        digest: how the SHA-256 of its lower case begins, hexadecimal.
    """

    digest: str
    reason: Suppressed
    suppressed_at: datetime


class SuppressionService:
    """Lists and lifts; everything raises `Unavailable` while PostgreSQL cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(self, limit: int) -> list[Suppression]:
        """Those suppressed last, the newest first."""
        async with self._database.as_service() as connection:
            rows = await (await driver_of(connection)).fetch(READ, SHOWN_BYTES, limit)
        return [
            Suppression(row["shown"].hex(), Suppressed(row["reason"]), row["suppressed_at"])
            for row in rows
        ]

    async def lift(self, address: str) -> bool:
        """Send to an address again, forgetting what came back; whether it was suppressed."""
        async with self._database.as_service() as connection:
            rows = await (await driver_of(connection)).fetch(LIFT, address.strip())
        return any(row["was_suppressed"] for row in rows)
