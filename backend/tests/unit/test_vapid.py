"""Who sends, as push services are told (RFC 8292; SEC-003)."""

from datetime import datetime, timedelta

import pytest

from app.channels.vapid import VapidTokens
from tests.pushing import NOW, vapid_claims, vapid_key

ORIGIN = "https://push.example"
SUBJECT = "mailto:ops@example.com"


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def tokens(time: Time) -> VapidTokens:
    return VapidTokens(SUBJECT, time, limit=3)


def test_a_token_says_to_whom_by_whom_and_until_when(tokens: VapidTokens) -> None:
    key = vapid_key("a")
    claims = vapid_claims(tokens.authorization(ORIGIN, key), key)
    assert claims.keys() == {"aud", "exp", "sub"}
    assert (claims["aud"], claims["sub"]) == (ORIGIN, SUBJECT)
    assert isinstance(claims["exp"], int)
    assert 0 < claims["exp"] - NOW.timestamp() <= 24 * 3600


def test_no_origin_is_sent_anothers_token(tokens: VapidTokens) -> None:
    key = vapid_key("a")
    for origin in (ORIGIN, "https://other.example", "https://push.example:8443"):
        assert vapid_claims(tokens.authorization(origin, key), key)["aud"] == origin


def test_it_is_signed_once_for_at_least_an_hour_and_anew_before_it_ends(
    tokens: VapidTokens, time: Time
) -> None:
    key, other = vapid_key("a"), vapid_key("b")
    first = tokens.authorization(ORIGIN, key)
    time.now += timedelta(hours=1)
    assert tokens.authorization(ORIGIN, key) == first
    assert vapid_claims(tokens.authorization(ORIGIN, other), other)
    for _ in range(40):
        time.now += timedelta(hours=1)
        expires = vapid_claims(tokens.authorization(ORIGIN, key), key)["exp"]
        assert timedelta(0) < timedelta(seconds=expires - time.now.timestamp())
    assert tokens.authorization(ORIGIN, key) != first


def test_a_clock_that_was_put_back_signs_anew(tokens: VapidTokens, time: Time) -> None:
    key = vapid_key("a")
    tokens.authorization(ORIGIN, key)
    time.now -= timedelta(days=3)
    expires = vapid_claims(tokens.authorization(ORIGIN, key), key)["exp"]
    assert expires - time.now.timestamp() <= 24 * 3600


def test_only_those_used_last_are_kept(tokens: VapidTokens) -> None:
    key = vapid_key("a")
    first, second = (tokens.authorization(f"https://{n}.example", key) for n in (1, 2))
    for n in (3, 1, 4):
        tokens.authorization(f"https://{n}.example", key)
    assert tokens.authorization("https://1.example", key) == first
    assert tokens.authorization("https://2.example", key) != second
