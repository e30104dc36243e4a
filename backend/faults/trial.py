"""One scenario tried: users, a caller, sessions, the fault, and the books afterwards."""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from faults.books import Books
from faults.caller import Caller
from faults.lab import WHOLE, Bed, CannotTry, Lab
from faults.reader import Reader
from faults.report import Report
from faults.session import Session
from tests.integration.mirror import listed

USERS = 20
SESSIONS = 6
SETTLE_SECONDS = 45
LONGEST_SECONDS = 150
READ_TRIES = 10
PAGE = 100

# The key of the request that each delivery is in: its own, or a batch's.
KEYS = text("""
    SELECT d.id, l.request_id FROM notification_deliveries d
    JOIN email_request_letters l ON l.letter_id = d.id
    WHERE d.user_id = ANY(CAST(:users AS uuid[]))
""")


@dataclass
class Trial:
    """What a scenario works with.

    Args:
        random: seeded by the run's seed and the scenario's name.
        seconds: how long the fault lasts, where that may be chosen; None: as long as usual.
        degraded: whether the API is expected to say so once the fault is over.
        sessions: stay connected all the time.
        notes: what the scenario measured, for the report.
    """

    lab: Lab
    random: random.Random
    users: Sequence[UUID]
    caller: Caller
    reader: Reader
    seconds: float | None = None
    degraded: bool = False
    sessions: Sequence[Session] = ()
    notes: list[str] = field(default_factory=list[str])

    async def arrived(self, number: int) -> None:
        """Wait until the provider has seen so many deliveries of these users."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while len(await self.own_requests()) < number:
                await asyncio.sleep(0.1)

    async def own_requests(self) -> dict[UUID, tuple[UUID, int]]:
        """Of each of these users' deliveries that the provider has seen: key and requests."""
        async with self.lab.sql() as connection:
            keys = (await connection.execute(KEYS, {"users": list(self.users)})).all()
        requests = await self.lab.requests()
        return {
            row.id: (row.request_id, requests[str(row.request_id)][0])
            for row in keys
            if str(row.request_id) in requests
        }

    async def books(self) -> Books:
        """What is written about these users."""
        async with self.lab.sql() as connection:
            return await Books.read(connection, self.users)

    async def ended(self) -> None:
        """Wait until no delivery is pending, or for as long as that may take."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while True:
                try:
                    if not (await self.books()).pending:
                        return
                except (OSError, DBAPIError):
                    pass
                await asyncio.sleep(0.2)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault and how it is made.

    Args:
        fault: what happens, for people.
        strike: creates notifications while it makes the fault happen, and takes it away.
        may_die: reasons that deliveries may end with, beside being sent.
        may_log: errors that the program is expected to log.
        longest: seconds it may take, beside those chosen for the fault.
    """

    name: str
    fault: str
    strike: Callable[[Trial], Awaitable[None]]
    bed: Bed = WHOLE
    may_die: frozenset[str] = frozenset()
    may_log: frozenset[str] = frozenset()
    longest: float = LONGEST_SECONDS


async def conduct(scenario: Scenario, lab: Lab, seed: int, seconds: float | None = None) -> Report:
    """Try a scenario, let the installation settle, and judge.

    Args:
        seconds: how long the fault lasts, where that may be chosen.
    """
    started = time.monotonic()
    logged = len(lab.log())
    async with AsyncExitStack() as stack:
        trial = await stack.enter_async_context(_prepared(scenario, lab, seed))
        sessions = [
            Session(
                (lab.stack.ws_port, lab.stack.settings.api_port)[index % 2],
                user,
                lab.stack.user_token(user),
            )
            for index, user in enumerate(trial.users[:SESSIONS])
        ]
        for session in sessions:
            await stack.enter_async_context(session.listening())
        trial.seconds, trial.sessions = seconds, sessions
        problems: list[str] = []
        try:
            async with asyncio.timeout(scenario.longest + (seconds or 0)):
                await scenario.strike(trial)
        except CannotTry:
            raise
        except Exception as error:
            problems.append(f"broke off: {type(error).__name__}: {str(error)[:300]}")
        try:
            await lab.mend()
            await lab.ready(degraded=trial.degraded)
            await trial.ended()
            await _shown(trial, sessions)
        except TimeoutError:
            problems.append("did not settle")
        except (httpx.TransportError, OSError, DBAPIError) as error:
            problems.append(f"did not recover: {type(error).__name__}")
        problems += _log_problems(lab.log()[logged:], scenario.may_log)
        return await _judged(scenario, trial, sessions, problems, started)


