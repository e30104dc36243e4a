"""What a notification's `data` may hold beside the caller's own (REQ-013, section 5.1)."""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StrictBool,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.schemas.base import JsonObject, one_line, shallow, small
from app.security.addresses import MAX_ADDRESS, is_safe_address

MAX_ACTIONS = 10
MAX_LABEL = 100
MAX_RAW_LABEL = 500
# It stands in addresses, and never looks like the index of a button.
ACTION_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
# Every notification has these two, whether or not it lists them; they call nobody.
READ = "read"
DISMISS = "dismiss"


def _safe(value: str) -> str:
    if not is_safe_address(value):
        raise PydanticCustomError(
            "address_not_allowed", "must be relative (/path, ?query, #part) or an https address"
        )
    return value


def _label(value: str) -> str:
    return one_line(value, MAX_LABEL)


Address = Annotated[
    str, Field(max_length=MAX_ADDRESS, examples=["/tasks/128"]), AfterValidator(_safe)
]
Label = Annotated[str, Field(max_length=MAX_RAW_LABEL, examples=["View"]), AfterValidator(_label)]
ActionName = Annotated[str, Field(pattern=ACTION_NAME, examples=["dismiss"])]


class Action(BaseModel):
    """A button: it leads to `url`, or runs the named `action`."""

    model_config = ConfigDict(extra="allow")

    label: Label = Field(description="Plain text; tags are stripped.")
    url: Address | None = None
    action: ActionName | None = None
    primary: StrictBool | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if (self.url is None) == (self.action is None):
            raise PydanticCustomError("url_or_action", "must have either a url or an action")
        return self


class ContentData(BaseModel):
    """Your own data; what is listed here has a meaning."""

    model_config = ConfigDict(extra="allow")

    action_url: Address | None = Field(None, description="Where the notification leads.")
    actions: Annotated[list[Action], Field(max_length=MAX_ACTIONS)] | None = None
    silent: StrictBool | None = Field(
        None, description="`true`: data for apps alone, pushed through FCM; nothing is shown."
    )

    @field_validator("actions")
    @classmethod
    def _named_apart(cls, actions: list[Action] | None) -> list[Action] | None:
        names = [action.action for action in actions or () if action.action is not None]
        if len(names) > len(set(names)):
            raise PydanticCustomError("action_repeated", "must not name an action twice")
        return actions


class _LikeContentData:
    """Validates an object as `ContentData` does, and leaves it an object."""

    def __get_pydantic_core_schema__(
        self, _source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _as_object,
            handler.generate_schema(ContentData),
            serialization=core_schema.plain_serializer_function_ser_schema(_as_it_is),
        )


def _as_it_is(data: JsonObject) -> JsonObject:
    return data


def _as_object(data: ContentData) -> JsonObject:
    return data.model_dump(exclude_unset=True)


NotificationData = Annotated[
    JsonObject, _LikeContentData(), BeforeValidator(shallow), AfterValidator(small)
]
