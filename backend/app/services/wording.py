"""What a call says: its own title and body, or a template's (REQ-004; `docs/templates.md`)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from app.channels.texts import NO_TEXTS, ChannelTexts
from app.errors import ValidationFailed
from app.pipeline.batch import BatchContent
from app.pipeline.draft import Content
from app.pipeline.templates import Found, Lookup, Template, Templates
from app.policy.routing import Request
from app.rendering.base import CannotRender, Job, Renderer
from app.rendering.variables import declared, values_of
from app.schemas.base import MAX_BODY_BYTES, MAX_TITLE, JsonObject
from app.schemas.notification import (
    CreateBatch,
    CreateNotification,
    DeliveryWishes,
    NotificationContent,
)
from app.security.lines import plain_line, plain_lines
from app.security.redact import redact
from app.security.sanitize import TooComplex, clean_html, safe_html

OWN_FIELDS = ("title", "body")
SHORTENED = "…"


def policy_request(wanted: DeliveryWishes) -> Request:
    """What the policy needs to know of a call."""
    return Request(
        type=wanted.type,
        priority=wanted.priority,
        channels=None if wanted.channels is None else frozenset(wanted.channels),
        send_email=wanted.send_email,
        send_at=wanted.send_at,
        expires_at=wanted.expires_at,
        silent=wanted.data.get("silent") is True,
    )


class Unusable(ValueError):
    """A template's text that no notification can have; the message is for who wrote it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose words a call gets.

    Args:
        template: None where the call has all of its own.
        fields: what is taken from the template; title and body that are not are the call's own.
        language: for plurals, numbers and dates.
    """

    template: Template | None = None
    fields: tuple[str, ...] = ()
    language: str = ""


class Wording:
    """Turns calls into what is stored.

    Args:
        templates: those in the database.
        renderer: renders them.
        timezone: an IANA name, of users who have none.
    """

    def __init__(self, templates: Templates, renderer: Renderer, timezone: str) -> None:
        self._templates = templates
        self._renderer = renderer
        self._timezone = timezone

    async def of(self, wanted: CreateNotification) -> tuple[Request, Content]:
        """What a call asks for and what it says, in the language of whom it is for.

        Raises:
            ValidationFailed: there are no words for it, or its template or its body cannot be
                used, or what the template needs is missing.
            Unavailable: PostgreSQL is away, or templates cannot be rendered.
        """
        request = policy_request(wanted)
        if wanted.template_id is None:
            return request, _content(wanted, {}, Choice())
        found = await self._templates.find(Lookup(_names(wanted), wanted.user_id))
        locale = wanted.locale or found.locale
        choice = _choice(wanted, found, locale)
        timezone = found.timezone or self._timezone
        (content,) = await self._contents(wanted, [choice], timezone)
        return _with_defaults(request, found.in_language(wanted.template_id, locale)), content

    async def of_batch(self, wanted: CreateBatch) -> BatchContent:
        """What a call asks for and what it says, in each language that some recipient may have.

        Raises:
            ValidationFailed: as in `of`, for any of the languages.
            Unavailable: PostgreSQL is away, or templates cannot be rendered.
        """
        request = policy_request(wanted)
        if wanted.template_id is None:
            return BatchContent(request, _content(wanted, {}, Choice()))
        found = await self._templates.find(Lookup(_names(wanted)))
        languages = _languages(wanted, found)
        # Who speaks none of them is told as one of whom no language is known.
        choices = [_choice(wanted, found, tag) for tag in (wanted.locale, *languages)]
        contents = await self._contents(wanted, choices, self._timezone)
        named = found.templates[wanted.template_id]
        default = found.in_language(wanted.template_id, wanted.locale)
        default = default or next((named[tag] for tag in sorted(named)), None)
        masked = dict.fromkeys(found for content in contents for found in content.masked)
        return BatchContent(
            _with_defaults(request, default),
            replace(contents[0], masked=[*masked]),
            {tag: said.words for tag, said in zip(languages, contents[1:], strict=True)},
        )

    async def _contents(
        self, wanted: NotificationContent, choices: Sequence[Choice], timezone: str
    ) -> list[Content]:
        # One template may serve several languages, and is rendered once.
        jobs = {
            choice: _job(wanted, choice.template, choice, timezone)
            for choice in choices
            if choice.template is not None
        }
        answers = await self._renderer.render([*jobs.values()]) if jobs else []
        rendered = dict(zip(jobs, answers, strict=True))
        contents: list[Content] = []
        for choice in choices:
            texts = rendered.get(choice, {})
            if isinstance(texts, CannotRender):
                raise _failed(texts.field, f"{texts.message} ({texts.code})")
            contents.append(_content(wanted, texts, choice))
        return contents


def _names(wanted: NotificationContent) -> tuple[str, ...]:
    """The template asked for and, where the call has not all of its own words, the type's."""
    assert wanted.template_id is not None  # noqa: S101 -- nobody else looks for templates
    absent = wanted.title is None or wanted.body is None
    return (wanted.template_id, *([wanted.type.value] if absent else []))


