"""One running API for all contract tests of a process."""

from collections.abc import AsyncGenerator

import pytest

from app.config import Settings
from tests.contract.callers import Api, open_api


@pytest.fixture(scope="session")
async def api(settings: Settings) -> AsyncGenerator[Api]:
    """The API on the shared database."""
    async with open_api(settings) as running:
        yield running
