"""Inboxes page by page: REQ-011, and what counts as delivered in-app."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.errors import Busy, NotFound, ValidationFailed
from app.pipeline.deliver import utc_now
from app.pipeline.expire import Expirer
from app.policy.kinds import Channel, DeliveryStatus
from app.services.inbox_changes import InboxChanges
from app.services.inbox_service import MOST_AT_ONCE, InboxPage, InboxService
from tests.integration.sockets import Inboxes, id_of, statements


@pytest.fixture
def service(database: Database, settings: Settings, changes: InboxChanges) -> InboxService:
    return InboxService(database, settings, changes.expire)


def titles(page: InboxPage) -> list[str]:
    return [listed.item.title for listed in page.items]


async def test_pages_go_from_new_to_old_without_holes(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    for number in range(7):
        await inboxes.add(user, str(number))
    first = await service.page(user, limit=3)
    assert (titles(first), first.has_more) == (["6", "5", "4"], True)
    assert (first.snapshot.seq, first.snapshot.unread_count) == (7, 7)
    await inboxes.add(user, "meanwhile")
    second = await service.page(user, limit=3, cursor=first.next_cursor)
    assert (titles(second), second.has_more) == (["3", "2", "1"], True)
    third = await service.page(user, limit=3, cursor=second.next_cursor)
    assert (titles(third), third.has_more, third.next_cursor) == (["0"], False, None)


async def test_a_page_that_ends_with_the_inbox_has_no_cursor(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    for _ in range(3):
        await inboxes.add(user)
    assert (await service.page(user, limit=3)).next_cursor is None


async def test_who_never_had_anything_has_an_empty_inbox(service: InboxService) -> None:
    page = await service.page(uuid4(), limit=10)
    assert (page.items, page.next_cursor, page.snapshot.seq) == ([], None, 0)
    assert (await service.state(uuid4())).unread_count == 0


async def test_only_what_is_visible_is_listed(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    now = datetime.now(UTC)
    await inboxes.add(user, "lasting", expires_at=now + timedelta(hours=1))
    await inboxes.add(user, "expired", expires_at=now - timedelta(seconds=1))
    gone = id_of(await inboxes.add(user, "deleted"))
    await inboxes.delete(user, gone)
    assert titles(await service.page(user, limit=10)) == ["lasting"]
    with pytest.raises(NotFound):
        await service.get(user, gone)


async def test_cursors_are_signed_and_belong_to_their_user(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    for _ in range(2):
        await inboxes.add(user)
    cursor = (await service.page(user, limit=1)).next_cursor
    assert cursor is not None
    tampered = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for bad in ("", "x", tampered, cursor[:-4], cursor + "AAAA", "é", "A" * 32, cursor + "="):
        with pytest.raises(ValidationFailed) as refused:
            await service.page(user, limit=1, cursor=bad)
        assert refused.value.details[0]["path"] == "cursor"
    with pytest.raises(ValidationFailed):
        await service.page(await inboxes.user(), limit=1, cursor=cursor)


async def test_other_users_notifications_are_not_found(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    mine = id_of(await inboxes.add(user))
    assert (await service.get(user, mine)).item.id == mine
    with pytest.raises(NotFound):
        await service.get(await inboxes.user(), mine)
    with pytest.raises(NotFound):
        await service.get(user, uuid4())


async def test_each_decided_channel_shows_its_best_delivery(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    deliveries = (
        ("email", "pending"),
        ("push", "failed"),
        ("push", "sent"),
        ("push", "bounced"),
        ("in_app", "delivered"),
    )
    wanted = {
        Channel.PUSH: DeliveryStatus.SENT,
        Channel.IN_APP: DeliveryStatus.DELIVERED,
        Channel.EMAIL: DeliveryStatus.PENDING,
    }
    notification_id = id_of(await inboxes.add(user, deliveries=deliveries))
    await inboxes.add(user, deliveries=())
    undecided, decided = (await service.page(user, limit=10)).items
    assert list(decided.delivery_status.items()) == list(wanted.items())
    assert undecided.delivery_status == {}
    assert (await service.get(user, notification_id)).delivery_status == wanted


async def test_what_is_listed_or_fetched_is_delivered(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    other = await inboxes.user()
    await inboxes.add(other)
    ids = [id_of(await inboxes.add(user)) for _ in range(3)]
    fetched = await service.get(user, ids[0])
    assert fetched.delivery_status == {Channel.IN_APP: DeliveryStatus.DELIVERED}
    assert await inboxes.in_app_statuses(user) == ["delivered", "sent", "sent"]
    await service.page(user, limit=1)
    assert await inboxes.in_app_statuses(user) == ["delivered", "sent", "delivered"]
    assert await inboxes.in_app_statuses(other) == ["sent"]


async def test_acknowledgements_of_many_users_are_one_statement(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    other = await inboxes.user()
    for each in (user, user, other, other):
        await inboxes.add(each)
    await service.acknowledge({user: 1, other: 2, uuid4(): 9})
    assert await inboxes.in_app_statuses(user) == ["delivered", "sent"]
    assert await inboxes.in_app_statuses(other) == ["delivered", "delivered"]


async def test_positions_leave_out_users_without_an_inbox(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    await inboxes.add(user)
    assert await service.positions([user, uuid4()]) == {user: 1}


async def test_parts_of_changes_lead_into_each_other(
    service: InboxService, inboxes: Inboxes, user: UUID
) -> None:
    for _ in range(5):
        await inboxes.add(user)
    part = await service.changes_since(user, 0, limit=2)
    assert ([c.seq for c in part.changes], part.reached, part.is_last) == ([1, 2], 2, False)
    part = await service.changes_since(user, 3, limit=2)
    assert ([c.seq for c in part.changes], part.reached, part.is_last) == ([4, 5], 5, True)
    part = await service.changes_since(user, 5, limit=2)
    assert (part.changes, part.reached, part.is_last) == ([], 5, True)


async def test_the_number_of_statements_does_not_grow_with_the_page(
    service: InboxService, database: Database, inboxes: Inboxes, user: UUID
) -> None:
    for _ in range(20):
        await inboxes.add(user, deliveries=(("in_app", "sent"), ("push", "sent")))
    for limit in (1, 20):
        await service.page(user, limit=limit)
        with statements(database) as executed:
            await service.page(user, limit=limit)
        # A role and a query, twice; and nothing is written when nothing changes.
        assert len(executed) == 4


async def fill(database: Database, user: UUID, number: int, *, body: int) -> None:
    """Give the user so many notifications, each with so many bytes of body, all read at once."""
    async with database.as_service() as connection:
        await connection.execute(
            text(
                "INSERT INTO notifications (user_id, type, title, body, body_html, service,"
                " position, seq, read_at) SELECT :user, 'task', 't', repeat('b', :body), 'h',"
                " 'tests', n, CAST(:number AS int) + 1, now() FROM generate_series(1, :number) n"
            ),
            {"user": user, "number": number, "body": body},
        )
        await connection.execute(
            text("INSERT INTO inbox_state (user_id, seq) VALUES (:user, :seq)"),
            {"user": user, "seq": number + 1},
        )


async def test_a_part_ends_before_it_is_too_heavy(
    service: InboxService, inboxes: Inboxes, database: Database, user: UUID
) -> None:
    await fill(database, user, 40, body=60_000)
    shown: list[int] = []
    since, parts = 0, 0
    while True:
        part = await service.changes_since(user, since)
        new = [change for change in part.changes if change.is_new]
        assert sum(len(change.item.body) for change in new if change.item) < 400_000
        shown += [change.seq for change in new]
        since, parts = part.reached, parts + 1
        if part.is_last:
            break
    assert shown == list(range(1, 41))
    assert parts > 5
    # What is known to whoever asks comes without its content.
    (last,) = {change.item.body for change in part.changes if change.item and not change.is_new}
    assert last == ""


async def test_who_missed_too_many_that_share_a_number_lists_anew(
    service: InboxService, database: Database, inboxes: Inboxes, user: UUID
) -> None:
    await fill(database, user, MOST_AT_ONCE, body=10)
    assert len((await service.sync(user, MOST_AT_ONCE)).items) == MOST_AT_ONCE
    other = await inboxes.user()
    await fill(database, other, MOST_AT_ONCE + 1, body=10)
    synced = await service.sync(other, MOST_AT_ONCE + 1)
    assert (synced.recovered, synced.items) == (False, ())
    part = await service.changes_since(other, MOST_AT_ONCE + 1)
    assert not part.snapshot.can_resume(MOST_AT_ONCE + 1)


async def test_an_inbox_that_counts_wrongly_is_counted_anew(
    service: InboxService, changes: InboxChanges, database: Database, inboxes: Inboxes, user: UUID
) -> None:
    other = await inboxes.user()
    past = datetime.now(UTC) - timedelta(seconds=60)
    for each in (user, other):
        await inboxes.add(each)
        await inboxes.add(each, expires_at=past)
    async with database.as_service() as connection:
        await connection.execute(
            text("UPDATE inbox_state SET unread = '{}' WHERE user_id = :id"), {"id": user}
        )
    expirer = Expirer(database, lambda _: None, utc_now)
    while await expirer.expire_some():
        pass
    for each in (user, other):
        assert (await service.state(each)).by_type == {"task": 1}
    async with database.as_service() as connection:
        await connection.execute(
            text("UPDATE inbox_state SET unread = '{}' WHERE user_id = :id"), {"id": user}
        )
    item = (await service.page(user, limit=1)).items[0].item
    with pytest.raises(Busy):
        await changes.mark_read(user, item.id)
    assert (await changes.mark_read(user, item.id)).unread_count == 0
