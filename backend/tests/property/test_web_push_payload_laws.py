"""Whatever a notification says, a browser gets a whole message (REQ-006)."""

from datetime import UTC, datetime
from re import fullmatch
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.channels.push_content import MAX_TTL, time_to_live
from app.channels.web_push_payload import (
    BUCKET,
    MAX_PLAINTEXT,
    payload_of,
    topic_of,
    urgency_of,
)
from app.policy.kinds import Priority
from tests.pushing import NOW, a_claim

BASE = "https://notify.example"
TOKEN = "ack." + "t" * 100


def _repeated(part: str, times: int) -> str:
    return part * times


texts: st.SearchStrategy[str] = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.builds(
        _repeated,
        st.sampled_from(["a", "ä", "字", "👩‍👩‍👧", '"', "\\", "\n", "\x01", " "]),
        st.integers(0, 6_000),
    ),
)
values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
data = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("action_url", "actions", "badge", "sound", "topic", "ttl", "x"), values
    ),
)
limits = st.sampled_from([MAX_PLAINTEXT, MAX_PLAINTEXT // 2])


@given(texts, texts, data, st.integers(0, 10**6), limits)
def test_it_fits_one_record_and_has_the_contracts_shape(
    title: str, body: str, given_data: dict[str, Any], unread: int, limit: int
) -> None:
    claim = a_claim(title=title, body_html=body, data=given_data, unread_count=unread)
    payload = payload_of(claim, BASE, TOKEN, limit)
    assert len(payload) == limit or (len(payload) < limit and len(payload) % BUCKET == 0)
    message = orjson.loads(payload)
    told = message["notification"]
    assert message.keys() == {"web_push", "mutable", "app_badge", "notification"}
    assert message["web_push"] == 8030
    assert message["mutable"] is True
    assert message["app_badge"] >= 0
    assert told["app_badge"] == str(message["app_badge"])
    assert told.keys() == {"title", "body", "navigate", "tag", "silent", "data", "app_badge"}
    assert told["data"].keys() == {"id", "type", "priority", "ack_token", "actions"}
    assert told["tag"] == told["data"]["id"] == str(claim.notification_id)
    assert told["data"]["ack_token"] == TOKEN
    assert isinstance(told["silent"], bool)
    assert isinstance(told["data"]["actions"], list)
    assert told["title"] == title or told["title"].endswith("…") or not told["title"]
    if told["title"] != title:
        assert len(told["body"]) <= 1  # which gives way first


@given(texts.filter(bool), st.integers(1, 40))
def test_no_character_is_cut(body: str, repeated: int) -> None:
    claim = a_claim(body_html=f"{body}|" * repeated, data={})
    told = orjson.loads(payload_of(claim, BASE, TOKEN))["notification"]
    assert "\ufffd" not in told["body"] or "\ufffd" in body


@given(data, st.none() | st.datetimes(timezones=st.just(UTC)))
def test_headers_are_what_push_services_take(
    given_data: dict[str, Any], expires_at: datetime | None
) -> None:
    claim = a_claim(data=given_data, expires_at=expires_at)
    seconds = time_to_live(claim, NOW)
    assert 0 <= seconds <= MAX_TTL
    if expires_at is not None and expires_at > NOW:
        assert seconds <= (expires_at - NOW).total_seconds()
    topic = topic_of(claim)
    assert topic is None or fullmatch(r"[A-Za-z0-9_-]{1,32}", topic)
    assert topic == topic_of(claim)


@given(st.sampled_from(Priority))
def test_urgency_follows_the_priority(priority: Priority) -> None:
    expected = {"critical": "high", "high": "high", "normal": "normal", "low": "low"}
    assert urgency_of(a_claim(priority=priority.value)) == expected[priority]