def _languages(wanted: NotificationContent, found: Found) -> list[str]:
    """Those in which the words may differ; none where the call names one."""
    if wanted.locale is not None:
        return []
    return sorted({tag for languages in found.templates.values() for tag in languages})


def _choice(wanted: NotificationContent, found: Found, locale: str | None) -> Choice:
    """The template in the user's language, else the call's own words, else the type's template.

    Raises:
        ValidationFailed: there is none of them.
    """
    asked, *default = _names(wanted)
    template = found.in_language(asked, locale)
    if template is not None:
        return Choice(template, tuple(template.sources), _conventions(template, locale))
    absent = tuple(name for name in OWN_FIELDS if getattr(wanted, name) is None)
    if not absent:
        return Choice()
    template = found.in_language(default[0], locale)
    if template is None:
        raise _absent(absent)
    # Beside words of the call's own, those of the template for other channels say something else.
    fields = absent if len(absent) < len(OWN_FIELDS) else tuple(template.sources)
    return Choice(template, fields, _conventions(template, locale))


def _conventions(template: Template, locale: str | None) -> str:
    """A template in English says dates in the manner of en-GB to whoever speaks that."""
    is_regional = locale is not None and f"{locale.lower()}-".startswith(f"{template.language}-")
    return locale if is_regional and locale is not None else template.language


def _with_defaults(request: Request, template: Template | None) -> Request:
    """The request with what the template asks for where the call says nothing."""
    if template is None:
        return request
    says_where = request.channels is not None or request.send_email is not None
    return replace(
        request,
        priority=request.priority or template.default_priority,
        channels=request.channels if says_where else template.default_channels,
    )


def _job(wanted: NotificationContent, template: Template, choice: Choice, timezone: str) -> Job:
    """What is to be rendered.

    Raises:
        ValidationFailed: a variable is missing, or of another type.
    """
    given: Mapping[str, JsonValue] = {**wanted.data, **wanted.variables}
    values, _ = redact(values_of(declared(template.variables), given))
    sources = {name: template.sources[name] for name in choice.fields}
    return Job(sources, values, choice.language, timezone)


def _content(wanted: NotificationContent, rendered: Mapping[str, str], choice: Choice) -> Content:
    """Texts and data as they are stored: without secrets, the body as safe HTML too.

    Args:
        rendered: by field what the template says; the rest is the call's own.

    Raises:
        ValidationFailed: a text cannot be used.
    """
    said: JsonObject = {
        "title": wanted.title,
        "body": wanted.body,
        **rendered,
        "data": wanted.data,
        "variables": wanted.variables,
    }
    said, masked = redact(said)
    texts = {name: cast("str", said[name]) for name in OWN_FIELDS}
    name = "body"
    try:
        for name in rendered:
            texts[name] = CLEANERS[name](cast("str", said[name]))
        name = "body"
        body_html = safe_html(texts[name])
    except (Unusable, TooComplex) as error:
        if name in rendered:
            raise _failed(name, str(error)) from None
        raise _refused(name, "too_complex", str(error)) from None
    template = choice.template
    return Content(
        title=texts.pop("title")[:MAX_TITLE],  # a mask may be longer than its secret
        body=texts.pop("body"),
        body_html=body_html,
        data=cast("JsonObject", said["data"]),
        template_id=wanted.template_id if template is None else template.name,
        template_version=None if template is None else template.version,
        language=None if template is None else template.language,
        texts=_channel_texts(texts),
        variables=cast("JsonObject", said["variables"]),
        locale=wanted.locale,
        masked=masked,
    )


def _channel_texts(texts: Mapping[str, str]) -> ChannelTexts:
    # A template that says nothing on a channel leaves it to title and body.
    said = {name: text for name, text in texts.items() if text}
    return ChannelTexts(**said) if said else NO_TEXTS


def _title(text: str) -> str:
    title = _line(text)
    if not title:
        raise Unusable("the text is empty")
    return title


def _body(text: str) -> str:
    if not text.strip():
        raise Unusable("the text is empty")
    if len(text.encode()) > MAX_BODY_BYTES:
        raise Unusable(f"the text has more than {MAX_BODY_BYTES // 1024} KiB")
    return text


def _line(text: str) -> str:
    line = plain_line(text)
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - len(SHORTENED)] + SHORTENED


def _lines(text: str) -> str:
    return plain_lines(text).strip()


CLEANERS: Mapping[str, Callable[[str], str]] = {
    "title": _title,
    "body": _body,
    "email_subject": _line,
    "email_html": clean_html,
    "email_text": _lines,
    "push_title": _line,
    "push_body": _lines,
}


def _failed(name: str, message: str) -> ValidationFailed:
    """What the caller of a template without a usable text is told."""
    return _refused("template_id", "template_failed", f"{name} cannot be rendered: {message}")


def _absent(names: Iterable[str]) -> ValidationFailed:
    """What a call is told whose template is not there, nor what would stand in for it."""
    words = " and ".join(names)
    return _refused(
        "template_id",
        "template_not_found",
        f"there is no such template in the language, no {words}, and no template of the type",
    )


def _refused(path: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(details=[{"path": path, "code": code, "message": message}])
