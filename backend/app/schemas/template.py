"""Templates as operators write and read them (REQ-004)."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.locales import DEFAULT
from app.policy.kinds import Channel, NotificationType, Priority
from app.schemas.base import (
    LOCALE_PATTERN,
    MAX_BODY_BYTES,
    Answered,
    AnsweredInstant,
    Received,
    SmallObject,
    TimezoneName,
)

TEMPLATE_NAME: Final = r"^[a-z0-9][a-z0-9_.-]{0,99}$"
VARIABLE_NAME: Final = r"^[A-Za-z][A-Za-z0-9_]{0,99}$"
TYPES: Final = ("string", "integer", "number", "boolean", "datetime")
MAX_LANGUAGE: Final = 10
MAX_VARIABLES: Final = 100
MAX_LINE: Final = 4_000  # characters; a plural of six categories takes room
TEXTS: Final = (
    "title_template", "body_template", "email_subject_template", "email_html_template",
    "email_text_template", "push_title_template", "push_body_template",
)  # fmt: skip


def _some_text(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("empty", "must not be empty")
    if len(value.encode()) > MAX_BODY_BYTES:
        raise PydanticCustomError(
            "too_large", "must have at most {kib} KiB", {"kib": MAX_BODY_BYTES // 1024}
        )
    return value


def _distinct(channels: list[Channel]) -> list[Channel]:
    if len(set(channels)) < len(channels):
        raise PydanticCustomError("duplicate_channel", "must not name a channel twice")
    return channels


TemplateName = Annotated[str, StringConstraints(pattern=TEMPLATE_NAME)]
Language = Annotated[
    str,
    StringConstraints(pattern=LOCALE_PATTERN, max_length=MAX_LANGUAGE),
    AfterValidator(str.lower),
    Field(examples=["de"]),
]
LineSource = Annotated[
    str, Field(max_length=MAX_LINE, description="Jinja2."), AfterValidator(_some_text)
]
TextSource = Annotated[
    str, Field(max_length=MAX_BODY_BYTES, description="Jinja2."), AfterValidator(_some_text)
]
MarkdownSource = Annotated[
    str, Field(max_length=MAX_BODY_BYTES, description="Jinja2 of Markdown."),
    AfterValidator(_some_text),
]  # fmt: skip
HtmlSource = Annotated[
    str, Field(max_length=MAX_BODY_BYTES, description="Jinja2 of the HTML inside the letter."),
    AfterValidator(_some_text),
]  # fmt: skip
Variables = Annotated[
    SmallObject,
    Field(
        max_length=MAX_VARIABLES,
        description=(
            "What the texts may use, by name: a type, which is then required, or an object of"
            " `type`, `required` and `default`."
        ),
        examples=[{"actor_name": "string", "due_at": {"type": "datetime", "required": False}}],
    ),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_VARIABLES,
            "propertyNames": {"pattern": VARIABLE_NAME},
            "additionalProperties": {
                "anyOf": [
                    {"enum": [*TYPES]},
                    {
                        "type": "object",
                        "properties": {
                            "type": {"enum": [*TYPES]},
                            "required": {"type": "boolean"},
                            "default": {},
                        },
                        "required": ["type"],
                        "additionalProperties": False,
                    },
                ]
            },
        }
    ),
]
Channels = Annotated[
    list[Channel], Field(min_length=1, max_length=len(Channel)), AfterValidator(_distinct)
]


class _Texts(Received):
    """What a template says besides its title and body; null where those serve."""

    email_subject_template: LineSource | None = None
    email_html_template: HtmlSource | None = None
    email_text_template: TextSource | None = None
    push_title_template: LineSource | None = None
    push_body_template: TextSource | None = None


class _Content(_Texts):
    """What a version of a template holds."""

    default_channels: Channels | None = Field(
        None, description="Narrows delivery where the call does not; null: it does not either."
    )

    def content(self) -> dict[str, Any]:
        """What is sent, by column, as it is stored."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"name", "language"})


class CreateTemplate(_Content):
    """A template that is new in its language."""

    name: TemplateName = Field(examples=["order.shipped"])
    language: Language = DEFAULT
    type: NotificationType
    title_template: LineSource
    body_template: MarkdownSource
    default_priority: Priority | None = Field(
        None, description="Default: critical for security, normal for all others."
    )
    variables: Variables = Field(default_factory=dict)


class UpdateTemplate(_Content):
    """A new version: fields that are sent, and all others as the active version has them."""

    name: TemplateName | None = Field(None, description="The same as in the address, if at all.")
    language: Language | None = Field(None, description="Default: `language` in the address.")
    type: NotificationType | None = None
    title_template: LineSource | None = None
    body_template: MarkdownSource | None = None
    default_priority: Priority | None = None
    variables: Variables | None = None

    @field_validator("type", "title_template", "body_template", "default_priority", "variables")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("null", "must not be null")
        return value


class PreviewTemplate(_Texts):
    """Values to render a template with; texts stand in for those of the stored one."""

    variables: SmallObject = Field(
        default_factory=dict, description="Values by name.", examples=[{"actor_name": "Ada"}]
    )
    language: Language = Field(DEFAULT, description="Of the reader; falls back as for a call.")
    timezone: TimezoneName = Field("UTC", description="Of the reader, for dates.")
    title_template: LineSource | None = None
    body_template: MarkdownSource | None = None

    def texts(self) -> dict[str, str | None]:
        """The texts that are sent, by column."""
        return {name: getattr(self, name) for name in TEXTS if name in self.model_fields_set}


class StoredTemplate(Answered):
    """One version of a template in one language."""

    id: UUID
    name: str
    language: str
    version: int
    is_active: bool = Field(description="The version that calls are worded with.")
    is_shipped: bool = Field(description="It came with the program.")
    type: NotificationType
    title_template: str
    body_template: str
    email_subject_template: str | None
    email_html_template: str | None
    email_text_template: str | None
    push_title_template: str | None
    push_body_template: str | None
    default_priority: Priority | None
    default_channels: list[Channel] | None
    variables: Variables
    created_at: AnsweredInstant
    updated_at: AnsweredInstant


class TemplatePage(Answered):
    """Templates by name, language and version."""

    items: list[StoredTemplate]
    next_cursor: str | None
    has_more: bool


class RenderedTemplate(Answered):
    """What a template says; null where its title and body serve."""

    language: str = Field(description="That the template was found in.")
    version: int | None = Field(description="Null where all of it was sent along.")
    title: str
    body: str = Field(description="Markdown source.")
    body_html: str = Field(description="The body as safe HTML.")
    email_subject: str | None
    email_html: str | None
    email_text: str | None
    push_title: str | None
    push_body: str | None
