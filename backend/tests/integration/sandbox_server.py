"""One sandbox for the tests of a module, whose clock they set."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from app.load_settings import load_settings
from app.sandbox.server import serving_sandbox

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class SettableClock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[tuple[str, SettableClock]]:
    """The sandbox's address, and its clock."""
    settings = load_settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    clock = SettableClock()
    async with serving_sandbox(settings, clock=clock) as url:
        yield url, clock


@pytest.fixture
def clock(served: tuple[str, SettableClock]) -> SettableClock:
    """The sandbox's clock, as it was in the beginning."""
    clock = served[1]
    clock.now = START
    return clock
