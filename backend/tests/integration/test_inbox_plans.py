"""No read of an inbox takes longer because others have much: each is served by an index (8.1)."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import Settings
from app.db.database import Database, UserRole
from app.pipeline import change, expire
from app.pipeline.deliver import utc_now
from app.policy.kinds import NotificationType, Priority, Sort
from app.realtime.inboxes import LOCK
from app.services.inbox_changes import InboxChanges
from app.services.inbox_service import InboxFilter, InboxService
from bench.fill import add_users, fill, vacuum
from bench.plans import MODES, Mode, Plan, Statement, executed, plan_of

ROWS = 50_000
EVERY = 10
LARGE = {"notifications", "notification_deliveries", "inbox_state", "users"}

Read = Callable[[InboxService, UUID], Awaitable[object]]


@dataclass
class Filled:
    """A database in which a user has 5,000 notifications of 50,000."""

    database: Database
    inbox: InboxService
    user_id: UUID

    def under(self, role: str) -> AbstractAsyncContextManager[AsyncConnection]:
        if role == "service_role":
            return self.database.as_service()
        return self.database.as_user(self.user_id, cast("UserRole", role))

    async def plans(self, statements: list[Statement], mode: Mode) -> list[Plan]:
        plans: list[Plan] = []
        for statement in statements:
            async with self.under(statement.role) as connection:
                plans.append(await plan_of(connection, statement, mode))
        return plans


@pytest.fixture(scope="module")
def large_settings(clone_database: Callable[[], Settings]) -> Settings:
    """Settings with a database that these tests fill."""
    return clone_database()


@pytest.fixture(scope="module")
async def filled(large_settings: Settings) -> AsyncGenerator[Filled]:
    settings = large_settings
    user_id, others = uuid4(), [uuid4() for _ in range(500)]
    await add_users(settings, [user_id, *others])
    await fill(settings, user_id, others, numbers=range(ROWS), every=EVERY, last=ROWS)
    await vacuum(settings)
    database = Database(settings)
    expiring = InboxChanges(database, lambda _: None, utc_now).expire
    yield Filled(database, InboxService(database, settings, expiring), user_id)
    await database.close()


def pages(**chosen: Any) -> Read:
    """Some pages of a list, so that the cursor's part of the statement is tried too."""

    async def read(inbox: InboxService, user_id: UUID) -> None:
        cursor = None
        for _ in range(3):
            page = await inbox.page(user_id, limit=20, cursor=cursor, chosen=InboxFilter(**chosen))
            assert page.has_more
            cursor = page.next_cursor

    return read


async def one(inbox: InboxService, user_id: UUID) -> None:
    page = await inbox.page(user_id, limit=1)
    await inbox.get(user_id, page.items[0].item.id)


LAST = 2 * ROWS // EVERY
PLAIN: dict[str, Read] = {
    "newest": pages(),
    "oldest": pages(sort=Sort.OLDEST),
    "by priority": pages(sort=Sort.PRIORITY),
    "unread": pages(is_read=False),
    "read": pages(is_read=True),
    "of a type": pages(type=NotificationType.BILLING),
    "of a priority": pages(priority=Priority.HIGH),
    "few changes": lambda inbox, user: inbox.changes_since(user, LAST - 20),
    "all changes": lambda inbox, user: inbox.changes_since(user, 0),
    "one": one,
    "state": lambda inbox, user: inbox.state(user),
    "positions": lambda inbox, user: inbox.positions([user]),
}
OTHERS: dict[str, Read] = {
    "unread of a type": pages(type=NotificationType.BILLING, is_read=False),
    "unread of a type by priority": pages(
        type=NotificationType.BILLING, is_read=False, sort=Sort.PRIORITY
    ),
    "of a type and priority": pages(type=NotificationType.TASK, priority=Priority.HIGH),
    "sync": lambda inbox, user: inbox.sync(user, LAST - 500),
    "undelivered": lambda inbox, user: inbox.undelivered(user),
    "acknowledge": lambda inbox, user: inbox.acknowledge({user: LAST}),
}


PHONE = (
    "INSERT INTO push_subscriptions (user_id, kind, fcm_token, fcm_token_hash)"
    " VALUES (:user_id, 'fcm', '', '')",
    "INSERT INTO notification_deliveries (notification_id, user_id, channel, status, device_id)"
    " SELECT n.id, n.user_id, 'push', 'sent', p.id FROM notifications n"
    " JOIN push_subscriptions p USING (user_id) WHERE user_id = :user_id",
)


def changes(user_id: UUID) -> dict[str, Statement]:
    """Statements that go to the driver directly."""
    now, nothing = datetime.now(UTC), uuid4()
    return {
        "lock": Statement(LOCK, [[user_id]], "notify_user"),
        "look": Statement(change.READ_ONE, [nothing, user_id], "notify_user"),
        "overdue": Statement(
            change.READ_OVERDUE, [[user_id], now, change.OVERDUE_AT_ONCE], "notify_user"
        ),
        "read": Statement(change.READ, [now, nothing, user_id, 1], "notify_user"),
        "unread": Statement(change.UNREAD, [nothing, user_id, 1], "notify_user"),
        "read all": Statement(change.READ_ALL, [now, user_id, 20, None, 1], "notify_user"),
        "read all of a type": Statement(
            change.READ_ALL, [now, user_id, 20, "billing", 1], "notify_user"
        ),
        "delete": Statement(change.DELETE, [now, nothing, user_id, 1], "notify_user"),
        "overdue of all": Statement(expire.OVERDUE_USERS, [now, 500], "service_role"),
        "next to expire": Statement(expire.NEXT, [], "service_role"),
    }


@pytest.fixture(scope="module")
async def with_phone(filled: Filled) -> Filled:
    """The user has had thousands of pushes to a phone."""
    async with filled.database.as_service() as connection:
        for statement in PHONE:
            await connection.execute(text(statement), {"user_id": filled.user_id})
    return filled


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
async def test_reads_are_served_by_an_index(filled: Filled, name: str, mode: Mode) -> None:
    with executed(filled.database) as statements:
        await {**PLAIN, **OTHERS}[name](filled.inbox, filled.user_id)
    assert statements
    for plan in await filled.plans(statements, mode):
        assert not LARGE & set(plan.sequential), str(plan)
        if name in PLAIN:
            # No more than is shown, and a little that is hidden between.
            assert plan.sorted_rows <= 250, str(plan)
            assert plan.buffers < 1_000, str(plan)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", changes(uuid4()))
async def test_changes_are_served_by_an_index(filled: Filled, name: str, mode: Mode) -> None:
    (plan,) = await filled.plans([changes(filled.user_id)[name]], mode)
    assert not LARGE & set(plan.sequential), str(plan)
    assert plan.buffers < 1_000, str(plan)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["read", "read all", "read all of a type", "delete"])
async def test_so_are_those_of_who_has_a_phone(with_phone: Filled, name: str, mode: Mode) -> None:
    (plan,) = await with_phone.plans([changes(with_phone.user_id)[name]], mode)
    assert not LARGE & set(plan.sequential), str(plan)
    assert plan.buffers < 1_000, str(plan)
