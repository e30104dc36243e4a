"""Preferences of users, for each type and for all (REQ-017 to REQ-019, section 5.3).

A row keeps what was chosen, null where nothing was; callers see what follows from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from app.db.database import Database, Driver, driver_of, dumps
from app.errors import ErrorDetail, ValidationFailed
from app.pipeline.choices import GLOBAL, choices_of
from app.pipeline.deliver import Clock
from app.policy.kinds import NotificationType
from app.policy.preferences import NOTHING_CHOSEN, Choices, Preferences, effective
from app.schemas.preferences import (
    GlobalPreferences,
    PreferenceList,
    TypePreference,
    UpdatedGlobalPreferences,
    UpdateGlobalPreferences,
    UpdatePreference,
)
from app.services.choice_changes import ChoiceChanges

READ: Final = """
    SELECT notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
           digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    FROM notification_preferences WHERE user_id = $1
"""
WRITE: Final = """
    INSERT INTO notification_preferences (
        user_id, notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
        digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11)
    ON CONFLICT (user_id, notification_type) DO UPDATE SET
        push_enabled = excluded.push_enabled, email_enabled = excluded.email_enabled,
        digest_frequency = excluded.digest_frequency, digest_time = excluded.digest_time,
        digest_day = excluded.digest_day, quiet_hours_start = excluded.quiet_hours_start,
        quiet_hours_end = excluded.quiet_hours_end, quiet_hours_days = excluded.quiet_hours_days,
        updated_at = excluded.updated_at
"""


ABOUT_PUSHES: Final = attrgetter(
    "push_enabled", "quiet_hours_start", "quiet_hours_end", "quiet_hours_days"
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was chosen for one type or for all, and when."""

    choices: Choices = NOTHING_CHOSEN
    saved_at: datetime | None = None

    @property
    def updated_at(self) -> datetime | None:
        """When something was last chosen; None if nothing is."""
        return None if self.choices == NOTHING_CHOSEN else self.saved_at


UNTOUCHED: Final = Row()


@dataclass(frozen=True, slots=True)
class Chosen:
    """All that a user chose, and what holds where they did not.

    Args:
        rows: by type, and `global` for all of them.
    """

    rows: Mapping[str, Row]
    defaults: Preferences

    def of(self, row: str) -> Row:
        """What was chosen for a type, or for all."""
        return self.rows.get(row, UNTOUCHED)

    def of_type(self, kind: NotificationType) -> TypePreference:
        """What holds for a type."""
        row = self.of(kind.value)
        holds = effective(row.choices, self.of(GLOBAL).choices, self.defaults)
        return TypePreference(
            notification_type=kind,
            in_app_enabled=True,
            updated_at=row.updated_at,
            **_fields(holds),
        )

    def of_all(self) -> GlobalPreferences:
        """What holds for types that nothing was chosen for."""
        return GlobalPreferences(**self._of_all())

    def items(self) -> list[TypePreference]:
        """What holds for each type."""
        return [self.of_type(kind) for kind in NotificationType]

    def updated(self) -> UpdatedGlobalPreferences:
        """What holds for all, and for each."""
        return UpdatedGlobalPreferences(**self._of_all(), items=self.items())

    def _of_all(self) -> dict[str, Any]:
        row = self.of(GLOBAL)
        holds = _fields(effective(NOTHING_CHOSEN, row.choices, self.defaults))
        named = {
            "all_push_enabled": holds.pop("push_enabled"),
            "all_email_enabled": holds.pop("email_enabled"),
        }
        for name in ("digest_frequency", "digest_time", "digest_day"):
            named[f"default_{name}"] = holds.pop(name)
        return {**named, **holds, "updated_at": row.updated_at}


class PreferenceService:
    """Keeps preferences; everything raises `Unavailable` while PostgreSQL is away.

    Args:
        changes: saves what is chosen.
        defaults: what holds where nothing is chosen.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, changes: ChoiceChanges, defaults: Preferences, clock: Clock
    ) -> None:
        self._database = database
        self._changes = changes
        self._defaults = defaults
        self._clock = clock

    async def listed(self, user_id: UUID) -> PreferenceList:
        """What holds for each type and for all; the defaults for who was never seen."""
        chosen = await self._look(user_id)
        return PreferenceList(items=chosen.items(), of_all=chosen.of_all())

    async def chosen(self, user_id: UUID) -> Chosen:
        """What was chosen, and what follows from it."""
        return await self._look(user_id)

    async def update_type(
        self, user_id: UUID, kind: NotificationType, wanted: UpdatePreference
    ) -> TypePreference:
        """Merge choices for a type, and tell what holds for it then.

        Raises:
            ValidationFailed: they cannot be meant, by themselves or with what was chosen before.
            UnknownUser: users are the platform's own, and it has none with this id.
            Busy: the user's choices were being changed for long.
        """
        return (await self._update(user_id, kind.value, wanted)).of_type(kind)

    async def update_global(
        self, user_id: UUID, wanted: UpdateGlobalPreferences
    ) -> UpdatedGlobalPreferences:
        """Merge choices for all types, and tell all that holds then.

        Raises:
            ValidationFailed: they cannot be meant, by themselves or with what was chosen before.
            UnknownUser: users are the platform's own, and it has none with this id.
            Busy: the user's choices were being changed for long.
        """
        return (await self._update(user_id, GLOBAL, wanted)).updated()

    async def _update(
        self, user_id: UUID, name: str, wanted: UpdatePreference | UpdateGlobalPreferences
    ) -> Chosen:
        _refuse(wanted.problems())
        changes = wanted.changes()
        if not changes:
            return await self._look(user_id)

        async def write(driver: Driver) -> tuple[Chosen, bool]:
            chosen = await self._read(driver, user_id)
            former = chosen.of(name).choices
            row = Row(replace(former, **changes), self._clock())
            _refuse(_problems(row.choices))
            await driver.execute(WRITE, user_id, name, *_columns(row.choices), row.saved_at)
            stored = replace(chosen, rows={**chosen.rows, name: row})
            return stored, ABOUT_PUSHES(row.choices) != ABOUT_PUSHES(former)

        return await self._changes.save(user_id, write)

    async def _look(self, user_id: UUID) -> Chosen:
        async with self._database.as_user(user_id) as connection:
            return await self._read(await driver_of(connection), user_id)

    async def _read(self, driver: Driver, user_id: UUID) -> Chosen:
        rows = await driver.fetch(READ, user_id)
        return Chosen(
            {row["notification_type"]: Row(choices_of(row), row["updated_at"]) for row in rows},
            self._defaults,
        )


def _fields(holds: Preferences) -> dict[str, Any]:
    return asdict(holds) | {"quiet_hours_days": list(holds.quiet_hours_days)}


def _columns(choices: Choices) -> Sequence[Any]:
    *columns, days = astuple(choices)
    return (*columns, None if days is None else dumps(days))


def _problems(choices: Choices) -> list[ErrorDetail]:
    start, end = choices.quiet_hours_start, choices.quiet_hours_end
    if (start is None) != (end is None):
        missing = "quiet_hours_start" if start is None else "quiet_hours_end"
        return [_problem(missing, "incomplete_window", "start and end are set, or null, together")]
    if start is not None and start == end:
        return [_problem("quiet_hours_end", "empty_window", "must differ from the start")]
    return []


def _problem(path: str, code: str, message: str) -> ErrorDetail:
    return ErrorDetail(path=path, code=code, message=message)


def _refuse(problems: list[ErrorDetail]) -> None:
    if problems:
        raise ValidationFailed(details=problems)
