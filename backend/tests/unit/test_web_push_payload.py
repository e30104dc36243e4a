"""What a browser is shown (CONTRACT: push payload; REQ-006)."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from app.channels.push_content import (
    as_shown,
    has_outlived,
    navigate_of,
    plain_text,
    time_to_live,
)
from app.channels.texts import ChannelTexts
from app.channels.web_push_payload import MAX_PLAINTEXT, payload_of, topic_of, urgency_of
from app.security.sanitize import safe_html
from tests.pushing import NOW, a_claim

BASE = "https://notify.example"
ID = "0197a000-0000-7000-8000-00000000abcd"


def message(limit: int = MAX_PLAINTEXT, **changes: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(payload_of(a_claim(**changes), BASE, "token", limit))
    return loaded


def test_the_contracts_example() -> None:
    actions = [{"label": "View", "url": "/tasks/1"}]
    made = message(
        locale="de-AT", unread_count=3, data={"actions": actions, "action_url": "/tasks/1?a=b#c"}
    )
    assert made == {
        "web_push": 8030,
        "mutable": True,
        "app_badge": 3,
        "notification": {
            "title": "Build failed",
            "body": "The build of main failed.",
            "navigate": "https://notify.example/tasks/1?a=b#c",
            "tag": ID,
            "silent": False,
            "lang": "de-AT",
            "data": {
                "id": ID,
                "type": "task",
                "priority": "normal",
                "ack_token": "token",
                "actions": actions,
            },
            "app_badge": "3",
        },
    }


def test_an_unknown_language_is_left_out() -> None:
    assert "lang" not in message()["notification"]


@pytest.mark.parametrize(
    ("sound", "is_silent"), [(False, True), ("none", True), (True, False), ("bell", False)]
)
def test_sound_may_be_turned_off(sound: object, is_silent: bool) -> None:
    assert message(data={"sound": sound})["notification"]["silent"] is is_silent


@pytest.mark.parametrize(
    ("badge", "shown"),
    [(0, 0), (7, 7), (-1, 5), (True, 5), (1.5, 5), ("3", 5), (None, 5)],
)
def test_a_given_badge_stands_before_the_unread_count(badge: object, shown: int) -> None:
    made = message(data={"badge": badge}, unread_count=5)
    assert (made["app_badge"], made["notification"]["app_badge"]) == (shown, str(shown))


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("/tasks/1", "https://notify.example/tasks/1"),
        ("?page=2", "https://notify.example/?page=2"),
        ("https://other.example/a", "https://other.example/a"),
        ("", f"https://notify.example/?notification={ID}"),
        (None, f"https://notify.example/?notification={ID}"),
        (5, f"https://notify.example/?notification={ID}"),
    ],
)
def test_a_click_leads_to_an_absolute_address(address: object, leads_to: str) -> None:
    assert navigate_of(a_claim(data={"action_url": address}), BASE) == leads_to


def test_what_is_too_long_gives_way_in_order() -> None:
    many: list[dict[str, object]] = [{"label": "x" * 100, "url": "/"} for _ in range(10)]
    told = message(body_html="b" * 3_000, data={"actions": many})["notification"]
    assert told["data"]["actions"] == []
    assert told["body"] == "b" * 3_000
    told = message(body_html="b" * 9_000, data={"actions": many})["notification"]
    assert told["body"].endswith("b…")
    assert len(told["body"]) > 3_000
    assert told["title"] == "Build failed"
    told = message(title="t" * 9_000, body_html="b")["notification"]
    assert told["title"].endswith("t…")
    far = message(1_996, body_html="b" * 3_000, data={"action_url": "/" + "a" * 2_000})
    assert far["notification"]["navigate"] == f"https://notify.example/?notification={ID}"
    assert len(far["notification"]["body"]) > 1_000


def test_short_ones_have_the_same_length() -> None:
    lengths = {
        len(payload_of(a_claim(title=title, body_html=title), BASE, "token"))
        for title in ("a", "abc", "a longer title")
    }
    assert lengths == {512}


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("**a** & <b>", "a &"),
        ("one\n\ntwo", "one\ntwo"),
        ("- one\n- two", "one\ntwo"),
        ("# Head\ntext", "Head\ntext"),
        ("[link](https://example.com)", "link"),
        ("1 < 2 &amp; `<i>`", "1 < 2 & <i>"),
        ("|a|b|\n|-|-|\n|c|d|", "a b\nc d"),
    ],
)
def test_a_body_becomes_plain_text(markdown: str, text: str) -> None:
    assert [line.strip() for line in plain_text(safe_html(markdown)).split("\n")] == text.split(
        "\n"
    )


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(60, 60), (0, 0), (-5, 0), (10**9, 2_419_200), (1.9, 1), (True, 86_400), ("60", 86_400)],
)
def test_it_lives_as_long_as_it_says(ttl: object, seconds: int) -> None:
    assert time_to_live(a_claim(data={"ttl": ttl}), NOW) == seconds


def test_it_lives_no_longer_than_the_notification() -> None:
    assert time_to_live(a_claim(expires_at=NOW + timedelta(seconds=90.5)), NOW) == 90
    assert time_to_live(a_claim(expires_at=NOW - timedelta(seconds=1)), NOW) == 0
    assert time_to_live(a_claim(), NOW) == 86_400


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 86_400),
        ({"data": {"ttl": 60}}, 60),
        ({"expires_at": NOW + timedelta(hours=1)}, 3_600),  # not half of that
        ({"send_at": NOW + timedelta(days=3)}, 4 * 86_400),
        ({"send_at": NOW - timedelta(days=3)}, 86_400),
        ({"send_at": NOW + timedelta(days=3), "expires_at": NOW + timedelta(days=3.5)}, 302_400),
    ],
)
def test_it_outlives_its_time_counted_from_when_it_could_first_go_out(
    changes: dict[str, Any], seconds: int
) -> None:
    claim = a_claim(**changes)
    assert not has_outlived(claim, NOW + timedelta(seconds=seconds))
    assert has_outlived(claim, NOW + timedelta(seconds=seconds + 1))


def test_a_topic_that_push_services_do_not_take_is_hashed() -> None:
    assert topic_of(a_claim(data={"topic": "task-1_a"})) == "task-1_a"
    hashed = topic_of(a_claim(data={"topic": "task 1"}))
    assert hashed is not None
    assert len(hashed) == 32
    assert hashed != topic_of(a_claim(data={"topic": "task 2"}))
    assert topic_of(a_claim()) is None


def test_a_template_has_words_of_its_own_for_pushes() -> None:
    texts = ChannelTexts(push_title="Kurz", push_body="1 < 2\nund mehr")
    told = as_shown(a_claim(texts=texts, language="de", locale="de-AT"))
    loaded: dict[str, Any] = orjson.loads(payload_of(told, BASE, "token"))
    shown = loaded["notification"]
    assert (shown["title"], shown["body"]) == ("Kurz", "1 < 2\nund mehr")
    assert shown["lang"] == "de"


# --- a summary of what was held --------------------------------------------------------------


def summary(**changes: Any) -> dict[str, Any]:
    claim = as_shown(a_claim(**changes))
    loaded: dict[str, Any] = orjson.loads(payload_of(claim, BASE, "token"))
    return loaded


def test_a_summary_tells_how_many_and_what_the_latest_are_about() -> None:
    data = {
        "actions": [{"label": "View", "url": "/tasks/1"}], "action_url": "/tasks/1", "badge": 9,
        "sound": False, "topic": "build", "ttl": 5,
    }  # fmt: skip
    held: dict[str, Any] = {
        "summarises": 5, "titles": ("Invoice is due", "Deployed", "A <b> & c", "Rest"),
        "priority": "high", "locale": "de-AT", "unread_count": 7, "data": data,
    }  # fmt: skip
    assert summary(**held) == {
        "web_push": 8030,
        "mutable": True,
        "app_badge": 7,
        "notification": {
            "title": "5 neue Benachrichtigungen",
            "body": "Build failed · Invoice is due · Deployed · A <b> & c · Rest",
            "navigate": "https://notify.example/",
            "tag": ID,
            "silent": False,
            "lang": "de",
            "data": {
                "id": ID,
                "type": "task",
                "priority": "high",
                "ack_token": "token",
                "actions": [],
            },
            "app_badge": "7",
        },
    }
    shown = as_shown(a_claim(**held))
    assert (topic_of(shown), time_to_live(shown, NOW), urgency_of(shown)) == (None, 86_400, "high")


@pytest.mark.parametrize(
    ("number", "titles", "body"),
    [
        (4, (), "Build failed · …"),
        (9, ("a", "b"), "Build failed · a · b · …"),
        (4, ("two\nlines", "b", "c"), "Build failed · two lines · b · c"),
        (4, ("a", "b" * 150, "c"), "Build failed · a · …"),
        (4, ("b" * 150, "c"), "Build failed · …"),
    ],
)
def test_a_summary_is_one_line(number: int, titles: tuple[str, ...], body: str) -> None:
    assert summary(summarises=number, titles=titles)["notification"]["body"] == body


def test_what_stands_for_itself_is_shown_as_it_is() -> None:
    claim = a_claim(data={"topic": "build"}, locale="de")
    assert as_shown(claim) is claim