@asynccontextmanager
async def _prepared(scenario: Scenario, lab: Lab, seed: int) -> AsyncGenerator[Trial]:
    # Repeatable choices are the point.
    chance = random.Random(f"{seed} {scenario.name}")
    users = [UUID(int=chance.getrandbits(128), version=4) for _ in range(USERS)]
    headers = lab.stack.create_headers()
    async with Caller(lab.front.port, headers, users, chance) as caller:
        for user in users:
            await caller.introduce(user, address_of(user))
        reader = Reader(
            lab.front.port,
            lab.stack.user_token,
            users[:SESSIONS],
            caller.ledger.accepted,
            random.Random(f"{seed} {scenario.name} reader"),
        )
        try:
            yield Trial(lab, chance, users, caller, reader)
        finally:
            await reader.close()


def address_of(user: UUID) -> str:
    """A user's email address."""
    return f"{user}@example.com"


async def _shown(trial: Trial, sessions: Sequence[Session]) -> None:
    """Wait until each session was told all that happened to its user's inbox."""
    await told_all(sessions, await trial.books())


async def told_all(sessions: Sequence[Session], books: Books) -> None:
    """Wait until each session was told all that the books say of its user's inbox."""
    async with asyncio.timeout(SETTLE_SECONDS):
        for session in sessions:
            inbox = books.inboxes.get(session.user_id)
            while inbox is not None and session.mirror.since < inbox["seq"]:
                await asyncio.sleep(0.1)


async def _judged(
    scenario: Scenario,
    trial: Trial,
    sessions: Sequence[Session],
    problems: list[str],
    started: float,
) -> Report:
    ledger = trial.caller.ledger
    report = Report(
        scenario.name,
        scenario.fault,
        accepted=len(ledger.accepted),
        refused=ledger.refused.total(),
        unanswered=ledger.unanswered,
        problems=problems,
    )
    try:
        books = await trial.books()
        requests = await trial.own_requests()
        mails = await trial.lab.mails()
        centers = {user: await _center(trial, user) for user in trial.users}
    except (httpx.HTTPError, OSError, DBAPIError, KeyError) as error:
        problems.append(f"cannot be judged: {type(error).__name__}: {error}")
        return report
    if not ledger.accepted:
        problems.append("nothing was accepted, so nothing was tried")
    wrong = [*ledger.wrong, *trial.reader.wrong]
    problems += [f"a valid call was answered {answer}" for answer in wrong[:3]]
    problems += books.problems(ledger.accepted.keys())
    problems += _inbox_problems(trial.reader, books, centers, sessions)
    by_email = books.of_channel("email")
    mailed = _mailed(mails)
    unsent = [
        row
        for item, row in by_email.items()
        if row["status"] in ("sent", "delivered") and not mailed[item]
    ]
    if unsent:
        problems.append(f"{len(unsent)} deliveries count as sent and never were")
    if ghosts := _ghosts(mails, trial, books):
        problems.append(f"{ghosts} mails belong to nothing that is stored")
    if unexpected := {r: n for r, n in books.dead.items() if r not in scenario.may_die}:
        problems.append(f"deliveries died: {unexpected}")
    second_mails = sum(max(0, mailed[item] - 1) for item in by_email)
    shown_again = sum(count - 1 for s in sessions for count in s.shown.values())
    if second_mails:
        problems.append(f"{second_mails} mails are second ones")
    if shown_again:
        problems.append(f"{shown_again} notifications were shown again")
    return Report(
        scenario.name,
        scenario.fault,
        seconds=time.monotonic() - started,
        accepted=len(ledger.accepted),
        delivered=sum(
            item in books.ids_of(user) and bool(mailed[item])
            for item, user in ledger.accepted.items()
        ),
        dead=books.dead,
        duplicates=second_mails + shown_again,
        repeats=sum(count - 1 for count in dict(requests.values()).values()),
        refused=ledger.refused.total(),
        unanswered=ledger.unanswered,
        problems=tuple(problems),
        notes=trial.notes,
    )


