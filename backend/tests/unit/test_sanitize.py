import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.security.sanitize import ALLOWED_TAGS, plain_text, safe_html

same_every_time = settings(derandomize=True, database=None, max_examples=300, deadline=None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Tom & Jerry", "Tom & Jerry"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<b>Bold</b> move", "Bold move"),
        ("<script>alert(1)</script>Hello", "Hello"),
        ("&lt;b&gt; &amp;amp;", "&lt;b&gt; &amp;amp;"),
        ("<i>&lt;b&gt;</i>", "&lt;b&gt;"),
        ("<<b>script>alert(1)<</b>/script>", ""),
        ("  spaced  ", "spaced"),
        ("Ünïcødé 🎉", "Ünïcødé 🎉"),
    ],
)
def test_titles_lose_their_tags_and_nothing_else(given: str, expected: str) -> None:
    assert plain_text(given) == expected


@same_every_time
@example("</")  # at the end it is text, as a browser reads it
@given(st.text(alphabet="<>/ab!?-&;\"'= scriptmg", max_size=80))
def test_no_title_holds_a_tag(text: str) -> None:
    plain = plain_text(text)
    assert re.search(r"<(/?[a-z]|[!?])", plain, re.I) is None
    assert plain_text(plain) == plain


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("**bold** and *soft*", "<p><strong>bold</strong> and <em>soft</em></p>"),
        ("a <b>raw</b> word", "<p>a <b>raw</b> word</p>"),
        ("1 < 2 & 3", "<p>1 &lt; 2 &amp; 3</p>"),
        ("`<script>`", "<p><code>&lt;script&gt;</code></p>"),
        ("~~gone~~", "<p><del>gone</del></p>"),
        (
            "[ok](https://example.com/a?b=c)",
            '<p><a href="https://example.com/a?b=c" rel="noopener noreferrer nofollow">ok</a></p>',
        ),
        (
            "[ok](/tasks/1)",
            '<p><a href="/tasks/1" rel="noopener noreferrer nofollow">ok</a></p>',
        ),
    ],
)
def test_markdown_becomes_html(source: str, expected: str) -> None:
    assert safe_html(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<iframe src=https://evil.example></iframe>",
        "<style>body{display:none}</style>",
        '<p style="position:fixed">x</p>',
        "<a href='javascript:alert(1)'>x</a>",
        "<a href='JaVaScRiPt:alert(1)'>x</a>",
        "<a href='java\tscript:alert(1)'>x</a>",
        "<a href=' javascript:alert(1)'>x</a>",
        "<a href='data:text/html,x'>x</a>",
        "<a href='//evil.example'>x</a>",
        "<a href='/\\evil.example'>x</a>",
        "<a href='\\\\evil.example'>x</a>",
        "[x](//evil.example)",
        "[x](ssh://evil.example)",
        "![x](https://evil.example/pixel.png)",
        "<form action=/logout><button>x</button></form>",
        "<div><input autofocus onfocus=alert(1)></div>",
        "<math><mi//xlink:href='data:x,<script>alert(1)</script>'>",
        "<!--<img src='--><img src=x onerror=alert(1)>'>",
        "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    ],
)
def test_nothing_dangerous_survives(source: str) -> None:
    assert_harmless(safe_html(source))


@same_every_time
@given(
    st.lists(
        st.sampled_from(
            [
                "<script>", "</script>", "<a href=", "javascript:", "'", '"', ">", "<img ",
                "onerror=", "//evil", "[x](", ")", "<svg", "&lt;", "`", "\n", "<!--", "-->", "\\",
                "<p>", "</p>", "<style>", "data:",
            ]
        ),
        max_size=20,
    ).map("".join)
)  # fmt: skip
def test_no_composition_is_dangerous(source: str) -> None:
    assert_harmless(safe_html(source))


def assert_harmless(html: str) -> None:
    for tag in re.findall(r"<\s*/?\s*([a-zA-Z][^\s/>]*)", html):
        assert tag in ALLOWED_TAGS
    for attributes in re.findall(r"<[a-z0-9]+\s([^>]*)>", html):
        for name, value in re.findall(r'([a-z-]+)="([^"]*)"', attributes):
            assert name in {"href", "title", "rel", "start"}
            if name == "href":
                assert re.match(r"(https?://|mailto:|/(?![/\\])|#|\?)", value, re.I), value
