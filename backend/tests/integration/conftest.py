"""Inboxes, their users, and what is announced of their changes."""

from uuid import UUID

import pytest

from app.db.database import Database
from app.pipeline.announce import Announcement
from app.pipeline.deliver import utc_now
from app.services.inbox_changes import InboxChanges
from tests.integration.sockets import Inboxes


@pytest.fixture
def inboxes(database: Database) -> Inboxes:
    return Inboxes(database)


@pytest.fixture
async def user(inboxes: Inboxes) -> UUID:
    return await inboxes.user()


@pytest.fixture
def told() -> list[Announcement]:
    """What was announced."""
    return []


@pytest.fixture
def changes(database: Database, told: list[Announcement]) -> InboxChanges:
    return InboxChanges(database, told.append, utc_now)
