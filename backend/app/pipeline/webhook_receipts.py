"""Webhooks that were taken in: the same one again has no effect (REQ-014)."""

from datetime import datetime, timedelta
from typing import Final

from app.db.database import Driver

LIFETIME: Final = timedelta(days=7)
"""Senders try again for about a day."""
FORGOTTEN_AT_ONCE: Final = 10_000

RECEIVE: Final = """
    INSERT INTO webhook_receipts (id, received_at) VALUES ($1, $2)
    ON CONFLICT DO NOTHING RETURNING id
"""
FORGET: Final = """
    DELETE FROM webhook_receipts WHERE id IN (
        SELECT id FROM webhook_receipts WHERE received_at < $1
        LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""


async def is_new(driver: Driver, message_id: str, now: datetime) -> bool:
    """Whether a webhook is here for the first time; waits for a transaction that has it too.

    Args:
        driver: the transaction that takes it in, as the service role.
    """
    return bool(await driver.fetch(RECEIVE, message_id, now))


async def forget_received(driver: Driver, now: datetime) -> int:
    """Forget webhooks that nobody sends again; returns how many."""
    forgotten = 0
    while count := len(await driver.fetch(FORGET, now - LIFETIME, FORGOTTEN_AT_ONCE)):
        forgotten += count
    return forgotten
