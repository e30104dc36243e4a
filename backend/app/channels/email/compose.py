"""Writes letters: a notification, or a digest of several, in the one layout (REQ-014, REQ-015)."""

from html import escape

from app.channels.base import Claim
from app.channels.email.digest import Digest
from app.channels.email.letter import Letter
from app.config import Settings
from app.locales import phrases_of
from app.policy.kinds import NotificationType, Priority
from app.security.email_tokens import EmailTokens, Unsubscription


class Composer:
    """Writes letters.

    Args:
        settings: addresses that letters link to.
        tokens: make the links that need no signing in.
    """

    def __init__(self, settings: Settings, tokens: EmailTokens) -> None:
        self._settings = settings
        self._tokens = tokens

    def instant(self, claim: Claim, address: str) -> Letter:
        """The letter of one notification."""
        about = Unsubscription(claim.user_id, claim.email_epoch, NotificationType(claim.type))
        subject = claim.texts.email_subject or claim.title
        html = claim.texts.email_html or claim.body_html
        return Letter(
            id=claim.id,
            user_id=claim.user_id,
            to=address,
            subject=" ".join(subject.split()),
            html=f"<h1>{escape(claim.title)}</h1>\n{html}\n",
            text=claim.texts.email_text or f"{claim.title}\n\n{claim.body}\n",
            headers=self._headers(about),
            tags={"notification_id": str(claim.notification_id)},
            is_critical=claim.priority == Priority.CRITICAL,
        )

    def digest(self, digest: Digest) -> Letter:
        """The letter that tells of several notifications."""
        count = len(digest.items)
        subject = phrases_of(digest.locale)("push.summary", count=count)
        lines = [item.title for item in digest.items]
        return Letter(
            id=digest.id,
            user_id=digest.user_id,
            to=digest.email,
            subject=subject,
            html="\n".join(f"<p>{escape(line)}</p>" for line in lines),
            text="\n".join(lines),
            headers=self._headers(Unsubscription(digest.user_id, digest.email_epoch, None)),
            tags={"digest_id": str(digest.id)},
        )

    def _headers(self, about: Unsubscription) -> dict[str, str]:
        token = self._tokens.unsubscribe(about)
        return {
            "List-Unsubscribe": f"<{self._settings.base_url}/api/v1/email/unsubscribe/{token}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
