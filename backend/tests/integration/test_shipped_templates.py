"""The shipped templates: complete, in good language, and safe (REQ-001, REQ-004).

`WRITE_GOLDENS=1` writes the golden files anew; look at what changed.
"""

import os
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from app.policy.kinds import NotificationType, Priority
from app.rendering.base import FIELDS, Checked
from app.rendering.renderer import ProcessRenderer
from app.security.sanitize import safe_html
from app.shipped_templates import LANGUAGES, ShippedTemplate, shipped_templates
from tests.template_samples import said

GOLDENS = Path(__file__).parents[1] / "goldens" / "templates"
UPDATE = bool(os.environ.get("WRITE_GOLDENS"))

EVENTS = {
    "system": {"platform_update", "maintenance_alert"},
    "user": {"mention", "reply", "like", "follow"},
    "task": {"task_assigned", "task_updated", "task_completed", "task_deadline"},
    "security": {"login_alert", "password_changed", "suspicious_activity"},
    "billing": {"invoice", "payment_confirmed", "subscription_updated"},
    "workflow": {"spec_approval", "phase_transition", "ticket_assigned"},
    "agent": {"agent_completed", "agent_failed", "agent_status"},
}
TEMPLATES = shipped_templates()
BY_KEY = {(item.name, item.language): item for item in TEMPLATES}
ARABIC = re.compile("[\u0600-\u06ff]")

each = pytest.mark.parametrize(
    "shipped", TEMPLATES, ids=lambda item: f"{item.language}-{item.name}"
)


@pytest.fixture(scope="module")
async def renderer() -> AsyncGenerator[ProcessRenderer]:
    """One process for all."""
    async with ProcessRenderer() as running:
        yield running


def test_every_type_and_every_event_has_words_in_every_language() -> None:
    assert set(EVENTS) == {kind.value for kind in NotificationType}
    wanted = {
        (kind, name, language)
        for kind, names in EVENTS.items()
        for name in (kind, *names)
        for language in LANGUAGES
    }
    assert {(item.type, item.name, item.language) for item in TEMPLATES} == wanted
    assert len(TEMPLATES) == len(wanted)


def test_priorities_are_those_of_the_requirement() -> None:
    priorities = {item.name: Priority(item.priority) for item in TEMPLATES}
    security = {"security", *EVENTS["security"]}
    assert {name for name, is_of in priorities.items() if is_of is Priority.CRITICAL} == security
    assert {name for name, is_of in priorities.items() if is_of is Priority.LOW} == {
        "like",
        "follow",
    }
    assert priorities["task_assigned"] is priorities["agent_failed"] is Priority.HIGH
    assert priorities["mention"] is priorities["reply"] is Priority.NORMAL


@each
async def test_it_uses_all_that_it_declares_and_nothing_else(
    renderer: ProcessRenderer, shipped: ShippedTemplate
) -> None:
    assert tuple(shipped.texts) == FIELDS
    checked = await renderer.check(shipped.texts)
    assert checked == Checked(frozenset(shipped.variables))
    assert shipped.variables.keys() == shipped.example.keys()
    assert shipped.variables == BY_KEY[shipped.name, "en"].variables
    limits = {"title": 4_000, "email_subject": 4_000, "push_title": 4_000}
    assert all(len(text) <= limits.get(name, 65_536) for name, text in shipped.texts.items())


@each
async def test_it_says_what_the_golden_file_says(
    renderer: ProcessRenderer, shipped: ShippedTemplate
) -> None:
    parts: list[str] = []
    examples: dict[str, dict[str, Any]] = {
        "with everything": shipped.example,
        "with nothing": {},
    }
    for heading, given in examples.items():
        texts = await said(renderer, shipped, given)
        texts["body_html"] = safe_html(texts["body"])
        parts.append(f"#### {heading}\n")
        parts += [f"== {field}\n{text}\n" for field, text in texts.items()]
    path = GOLDENS / shipped.language / f"{shipped.name}.txt"
    found = "\n".join(parts)
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == found


def test_no_golden_file_is_left_over() -> None:
    files = {(path.stem, path.parent.name) for path in GOLDENS.glob("*/*.txt")}
    assert files == set(BY_KEY)


