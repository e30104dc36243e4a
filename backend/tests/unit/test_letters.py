"""What letters say and where they lead (REQ-014)."""

from typing import Any

import pytest

from app.channels.email.content import Content, fitting, styled
from app.channels.email.letter import Letter
from app.channels.email.plain import text_of
from app.channels.email.subject import subject_of
from app.channels.email.writing import Writing, writing_of
from app.channels.texts import ChannelTexts
from app.config import Settings
from app.policy.kinds import NotificationType, Priority
from app.security.sanitize import safe_html
from tests.letter_reader import Read
from tests.letter_samples import ADDRESS, BASE, TOKENS, a_claim, composer

OWN_PAGE = f"{BASE}/?notification={a_claim().notification_id}"
LTR, RTL = Writing("en", "ltr"), Writing("ar", "rtl")


def letter(*, settings: dict[str, Any] | None = None, **claim: Any) -> Letter:
    return composer(**settings or {}).instant(a_claim(**claim), ADDRESS)


def untracked(**claim: Any) -> Read:
    return Read(letter(settings={"email_tracking": "off"}, **claim).html)


# --- where it leads ------------------------------------------------------------------------------


def test_the_button_leads_to_the_action_url() -> None:
    assert (
        untracked(data={"action_url": "/tasks/1?a=b#c"}).by_text("View") == f"{BASE}/tasks/1?a=b#c"
    )


def test_without_one_it_leads_to_the_notification() -> None:
    assert untracked().by_text("View") == OWN_PAGE


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)", "data:text/html,x", "//evil.example", "mailto:a@evil.example",
        "https://user@evil.example", "https://[::::]/", "ftp://evil.example", " /x", "", 7, None,
    ],
)  # fmt: skip
def test_an_unsafe_action_url_is_none(address: object) -> None:
    assert untracked(data={"action_url": address}).by_text("View") == OWN_PAGE


def test_the_primary_action_names_the_button_and_others_are_links() -> None:
    page = untracked(
        data={
            "action_url": "/tasks/1",
            "actions": [
                {"label": "Decline", "action": "decline"},
                {"label": "All tasks", "url": "/tasks"},
                {"label": "Review", "url": "/tasks/1", "primary": True},
                {"label": "Evil", "url": "javascript:alert(1)"},
                {"label": "", "url": "/nameless"},
                "no action",
            ],
        }
    )
    said = [(text, address) for address, text in page.links]
    assert said[:2] == [("Review", f"{BASE}/tasks/1"), ("All tasks", f"{BASE}/tasks")]
    assert [text for text, _ in said[2:]] == [
        "Notification preferences", "Unsubscribe", "Privacy policy",
    ]  # fmt: skip


def test_a_primary_action_that_leads_elsewhere_keeps_its_own_address() -> None:
    page = untracked(
        data={
            "action_url": "/tasks/1",
            "actions": [{"label": "Pay", "url": "https://pay.example/1", "primary": True}],
        }
    )
    assert [text for _, text in page.links][:2] == ["Pay", "View"]
    assert page.by_text("Pay") == "https://pay.example/1"
    assert page.by_text("View") == f"{BASE}/tasks/1"


