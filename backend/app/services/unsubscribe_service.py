"""Unsubscribing from the links in emails, without signing in (REQ-014, REQ-017; RFC 8058).

A link says for whom it is and what it is about, and only what it is about, or email as a whole, can
be switched with it. That is saved as the user's own choice, like one made among the preferences.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from app.db.database import Database, driver_of
from app.errors import ValidationFailed
from app.pipeline.choices import GLOBAL
from app.policy.kinds import NotificationType
from app.schemas.preferences import UpdateGlobalPreferences, UpdatePreference
from app.security.email_tokens import EmailTokens
from app.security.sealed import NotSealed
from app.services.preference_service import PreferenceService

READ: Final = "SELECT email_epoch, locale FROM notification_recipients WHERE user_id = $1"


class UnknownLink(Exception):
    """Nobody was given this link, or its user is gone."""


class VoidLink(Exception):
    """The user has another address by now.

    Args:
        locale: the user's language, None when it is not known.
    """

    def __init__(self, locale: str | None) -> None:
        self.locale = locale
        super().__init__()


class Choice(StrEnum):
    """What can be done with a link."""

    STOP_TYPE = "stop-type"
    STOP_ALL = "stop-all"
    RESTORE_TYPE = "restore-type"
    RESTORE_ALL = "restore-all"

    @property
    def is_about_type(self) -> bool:
        """Whether it is about the type that the email was about, not about email as a whole."""
        return self in {Choice.STOP_TYPE, Choice.RESTORE_TYPE}

    @property
    def stops(self) -> bool:
        """Whether fewer emails come after it."""
        return self in {Choice.STOP_TYPE, Choice.STOP_ALL}


@dataclass(frozen=True, slots=True)
class EmailChoices:
    """What holds for a user's email.

    Args:
        type: what the email with the link was about; None for a digest.
        locale: the user's language, None when it is not known.
        type_is_on: whether emails of the type come; as `all_is_on` where there is no type.
        all_is_on: whether any emails come, but for critical ones.
        had_chosen: before what was just done, whether the user had switched that on explicitly.
    """

    type: NotificationType | None
    locale: str | None
    type_is_on: bool
    all_is_on: bool
    had_chosen: bool = False


class UnsubscribeService:
    """Switches email off and on again; everything raises `Unavailable` without PostgreSQL.

    Args:
        tokens: say whom a link is for and what it is about.
        preferences: keeps what users choose.
    """

    def __init__(
        self, database: Database, tokens: EmailTokens, preferences: PreferenceService
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._preferences = preferences

    async def look(self, token: str) -> EmailChoices:
        """What holds for whom the link is for.

        Raises:
            UnknownLink: nobody was given it, or its user is gone.
            VoidLink: it was sent to another address than the user's present one.
        """
        user_id, kind, locale = await self._read(token)
        return await self._holding(user_id, kind, locale)

    async def choose(
        self, token: str, choice: Choice | None = None, *, was_chosen: bool = False
    ) -> EmailChoices:
        """Switch email off, or on again, and tell what holds then.

        Args:
            choice: default: stop what the email with the link was about.
            was_chosen: for restoring: the user had switched it on explicitly.

        Raises:
            UnknownLink: nobody was given it, or its user is gone.
            VoidLink: it was sent to another address than the user's present one.
            ValidationFailed: a type is to be switched with a link that is about none.
            Busy: the user's choices were being changed for long.
        """
        user_id, kind, locale = await self._read(token)
        if choice is None:
            choice = Choice.STOP_ALL if kind is None else Choice.STOP_TYPE
        row = GLOBAL
        if choice.is_about_type:
            if kind is None:
                raise ValidationFailed("The link is about no type of notifications.")
            row = kind.value
        before = (await self._preferences.chosen(user_id)).of(row).choices.email_enabled
        wanted = False if choice.stops else was_chosen or None
        if choice.is_about_type and kind is not None:
            of_type = UpdatePreference.model_validate({"email_enabled": wanted})
            await self._preferences.update_type(user_id, kind, of_type)
        else:
            of_all = UpdateGlobalPreferences.model_validate({"all_email_enabled": wanted})
            await self._preferences.update_global(user_id, of_all)
        return await self._holding(user_id, kind, locale, had_chosen=before is True)

    async def _read(self, token: str) -> tuple[UUID, NotificationType | None, str | None]:
        try:
            about = self._tokens.read_unsubscribe(token)
        except NotSealed:
            raise UnknownLink from None
        async with self._database.as_user(about.user_id) as connection:
            rows = await (await driver_of(connection)).fetch(READ, about.user_id)
        if not rows:
            raise UnknownLink
        (row,) = rows
        if row["email_epoch"] != about.epoch:
            raise VoidLink(row["locale"])
        return about.user_id, about.type, row["locale"]

    async def _holding(
        self,
        user_id: UUID,
        kind: NotificationType | None,
        locale: str | None,
        *,
        had_chosen: bool = False,
    ) -> EmailChoices:
        chosen = await self._preferences.chosen(user_id)
        all_is_on = chosen.of_all().all_email_enabled
        type_is_on = all_is_on if kind is None else chosen.of_type(kind).email_enabled
        return EmailChoices(kind, locale, type_is_on, all_is_on, had_chosen)