@each
async def test_it_has_something_to_say_even_of_nothing(
    renderer: ProcessRenderer, shipped: ShippedTemplate
) -> None:
    optional = list(shipped.variables)
    for given in ({}, *({name: shipped.example[name]} for name in optional)):
        for field, text in (await said(renderer, shipped, given)).items():
            assert text, (field, given)
            assert "None" not in text
            assert not re.search(r" [.,:;]|  |\(\)|<td></td>|\*\*\*\*", text), (field, text)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_no_two_say_the_same(renderer: ProcessRenderer, language: str) -> None:
    for field in ("title", "body", "email_subject", "email_html", "email_text"):
        sources = [item.texts[field] for item in TEMPLATES if item.language == language]
        assert len(set(sources)) == len(sources), field
    for item in TEMPLATES:
        texts = await said(renderer, item, item.example)
        assert len({texts["body"], texts["email_html"], texts["email_text"]}) == 3
        assert texts["title"] != texts["body"]


@each
async def test_it_is_in_its_language(renderer: ProcessRenderer, shipped: ShippedTemplate) -> None:
    for field, text in (await said(renderer, shipped, {})).items():
        assert bool(ARABIC.search(text)) is (shipped.language == "ar"), (field, text)
    if shipped.language != "en":
        english = await said(renderer, BY_KEY[shipped.name, "en"], {})
        texts = await said(renderer, shipped, {})
        same = {field for field in texts if texts[field] == english[field]}
        assert same <= {"push_title"}  # an agent is an Agent in German


async def test_the_requirements_own_example_is_worded_as_there(renderer: ProcessRenderer) -> None:
    data = {
        "task_id": "uuid",
        "action_url": "/tasks/uuid",
        "actions": [{"label": "Dismiss", "action": "dismiss"}],
    }
    texts = await said(renderer, BY_KEY["task_assigned", "en"], data)
    assert texts["title"] == "New Task Assigned"
    assert texts["body"] == "You have been assigned a new task."


