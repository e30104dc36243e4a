"""What holds for every letter, whatever is written in it (REQ-014, REQ-015, SEC-005 A03)."""

import unicodedata
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.channels.email.content import Content
from app.channels.email.letter import Letter
from app.channels.email.subject import LONGEST
from app.channels.texts import ChannelTexts
from app.policy.kinds import NotificationType, Priority
from app.security.lines import plain_line
from app.security.sanitize import TooComplex, safe_html
from tests.letter_reader import Read
from tests.letter_samples import (
    ADDRESS,
    BASE,
    TOKENS,
    a_claim,
    a_digest,
    an_item,
    composer,
)  # fmt: skip

WRITE = composer()
CONTENT = Content(BASE)
TRACKED = f"{BASE}/api/v1/email/click/"
CLIPPED = 102 * 1024  # bytes; Gmail hides the rest

PIECES = st.sampled_from(
    [
        "# one\n\n", "##### five\n\n", "- item\n", "  1. inner\n\n", "> said\n", "```\ncode\n```\n",
        "| a | b |\n| - | - |\n| c | d |\n\n", "[to](/a?b=1&c=2)", "[out](https://e.example/<x>)",
        "[bad](javascript:alert(1))", "[](https://e.example)", "[m](mailto:a@e.example)",
        "[ip](https://[::::]/x)", "<script>x</script>", "<img src=x onerror=y>", "**b**", "---\n\n",
        '<a href="https://e.example" title="</a><h1>" onclick="x">t</a>', "<h1><b><h2>", "</td>",
        "<table><tr><td>", "\u202e", "\u2028", "\x00", "{{ title }}", "{% raw %}", "שלום", "<br>",
    ]
)  # fmt: skip
BODIES = st.lists(PIECES | st.text(max_size=30), max_size=25).map("".join)
LINES = st.text(min_size=1, max_size=300) | st.sampled_from(
    ["Hi\r\nBcc: all@e.example", "\u2028\u202eX", "</title><script>", "{{ 7 * 7 }}", "ا" * 300]
)
TITLES = LINES.map(plain_line).filter(bool)  # as they are stored
ADDRESSES = st.sampled_from(
    [
        "/tasks/1", "https://e.example/x", "javascript:alert(1)", "//e.example", "https://[::::]/",
        "mailto:a@e.example", "", "data:text/html,x", "http://e.example/ü \"'<>", "#part",
    ]
) | st.text(max_size=20)  # fmt: skip
DATA = st.fixed_dictionaries(
    {},
    optional={
        "action_url": ADDRESSES | st.integers() | st.none(),
        "actions": st.lists(
            st.fixed_dictionaries(
                {"label": st.text(max_size=20) | st.none()},
                optional={"url": ADDRESSES, "action": st.just("go"), "primary": st.booleans()},
            )
            | st.integers(),
            max_size=5,
        ),
    },
)
LANGUAGES = st.sampled_from([None, "en", "de-AT", "ar", "ar-EG", "he", "fr", "xx", "zh-Hant"])


def html_of(source: str) -> str:
    try:
        return safe_html(source)
    except TooComplex:
        return "<p>much</p>"


@given(
    TITLES, BODIES, DATA, LANGUAGES, LANGUAGES, st.sampled_from(NotificationType),
    st.sampled_from(Priority), st.none() | LINES, st.none() | BODIES.map(html_of),
)  # fmt: skip
def test_a_letter_is_sound(
    title: str,
    body: str,
    data: dict[str, Any],
    locale: str | None,
    language: str | None,
    type: NotificationType,
    priority: Priority,
    subject: str | None,
    html: str | None,
) -> None:
    texts = ChannelTexts(email_subject=subject, email_html=html)
    claim = a_claim(
        title, body, data=data, locale=locale, language=language, type=type, priority=priority,
        texts=texts,
    )  # fmt: skip
    assert_sound(WRITE.instant(claim, ADDRESS))


@given(
    st.lists(
        st.tuples(TITLES, BODIES, st.sampled_from(NotificationType), LANGUAGES),
        min_size=1,
        max_size=60,
    ),
    LANGUAGES,
    st.sampled_from(["UTC", "Asia/Kolkata", "Pacific/Apia", "Australia/Lord_Howe"]),
)
def test_a_digest_is_sound(
    told: list[tuple[str, str, NotificationType, str | None]], locale: str | None, timezone: str
) -> None:
    items = [
        an_item(number, title, body, type_, language=language)
        for number, (title, body, type_, language) in enumerate(told)
    ]
    letter = WRITE.digest(a_digest(items, locale=locale, timezone=timezone))
    assert_sound(letter)
    pages = [f"{BASE}/?notification={item.notification_id}" for item in items[:50]]
    assert sorted(pages) == sorted(set(letter.links) - {f"{BASE}/"})
    assert all(page in letter.text for page in pages)


@given(BODIES)
def test_preparing_twice_is_preparing_once(body: str) -> None:
    once = CONTENT.prepared(html_of(body))
    links = [value["href"] for tag, value in Read(once).attributes if tag == "a" and value]
    assert all(link.startswith(("https://", "http://", "mailto:")) for link in links)
    assert [
        value["href"] for tag, value in Read(CONTENT.prepared(once)).attributes
        if tag == "a" and value
    ] == links  # fmt: skip


def assert_sound(letter: Letter) -> None:
    page = Read(letter.html)
    assert letter.html.startswith("<!doctype html>")
    assert len(letter.html.encode()) < CLIPPED
    levels = page.headings
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert not {"script", "iframe", "object", "form", "link", "svg"} & set(page.tags)
    assert not [name for _, values in page.attributes for name in values if name[:2] == "on"]
    assert all(found.startswith(("https://", "http://", "mailto:")) for found in page.addresses)
    assert [values["src"] for tag, values in page.attributes if tag == "img"] == [
        f"{BASE}/api/v1/email/open/{TOKENS.opened(letter.id)}"
    ]
    assert all(said for _, said in page.links)

    tokens = [found.removeprefix(TRACKED) for found in page.addresses if found.startswith(TRACKED)]
    read = [TOKENS.read_clicked(token) for token in tokens]
    assert {letter_id for letter_id, _ in read} <= {letter.id}
    assert {place for _, place in read} == set(range(len(letter.links)))
    assert len(set(letter.links)) == len(letter.links)
    assert all(target.startswith(("https://", "http://")) for target in letter.links)

    assert letter.subject
    assert len(letter.subject) <= LONGEST
    assert not [c for c in letter.subject if unicodedata.category(c) in ("Cc", "Zl", "Zp")]
    assert not set(letter.subject) & set("\u202d\u202e")
    assert letter.text.strip()
    assert TRACKED not in letter.text
    assert "/email/open/" not in letter.text
    (unsubscribe,) = [found for found in page.addresses if "/email/unsubscribe/" in found]
    assert letter.headers["List-Unsubscribe"] == f"<{unsubscribe}>"
    assert unsubscribe in letter.text
    assert f"{BASE}/preferences" in page.addresses
