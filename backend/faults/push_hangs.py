"""A push service that answers nothing for long, beside one that is well (REQ-006).

Every user has a browser at each, a phone, a mailbox, and some a socket. All but the first keep
their speed, and what the first missed comes when its push service is well again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from sqlalchemy import Row, text

from app.channels.web_push import PUSHES_TO_ONE_ORIGIN
from faults.devices import Device, Devices
from faults.lab import UNHURRIED
from faults.push import PLATFORMS, SETTLING_SECONDS, created, ended, newest_key, pending
from faults.trial import Scenario, Trial

WELL, ILL = "127.0.0.1", "localhost"  # two origins, one push service

HANG_SECONDS = 90.0
QUIET_SECONDS = 20.0
CREATES_PER_SECOND = 5
# A breaker is open for a minute at most, and what it put off is due within 2.5 of them.
HEALING_SECONDS = 240.0
# Enough to tell one that waits for the ill from one that shares a small machine.
SLOWER_ALLOWED, SECONDS_ALLOWED = 10.0, 2.0
MOST_ATTEMPTS = 5  # of 10

TIMES = text("""
    SELECT d.notification_id, d.channel, d.device_id, n.created_at, d.sent_at
    FROM notification_deliveries d JOIN notifications n ON n.id = d.notification_id
    WHERE d.user_id = ANY(CAST(:users AS uuid[])) AND d.sent_at IS NOT NULL
""")


@dataclass(frozen=True, slots=True)
class Speed:
    """How long some took, in seconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, waits: Iterable[timedelta]) -> "Speed":
        """Of one wait at least."""
        ordered = sorted(wait.total_seconds() for wait in waits)
        return cls(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)])

    def allows(self, later: "Speed") -> bool:
        """Whether others were not much slower."""
        return (
            later.median <= SLOWER_ALLOWED * self.median + SECONDS_ALLOWED
            and later.p95 <= SLOWER_ALLOWED * self.p95 + SECONDS_ALLOWED
        )

    def __str__(self) -> str:
        return f"{self.median * 1000:.0f}/{self.p95 * 1000:.0f}"


async def service_hangs(trial: Trial) -> None:
    """One of two push services answers nothing for long: nobody else waits, and nothing is lost."""
    seconds = trial.seconds or HANG_SECONDS
    devices, key = Devices(trial.lab.stack), await newest_key(trial.lab)
    ill = [await devices.browser(user, "ill", key, host=ILL) for user in trial.users]
    well = [await devices.browser(user, "well", key, host=WELL) for user in trial.users]
    phones = [
        await devices.phone(user, PLATFORMS[index % 2]) for index, user in enumerate(trial.users)
    ]
    await trial.caller.create_many(20)
    await ended(trial, SETTLING_SECONDS)
    quiet_from = datetime.now(UTC)
    await create_steadily(trial, QUIET_SECONDS)
    await ended(trial, SETTLING_SECONDS)

    hung_from = datetime.now(UTC)
    await trial.lab.fail_provider(
        {"provider": "push", "kind": "hang", "to": devices.origin(ILL), "seconds": 120}
    )
    await create_steadily(trial, seconds)
    await ended(trial, SETTLING_SECONDS, but=ill)
    (asked,) = await trial.lab.hits()
    held = await pending(trial)
    arrived = sum([len(await devices.arrivals(device)) for device in ill])
    await trial.lab.mend()
    healed = monotonic()
    await ended(trial, HEALING_SECONDS)

    trial.notes.append(
        f"{seconds:.0f} s without an answer: {held} held, {asked} requests tried; all sent"
        f" {monotonic() - healed:.0f} s after it was well again"
    )
    before_hang = sum(at < hung_from for at in (await created(trial)).values())
    assert held, "nothing was held"
    assert arrived == before_hang, "it did not hang"
    # Those that were out when it fell ill, the probes of a breaker, a few retries before it opened.
    most = 2 * PUSHES_TO_ONE_ORIGIN + seconds / 10
    assert asked <= most, f"an ill service was asked {asked} times"
    await expect_once(trial, devices, [*ill, *well, *phones])
    attempts = [row["attempts"] for row in (await trial.books()).deliveries]
    trial.notes.append(f"at most {max(attempts)} attempts of a delivery")
    assert max(attempts) <= MOST_ATTEMPTS, f"{max(attempts)} attempts of one delivery"
    await expect_same_speed(trial, quiet_from, hung_from, well, phones)


async def expect_same_speed(
    trial: Trial,
    quiet_from: datetime,
    hung_from: datetime,
    well: Sequence[Device],
    phones: Sequence[Device],
) -> None:
    """Compare everybody else's waits before and while the service hung."""
    async with trial.lab.sql() as connection:
        rows = (await connection.execute(TIMES, {"users": list(trial.users)})).all()
    waits: dict[str, list[tuple[datetime, timedelta]]] = {
        name: [(row.created_at, row.sent_at - row.created_at) for row in rows if is_it(row)]
        for name, is_it in (
            ("email", is_email),
            ("well push service", of_devices(well)),
            ("FCM", of_devices(phones)),
        )
    }
    at = await created(trial)
    waits["in-app socket"] = [
        (at[item], shown - at[item])
        for session in trial.sessions
        for item, shown in session.shown_at.items()
    ]
    slower: list[str] = []
    for name, known in waits.items():
        before = Speed.of(wait for made, wait in known if quiet_from <= made < hung_from)
        during = Speed.of(wait for made, wait in known if hung_from <= made)
        trial.notes.append(
            f"{name}: median/p95 {before} ms before, {during} ms while it hung"
            f" (× {during.median / before.median:.2f}/{during.p95 / before.p95:.2f})"
        )
        if not before.allows(during):
            slower.append(name)
    assert not slower, f"slower because of it: {', '.join(slower)}"


def is_email(row: Row[Any]) -> bool:
    return row.channel == "email"


def of_devices(devices: Sequence[Device]) -> Callable[[Row[Any]], bool]:
    ids = {device.id for device in devices}
    return lambda row: row.device_id in ids


async def expect_once(trial: Trial, devices: Devices, wanted: Sequence[Device]) -> None:
    """Each device got each of its user's notifications once."""
    accepted = trial.caller.ledger.accepted
    lost = repeated = 0
    for device in wanted:
        got = Counter(arrival.notification_id for arrival in await devices.arrivals(device))
        own = {item for item, user in accepted.items() if user == device.user_id}
        lost += len(own - got.keys())
        repeated += got.total() - len(got)
    assert not lost, f"{lost} pushes never arrived"
    assert not repeated, f"{repeated} pushes arrived again"


async def create_steadily(trial: Trial, seconds: float) -> None:
    async with trial.caller.creating(int(CREATES_PER_SECOND * seconds), seconds=seconds):
        pass


SCENARIOS = (
    Scenario(
        "push-service-hangs",
        "one of two push services answers nothing for long",
        service_hangs,
        bed=UNHURRIED,
        longest=600,
    ),
)
