"""Users' preferences, remembered until they change (REQ-017, REQ-018).

Whoever changes them counts the user's `choices_version` up in the same transaction, and whoever
decides reads that version with the inbox. So no process uses what another has changed, and nothing
has to be told to anybody: it holds without Redis too.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db.database import Driver
from app.policy.kinds import DigestFrequency, NotificationType
from app.policy.preferences import NOTHING_CHOSEN, Choices, Preferences, effective

GLOBAL = "global"
"""The row of choices for all types."""

REMEMBERED = 20_000  # users

READ_CHOICES = """
    SELECT user_id, notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
           digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days
    FROM notification_preferences WHERE user_id = ANY($1::uuid[])
"""

# A version is never used twice, not even by a user who was erased and is there again. What a worker
# holds just now is being decided anew; it is left to it.
COUNT_AND_RELEASE = """
    WITH counted AS (
        UPDATE inbox_state SET choices_version = CASE choices_version
            WHEN 0 THEN CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)
            ELSE choices_version + 1
        END
        WHERE user_id = $1
    ), held AS (
        SELECT id FROM notification_deliveries
        WHERE user_id = $1 AND channel = 'push' AND status = 'pending' AND reason = 'quiet_hours'
          AND lease_token IS NULL AND next_attempt_at > $2 AND $3
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE notification_deliveries d SET next_attempt_at = $2 FROM held WHERE d.id = held.id
    RETURNING d.id
"""


@dataclass(frozen=True, slots=True)
class UserChoices:
    """All that a user chose, by type and for all types."""

    by_type: Mapping[str, Choices] = field(default_factory=dict[str, Choices])

    @property
    def of_all(self) -> Choices:
        """What was chosen for all types."""
        return self.by_type.get(GLOBAL, NOTHING_CHOSEN)

    def preferences(self, of: NotificationType, defaults: Preferences) -> Preferences:
        """What holds for a type."""
        if not self.by_type:
            return defaults
        return effective(self.by_type.get(of.value, NOTHING_CHOSEN), self.of_all, defaults)


NO_CHOICES = UserChoices()


class ChoicesCache:
    """Reads choices and remembers those of the users who were asked for last."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, tuple[int, UserChoices]] = OrderedDict()

    async def read(self, driver: Driver, versions: Mapping[UUID, int]) -> dict[UUID, UserChoices]:
        """The choices of users.

        Args:
            driver: the transaction in which the versions were read; a user's rows are theirs to
                see.
            versions: each user's `choices_version`.
        """
        # Before anything is waited for: others may push out meanwhile who is known now.
        found = {
            user: self._known[user][1] if version else NO_CHOICES
            for user, version in versions.items()
            if self._knows(user, version)
        }
        unknown = [user for user in versions if user not in found]
        if unknown:
            read = await read_choices(driver, unknown)
            for user in unknown:
                found[user] = read.get(user, NO_CHOICES)
                self._known[user] = versions[user], found[user]
        for user in found:
            if user in self._known:
                self._known.move_to_end(user)
        while len(self._known) > max(REMEMBERED, len(versions)):
            self._known.popitem(last=False)
        return found

    def _knows(self, user: UUID, version: int) -> bool:
        # Who never chose anything needs no place.
        return not version or self._known.get(user, (0, NO_CHOICES))[0] == version


async def read_choices(driver: Driver, user_ids: list[UUID]) -> dict[UUID, UserChoices]:
    """What is stored of users' choices; users who have none are left out."""
    rows: dict[UUID, dict[str, Choices]] = {}
    for row in await driver.fetch(READ_CHOICES, user_ids):
        rows.setdefault(row["user_id"], {})[row["notification_type"]] = choices_of(row)
    return {user: UserChoices(by_type) for user, by_type in rows.items()}


async def count_and_release(
    driver: Driver, user_id: UUID, now: datetime, *, concerns_held: bool = True
) -> tuple[UUID, ...]:
    """Let every process decide by what is chosen from now on.

    Args:
        driver: the transaction that changes the choices, with the user's inbox locked.
        concerns_held: whether pushes that are held are to be decided anew.

    Returns:
        Pushes that were held for quiet hours and are due now, to be decided anew.
    """
    due = await driver.fetch(COUNT_AND_RELEASE, user_id, now, concerns_held)
    return tuple(row["id"] for row in due)


def choices_of(row: Mapping[str, Any]) -> Choices:
    """A row of `notification_preferences`."""
    frequency, days = row["digest_frequency"], row["quiet_hours_days"]
    return Choices(
        push_enabled=row["push_enabled"],
        email_enabled=row["email_enabled"],
        digest_frequency=None if frequency is None else DigestFrequency(frequency),
        digest_time=row["digest_time"],
        digest_day=row["digest_day"],
        quiet_hours_start=row["quiet_hours_start"],
        quiet_hours_end=row["quiet_hours_end"],
        quiet_hours_days=None if days is None else tuple(days),
    )