def test_the_footer_is_below_every_letter_and_in_its_text() -> None:
    written = letter()
    page = Read(written.html)
    unsubscribe = page.by_text("Unsubscribe")
    assert written.headers == {
        "List-Unsubscribe": f"<{unsubscribe}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    about = TOKENS.read_unsubscribe(unsubscribe.rpartition("/")[2])
    assert about.type == NotificationType.TASK
    assert page.by_text("Notification preferences") == f"{BASE}/preferences"
    assert page.by_text("Privacy policy") == "https://example.com/privacy"
    for address in (unsubscribe, f"{BASE}/preferences", "https://example.com/privacy"):
        assert address in written.text.splitlines()


def test_no_privacy_link_leads_nowhere() -> None:
    written = letter(settings={"privacy_policy_url": None})
    assert "Privacy policy" not in written.html + written.text


def test_the_privacy_policy_is_an_address() -> None:
    with pytest.raises(ValueError, match="must be an http"):
        Settings.model_validate({"privacy_policy_url": "javascript:alert(1)"})


# --- what is noticed -----------------------------------------------------------------------------


def test_clicks_and_the_opening_are_noticed_by_ourselves() -> None:
    written = letter(
        body="[One](/one), [two](https://two.example/), [again](/one), [m](mailto:a@two.example).",
        data={"action_url": "/one"},
    )
    page = Read(written.html)
    assert written.links == (f"{BASE}/one", "https://two.example/")
    assert page.by_text("One") == page.by_text("again") == page.by_text("View")
    token = page.by_text("two").removeprefix(f"{BASE}/api/v1/email/click/")
    assert TOKENS.read_clicked(token) == (written.id, 1)
    assert page.by_text("m") == "mailto:a@two.example"
    (pixel,) = [values for tag, values in page.attributes if tag == "img"]
    assert pixel["alt"] == ""
    assert TOKENS.read_opened(pixel["src"].rpartition("/")[2]) == written.id
    assert f"One <{BASE}/one>" in written.text
    assert "/email/click/" not in written.text


@pytest.mark.parametrize("tracking", ["provider", "off"])
def test_or_not(tracking: str) -> None:
    written = letter(settings={"email_tracking": tracking}, body="[One](/one)")
    page = Read(written.html)
    assert page.by_text("One") == f"{BASE}/one"
    assert "img" not in page.tags
    assert written.links == ()


def test_the_same_claim_gives_the_same_letter() -> None:
    assert letter(body="[One](/one)") == letter(body="[One](/one)")


# --- what it says --------------------------------------------------------------------------------


def test_a_templates_words_for_emails_win() -> None:
    texts = ChannelTexts("A subject", "<p>For <em>mail</em></p>", "For mail, plainly")
    written = letter(body="For the inbox", texts=texts, language="en")
    assert written.subject == "A subject"
    assert "For the inbox" not in written.html + written.text
    assert "For mail, plainly" in written.text
    assert "For mail" in Read(written.html).text


def test_the_text_is_made_of_the_html_where_a_template_has_none() -> None:
    texts = ChannelTexts(email_html="<ul><li>One</li><li>Two</li></ul>")
    assert "- One\n- Two\n" in letter(texts=texts).text


def test_why_it_was_sent() -> None:
    assert (
        "because of your notification preferences for “Billing”"
        in Read(letter(type=NotificationType.BILLING).html).text
    )
    urgent = letter(priority=Priority.CRITICAL)
    assert urgent.is_critical
    assert (
        "Security · Urgent"
        in Read(letter(type=NotificationType.SECURITY, priority=Priority.CRITICAL).html).text
    )
    assert "because it is urgent" in urgent.text


def test_a_title_is_text() -> None:
    page = Read(letter(title="{{ 7 * 7 }} <b>&amp;</b>").html)
    assert "{{ 7 * 7 }} <b>&amp;</b>" in page.text
    assert "b" not in page.tags


def test_what_is_too_long_for_a_mailbox_ends_with_a_link_to_the_rest() -> None:
    written = letter(body="A paragraph of some length.\n\n" * 2_000)
    page = Read(written.html)
    assert len(written.html.encode()) < 75_000
    assert page.by_text("This is only the beginning. Read the rest") == page.by_text("View")
    assert page.by_text("Unsubscribe")
    assert written.text.count("A paragraph") == 2_000
    assert "only the beginning" not in letter(body="Short").html


def test_the_layout_is_small() -> None:
    assert len(letter(title="T", body="B").html.encode()) < 20_000


# --- languages -----------------------------------------------------------------------------------


def test_a_frame_in_arabic_is_mirrored_and_says_whose_words_are_whose() -> None:
    page = Read(letter(title="Hello", body="Only *English*.", locale="ar-EG", language="en").html)
    assert page.attribute_of("html", "lang") == "ar"
    assert page.attribute_of("html", "dir") == "rtl"
    assert page.attribute_of("h1", "lang") == "en"
    assert page.attribute_of("h1", "dir") == "ltr"
    assert page.by_text("عرض")


@pytest.mark.parametrize(
    ("text", "language", "around", "expected"),
    [
        ("Hello", None, RTL, Writing("", "ltr")),
        ("مرحبا Ada", None, LTR, Writing("", "rtl")),
        ("42: שלום", None, LTR, Writing("", "rtl")),
        ("42!", None, RTL, Writing("", "rtl")),
        ("", None, LTR, Writing("", "ltr")),
        ("PR #1", "ar", LTR, Writing("ar", "rtl")),
        ("שלום", "he-IL", LTR, Writing("he-IL", "rtl")),
        ("مرحبا", "xx", LTR, Writing("xx", "rtl")),
    ],
)
def test_how_words_are_written(
    text: str, language: str | None, around: Writing, expected: Writing
) -> None:
    assert writing_of(text, language, around) == expected


# --- subjects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "subject"),
    [
        (("Hi\r\nBcc: all@evil.example",), "Hi Bcc: all@evil.example"),
        (("a\x00b\u2028c\u2029d\te",), "ab c d e"),
        (("\u202egnp.exe", ), "gnp.exe"),
        (("Re: \u2067שלום\u2069 ok",), "Re: \u2067שלום\u2069 ok"),
        (("=?utf-8?B?4oCuZ25wLmV4ZQ==?= ok",), "= ?utf-8?B?4oCuZ25wLmV4ZQ==?= ok"),
        (("is a=?b a question",), "is a=?b a question"),
        ((None, "Title"), "Title"),
        (("\r\n", "Title"), "Title"),
        (("x" * 300,), "x" * 254 + "…"),
        (("word " * 100,), ("word " * 50).rstrip() + "…"),
    ],
)  # fmt: skip
def test_subjects(texts: tuple[str | None, ...], subject: str) -> None:
    assert subject_of(*texts) == subject


