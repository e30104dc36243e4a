"""Writes letters: a notification, or a digest of several, in the one layout (REQ-014, REQ-015)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from app.channels.base import Claim
from app.channels.email.content import Content, fitting, styled, with_links
from app.channels.email.digest import Digest
from app.channels.email.layout import layout
from app.channels.email.letter import Letter
from app.channels.email.links import Links, web_address
from app.channels.email.overview import MOST_SHOWN, date_of, groups_of
from app.channels.email.plain import text_of
from app.channels.email.subject import shortened, subject_of
from app.channels.email.writing import Writing, frame_of, writing_of
from app.channels.push_content import own_address, plain_text
from app.config import Settings
from app.locales import Phrases, phrases_of
from app.policy.kinds import DigestFrequency, NotificationType, Priority
from app.security.email_tokens import EmailTokens, Unsubscription

LONGEST_PREHEADER: Final = 120  # characters; what mailboxes show beside the subject


@dataclass(frozen=True, slots=True)
class Link:
    """A link in a letter.

    Args:
        address: where it leads, as the text part has it.
        href: what stands for it in HTML.
    """

    label: str
    address: str
    href: str


@dataclass(frozen=True, slots=True)
class Words:
    """A text in a letter, or prepared HTML, and how it is written."""

    text: str
    writing: Writing


class Composer:
    """Writes letters; the same claim or digest always gives the same one.

    Args:
        settings: addresses that letters link to.
        tokens: make the links that need no signing in.
    """

    def __init__(self, settings: Settings, tokens: EmailTokens) -> None:
        self._settings = settings
        self._base_url = settings.base_url
        self._tokens = tokens
        self._tracking = tokens if settings.email_tracking == "own" else None
        self._content = Content(self._base_url)
        self._layout = layout()

    def instant(self, claim: Claim, address: str) -> Letter:
        """The letter of one notification.

        Args:
            address: whom it is for.
        """
        phrases = phrases_of(claim.locale)
        type_ = NotificationType(claim.type)
        is_urgent = claim.priority == Priority.CRITICAL
        about = Unsubscription(claim.user_id, claim.email_epoch, type_)
        links = Links(self._base_url, claim.id, self._tracking)
        html = self._content.prepared(claim.texts.email_html or claim.body_html)
        excerpt = plain_text(html)
        writing = writing_of(excerpt, claim.language, frame_of(phrases))
        shown = fitting(html, writing.start)
        button, *others = self._links_of(claim, phrases, links)
        kind = phrases(f"types.{type_}")
        subject = subject_of(claim.texts.email_subject, claim.title, kind)
        values = self._frame(phrases, about, links) | {
            "subject": subject,
            "preheader": shortened(" ".join(excerpt.split()), LONGEST_PREHEADER),
            "kind": kind,
            "urgent": phrases("letter.urgent") if is_urgent else "",
            "title": Words(claim.title, writing_of(claim.title, claim.language, frame_of(phrases))),
            "content": Words(styled(with_links(shown, links.tracked), writing.start), writing),
            "text": (claim.texts.email_text or "").strip() or text_of(html),
            "rest": None,
            "button": button,
            "links": others,
            "why": phrases("letter.why_urgent") if is_urgent else phrases("letter.why", type=kind),
        }
        if shown != html:
            own = own_address(claim, self._base_url)
            values["rest"] = Link(phrases("letter.rest"), own, links.tracked(own))
        return Letter(
            id=claim.id,
            user_id=claim.user_id,
            to=address,
            subject=subject,
            html=self._layout.html("letter", values),
            text=self._layout.text("letter", values),
            headers=self._headers(about),
            tags={"notification_id": str(claim.notification_id)},
            is_critical=is_urgent,
            is_once_more=claim.was_taken,
            links=links.targets,
        )

    def digest(self, digest: Digest) -> Letter:
        """The letter that tells of several notifications."""
        phrases = phrases_of(digest.locale)
        count = len(digest.items)
        pace = "weekly" if digest.frequency == DigestFrequency.WEEKLY else "daily"
        about = Unsubscription(digest.user_id, digest.email_epoch, None)
        links = Links(self._base_url, digest.id, self._tracking)
        inbox = f"{self._base_url}/"
        left = count - MOST_SHOWN
        subject = subject_of(phrases(f"digest.{pace}_subject", count=count))
        values = self._frame(phrases, about, links) | {
            "subject": subject,
            "preheader": shortened(
                " · ".join(item.title for item in digest.items[:5]), LONGEST_PREHEADER
            ),
            "kind": phrases(f"digest.{pace}"),
            "heading": phrases("digest.summary", count=count),
            "date": date_of(digest, phrases),
            "groups": groups_of(
                digest,
                phrases,
                lambda item: f"{self._base_url}/?notification={item.notification_id}",
                links.tracked,
            ),
            "more": phrases("digest.more", count=left) if left > 0 else "",
            "button": Link(phrases("digest.inbox"), inbox, links.tracked(inbox)),
            "why": phrases(f"digest.{pace}_why"),
        }
        return Letter(
            id=digest.id,
            user_id=digest.user_id,
            to=digest.email,
            subject=subject,
            html=self._layout.html("digest", values),
            text=self._layout.text("digest", values),
            headers=self._headers(about),
            tags={"digest_id": str(digest.id)},
            links=links.targets,
        )

    def _links_of(self, claim: Claim, phrases: Phrases, links: Links) -> list[Link]:
        """The button, then what other addresses the notification offers.

        The button is the primary action, where that is an address, else leads to `action_url`,
        else to the notification's own page. A named action runs nothing from a letter.
        """
        main = web_address(claim.data.get("action_url"), self._base_url)
        view = (phrases("letter.view"), main or own_address(claim, self._base_url))
        actions = list(self._actions(claim))
        primary = [(label, address) for label, address, is_primary in actions if is_primary]
        others = [(label, address) for label, address, is_primary in actions if not is_primary]
        offered = [*primary[:1], *([view] if main or not primary else []), *primary[1:], *others]
        by_address: dict[str, str] = {}
        for label, address in offered:
            by_address.setdefault(address, label)
        return [
            Link(label, address, links.tracked(address)) for address, label in by_address.items()
        ]

    def _actions(self, claim: Claim) -> Iterator[tuple[str, str, bool]]:
        actions = claim.data.get("actions")
        for action in actions if isinstance(actions, list) else []:
            if not isinstance(action, dict):
                continue
            label, address = action.get("label"), web_address(action.get("url"), self._base_url)
            if isinstance(label, str) and label.strip() and address is not None:
                yield label.strip(), address, action.get("primary") is True

    def _frame(self, phrases: Phrases, about: Unsubscription, links: Links) -> dict[str, Any]:
        """What every letter has: who writes, and the links below, none of which is tracked."""
        footer = [
            (phrases("letter.preferences"), f"{self._base_url}/preferences"),
            (phrases("letter.unsubscribe"), self._unsubscribe_address(about)),
        ]
        if self._settings.privacy_policy_url:
            footer.append((phrases("letter.privacy"), self._settings.privacy_policy_url))
        return {
            "frame": frame_of(phrases),
            "brand": self._settings.resend_from_name,
            "footer": [Link(label, address, address) for label, address in footer],
            "pixel": links.pixel,
        }

    def _headers(self, about: Unsubscription) -> dict[str, str]:
        return {
            "List-Unsubscribe": f"<{self._unsubscribe_address(about)}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }

    def _unsubscribe_address(self, about: Unsubscription) -> str:
        return f"{self._base_url}/api/v1/email/unsubscribe/{self._tokens.unsubscribe(about)}"
