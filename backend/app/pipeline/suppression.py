"""Addresses that nothing is sent to (REQ-014): they bounced, or their owners complained.

Only a digest of an address is kept. What is known of one does not depend on the order in which it
was reported.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.db.database import Driver

ADDRESS_DIGEST: Final = "sha256(convert_to(lower({address}), 'UTF8'))"
"""SQL of what an address is known by, once nothing but this may be known of it."""

IS_SUPPRESSED: Final = f"""EXISTS (
    SELECT FROM email_suppressions s
    WHERE s.address_digest = {ADDRESS_DIGEST.format(address="r.email")}
      AND s.suppressed_at IS NOT NULL
)"""
"""SQL of whether the address of a recipient `r` is one of them."""

SOFT_BOUNCES: Final = 3
"""So many within `SOFT_WITHIN`, and nothing delivered between, suppress an address."""
SOFT_WITHIN: Final = timedelta(days=7)
SOFT_KEPT: Final = 20

DIGEST: Final = ADDRESS_DIGEST.format(address="$1::text")

SUPPRESS: Final = f"""
    INSERT INTO email_suppressions AS s (address_digest, reason, suppressed_at, updated_at)
    VALUES ({DIGEST}, $2, $3, $4)
    ON CONFLICT (address_digest) DO UPDATE SET
        -- Of two reasons the graver one is told.
        reason = CASE WHEN s.suppressed_at IS NULL OR s.reason = 'soft_bounced'
                           OR excluded.reason = 'complained'
                      THEN excluded.reason ELSE s.reason END,
        suppressed_at = least(s.suppressed_at, excluded.suppressed_at),
        updated_at = excluded.updated_at
"""  # noqa: S608 -- composed of a constant
OPEN: Final = f"""
    INSERT INTO email_suppressions (address_digest, reason, updated_at)
    VALUES ({DIGEST}, 'soft_bounced', $2) ON CONFLICT DO NOTHING
"""  # noqa: S608 -- composed of a constant
LOCK: Final = f"""
    SELECT soft_bounced_at, delivered_at FROM email_suppressions
    WHERE address_digest = {DIGEST} FOR UPDATE
"""  # noqa: S608 -- composed of a constant
KEEP: Final = f"""
    UPDATE email_suppressions
    SET soft_bounced_at = $2, delivered_at = $3, updated_at = $5,
        suppressed_at = CASE WHEN reason = 'soft_bounced' THEN $4 ELSE suppressed_at END
    WHERE address_digest = {DIGEST}
"""  # noqa: S608 -- composed of a constant


class Suppressed(StrEnum):
    """Why nothing is sent to an address."""

    BOUNCED = "bounced"
    """It does not exist, or refused for good."""
    COMPLAINED = "complained"
    """Its owner called a mail spam."""
    SOFT_BOUNCED = "soft_bounced"
    """It refused for now, again and again."""


async def suppress(
    driver: Driver, address: str, reason: Suppressed, at: datetime, now: datetime
) -> None:
    """Send nothing to an address from now on.

    Args:
        driver: a transaction as the service role.
        at: when it bounced, or its owner complained.
    """
    await driver.execute(SUPPRESS, address, reason.value, at, now)


async def note_soft_bounce(driver: Driver, address: str, at: datetime, now: datetime) -> None:
    """Remember that an address refused for now; several of these suppress it."""
    await driver.execute(OPEN, address, now)
    await _note(driver, address, now, bounced_at=at)


async def note_delivered(driver: Driver, address: str, at: datetime, now: datetime) -> None:
    """Forget what came back before something was delivered; nothing is kept of other addresses."""
    await _note(driver, address, now, delivered_at=at)


async def _note(
    driver: Driver,
    address: str,
    now: datetime,
    *,
    bounced_at: datetime | None = None,
    delivered_at: datetime | None = None,
) -> None:
    for row in await driver.fetch(LOCK, address):
        delivered = max(filter(None, (row["delivered_at"], delivered_at)), default=None)
        bounces = {*row["soft_bounced_at"], *filter(None, (bounced_at,))}
        kept = sorted(at for at in bounces if delivered is None or at > delivered)[-SOFT_KEPT:]
        await driver.execute(KEEP, address, kept, delivered, suppressed_since(kept), now)


def suppressed_since(bounces: Sequence[datetime]) -> datetime | None:
    """Since when soft bounces suppress an address, None if they don't.

    Args:
        bounces: the instants, in order, none before something was delivered.
    """
    spans = zip(bounces, bounces[SOFT_BOUNCES - 1 :], strict=False)
    return next((last for first, last in spans if last - first <= SOFT_WITHIN), None)