# What a number makes of the words: 0, 1, 2, 3, 11, 100 are Arabic's six categories.
PLURALS: list[tuple[str, str, str, str, dict[int, str]]] = [
    ("task_completed", "en", "open_tasks", "email_text", {
        0: "nothing left to do", 1: "1 task is still open", 2: "2 tasks are still open",
        3: "3 tasks are", 11: "11 tasks are", 100: "100 tasks are"}),
    ("task_completed", "de", "open_tasks", "body", {
        0: "keine Aufgabe mehr offen", 1: "ist noch 1 Aufgabe offen",
        2: "sind noch 2 Aufgaben offen", 3: "3 Aufgaben", 11: "11 Aufgaben", 100: "100 Aufgaben"}),
    ("task_completed", "ar", "open_tasks", "body", {
        0: "لم تبقَ أي مهمة", 1: "بقيت مهمة واحدة", 2: "بقيت مهمتان", 3: "بقيت 3 مهام",
        11: "بقيت 11 مهمة", 100: "بقيت 100 مهمة"}),
    ("task_deadline", "en", "days_left", "body", {
        0: "is due today", 1: "is due in 1 day.", 2: "in 2 days", 3: "in 3 days", 11: "in 11 days",
        100: "in 100 days", -1: "was due 1 day ago", -2: "was due 2 days ago"}),
    ("task_deadline", "de", "days_left", "body", {
        0: "ist heute fällig", 1: "in 1 Tag fällig", 2: "in 2 Tagen fällig", 3: "in 3 Tagen",
        11: "in 11 Tagen", 100: "in 100 Tagen", -1: "war vor 1 Tag fällig"}),
    ("task_deadline", "ar", "days_left", "body", {
        0: "هو اليوم", 1: "بعد يوم واحد", 2: "بعد يومين", 3: "بعد 3 أيام", 11: "بعد 11 يومًا",
        100: "بعد 100 يوم.", -2: "مضى عليه يومان"}),
    ("reply", "en", "count", "title", {
        0: "New Reply", 1: "New Reply", 2: "2 New Replies", 3: "3 New",
        11: "11 New", 100: "100 New"}),
    ("reply", "ar", "count", "title", {
        0: "رد جديد", 1: "رد جديد", 2: "ردّان جديدان", 3: "3 ردود جديدة", 11: "11 ردًّا جديدًا",
        100: "100 رد جديد"}),
    ("like", "de", "count", "body", {
        0: "gefällt jemandem.", 1: "gefällt jemandem.", 2: "und 1 weiteren Person.",
        3: "und 2 weiteren Personen.", 11: "und 10 weiteren", 100: "und 99 weiteren"}),
    ("follow", "ar", "count", "title", {
        0: "متابع جديد", 1: "متابع جديد", 2: "متابعان جديدان", 3: "3 متابعين جدد",
        11: "11 متابعًا جديدًا", 100: "100 متابع جديد"}),
    ("agent_completed", "ar", "minutes", "body", {
        0: "في أقل من دقيقة", 1: "في دقيقة واحدة", 2: "في دقيقتين", 3: "في 3 دقائق",
        11: "في 11 دقيقة", 100: "في 100 دقيقة"}),
    ("agent_status", "ar", "queued_tasks", "body", {
        0: "لا توجد مهام", 1: "مهمة واحدة", 2: "مهمتان", 3: "3 مهام",
        11: "11 مهمة", 100: "100 مهمة"}),
    ("invoice", "en", "items", "body", {
        0: "invoice is ready", 1: "for 1 item is", 2: "for 2 items", 3: "for 3 items",
        11: "11 items", 100: "100 items"}),
    ("invoice", "de", "items", "body", {
        0: "Rechnung liegt bereit", 1: "für 1 Position liegt", 2: "für 2 Positionen",
        3: "3 Positionen", 11: "11 Positionen", 100: "100 Positionen"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "language", "variable", "field", "expected"),
    PLURALS,
    ids=[f"{language}-{name}" for name, language, *_ in PLURALS],
)
async def test_numbers_are_said_as_the_language_does(
    renderer: ProcessRenderer,
    name: str,
    language: str,
    variable: str,
    field: str,
    expected: dict[int, str],
) -> None:
    for number, words in expected.items():
        texts = await said(renderer, BY_KEY[name, language], {variable: number})
        assert words in texts[field], (number, texts[field])


@each
def test_a_plural_has_every_form_that_its_language_needs(shipped: ShippedTemplate) -> None:
    needed = {"en": {"one"}, "de": {"one"}, "ar": {"one", "two", "few", "many"}}[shipped.language]
    for field, source in shipped.texts.items():
        for call in re.findall(r"plural\((.*?)\)(?= ?[|}])", source):
            forms = set(re.findall(r"\b(zero|one|two|few|many|other)=", call))
            assert needed | {"other"} <= forms, (field, call)
        assert source.count("plural(") == len(re.findall(r"plural\((.*?)\)(?= ?[|}])", source))


HOSTILE = [
    "<script>alert(1)</script>",
    "[x](javascript:alert(1)) ![y](https://evil.example/pixel) <https://evil.example>",
    "first\r\nBcc: eve@example.com\r\n\r\n# heading\n- item\n\n<b>bold</b>",
    "\u202egnp.exe\u202c \u2067open",
    "**bold** _it_ `code` ~~gone~~ | a | b |\n|---|---|\n> quote",
    "{{ 7 + 7 }}{% raw %}",
    "1. one\n2. two\n===\n---",
    "</td></tr></table><img src=x onerror=alert(1)>&lt;script&gt;",
]


@each
async def test_hostile_values_are_nothing_but_text(
    renderer: ProcessRenderer, shipped: ShippedTemplate
) -> None:
    usual = await said(renderer, shipped, _with(shipped, "word"))
    for value in HOSTILE:
        texts = await said(renderer, shipped, _with(shipped, value))
        for field in ("title", "email_subject", "push_title"):
            assert not re.search(r"[\x00-\x1f\x7f-\x9f]", texts[field])
            assert "<script" not in texts[field]
        for field, text in texts.items():
            assert not re.search("[\u202a-\u202e\u2066\u2067]", text), field
            assert text.count("\u2068") == text.count("\u2069"), field
            assert "{" not in text or "{{ 7 + 7 }}" in text, field
        # The markup is the template's own: the same with these values as with harmless ones.
        for html, plain in (
            (safe_html(texts["body"]), safe_html(usual["body"])),
            (texts["email_html"], usual["email_html"]),
        ):
            assert _tags(html) == _tags(plain), html


def _with(shipped: ShippedTemplate, value: str) -> dict[str, Any]:
    """The example with this value wherever anybody's words may stand."""
    return {
        name: value if said["type"] == "string" and name != "currency" else shipped.example[name]
        for name, said in shipped.variables.items()
    }


def _tags(html: str) -> list[str]:
    return [tag for tag in re.findall(r"<[^>]*>", html) if not tag.startswith("<br")]
