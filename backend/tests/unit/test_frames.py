"""The exact messages of requirements 5.4 and the contract's section WebSocket."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import orjson

from app.realtime import frames
from app.realtime.backplane import Change, decode, encode, messages_of
from app.realtime.close_codes import CloseCode
from app.realtime.frames import ErrorCode, InboxItem
from app.realtime.inboxes import Inbox
from app.realtime.origin import origin_is_allowed
from app.realtime.reader import InboxSnapshot, NetChange, NetChanges

USER = UUID("0197a000-0000-7000-8000-000000000001")
ID = UUID("0197a000-0000-7000-8000-00000000000a")
NOON = datetime(2026, 1, 8, 12, tzinfo=UTC)


def an_item(seq: int = 7, read_at: datetime | None = None) -> InboxItem:
    return InboxItem(
        id=ID,
        type="task",
        priority="high",
        title="New Task Assigned",
        body="You have been **assigned** a new task",
        body_html="<p>You have been <strong>assigned</strong> a new task</p>",
        data={"action_url": "/tasks/1"},
        read_at=read_at,
        created_at=NOON,
        expires_at=None,
        seq=seq,
        position=6,
    )


def test_notification() -> None:
    assert orjson.loads(frames.notification(an_item(), seq=7, unread_count=5)) == {
        "type": "notification",
        "seq": 7,
        "unread_count": 5,
        "data": {
            "id": str(ID),
            "type": "task",
            "priority": "high",
            "title": "New Task Assigned",
            "body": "You have been **assigned** a new task",
            "body_html": "<p>You have been <strong>assigned</strong> a new task</p>",
            "data": {"action_url": "/tasks/1"},
            "read_at": None,
            "created_at": "2026-01-08T12:00:00Z",
            "expires_at": None,
            "seq": 7,
            "position": 6,
        },
    }


def test_unread_count_leaves_zeros_out() -> None:
    assert orjson.loads(frames.unread_count({"task": 2, "user": 0, "system": 1}, seq=9)) == {
        "type": "unread_count",
        "count": 3,
        "by_type": {"task": 2, "system": 1},
        "seq": 9,
    }


def test_read_status_updated() -> None:
    frame = frames.read_status_updated(ID, read_at=NOON, seq=8, unread_count=4)
    assert orjson.loads(frame) == {
        "type": "read_status_updated",
        "notification_id": str(ID),
        "read_at": "2026-01-08T12:00:00Z",
        "seq": 8,
        "unread_count": 4,
    }


def test_unread_again_has_no_read_at() -> None:
    frame = frames.read_status_updated(ID, read_at=None, seq=9, unread_count=5)
    assert orjson.loads(frame)["read_at"] is None


def test_all_read_names_no_notification() -> None:
    frame = frames.all_read(up_to=6, notification_type="task", read_at=NOON, seq=8, unread_count=0)
    assert orjson.loads(frame) == {
        "type": "read_status_updated",
        "notification_id": None,
        "up_to": 6,
        "notification_type": "task",
        "read_at": "2026-01-08T12:00:00Z",
        "seq": 8,
        "unread_count": 0,
    }


def test_notification_deleted() -> None:
    assert orjson.loads(frames.notification_deleted(ID, seq=9, unread_count=1)) == {
        "type": "notification_deleted",
        "notification_id": str(ID),
        "seq": 9,
        "unread_count": 1,
    }


def test_authenticated() -> None:
    frame = frames.authenticated(
        user_id=USER,
        seq=9,
        unread_count=3,
        recovered=True,
        heartbeat_interval=30,
        expires_at=NOON,
    )
    assert orjson.loads(frame) == {
        "type": "authenticated",
        "user_id": str(USER),
        "seq": 9,
        "unread_count": 3,
        "recovered": True,
        "heartbeat_interval": 30,
        "expires_at": "2026-01-08T12:00:00Z",
    }


def test_small_frames() -> None:
    assert orjson.loads(frames.sync_complete(seq=9)) == {"type": "sync_complete", "seq": 9}
    assert orjson.loads(frames.pong(at=NOON, seq=9)) == {
        "type": "pong",
        "timestamp": "2026-01-08T12:00:00Z",
        "seq": 9,
    }
    assert orjson.loads(frames.error(ErrorCode.AUTH_FAILED, "Invalid or expired token")) == {
        "type": "error",
        "code": "AUTH_FAILED",
        "message": "Invalid or expired token",
    }


def test_instants_of_other_zones_are_told_in_utc() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    frame = frames.read_status_updated(ID, read_at=elsewhere, seq=8, unread_count=4)
    assert orjson.loads(frame)["read_at"] == "2026-01-08T12:00:00Z"


def test_a_visible_notification_is_followed_by_the_counts() -> None:
    change = frames.visible_change(an_item(), Inbox(USER, seq=7, unread={"task": 2, "user": 1}))
    assert (change.user_id, change.seq) == (USER, 7)
    told, counts = (orjson.loads(frame) for frame in change.frames)
    assert (told["type"], told["seq"], told["unread_count"]) == ("notification", 7, 3)
    assert counts == {
        "type": "unread_count",
        "count": 3,
        "by_type": {"task": 2, "user": 1},
        "seq": 7,
    }


def test_net_changes_tell_what_became_visible_and_what_became_of_it() -> None:
    read = an_item(9, read_at=NOON)
    changes = [
        NetChange(ID, seq=6, is_new=True, item=read),
        NetChange(USER, seq=8, is_new=False, item=None),
        NetChange(ID, seq=9, is_new=False, item=read),
    ]
    part = NetChanges(InboxSnapshot(seq=9, by_type={"task": 2}), changes, reached=9)
    told = [orjson.loads(frame) for frame in part.frames(since=0)]
    assert [(message["type"], message["seq"]) for message in told] == [
        ("notification", 6),
        ("notification_deleted", 8),
        ("read_status_updated", 9),
    ]
    assert {message["unread_count"] for message in told} == {2}
    # Cut off anywhere, a client is told the rest.
    assert [orjson.loads(frame) for frame in part.frames(since=6)] == told[1:]
    assert not part.is_gapless(since=6)
    assert part.is_gapless(since=7)


def test_only_what_is_still_known_can_be_resumed() -> None:
    snapshot = InboxSnapshot(seq=9, floor_seq=4, by_type={"task": 1})
    assert [since for since in range(12) if snapshot.can_resume(since)] == [4, 5, 6, 7, 8, 9]


def test_a_change_survives_the_backplane() -> None:
    changes = [Change(USER, 2**40, (b'{"a":"\\n"}', b"{}")), Change(ID, 1, (b"[]",))]
    assert list(decode(b"".join(encode(change) for change in changes))) == changes


def test_changes_of_one_bucket_share_a_message_and_keep_their_order() -> None:
    changes = [Change(USER, seq, (b"{}",)) for seq in range(1, 100)]
    [(channel, message)] = messages_of(changes)
    assert channel == f"notify:{{b{USER.int % 64}}}"
    assert list(decode(message)) == changes


def test_long_messages_are_split() -> None:
    changes = [Change(USER, seq, (b"x" * 50_000,)) for seq in range(1, 21)]
    messages = [message for _, message in messages_of(changes)]
    assert len(messages) > 1
    assert [change for message in messages for change in decode(message)] == changes


def test_codes_from_4000_on_do_not_invite_back() -> None:
    inviting = {code for code in CloseCode if code.invites_back}
    assert inviting == {code for code in CloseCode if code < 4000}


def test_origins() -> None:
    allowed = ("https://app.example.com",)

    def passes(origin: str | None, host: str = "api.example.com:8000") -> bool:
        headers = {"host": host} | ({} if origin is None else {"origin": origin})
        return origin_is_allowed(headers, allowed)

    assert passes(None)
    assert passes("http://api.example.com:8000")
    assert passes("https://API.example.com:8000")
    assert passes("https://app.example.com")
    for foreign in (
        "https://app.example.com.evil.test",
        "https://app.example.com:444",
        "http://app.example.com",
        "https://evil.test",
        "http://api.example.com",
        "http://api.example.com:8000/path",
        "ftp://api.example.com:8000",
        "http://user@api.example.com:8000",
        "http://[",
        "null",
        "",
    ):
        assert not passes(foreign), foreign
