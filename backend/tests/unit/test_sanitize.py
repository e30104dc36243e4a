import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.security.sanitize import ALLOWED_TAGS, TooComplex, plain_text, safe_html

CONTROLS_AND_SPACE = "".join(map(chr, range(33)))
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
        "<a href='https://ada:pw@evil.example'>x</a>",
        "<a href='https://ok.example@evil.example'>x</a>",
        "<a href='\x01javascript:alert(1)'>x</a>",
        "<a href='&Tab;java&NewLine;script&colon;alert(1)'>x</a>",
        "<a href='&#x2f;&#x2f;evil.example'>x</a>",
        "<a href='/&#92;evil.example'>x</a>",
        "<a href='https:evil.example'>x</a>",
        "<a href='https:///evil.example'>x</a>",
        "<a href='/ok' onclick=alert(1) style=x ping=//evil.example download>x</a>",
        "<a href=`javascript:alert(1)`>x</a>",
        "<svg><a><animate attributeName=href values=javascript:alert(1) /><text>x</text></a></svg>",
        "<svg><script>alert&#40;1)</script></svg>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img onerror=x&gt;'>",
        "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
        "<table><td><svg><desc><td></desc><title><a id='</title><img src onerror=x>'>",
        "<template><script>alert(1)</script></template>",
        "<xmp><p title='</xmp><img src=x onerror=alert(1)>'>",
        "<textarea><img title='</textarea><img src=x onerror=alert(1)>'></textarea>",
        "<select><option><style></select><img src=x onerror=alert(1)></style>",
        "<plaintext><script>alert(1)</script>",
        "<iframe srcdoc='&lt;script&gt;alert(1)&lt;/script&gt;'></iframe>",
        "<video><source onerror=alert(1)></video><audio src=x onerror=alert(1)>",
        "<body onload=alert(1)><html onclick=alert(1)><head><title>x</title></head>",
        "<meta http-equiv=refresh content='0;url=javascript:alert(1)'><base href=//evil.example>",
        "<object data='javascript:alert(1)'></object><embed src='//evil.example'><applet>",
        "<marquee onstart=alert(1)>x</marquee><details open ontoggle=alert(1)>x</details>",
        "<p id=__proto__ class=x name=body>x</p>",
        "<?xml?><!DOCTYPE html [<!ENTITY x 'y'>]><![CDATA[<script>alert(1)</script>]]>",
        "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
        "<img src='x' onerror='alert(1)'//><scr\x00ipt>alert(1)</scr\x00ipt>",
        '[x](javascript:alert(1) "<img src=x onerror=alert(1)>")',
        "[x](https://ok.example \"' onmouseover='alert(1)\")",
        "[<script>alert(1)</script>](/x)",
        "[x]: javascript:alert(1)\n\n[x] [x][]",
        "<javascript:alert(1)> <data:text/html,x> <//evil.example>",
        "| <script> | x |\n| - | - |\n| `<img onerror=x>` | <img onerror=x> |",
        "```html onload=alert(1)\n</code></pre><script>alert(1)</script>\n```",
        "    </code></pre><script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt; &amp;lt;img onerror=x&gt;",
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
                "<p>", "</p>", "<style>", "data:", "<math>", "<mtext>", "<table>", "</style>",
                "<title>", "</title>", "<textarea>", "</textarea>", "<noscript>", "</noscript>",
                "<template>", "<form>", "</form>", "<b title=", "https://", "a@", "&#x3a;", "\t",
            ]
        ),
        max_size=20,
    ).map("".join)
)  # fmt: skip
def test_no_composition_is_dangerous(source: str) -> None:
    assert_harmless(safe_html(source))


class Seen(HTMLParser):
    """Every tag and attribute, as a parser that has nothing to do with the cleaner reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", []))

    def handle_decl(self, decl: str) -> None:
        self.tags.append(("declaration", []))

    def handle_pi(self, data: str) -> None:
        self.tags.append(("instruction", []))

    def unknown_decl(self, data: str) -> None:
        self.tags.append(("declaration", []))


def assert_harmless(html: str) -> None:
    seen = Seen()
    seen.feed(html)
    seen.close()
    for tag, attributes in seen.tags:
        assert tag in ALLOWED_TAGS, html
        for name, value in attributes:
            assert name in {"href", "title", "rel", "start"}, html
            if name == "href":
                # As a browser reads it: entities resolved, tabs and newlines skipped.
                target = re.sub(r"[\t\r\n]", "", value or "").strip(CONTROLS_AND_SPACE)
                assert target == value, html
                assert re.match(r"https?://[^@/?#]+([/?#]|$)|mailto:|/(?![/\\])|#|\?", target, re.I)


@pytest.mark.parametrize(
    "source",
    [">" * 4_000, "<div>" * 12_000, "1. " * 1_000 + "x", "<ul><li>" * 200],
    ids=["quotes", "raw", "lists", "raw lists"],
)
def test_sources_that_nest_too_deep_are_refused(source: str) -> None:
    with pytest.raises(TooComplex, match="nests"):
        safe_html(source)


def test_sources_that_grow_too_large_are_refused() -> None:
    table = "|a" * 1000 + "\n" + "|-" * 1000 + "\n" + "|b\n" * 20_000
    with pytest.raises(TooComplex, match="renders"):
        safe_html(table)


@pytest.mark.parametrize(
    "source",
    [">" * 50 + " deep", "- a\n" * 5_000, "<p>" * 5_000, "<li>x" * 5_000, "a<br>" * 5_000],
    ids=["quotes", "list", "paragraphs", "items", "breaks"],
)
def test_sources_that_are_only_long_are_not(source: str) -> None:
    assert safe_html(source)
