"""Listing the notification center of a user with 10,000 notifications."""

from itertools import islice, repeat

from bench.create import create_requests
from bench.load import HttpClient, open_loop, request_bytes, send_all
from bench.report import Result, Row, at_most, latency_rows
from bench.stack import Stack
from bench.usage import start_counting

PATH = "/api/v1/notifications?limit=20"
NOTIFICATIONS = 10_000
SEEDING_CONNECTIONS = 64
RATE = 50
SECONDS = 5
CONNECTIONS = 8
DEEP_PAGE = 100

REQUIRED_P95 = at_most(200)
AIM_P95 = at_most(15)


async def measure(stack: Stack) -> Result:
    """Fetch the first page and one far down, each at a steady rate."""
    result = Result(f"query, user with {NOTIFICATIONS:,}")
    user = (await stack.users(1))[0]
    port = stack.settings.api_port
    async with HttpClient(port, connections=SEEDING_CONNECTIONS) as client:
        calls = list(islice(create_requests(stack, [user]), NOTIFICATIONS))
        await send_all(client, calls, hoped_for=202)
    headers = {"Authorization": f"Bearer {stack.user_token(user)}"}
    async with HttpClient(port, connections=CONNECTIONS) as client:
        deep = await _cursor_of(client, headers, page=DEEP_PAGE)
        for what, path in (("first page", PATH), (f"page {DEEP_PAGE}", f"{PATH}&cursor={deep}")):
            calls = list(repeat(request_bytes("GET", path, headers), RATE * SECONDS))
            used = start_counting(stack)
            trial = await open_loop(client, calls, rate=RATE, hoped_for=200)
            result.notes.append(f"{what}: {used()}")
            result.failures += trial.failures
            result.rows += latency_rows(
                f"GET {what} of 20 at {RATE}/s",
                trial.latencies,
                required=REQUIRED_P95,
                aim=AIM_P95,
            )
    rows = await stack.value("SELECT count(*) FROM notifications")
    result.rows.append(Row("notifications in the table", rows, ""))
    return result


async def _cursor_of(client: HttpClient, headers: dict[str, str], *, page: int) -> str:
    path = PATH
    for _ in range(page - 1):
        answer = await client.request("GET", path, headers)
        path = f"{PATH}&cursor={answer.json()['next_cursor']}"
    return path.rpartition("=")[2]
