from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.policy.retry import RetryPolicy

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)
POLICY = RetryPolicy(base=1, cap=3600, max_attempts=20)


@pytest.mark.parametrize(
    ("attempts", "ceiling"), [(1, 1), (2, 2), (3, 4), (10, 512), (12, 2048), (13, 3600), (19, 3600)]
)
def test_waits_double_up_to_the_cap(attempts: int, ceiling: int) -> None:
    due = POLICY.next_attempt(NOW, attempts=attempts, luck=0.5)
    assert due is not None
    assert (due - NOW).total_seconds() == ceiling / 2


@given(st.integers(1, 19), st.floats(0, 1, exclude_max=True), st.floats(0, 10_000))
def test_a_provider_s_wish_is_never_undercut(attempts: int, luck: float, wish: float) -> None:
    due = POLICY.next_attempt(NOW, attempts=attempts, luck=luck, retry_after=wish)
    assert due is not None
    assert (due - NOW).total_seconds() == pytest.approx(
        max(wish, luck * min(3600, 2 ** (attempts - 1))), abs=1e-5
    )


def test_attempts_are_used_up() -> None:
    assert POLICY.next_attempt(NOW, attempts=20, luck=0) is None
