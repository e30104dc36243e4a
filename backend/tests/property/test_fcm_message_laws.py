"""Whatever a notification says, FCM gets a message that it takes (REQ-007)."""

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.channels.fcm_message import MOST_BYTES, message_of
from app.policy.kinds import Priority
from app.sandbox.fcm.message import check_size, parse_request
from tests.pushing import NOW, a_claim

BASE = "https://notify.example"
ACK = "ack." + "t" * 100


def repeated(part: str, times: int) -> str:
    return part * times


def merged(steering: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**other, **steering}


texts = st.one_of(
    st.text(),
    st.builds(
        repeated,
        st.sampled_from(["a", "ä", "字", "👩‍👩‍👧", '"', "\\", "\n", "\x01", " "]),
        st.integers(0, 6_000),
    ),
)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False),
    texts,
    st.lists(texts, max_size=3),
)
STEERING = ("action_url", "actions", "badge", "category", "silent", "sound", "topic", "ttl")
data = st.builds(
    merged,
    st.fixed_dictionaries({}, optional=dict.fromkeys(STEERING, values)),
    st.dictionaries(st.text(max_size=40), values, max_size=5),
)


@given(texts, texts, data, st.integers(0, 10**6), st.sampled_from(Priority), st.integers(1, 500))
def test_it_fits_and_is_taken(
    title: str,
    body: str,
    given_data: dict[str, Any],
    unread: int,
    priority: Priority,
    token_length: int,
) -> None:
    claim = a_claim(
        title=title, body_html=body, data=given_data, unread_count=unread, priority=priority
    )
    token = "t" * token_length
    request = message_of(claim, token, ack_token=ACK, base_url=BASE, now=NOW)
    assert len(request) <= MOST_BYTES
    _, message = parse_request(request)
    check_size(message, "android")
    check_size(message, "ios")
    assert message["token"] == token
    assert all(isinstance(value, str) for value in message["data"].values())
    assert message["data"]["id"] == str(claim.notification_id)
    assert message["data"]["ack_token"] == ACK
    assert ("notification" in message) is (given_data.get("silent") is not True)
    if "actions" in message["data"]:
        assert orjson.loads(message["data"]["actions"]) == given_data["actions"]
    if (shown := message.get("notification")) is not None and shown["title"] != title:
        assert shown["title"].endswith("…")
