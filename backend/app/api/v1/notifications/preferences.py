"""What users choose to get, how and when (REQ-017 to REQ-019, section 5.3)."""

from typing import Annotated

from fastapi import Depends, Path

from app.api.dependencies import Context, CurrentUser
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.errors import NotFound
from app.policy.kinds import NotificationType
from app.schemas.preferences import (
    PreferenceList,
    TypePreference,
    UpdatedGlobalPreferences,
    UpdateGlobalPreferences,
    UpdatePreference,
)
from app.schemas.settings import UpdateSettings, UserSettings

router = v1_routes(prefix="/notifications", tags=["preferences"], route_class=JsonRoute)

TypeName = Annotated[
    str, Path(json_schema_extra={"enum": [kind.value for kind in NotificationType]})
]


async def known_type(notification_type: TypeName) -> NotificationType:
    """The type that a path names.

    Raises:
        NotFound: there is no such type.
    """
    try:
        return NotificationType(notification_type)
    except ValueError:
        raise NotFound from None


@router.get("/preferences")
async def list_preferences(user_id: CurrentUser, context: Context) -> PreferenceList:
    """What holds for each of the seven types and for all, with all that is inherited."""
    return await context.preferences.listed(user_id)


@router.put("/preferences/global")
async def update_global_preferences(
    wanted: UpdateGlobalPreferences, user_id: CurrentUser, context: Context
) -> UpdatedGlobalPreferences:
    """Choose for all types; what is off for all is off for each, until it is on again.

    Fields that are left out stay as they are, null goes back to the default.
    """
    return await context.preferences.update_global(user_id, wanted)


@router.put("/preferences/{notification_type}")
async def update_preferences(
    wanted: UpdatePreference,
    user_id: CurrentUser,
    context: Context,
    kind: Annotated[NotificationType, Depends(known_type)],
) -> TypePreference:
    """Choose for one type; answers what holds for it then.

    Fields that are left out stay as they are, null inherits what was chosen for all.
    """
    return await context.preferences.update_type(user_id, kind, wanted)


@router.get("/settings")
async def read_settings(user_id: CurrentUser, context: Context) -> UserSettings:
    """The user's timezone, language, quiet hours by weekday, and pause."""
    return await context.user_settings.read(user_id)


@router.put("/settings")
async def update_settings(
    wanted: UpdateSettings, user_id: CurrentUser, context: Context
) -> UserSettings:
    """Change settings; fields that are left out stay as they are, null goes back to the default."""
    return await context.user_settings.update(user_id, wanted)
