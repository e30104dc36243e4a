"""Values are text in every kind of text, whatever they hold (SEC-005)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rendering.conventions import NAME, Conventions
from app.rendering.environment import Sandbox, compiled
from app.rendering.values import KINDS, Kind
from app.security.sanitize import markdown

SANDBOXES = {kind: Sandbox(kind) for kind in KINDS}
ISOLATED = "\u2068{}\u2069"


def say(source: str, value: object, kind: Kind = "text", language: str = "en") -> str:
    context = {"x": value, NAME: Conventions.of(language, "UTC")}
    return str(compiled(SANDBOXES[kind], source).text(context, 100_000))


@given(st.text(st.sampled_from("ab \n\t*_`[]()<>!&#;~|\\-+=1.):/xй")))
def test_in_markdown_a_value_is_one_paragraph_without_markup(value: str) -> None:
    html = markdown.html(say("a {{ x }} z", value, "markdown"))
    assert set(_tags(html)) <= {"<p>", "</p>", "<br />"}
    assert html.count("<p>") == 1


@pytest.mark.parametrize("start", ["", "> ", "- ", "**a** "])
@given(value=st.text(st.sampled_from("a \n*_`[]()<>#-+=1.)|")))
def test_a_value_begins_no_block_where_it_begins_a_line(start: str, value: str) -> None:
    html = markdown.html(say(start + "{{ x }}", value, "markdown"))
    blocks = set(_tags(html)) - set(_tags(markdown.html(start + "a"))) - {"<br />", "<p>", "</p>"}
    # Four spaces show it as code, in which nothing is markup either.
    assert blocks <= {"<pre>", "<code>", "</code>", "</pre>"}


def _tags(html: str) -> list[str]:
    return [f"<{part.partition('>')[0]}>" for part in html.split("<")[1:]]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Review PR #123", "Review PR #123"),
        ("a_b", r"a\_b"),
        ("R&D &amp; co", r"R&D \&amp; co"),
        ("8. Januar", r"8\. Januar"),
        ("203.0.113.7", "203.0.113.7"),
        ("-5 °C", "-5 °C"),
        ("- 5", r"\- 5"),
        ("# one\n\n two \r\n= three", "\\# one\\\ntwo\\\n\\= three"),
        (1.5, "1.5"),
        (None, ""),
    ],
)
def test_only_what_would_be_markup_is_escaped(value: object, shown: str) -> None:
    assert say("{{ x }}", value, "markdown") == shown


def test_what_a_template_says_itself_is_not_escaped_again() -> None:
    source = (
        "{% macro m(a) %}**{{ a }}**{% endmacro %}{% set s %}_{{ x }}_{% endset %}{{ m(x) }}{{ s }}"
    )
    assert say(source, "*", "markdown") == r"**\***_\*_"
    assert say("{{ x | e }}", "*", "markdown") == r"\*"
    assert say(source.replace("**", "<b>"), "&", "html") == "<b>&amp;<b>_&amp;_"
    assert say(source, "*") == "*****_*_"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "language", "shown"),
    [
        ("\u202egnp.exe\u202c", "en", "gnp.exe"),
        ("\u2067open", "en", "open"),
        ("\u2069\u2068", "ar", ""),
        ("Ada", "ar", ISOLATED.format("Ada")),
        ("Ada", "en", "Ada"),
        ("Ünal", "de", "Ünal"),
        ("آدا", "de", ISOLATED.format("آدا")),
        ("آدا", "ar", "آدا"),
        ("203.0.113.7", "ar", "203.0.113.7"),
        ("1,249.50", "ar", "1,249.50"),
        ("2026-0042", "ar", ISOLATED.format("2026-0042")),
        ("2026-0042", "de", "2026-0042"),
        ("2026-0042", "he", ISOLATED.format("2026-0042")),
        ("مهمة 3 - 4", "ar", "مهمة 3 - 4"),
        ("/tasks/a?b#c", "ar", "/tasks/a?b#c"),
        ("https://example.com/a", "ar", "https://example.com/a"),
        (ISOLATED.format("Ada"), "ar", ISOLATED.format("Ada")),
    ],
)
def test_a_value_turns_no_other_text_and_is_not_turned(
    kind: Kind, value: str, language: str, shown: str
) -> None:
    assert say("{{ x }}", value, kind, language) == shown
