"""Digests whose slot has passed, and what became of them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from faults.lab import Lab

# Slots come round once a day; these have.
PASS = text("""
    UPDATE notification_deliveries SET digest_slot = :slot
    WHERE notification_id = :id AND channel = 'email'
""")
DIGESTS = text("SELECT * FROM email_digests WHERE user_id = :id")
ENDS = text("""
    SELECT status, reason FROM notification_deliveries
    WHERE notification_id = ANY(:ids) AND channel = 'email'
""")


def ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


@dataclass(frozen=True)
class Parking:
    """A user whose notifications wait for digests."""

    lab: Lab
    user: UUID

    async def park(self, *slots: datetime) -> list[UUID]:
        """Notifications that wait for digests of these slots."""
        parked: list[UUID] = []
        for slot in slots:
            parked.append(await self.lab.stack.send(self.user))
            async with self.lab.sql() as connection:
                await connection.execute(PASS, {"id": parked[-1], "slot": slot})
        return parked

    async def mails(self) -> list[dict[str, Any]]:
        params = {"to": f"{self.user}@example.com"}
        return (await self.lab.stack.sandbox.get("/mails", params=params)).json()["items"]

    async def digests(self) -> list[Any]:
        async with self.lab.sql() as connection:
            return list((await connection.execute(DIGESTS, {"id": self.user})).all())

    async def is_sent(self) -> bool:
        return [row.status for row in await self.digests()] == ["sent"]

    async def ends(self, parked: list[UUID]) -> set[tuple[str, str]]:
        async with self.lab.sql() as connection:
            rows = (await connection.execute(ENDS, {"ids": parked})).all()
        return {(row.status, row.reason) for row in rows}
