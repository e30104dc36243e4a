"""What a template says on other channels than in the inbox (REQ-004)."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ChannelTexts:
    """Rendered and safe; None where the notification's title and body serve.

    Args:
        email_subject: one line.
        email_html: what stands in the letter instead of the body, safe HTML.
        email_text: the same as plain text.
        push_title: plain text.
        push_body: plain text.
    """

    email_subject: str | None = None
    email_html: str | None = None
    email_text: str | None = None
    push_title: str | None = None
    push_body: str | None = None

    @classmethod
    def of(cls, stored: dict[str, Any] | None) -> "ChannelTexts":
        """As they are stored with the notification."""
        return cls(**stored) if stored else NO_TEXTS

    def stored(self) -> dict[str, str] | None:
        """What is stored: those that there are, None for none."""
        if self == NO_TEXTS:  # as most are
            return None
        return {name: text for name, text in asdict(self).items() if text is not None}


NO_TEXTS = ChannelTexts()
