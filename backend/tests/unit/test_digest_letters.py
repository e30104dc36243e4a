"""What a digest's letter says (REQ-015)."""

from datetime import timedelta

import pytest

from app.policy.kinds import DigestFrequency, NotificationType
from tests.letter_reader import Read
from tests.letter_samples import BASE, TOKENS, a_digest, an_item, composer, items_in

WRITE = composer(email_tracking="off")


@pytest.mark.parametrize(
    ("locale", "count", "frequency", "subject"),
    [
        ("en", 1, "daily", "1 new notification in your daily digest"),
        ("en-GB", 12, "weekly", "12 new notifications in your weekly digest"),
        ("de", 1, "daily", "1 neue Benachrichtigung in Ihrer täglichen Zusammenfassung"),
        ("de", 1_234, "weekly",
         "1.234 neue Benachrichtigungen in Ihrer wöchentlichen Zusammenfassung"),
        ("ar", 1, "daily", "إشعار جديد واحد في ملخصك اليومي"),
        ("ar", 2, "daily", "إشعاران جديدان في ملخصك اليومي"),
        ("ar", 3, "daily", "3 إشعارات جديدة في ملخصك اليومي"),
        ("ar", 11, "weekly", "11 إشعارًا جديدًا في ملخصك الأسبوعي"),
        ("ar", 100, "daily", "100 إشعار جديد في ملخصك اليومي"),
        (None, 2, "daily", "2 new notifications in your daily digest"),
        ("fr", 2, "daily", "2 new notifications in your daily digest"),
    ],
)  # fmt: skip
def test_the_subject_carries_the_number(
    locale: str | None, count: int, frequency: str, subject: str
) -> None:
    items = [an_item(number, "Title", "Body") for number in range(count)]
    digest = a_digest(items, locale=locale, frequency=DigestFrequency(frequency))
    assert WRITE.digest(digest).subject == subject


def test_it_is_grouped_and_counted_and_every_item_leads_to_its_page() -> None:
    items = items_in("en")
    letter = WRITE.digest(a_digest(items))
    page = Read(letter.html)
    assert page.headings == [1, 2, 3, 2, 3, 3, 2, 3, 2, 3]
    summary = "5 new notifications Thursday, January 8, 2026 "
    assert f"{summary}People 1 Tasks 2 Billing 1 Workflow 1" in page.text
    for item in items:
        address = f"{BASE}/?notification={item.notification_id}"
        assert page.by_text(item.title) == address
        assert f"\n{address}\n" in letter.text
    about = TOKENS.read_unsubscribe(page.by_text("Unsubscribe").rpartition("/")[2])
    assert about.type is None
    assert letter.tags == {"digest_id": str(letter.id)}


def test_times_are_the_users() -> None:
    items = [an_item(1, "Now", "x", hours_ago=0.5), an_item(2, "Before", "x", hours_ago=20)]
    for locale, timezone, times in (
        ("en", "America/New_York", ["2:30\u202fAM", "Wed, Jan 7, 7:00\u202fAM"]),
        ("en-GB", "Europe/London", ["07:30", "Wed 7 Jan, 12:00"]),
        ("de", "Asia/Kolkata", ["13:00", "Mi., 7. Jan., 17:30"]),
        ("fr", "Asia/Kolkata", ["1:00\u202fPM", "Wed, Jan 7, 5:30\u202fPM"]),
    ):
        text = WRITE.digest(a_digest(items, locale=locale, timezone=timezone)).text
        for time in times:
            assert f"\n{time}\n" in text


def test_what_is_too_much_is_counted_and_in_the_inbox() -> None:
    items = [an_item(number, f"Item {number}.", "x") for number in range(60)]
    letter = WRITE.digest(a_digest(items))
    page = Read(letter.html)
    assert "Tasks 60" in page.text
    assert page.by_text("and 10 more") == f"{BASE}/"
    assert "and 10 more" in letter.text
    assert "Item 49." in page.text
    assert "Item 50." not in page.text
    assert "more" not in WRITE.digest(a_digest(items[:50])).text


def test_a_type_that_is_not_shown_is_counted_all_the_same() -> None:
    items = [an_item(number, "Task", "x") for number in range(50)]
    old = an_item(50, "Old", "x", NotificationType.SECURITY, hours_ago=40)
    letter = WRITE.digest(a_digest([*items, old]))
    assert "Tasks 50 Security 1" in Read(letter.html).text
    assert Read(letter.html).headings.count(2) == 1


def test_an_excerpt_is_short_plain_text() -> None:
    item = an_item(1, "Title", "# Heading\n\nSome **bold** " + "words " * 50)
    text = Read(WRITE.digest(a_digest([item])).html).text
    assert "Heading Some bold words words" in text
    assert "words…" in text
    assert "words " * 25 not in text


def test_the_fullest_digest_is_shown_whole_by_mailboxes() -> None:
    types = list(NotificationType)
    items = [
        an_item(number, "إشعار " * 42, "كلمة " * 80, types[number % 7]) for number in range(60)
    ]
    letter = composer().digest(a_digest(items, locale="ar"))
    assert len(letter.html.encode()) < 102 * 1024


def test_a_late_digest_says_the_day_it_is_for() -> None:
    digest = a_digest(items_in("de"), locale="de", timezone="Pacific/Apia")
    local = digest.slot + timedelta(hours=13)
    assert f"{local.day}. Januar 2026" in WRITE.digest(digest).text
