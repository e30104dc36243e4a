"""What Resend's send calls take, checked as strictly as Resend checks it.

Shapes and messages follow https://resend.com/docs/api-reference/emails/send-email.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.sandbox.resend.errors import ResendError

MAX_RECIPIENTS = 50
MAX_TAGS = 75

_ADDRESS = r"[^\s@<>,;\"]+@[^\s@<>,;\"]+\.[^\s@<>,;\".]+"
_ADDRESS_OR_NAMED = re.compile(rf"{_ADDRESS}|[^<>\r\n\0]*<{_ADDRESS}>")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LINE_END = re.compile(r"[\r\n\0]")
_TAG_PART = re.compile(r"[A-Za-z0-9_-]{1,256}")


def _refusal(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _address(value: str, info: ValidationInfo) -> str:
    if not _ADDRESS_OR_NAMED.fullmatch(value.strip()):
        field = "from" if info.field_name == "sender" else info.field_name
        raise _refusal(
            f"Invalid `{field}` field. The email address needs to follow the "
            "`email@example.com` or `Name <email@example.com>` format."
        )
    return value


def _one_line(value: str, info: ValidationInfo) -> str:
    if _LINE_END.search(value):
        raise _refusal(f"The `\\n` is not allowed in the `{info.field_name}` field.")
    return value


def _tag_part(value: str) -> str:
    if not _TAG_PART.fullmatch(value):
        raise _refusal(
            "Tags should only contain ASCII letters, numbers, underscores, or dashes, "
            "and at most 256 of them."
        )
    return value


def _header_lines(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        if not _HEADER_NAME.fullmatch(name) or _LINE_END.search(content):
            raise _refusal("Invalid `headers` field. Names and values must fit on one line.")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[list[Address], BeforeValidator(_listed)]


class TagPayload(BaseModel):
    """A tag of a mail."""

    name: Annotated[str, AfterValidator(_tag_part)]
    value: Annotated[str, AfterValidator(_tag_part)]


class EmailPayload(BaseModel):
    """One mail to send. Fields that Resend ignores are ignored."""

    sender: Address = Field(alias="from")
    to: Annotated[Addresses, Field(min_length=1, max_length=MAX_RECIPIENTS)]
    subject: Annotated[str, AfterValidator(_one_line)]
    html: str | None = None
    text: str | None = None
    cc: Addresses | None = None
    bcc: Addresses | None = None
    reply_to: Addresses | None = None
    headers: Annotated[dict[str, str], AfterValidator(_header_lines)] | None = None
    tags: Annotated[list[TagPayload], Field(max_length=MAX_TAGS)] | None = None
    attachments: list[Any] | None = None
    scheduled_at: str | None = None
    template: Any = None

    @model_validator(mode="after")
    def _sendable(self) -> Self:
        for unsupported in ("attachments", "scheduled_at", "template"):
            # Taking the mail without them would show something that was never sent like this.
            if getattr(self, unsupported):
                raise _refusal(f"The sandbox does not support the `{unsupported}` field.")
        if not self.html and not self.text:
            raise PydanticCustomError("missing", "Missing `html` or `text` field.")
        return self


def parse_email(payload: object) -> EmailPayload:
    """Check one mail.

    Raises:
        ResendError: 422 with the first thing that is wrong with it.
    """
    if not isinstance(payload, Mapping):
        raise ResendError(422, message="The email must be a JSON object.")
    try:
        return EmailPayload.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "missing" and path:
        raise ResendError(422, "missing_required_field", f"Missing `{path[0]}` field.")
    if first["type"] == "missing":
        raise ResendError(422, "missing_required_field", first["msg"])
    if first["type"] == "refused":
        raise ResendError(422, message=first["msg"])
    raise ResendError(422, message=f"Invalid `{path[0]}` field. {first['msg']}.")
