import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.security.lines import plain_line

RTL, POP, OVERRIDE, ISOLATE, END = "\u202b", "\u202c", "\u202e", "\u2067", "\u2069"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one  line", "one  line"),
        ("two\nlines", "two lines"),
        ("two \r\n\t lines\v\f\u2028\u2029\x85\x1f!", "two lines !"),
        ("\n\tspaced\n", "spaced"),
        ("bell\x07 and \x1b[31mred\x7f\x9b", "bell and [31mred"),
        ("<sc\x01ript>x</script>y", "y"),
        ("<\x01b>x", "x"),
        (f"{ISOLATE}שלום{END} {RTL}ok{POP}", f"{ISOLATE}שלום{END} {RTL}ok{POP}"),
        (f"{ISOLATE}{RTL}both{POP}{END}", f"{ISOLATE}{RTL}both{POP}{END}"),
        (f"{ISOLATE}{RTL}crossed{END}{POP}", "crossed"),
        (f"{ISOLATE}open", "open"),
        (f"closed{END}{POP}", "closed"),
        (f"photo_{OVERRIDE}gpj.exe{POP}", "photo_gpj.exe"),
        (f"<i {END}>{ISOLATE}x", "x"),
        ("👩\u200d👩\u200d👧 family", "👩\u200d👩\u200d👧 family"),
    ],
)
def test_a_title_is_one_line_of_plain_text(given: str, expected: str) -> None:
    assert plain_line(given) == expected


@settings(derandomize=True, database=None, max_examples=400, deadline=None)
@given(
    st.text(alphabet="<>/ib &;\n\t\x01\x7f\x85\u2028\u202b\u202c\u202e\u2067\u2069", max_size=40)
)
def test_nothing_is_left_to_clean(text: str) -> None:
    line = plain_line(text)
    assert plain_line(line) == line == line.strip()
    assert not any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in line)
    assert "\u202e" not in line
    assert line.count("\u2067") == line.count("\u2069")