@dataclass(frozen=True, slots=True)
class _Center:
    """A user's notification center as its client sees it; items newest first, by id."""

    items: Mapping[UUID, dict[str, Any]]
    unread_count: int
    repeated: int

    @property
    def unread_items(self) -> int:
        return sum(item["read_at"] is None for item in self.items.values())


async def _answered(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], query: dict[str, str]
) -> dict[str, Any]:
    """The answer to a read, asked for again while the API is just finding its feet."""
    tries = READ_TRIES
    while True:
        answer = await client.get(path, headers=headers, params=query)
        tries -= 1
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE or not tries:
            return answer.raise_for_status().json()
        await asyncio.sleep(float(answer.headers["Retry-After"]))


async def _center(trial: Trial, user: UUID) -> _Center:
    client, root = trial.lab.stack.api, "/api/v1/notifications"
    headers = {"Authorization": f"Bearer {trial.lab.stack.user_token(user)}"}
    items: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": str(PAGE)}
    while True:
        page = await _answered(client, root, headers, query)
        items += page["items"]
        if not page["next_cursor"]:
            break
        query["cursor"] = page["next_cursor"]
    unread = (await _answered(client, f"{root}/unread-count", headers, {}))["count"]
    by_id = {UUID(item["id"]): listed(item) for item in items}
    return _Center(by_id, unread, repeated=len(items) - len(by_id))


def _inbox_problems(
    reader: Reader, books: Books, centers: dict[UUID, _Center], sessions: Sequence[Session]
) -> list[str]:
    problems: list[str] = []
    for user, center in centers.items():
        visible = books.visible_of(user)
        if set(center.items) != visible or center.repeated:
            problems.append(f"a center lists {len(center.items)} of {len(visible)} notifications")
        if center.unread_items != center.unread_count:
            problems.append(
                f"a center says {center.unread_count} unread and lists {center.unread_items}"
            )
        problems += reader.problems(center.items, user)
    for session in sessions:
        mirror, center = session.mirror, centers[session.user_id]
        problems += session.problems[:2]
        if mirror.ids != [str(item) for item in center.items]:
            problems.append(
                f"a session holds {len(mirror.ids)} notifications, its center {len(center.items)}"
            )
        elif mirror.items != {str(key): item for key, item in center.items.items()}:
            problems.append("a session holds other notifications than its center")
        if mirror.unread_count != center.unread_count:
            problems.append(
                f"a session counts {mirror.unread_count} unread, its center {center.unread_count}"
            )
    return problems


# A part may be ended; it may not end by itself, and every fault here is one it must expect.
OWN_END = re.compile(r"by='status \d+'.*program='(notify \w+)'")
ERROR = re.compile(r"\[(?:error|critical) *\] (.*?) +(?:part=(?!sandbox)|$)")


def _log_problems(lines: Sequence[str], may_log: frozenset[str]) -> list[str]:
    ends = Counter(found[1] for line in lines if (found := OWN_END.search(line)))
    errors = Counter(found[1][:100] for line in lines if (found := ERROR.search(line)))
    return [f"{name} ended by itself, {number} times" for name, number in ends.items()] + [
        f"logged {number} times as an error: {event}"
        for event, number in errors.items()
        if event not in may_log
    ]


def _mailed(mails: Sequence[dict[str, Any]]) -> Counter[UUID]:
    """How many mails each notification has."""
    return Counter(
        UUID(tag["value"])
        for mail in mails
        for tag in mail["tags"]
        if tag["name"] == "notification_id"
    )


def _ghosts(mails: Sequence[dict[str, Any]], trial: Trial, books: Books) -> int:
    """Mails to these users about what was rolled back."""
    own = {address_of(user) for user in trial.users}
    return sum(
        item not in books.notifications
        for mail in mails
        if own & set(mail["to"])
        for item in _mailed([mail])
    )
