"""Where clicks on named actions are posted, and what a click is answered (REQ-013)."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from app.schemas.base import Answered, AnsweredInstant, Received
from app.security.addresses import MAX_ADDRESS


class PutActionCallback(Received):
    """Where to post clicks on the action."""

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_ADDRESS,
            description="An https address on a public host.",
            examples=["https://tasks.example.com/hooks/notify"],
        ),
    ]


class ActionCallback(Answered):
    """Where clicks on an action are posted, and what they are signed with."""

    name: str = Field(examples=["accept"])
    url: str = Field(examples=["https://tasks.example.com/hooks/notify"])
    secret: str = Field(
        repr=False,
        description="Signing secret after Standard Webhooks, the same for as long as this is here.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw0JfbBq3eVfI="],
    )
    created_at: AnsweredInstant
    updated_at: AnsweredInstant


class ClickedAction(Answered):
    """What became of a click; the same action's next click is answered the same."""

    action: str = Field(examples=["accept"])
    status: Literal["completed", "pending", "failed"] = Field(
        description="`pending` while the service it is for has not answered; `failed` once it has "
        "refused, or has been tried too often."
    )
    result: JsonValue = Field(
        description="What the service answered; for a URL button its address.",
        examples=[{"task": 128, "state": "accepted"}],
    )
