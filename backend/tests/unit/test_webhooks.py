"""Signatures after Standard Webhooks, and what receivers ask for (REQ-013)."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.channels.retry_after import LONGEST_WAIT, retry_after
from app.security.webhooks import new_secret, signed_headers

NOON = datetime(2026, 1, 8, 12, tzinfo=UTC)


def test_the_specifications_own_example() -> None:
    headers = signed_headers(
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
        "msg_loFOjxBNrRLzqYUf",
        1731705121,
        b'{"event_type":"ping","data":{"success":true}}',
    )
    assert headers == {
        "webhook-id": "msg_loFOjxBNrRLzqYUf",
        "webhook-timestamp": "1731705121",
        "webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    }


@given(st.binary(max_size=200), st.integers(0, 2**33))
def test_a_signature_is_that_of_its_three_parts(body: bytes, timestamp: int) -> None:
    secret = new_secret()
    headers = signed_headers(secret, "act_1", timestamp, body)
    key = base64.b64decode(secret.partition("_")[2])
    mac = hmac.new(key, b"act_1." + str(timestamp).encode() + b"." + body, hashlib.sha256)
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac.digest()).decode()


def test_no_two_secrets_are_alike() -> None:
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("nan", None),
        ("inf", None),
        ("٣", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 400, LONGEST_WAIT),
        ("Thu, 08 Jan 2026 12:01:00 GMT", 60.0),
        ("Thursday, 08-Jan-26 12:01:00 GMT", 60.0),
        ("Thu Jan  8 12:01:00 2026", 60.0),
        ("Thu, 08 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 08 Jan 2126 12:01:00 GMT", LONGEST_WAIT),
        ("Thu, 99 Jan 2026 12:01:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOON) == seconds


@given(st.text(max_size=40))
def test_any_text_is_read(value: str) -> None:
    wait = retry_after(value, NOON)
    assert wait is None or 0 <= wait <= LONGEST_WAIT


class TestTheDocumentedVerification:
    """The code in docs/actions.md, as integrators copy it."""

    @pytest.fixture
    def verify(self) -> Callable[[str, Mapping[str, str], bytes], None]:
        text = (Path(__file__).parents[3] / "docs/actions.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict[str, Any] = {}
        exec(code, names)
        return names["verify"]

    def test_it_takes_what_we_sign(self, verify: Callable[..., None]) -> None:
        secret, now = new_secret(), int(time.time())
        verify(secret, signed_headers(secret, "act_1", now, b"{}"), b"{}")

    @pytest.mark.parametrize(
        ("header", "change"),
        [
            ("webhook-id", "act_2"),
            ("webhook-timestamp", "a second earlier"),
            ("webhook-signature", "v1,AAAA"),
            ("webhook-signature", ""),
        ],
        ids=["another id", "another time", "another signature", "none"],
    )
    def test_it_takes_nothing_that_was_altered(
        self, verify: Callable[..., None], header: str, change: str
    ) -> None:
        secret, now = new_secret(), int(time.time())
        headers = signed_headers(secret, "act_1", now, b"{}")
        altered = change.replace("a second earlier", str(now - 1))
        with pytest.raises(ValueError, match="not signed"):
            verify(secret, {**headers, header: altered}, b"{}")

    def test_it_takes_no_other_body_and_no_other_secret(self, verify: Callable[..., None]) -> None:
        secret = new_secret()
        headers = signed_headers(secret, "act_1", int(time.time()), b"{}")
        with pytest.raises(ValueError, match="not signed"):
            verify(secret, headers, b"{ }")
        with pytest.raises(ValueError, match="not signed"):
            verify(new_secret(), headers, b"{}")

    def test_it_takes_nothing_old(self, verify: Callable[..., None]) -> None:
        secret = new_secret()
        headers = signed_headers(secret, "act_1", int(time.time()) - 301, b"{}")
        with pytest.raises(ValueError, match="too old"):
            verify(secret, headers, b"{}")
