"""Settings of users: timezone, language, quiet hours by weekday, and a pause (REQ-019)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from app.db.database import Database, Driver, driver_of, dumps
from app.errors import ErrorDetail, ValidationFailed
from app.pipeline.deliver import Clock
from app.schemas.settings import UpdateSettings, UserSettings
from app.services.choice_changes import ChoiceChanges

LONGEST_PAUSE: Final = timedelta(days=366)

READ: Final = """
    SELECT timezone, locale, quiet_hours, pause_until
    FROM notification_recipients WHERE user_id = $1
"""
# Their platform may report the user's timezone and language at the same time: what was not sent
# is not written.
WRITE: Final = """
    WITH former AS (
        SELECT timezone, quiet_hours, pause_until FROM notification_recipients WHERE user_id = $1
    )
    INSERT INTO notification_recipients AS r (
        user_id, timezone, locale, quiet_hours, pause_until, updated_at
    )
    VALUES ($1, $2, $3, $4::text::jsonb, $5, $6)
    ON CONFLICT (user_id) DO UPDATE SET
        timezone = CASE WHEN 'timezone' = ANY($7::text[])
                        THEN excluded.timezone ELSE r.timezone END,
        locale = CASE WHEN 'locale' = ANY($7::text[]) THEN excluded.locale ELSE r.locale END,
        quiet_hours = CASE WHEN 'quiet_hours' = ANY($7::text[])
                           THEN excluded.quiet_hours ELSE r.quiet_hours END,
        pause_until = CASE WHEN 'pause_until' = ANY($7::text[])
                           THEN excluded.pause_until ELSE r.pause_until END,
        updated_at = excluded.updated_at
    RETURNING r.timezone, r.locale, r.quiet_hours, r.pause_until, NOT EXISTS (
        SELECT FROM former f WHERE (f.timezone, f.quiet_hours, f.pause_until)
            IS NOT DISTINCT FROM (r.timezone, r.quiet_hours, r.pause_until)
    ) AS concerns_held
"""
NOTHING: Final[Mapping[str, Any]] = {
    "timezone": None,
    "locale": None,
    "quiet_hours": None,
    "pause_until": None,
}


class SettingsService:
    """Keeps settings; everything raises `Unavailable` while PostgreSQL is away.

    Args:
        changes: saves what is chosen.
        clock: the present instant.
    """

    def __init__(self, database: Database, changes: ChoiceChanges, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def read(self, user_id: UUID) -> UserSettings:
        """What is stored; a pause that is over is none."""
        async with self._database.as_user(user_id) as connection:
            driver = await driver_of(connection)
            rows = await driver.fetch(READ, user_id)
        return _settings(rows[0] if rows else NOTHING, self._clock())

    async def update(self, user_id: UUID, wanted: UpdateSettings) -> UserSettings:
        """Merge settings, and tell all that is stored then.

        Raises:
            ValidationFailed: the pause is over already, or too long.
            UnknownUser: users are the platform's own, and it has none with this id.
            Busy: the user's choices were being changed for long.
        """
        now = self._clock()
        _check_pause(wanted.pause_until, now)
        sent = sorted(wanted.model_fields_set)
        if not sent:
            return await self.read(user_id)
        quiet_hours = None if wanted.quiet_hours is None else dumps(wanted.quiet_hours)

        async def write(driver: Driver) -> tuple[Mapping[str, Any], bool]:
            (row,) = await driver.fetch(
                WRITE,
                user_id,
                wanted.timezone,
                wanted.locale,
                quiet_hours,
                wanted.pause_until,
                now,
                sent,
            )
            return row, row["concerns_held"]

        return _settings(await self._changes.save(user_id, write), now)


def _check_pause(until: datetime | None, now: datetime) -> None:
    if until is None:
        return
    if until <= now:
        _refuse("in_the_past", "must be in the future; null ends a pause")
    if until > now + LONGEST_PAUSE:
        _refuse("too_far_ahead", "must be within a year; to get no pushes, switch push off")


def _refuse(code: str, message: str) -> None:
    raise ValidationFailed(details=[ErrorDetail(path="pause_until", code=code, message=message)])


def _settings(row: Mapping[str, Any], now: datetime) -> UserSettings:
    pause = row["pause_until"]
    return UserSettings(
        timezone=row["timezone"],
        locale=row["locale"],
        quiet_hours=row["quiet_hours"],
        pause_until=None if pause is None or pause <= now else pause,
    )
