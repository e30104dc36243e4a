"""Nothing in a letter, a name or an address begins a header of its own (RFC 5322)."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as PLAIN
from email.utils import getaddresses
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.base import Failed
from app.channels.email.letter import Letter
from app.channels.email.lines import checked, is_address, mailbox, one_line
from app.channels.email.mime import LONGEST_LINE, message_of, reachable

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINE_ENDS = ("\r", "\n", "\r\n", "\0", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
wild = st.lists(texts | st.sampled_from(LINE_ENDS), max_size=6).map("".join)
UNSUBSCRIBE = f"<https://notify.example/api/v1/email/unsubscribe/{'t' * 300}>"


def letter(**changes: object) -> Letter:
    values: dict[str, object] = {
        "id": uuid4(),
        "user_id": uuid4(),
        "to": "ada@example.com",
        "subject": "A title",
        "html": "<p>Äh, <b>ja</b></p>\n.\n",
        "text": "Äh, ja\n.\n",
        "headers": {"List-Unsubscribe": UNSUBSCRIBE},
        "tags": {"notification_id": "7"},
        **changes,
    }
    return Letter(**values)  # pyright: ignore[reportArgumentType] -- of every field's own type


def parsed(written: Letter, name: str = "Notify") -> EmailMessage:
    good = checked(written)
    assert isinstance(good, Letter)
    to = reachable(good.to)
    assert isinstance(to, str)
    message = message_of(good, to=to, from_name=name, from_address="no@example.com", at=NOW)
    return message_from_bytes(message.as_bytes(), policy=PLAIN)


HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Notification-Id",
    "List-Unsubscribe",
    "MIME-Version",
    "Content-Type",
]


@given(wild, wild, wild)
def test_no_text_adds_a_header_to_a_message(subject: str, name: str, value: str) -> None:
    written = letter(subject=subject, headers={"List-Id": value})
    message = parsed(written, name)
    expected = [header.replace("List-Unsubscribe", "List-Id") for header in HEADERS]
    assert message.keys() == expected
    assert message["Message-ID"] == f"<{written.id}@example.com>"
    assert getaddresses([str(message["To"])]) == [("", "ada@example.com")]


@given(wild)
def test_no_name_adds_an_address_or_a_line_to_the_sender(name: str) -> None:
    sender = mailbox(name, "no@example.com")
    assert one_line(sender) == sender
    assert [address for _, address in getaddresses([sender])] == ["no@example.com"]
    assert sender.count("<") <= 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OmoiOS", "OmoiOS <no@example.com>"),
        ("Doe, John", '"Doe, John" <no@example.com>'),
        ('The "Best"', r'"The \"Best\"" <no@example.com>'),
        ("Bücher, GmbH", '"Bücher, GmbH" <no@example.com>'),
        ("إشعارات", "إشعارات <no@example.com>"),
        ("A <a@evil.example>", '"A a@evil.example" <no@example.com>'),
        ("", "no@example.com"),
        ("N\r\nBcc: e@evil.example", '"N Bcc: e@evil.example" <no@example.com>'),
    ],
)
def test_a_sender_s_name_is_quoted_where_it_has_to_be(name: str, expected: str) -> None:
    assert mailbox(name, "no@example.com") == expected


@pytest.mark.parametrize("end", LINE_ENDS)
def test_an_address_with_a_line_end_is_none(end: str) -> None:
    for address in (f"ada@example.com{end}Bcc: e@evil.example", f"ada{end}@example.com"):
        assert not is_address(address)
        assert isinstance(checked(letter(to=address)), Failed)


@pytest.mark.parametrize("address", ["", "ada", "@", "a@b@c", "a@b, c@d", "A <a@b>", "a b@c", "a@"])
def test_what_is_no_bare_address(address: str) -> None:
    assert not is_address(address)


def test_headers_whose_name_is_none_are_left_out() -> None:
    good = checked(letter(headers={"X-Good": "1", "X-Bad: 1\r\nBcc": "e@evil.example", "": "2"}))
    assert isinstance(good, Letter)
    assert good.headers == {"X-Good": "1"}


def test_both_parts_arrive_as_they_were_written() -> None:
    message = parsed(letter(subject="Grüße an Ωmega", headers={"Bcc": "e@evil.example"}))
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content() == "Äh, ja\r\n.\r\n"
    assert html.get_content() == "<p>Äh, <b>ja</b></p>\r\n.\r\n"
    assert message["Subject"] == "Grüße an Ωmega"
    assert message["Date"].datetime == NOW
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Bcc"] is None


def test_a_long_link_in_a_header_stays_whole_and_every_line_is_one() -> None:
    good = letter(subject="ж" * 255)
    to = reachable(good.to)
    assert isinstance(to, str)
    message = message_of(good, to=to, from_name="N", from_address="no@example.com", at=NOW)
    raw = message.as_bytes()
    assert f"List-Unsubscribe: {UNSUBSCRIBE}\r\n".encode() in raw
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= LONGEST_LINE
    assert all(len(line) <= 76 for line in raw.split(b"\r\n") if b"=?utf-8?" in line)
    assert message_from_bytes(raw, policy=PLAIN)["Subject"] == "ж" * 255


@pytest.mark.parametrize("word", ["مرحبا, ", "שלום ", "ж, x ", "a é "])
def test_no_space_of_a_subject_is_lost_between_its_lines(word: str) -> None:
    subject = (word * 60)[:250].strip()
    assert parsed(letter(subject=subject))["Subject"] == subject


def test_domains_are_written_in_ascii_and_other_local_parts_as_they_are() -> None:
    assert reachable("ada@bücher.example") == "ada@xn--bcher-kva.example"
    assert isinstance(reachable("ada@ü..example"), Failed)
    assert parsed(letter(to="ada@bücher.example"))["To"] == "ada@xn--bcher-kva.example"
    good = letter(to="jörg@example.com", subject="Grüße")
    message = message_of(
        good, to="jörg@example.com", from_name="Ä", from_address="no@example.com", at=NOW
    )
    raw = message.as_bytes()
    assert "To: jörg@example.com\r\n".encode() in raw
    assert "Subject: Grüße\r\n".encode() in raw
