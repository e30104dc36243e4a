"""Reading the notification center of a user with 10,000 notifications in a table of 1,000,000."""

from collections.abc import Mapping
from itertools import repeat
from textwrap import indent
from urllib.parse import quote
from uuid import UUID, uuid4

from app.db.database import Database
from app.pipeline.deliver import utc_now
from app.services.inbox_changes import InboxChanges
from app.services.inbox_service import InboxService
from bench.fill import add_users, fill, vacuum
from bench.load import HttpClient, MeasurementFailed, Trial, open_loop, request_bytes
from bench.plans import MODES, Mode, Plan, executed, plan_of
from bench.report import Result, Row, at_most, latency_rows, percentile
from bench.stack import Stack
from bench.usage import start_counting

ROOT = "/api/v1/notifications"
PAGE = f"{ROOT}?limit=20"
NOTIFICATIONS = 10_000
SMALL, LARGE = 100_000, 1_000_000
OTHERS = 10_000
RATE = 100
SECONDS = 5
CONNECTIONS = 8
DEEP_PAGE = 100

REQUIRED_P95 = at_most(200)
AIM_P95 = at_most(15)
# Twice as long for ten times the table is what an index that grew by a level may cost.
AIM_FLATNESS = at_most(2)
# One for each notification, and the way down two indexes and to the inbox's state.
AIM_PAGES = at_most(40)


async def measure(stack: Stack) -> Result:
    """Read in every way the center offers, each at a steady rate, and look at the list's plan."""
    result = Result(f"query, user with {NOTIFICATIONS:,} of {LARGE:,}")
    small, large = uuid4(), uuid4()
    others = [uuid4() for _ in range(OTHERS)]
    await add_users(stack.settings, [small, large, *others])
    await _fill(stack, small, others, range(SMALL))
    before = await _first_page(stack, small)
    pages_before = _most_pages(await _plans(stack, small))
    await _fill(stack, large, others, range(SMALL, LARGE))
    await _measure_reads(stack, large, result)
    after = await _first_page(stack, large)
    plans = await _plans(stack, large)
    total = await stack.value("SELECT count(*) FROM notifications")
    result.failures += before.failures + after.failures
    result.rows += [
        Row("notifications in the table", total, ""),
        Row(
            f"first page p50, against the same among {SMALL:,}",
            percentile(after.latencies, 50) / percentile(before.latencies, 50),
            "×",
            aim=AIM_FLATNESS,
        ),
        Row("8 KiB pages that the list reads", _most_pages(plans), "", aim=AIM_PAGES),
        Row(f"the same among {SMALL:,}", pages_before, ""),
    ]
    for mode, plan in plans.items():
        result.notes.append(f"the list's plan, {mode}:\n{indent(str(plan), ' ' * 6)}")
        if "notifications" in plan.sequential:
            result.failures.append(f"the list reads the whole table ({mode})")
    return result


def _most_pages(plans: Mapping[Mode, Plan]) -> int:
    return max(plan.buffers for plan in plans.values())


async def _fill(stack: Stack, user: UUID, others: list[UUID], numbers: range) -> None:
    every = len(numbers) // NOTIFICATIONS
    await fill(stack.settings, user, others, numbers=numbers, every=every, last=LARGE)
    await vacuum(stack.settings)


async def _measure_reads(stack: Stack, user: UUID, result: Result) -> None:
    headers = _headers(stack, user)
    async with HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client:
        deep = await _path_of(client, headers, page=DEEP_PAGE)
        reads = {
            "first page": PAGE,
            f"page {DEEP_PAGE}": deep,
            "unread": f"{PAGE}&is_read=false",
            "of a type": f"{PAGE}&type=billing",
            "by priority": f"{PAGE}&sort=priority",
            "unread count": f"{ROOT}/unread-count",
        }
        for what, path in reads.items():
            used = start_counting(stack)
            trial = await _read(client, path, headers)
            result.notes.append(f"{what}: {used()}")
            result.failures += trial.failures
            result.rows += latency_rows(
                f"{what} at {RATE}/s", trial.latencies, required=REQUIRED_P95, aim=AIM_P95
            )


async def _first_page(stack: Stack, user: UUID) -> Trial:
    """The first page again and again, the first time unmeasured: it marks what it shows."""
    headers = _headers(stack, user)
    async with HttpClient(stack.settings.api_port, connections=CONNECTIONS) as client:
        await client.request("GET", PAGE, headers)
        return await _read(client, PAGE, headers)


async def _read(client: HttpClient, path: str, headers: dict[str, str]) -> Trial:
    calls = list(repeat(request_bytes("GET", path, headers), RATE * SECONDS))
    return await open_loop(client, calls, rate=RATE, hoped_for=200)


async def _plans(stack: Stack, user: UUID) -> Mapping[Mode, Plan]:
    """How the statement that lists the user's first page is carried out."""
    database = Database(stack.settings)
    changes = InboxChanges(database, lambda _: None, utc_now)
    inbox = InboxService(database, stack.settings, changes.expire)
    try:
        with executed(database) as statements:
            await inbox.page(user, limit=20)
        plans: dict[Mode, Plan] = {}
        for mode in MODES:
            async with database.as_user(user) as connection:
                plans[mode] = await plan_of(connection, statements[0], mode)
        return plans
    finally:
        await database.close()


def _headers(stack: Stack, user: UUID) -> dict[str, str]:
    return {"Authorization": f"Bearer {stack.user_token(user)}"}


async def _path_of(client: HttpClient, headers: dict[str, str], *, page: int) -> str:
    """Where a page is, found as a reader finds it who goes from one to the next."""
    path = PAGE
    for _ in range(page - 1):
        answer = await client.request("GET", path, headers)
        if answer.status != 200:
            raise MeasurementFailed(f"GET {path} was answered {answer.status}")
        path = f"{PAGE}&cursor={quote(answer.json()['next_cursor'])}"
    return path
