"""Inboxes, their users and what is announced of their changes; data directories."""

from pathlib import Path
from uuid import UUID

import pytest

from app.db.database import Database
from app.pipeline.announce import Announcement
from app.pipeline.deliver import utc_now
from app.services.inbox_changes import InboxChanges
from tests.integration.sockets import Inboxes
from tests.stack import initialise


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


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory on which the servers have run; `copy_data` makes others like it."""
    path = tmp_path_factory.mktemp("initialised")
    initialise(path)
    return path
