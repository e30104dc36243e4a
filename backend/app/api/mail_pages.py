"""The pages that links in emails lead to: without script, in the reader's language (REQ-014)."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from app.config import Settings
from app.locales import Phrases, languages_of, phrases_of
from app.services.unsubscribe_service import Choice, EmailChoices

FOLDER: Final = Path(__file__).parent / "pages"
CSS: Final = (FOLDER / "page.css").read_text()
CSS_HASH: Final = base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{CSS_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
    "Referrer-Policy": "no-referrer",
}
# All is escaped but the style, whose very characters are hashed.
TEMPLATE: Final = Environment(loader=FileSystemLoader(FOLDER), autoescape=True).get_template(
    "page.html"
)


@dataclass(frozen=True, slots=True)
class Button:
    """Something to choose.

    Args:
        was_chosen: for what is undone: the user had switched it on explicitly.
    """

    choice: Choice
    label: str
    was_chosen: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """What a page says.

    Args:
        buttons: the first is the likeliest.
        is_news: whether it tells what was just done.
    """

    heading: str
    lead: str
    buttons: tuple[Button, ...] = ()
    is_news: bool = False


def unsubscribe_page(
    settings: Settings, holding: EmailChoices, done: Choice | None = None
) -> HTMLResponse:
    """What holds for a user's email, and what can be changed.

    Args:
        done: what was just done; None when nothing was.
    """
    words = phrases_of(holding.locale)
    return _page(settings, words, _view(words, holding, done), 200)


def closed_page(settings: Settings, words: Phrases, name: str, status: int) -> HTMLResponse:
    """That a link is of no use.

    Args:
        name: of the phrases that say why: `void`, `unknown` or `nowhere`.
    """
    view = View(words(f"unsubscribe.{name}"), words(f"unsubscribe.{name}_lead"))
    return _page(settings, words, view, status)


def accepted_words(accept_language: str | None) -> Phrases:
    """The words for a reader of whom nothing is known but what their browser asks for."""
    for item in (accept_language or "").split(",")[:10]:
        tag = item.partition(";")[0].strip()
        if phrases_of(tag).language == languages_of(tag)[0].partition("-")[0] and tag:
            return phrases_of(tag)
    return phrases_of(None)


def _view(words: Phrases, holding: EmailChoices, done: Choice | None) -> View:
    kind = "" if holding.type is None else words(f"types.{holding.type.value}")

    def say(name: str) -> str:
        return words(f"unsubscribe.{name}", type=kind)

    stop_all = Button(Choice.STOP_ALL, say("stop_all"))
    if not holding.all_is_on:
        if done is Choice.STOP_ALL:
            undo = Button(Choice.RESTORE_ALL, say("undo"), holding.had_chosen)
            return View(say("done_all"), say("done_lead"), (undo,), is_news=True)
        again = Button(Choice.RESTORE_ALL, say("restore_all"))
        return View(say("off_all"), say("off_lead"), (again,), is_news=done is not None)
    if not holding.type_is_on:
        if done is Choice.STOP_TYPE:
            undo = Button(Choice.RESTORE_TYPE, say("undo"), holding.had_chosen)
            return View(say("done_type"), say("done_lead"), (undo, stop_all), is_news=True)
        again = Button(Choice.RESTORE_TYPE, say("restore_type"))
        return View(say("off_type"), say("off_lead"), (again, stop_all), is_news=done is not None)
    of_type = () if holding.type is None else (Button(Choice.STOP_TYPE, say("stop_type")),)
    buttons = (*of_type, stop_all)
    if done is not None:
        heading = say("back_type" if done.is_about_type else "back_all")
        return View(heading, say("back_lead"), buttons, is_news=True)
    return View(say("ask_type" if of_type else "ask_all"), say("ask_lead"), buttons)


def _page(settings: Settings, words: Phrases, view: View, status: int) -> HTMLResponse:
    html = TEMPLATE.render(
        words=words,
        view=view,
        css=CSS,
        name=settings.resend_from_name,
        preferences_url=f"{settings.base_url}/preferences",
        privacy_url=settings.privacy_policy_url,
    )
    return HTMLResponse(html, status_code=status, headers=HEADERS)
