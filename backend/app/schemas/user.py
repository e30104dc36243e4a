"""What platforms report about their users."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from app.schemas.base import Answered, EmailAddress, JsonObject, Locale, Received, SmallObject
from app.schemas.base import TimezoneName as Timezone

FullName = Annotated[str, Field(max_length=200)]


class UpsertUser(Received):
    """Fields that are sent are stored, null clears, what is left out stays as it is."""

    email: EmailAddress | None = None
    full_name: FullName | None = None
    timezone: Timezone | None = None
    locale: Locale | None = None
    attributes: SmallObject | None = Field(default=None, description="For segments of bulk calls.")


class StoredUser(Answered):
    """A user as a recipient."""

    id: UUID
    email: str | None
    full_name: str | None
    timezone: str | None
    locale: str | None
    attributes: JsonObject
