"""What Resend posts (REQ-014)."""

from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator


class ResendEvent(BaseModel):
    """Something that happened, mostly to an email; what is not known of it is left aside."""

    model_config = ConfigDict(extra="ignore")

    type: str = Field(examples=["email.delivered"])
    created_at: AwareDatetime | None = Field(
        None, description="When it happened; else when it was posted."
    )
    data: dict[str, Any] = Field(
        description="`email_id`, `to`, `tags`, and what belongs to the type.",
        examples=[{"email_id": "56761188-7520-42d8-8898-ff6fc54ce618", "to": ["ada@example.com"]}],
    )

    @field_validator("created_at", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        if value is None or isinstance(value, str):
            return value
        raise ValueError("must be an ISO 8601 instant")


class WebhookAnswer(BaseModel):
    """That it was taken in."""

    received: bool = True
