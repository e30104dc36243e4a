"""The scenarios of `make fault` that every change has to pass (promises 1 and 2)."""

from collections.abc import AsyncGenerator

import pytest

from faults.__main__ import SCENARIOS
from faults.lab import WHOLE, Lab
from faults.report import lines
from faults.trial import conduct

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("stack")]


@pytest.fixture(scope="module")
async def lab() -> AsyncGenerator[Lab]:
    async with Lab.opened(WHOLE) as opened:
        yield opened


@pytest.mark.parametrize(
    "name",
    [
        "worker-mid-send",
        "worker-after-answer",
        "worker-after-batch",
        "valkey-killed",
        "reads-flushed",
    ],
)
async def test_what_was_accepted_arrives(lab: Lab, name: str) -> None:
    report = await conduct(SCENARIOS[name], lab, seed=1)
    assert report.is_ok, lines(report)
