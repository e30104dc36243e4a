"""What a notification is before it is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from pydantic import JsonValue

from app.channels.texts import NO_TEXTS, ChannelTexts
from app.errors import ValidationFailed
from app.pipeline.idempotency import Attempt
from app.policy.routing import Request
from app.security.redact import Masked

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Words:
    """What a notification says, in one language; the fields are those of `Content`."""

    title: str
    body: str
    body_html: str
    template_id: str | None
    template_version: int | None
    language: str | None
    texts: ChannelTexts


@dataclass(frozen=True, slots=True)
class Content:
    """Texts and data of a notification, sanitised and without secrets.

    Args:
        title: plain text, at most 255 characters.
        body: Markdown source.
        body_html: the same as safe HTML.
        data: the caller's own data.
        template_id: the template that was asked for, or whose words these are.
        template_version: whose words these are, None where they are the caller's own.
        language: of a template's words, a BCP 47 tag.
        texts: what a template says on other channels.
        variables: what the template gets beside `data`.
        locale: the template's language that was asked for, a BCP 47 tag.
        masked: where secrets were.
    """

    title: str
    body: str
    body_html: str
    data: JsonObject
    template_id: str | None = None
    template_version: int | None = None
    language: str | None = None
    texts: ChannelTexts = NO_TEXTS
    variables: JsonObject = field(default_factory=dict[str, JsonValue])
    locale: str | None = None
    masked: Sequence[Masked] = ()

    @property
    def words(self) -> Words:
        """Those of its fields that depend on the language."""
        return Words(
            self.title,
            self.body,
            self.body_html,
            self.template_id,
            self.template_version,
            self.language,
            self.texts,
        )

    def in_words(self, words: Words) -> "Content":
        """The same content, said like this."""
        return replace(
            self,
            title=words.title,
            body=words.body,
            body_html=words.body_html,
            template_id=words.template_id,
            template_version=words.template_version,
            language=words.language,
            texts=words.texts,
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """One notification of one user, ready to be decided and stored.

    Args:
        id: UUIDv7 of the notification.
        service: name of the calling service.
        request: what the policy needs to know of the call.
        created_at: aware instant of the call.
        batch_id: the bulk call it came from.
        attempt: the call's idempotency key.
        only_device: pushes go to this device alone, None for all of the user's.
    """

    id: UUID
    user_id: UUID
    service: str
    request: Request
    content: Content
    created_at: datetime
    batch_id: UUID | None = None
    attempt: Attempt | None = None
    only_device: UUID | None = None

    @property
    def is_expired(self) -> bool:
        """Whether nobody would ever see it."""
        return is_expired(self.request, self.created_at)


def is_expired(request: Request, now: datetime) -> bool:
    """Whether a call is for something that has expired."""
    return request.expires_at is not None and request.expires_at <= now


def already_expired() -> ValidationFailed:
    """What the caller is told of it."""
    return ValidationFailed(
        details=[{"path": "expires_at", "code": "in_the_past", "message": "must be in the future"}]
    )