# --- a notification's own words ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h1>a</h1><h4>b</h4><h2>c</h2>", "<h2>a</h2><h3>b</h3><h3>c</h3>"),
        ("<h6>a</h6>", "<h2>a</h2>"),
        ("<h2></h2><p>a</p>", "<p>a</p>"),
        (
            '<p><a href="/a?b=1&amp;c" title="t">a</a></p>',
            f'<p><a href="{BASE}/a?b=1&amp;c">a</a></p>',
        ),
        ('<p><a href="?q">a</a></p>', f'<p><a href="{BASE}/?q">a</a></p>'),
        ('<p><a href="javascript:x">a</a></p>', "<p><a>a</a></p>"),
        ('<p>a<a href="/b"></a></p>', "<p>a</p>"),
        ("<p onclick=x>a<script>b</script></p>", "<p>a</p>"),
    ],
)
def test_prepared(html: str, expected: str) -> None:
    assert Content(BASE).prepared(html) == expected


def test_every_allowed_element_has_its_style() -> None:
    html = styled("<blockquote><p>a</p></blockquote><table><tr><th>b</th></tr></table>", "right")
    assert "border-right: 3px" in html
    assert "text-align: right" in html


def test_long_words_in_tables_may_be_broken() -> None:
    assert (
        styled(f"<table><tbody><tr><td>{'x' * 20}</td></tr></tbody></table>", "left").count(
            f"{'x' * 16}<wbr>xxxx</td>"
        )
        == 1
    )
    assert "<wbr>" not in styled(f"<p>{'x' * 20}</p>", "left")


def test_one_element_that_is_too_long_becomes_text() -> None:
    rows = "".join(f"<tr><td>{number}</td></tr>" for number in range(5_000))
    cut = fitting(f"<table><tbody>{rows}</tbody></table>", "left")
    assert cut.startswith("<p>0<br>1<br>2")
    assert len(cut) < 60_000


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("One\n\nTwo", "One\n\nTwo"),
        ("# One\n\nTwo<br>three", "One\n\nTwo\nthree"),
        ("- a\n- b\n  - c\n\nd", "- a\n- b\n  - c\n\nd"),
        ("3. a\n4. b", "3. a\n4. b"),
        ("> a\n>\n> b\n\nc", "> a\n>\n> b\n\nc"),
        ("- > a", "- > a"),
        ("```\n a\n\n  b\n```", " a\n\n  b"),
        ("| a | b |\n|-|-|\n| c | d |", "a | b\nc | d"),
        ("[a](https://e.example)", "a <https://e.example>"),
        ("<https://e.example>", "https://e.example"),
        ("[write](mailto:a@e.example)", "write <mailto:a@e.example>"),
        ("<a@e.example>", "a@e.example"),
        ("a\n\n---\n\nb", "a\n\n--------------------\n\nb"),
        ("1 &lt; 2 &amp; 3", "1 < 2 & 3"),
        ("word " * 20, "word " * 14 + "word\n" + "word " * 4 + "word"),
        ("", ""),
    ],
)
def test_text_of_html(source: str, text: str) -> None:
    assert text_of(safe_html(source)) == text
