"""The judge of the fault suite sees each promise that is broken."""

from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import RowMapping

from faults.books import Books

USER, FIRST, SECOND, STRANGER = (UUID(int=number) for number in range(1, 5))
DECISIONS = [[{"channel": "in_app", "action": "send"}, {"channel": "push", "action": "skip"}]]


def row(**columns: Any) -> RowMapping:
    return cast(RowMapping, columns)


def notification(position: int, *, seq: int = 0, visible: bool = True) -> RowMapping:
    return row(
        user_id=USER,
        position=position,
        seq=seq or position,
        unread=not seq,
        visible=visible,
        decisions=DECISIONS,
    )


def delivery(
    notification_id: UUID, *, status: str = "sent", reason: str | None = None
) -> RowMapping:
    return row(notification_id=notification_id, channel="in_app", status=status, reason=reason)


SOUND = Books(
    notifications={FIRST: notification(1), SECOND: notification(2)},
    deliveries=[delivery(FIRST), delivery(SECOND)],
    inboxes={USER: row(seq=2, unread={"task": 2})},
    repeated_outcomes=0,
)


def problems(**changes: Any) -> list[str]:
    return list(replace(SOUND, **changes).problems([FIRST, SECOND]))


def test_sound_books_have_no_problem() -> None:
    assert problems() == []


def test_changes_take_numbers_too() -> None:
    read = {FIRST: notification(1, seq=3), SECOND: notification(2)}
    assert problems(notifications=read, inboxes={USER: row(seq=3, unread={"task": 1})}) == []
    deleted = {FIRST: notification(1), SECOND: notification(2, visible=False, seq=3)}
    assert problems(notifications=deleted, inboxes={USER: row(seq=4, unread={"task": 1})}) == []


def test_a_lost_notification_is_seen() -> None:
    assert list(SOUND.problems([FIRST, STRANGER])) == ["1 accepted notifications are not stored"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"deliveries": [delivery(FIRST)]}, "1 notifications are stored in part"),
        (
            {"deliveries": [delivery(FIRST), delivery(SECOND, status="pending")]},
            "1 deliveries have not ended",
        ),
        (
            {"deliveries": [delivery(FIRST), delivery(SECOND, status="failed")]},
            "1 deliveries died without a reason",
        ),
        ({"repeated_outcomes": 1}, "1 deliveries ended more than once"),
        (
            {"notifications": {FIRST: notification(2), SECOND: notification(2)}},
            "an inbox at 2 has positions [2, 2]",
        ),
        (
            {
                "notifications": {FIRST: notification(1, seq=3), SECOND: notification(1)},
                "inboxes": {USER: row(seq=3, unread={"task": 1})},
            },
            "positions were given twice or not at all: [1, 1]",
        ),
        (
            {
                "notifications": {FIRST: notification(1, seq=4), SECOND: notification(2)},
                "inboxes": {USER: row(seq=3, unread={"task": 1})},
            },
            "an inbox at 3 has changes [2, 4]",
        ),
        (
            {"inboxes": {USER: row(seq=2, unread={"task": 3})}},
            "an inbox counts 3 unread and has 2",
        ),
    ],
)
def test_a_broken_promise_is_seen(changes: dict[str, Any], problem: str) -> None:
    assert problems(**changes) == [problem]


def test_the_dead_are_counted_by_reason() -> None:
    books = replace(SOUND, deliveries=[delivery(FIRST, status="failed", reason="poison")])
    assert books.dead == {"poison": 1}
