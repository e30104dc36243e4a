"""Digests on real servers and a real mailbox, with a driven clock (REQ-015, REQ-016, REQ-018)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.channels.email.compose import Composer
from app.channels.email.letter import Letter, MailOutcome
from app.pipeline import digests
from app.pipeline.announce import Announcement
from app.pipeline.decide import Audience, Defaults
from app.pipeline.digests import DigestQueue
from app.pipeline.gather import Gatherer
from app.pipeline.receipt import Receipt
from app.pipeline.suppression import Suppressed, suppress
from app.policy.digest_schedule import jitter
from app.policy.kinds import Channel, NotificationType, Priority
from app.policy.preferences import Preferences
from app.policy.routing import Request
from app.realtime.inboxes import lock_inboxes
from app.schemas.preferences import UpdateGlobalPreferences, UpdatePreference
from app.schemas.settings import UpdateSettings
from app.schemas.user import UpsertUser
from app.security.email_tokens import EmailTokens
from app.services.cancel_service import CancelService
from app.services.choice_changes import ChoiceChanges
from app.services.dead_letter_service import DeadLetterService
from app.services.email_digest_service import EmailDigestService
from app.services.inbox_changes import InboxChanges
from app.services.preference_service import PreferenceService
from app.services.settings_service import SettingsService
from app.services.user_service import UserService
from app.worker.main import open_worker
from tests.integration import test_pipeline
from tests.integration.test_pipeline import Stage

stage = test_pipeline.stage

# The stage's clock shows noon in UTC, on a Thursday.
SLOT = datetime(2026, 1, 9, 9, tzinfo=UTC)
A_DAY = timedelta(days=1)
TASK, BILLING = NotificationType.TASK, NotificationType.BILLING
ORDINARY, BILL = Request(TASK), Request(BILLING)
LATE = timedelta(minutes=1)  # more than any jitter


@dataclass
class Post:
    """The stage, and what tests of digests ask of it."""

    stage: Stage
    told: list[Announcement] = field(default_factory=list[Announcement])

    def __post_init__(self) -> None:
        stage, clock = self.stage, self.stage.clock
        defaults = Defaults.from_settings(stage.settings)
        changes = ChoiceChanges(stage.database, defaults, self.told.append, clock)
        self.preferences = PreferenceService(stage.database, changes, Preferences(), clock)
        self.settings = SettingsService(stage.database, changes, clock)
        self.inbox = InboxChanges(stage.database, self.told.append, clock)
        self.cancellation = CancelService(stage.database, clock)
        self.users = UserService(stage.database, defaults, clock)
        self.dead = DeadLetterService(stage.settings, stage.database, self.told.append, clock)

    async def user(self, **fields: Any) -> UUID:
        user_id = uuid4()
        wanted = {"email": f"{user_id}@example.com", **fields}
        await self.users.upsert(user_id, UpsertUser.model_validate(wanted))
        return user_id

    async def choose(self, user: UUID, kind: NotificationType = TASK, **fields: Any) -> None:
        await self.preferences.update_type(user, kind, UpdatePreference.model_validate(fields))

    async def choose_for_all(self, user: UUID, **fields: Any) -> None:
        wanted = UpdateGlobalPreferences.model_validate(fields)
        await self.preferences.update_global(user, wanted)

    async def waiting(self) -> list[datetime]:
        """When what waits is due, parked or opened; the earliest first."""
        rows = await self.stage.rows(
            "SELECT next_attempt_at AS due FROM email_digests WHERE status = 'pending'"
            " UNION ALL SELECT digest_slot FROM notification_deliveries d"
            " WHERE status = 'pending' AND digest_slot IS NOT NULL AND NOT EXISTS ("
            " SELECT FROM email_digests g WHERE g.user_id = d.user_id AND g.status = 'pending')"
            " ORDER BY due"
        )
        return [row.due for row in rows]

    async def sweep(self, at: datetime | None = None) -> None:
        """Let the worker send what is due by then."""
        if at is not None:
            self.stage.clock.now = at
        sweeper = self.stage.worker.digests
        await sweeper.look()
        await sweeper.settle()
        while await self.stage.rows(
            "SELECT 1 FROM email_digests WHERE status = 'pending' AND next_attempt_at <= :now",
            now=self.stage.clock(),
        ):
            await sweeper.look()
            await sweeper.settle()

    async def mails(self, user: UUID) -> list[dict[str, Any]]:
        """What is in the mailbox for a user, the oldest first."""
        found = await self.stage.sandbox.get("/mails", params={"to": f"{user}@example.com"})
        return found.json()["items"][::-1]

    async def digests(self, user: UUID) -> list[Any]:
        return await self.stage.rows(
            "SELECT * FROM email_digests WHERE user_id = :id ORDER BY scheduled_for, id", id=user
        )

    async def digest(self, user: UUID) -> Any:
        (row,) = await self.digests(user)
        return row

    async def email(self, stored: Receipt) -> tuple[str, str]:
        row = await self.stage.delivery(stored, Channel.EMAIL)
        return row.status, row.reason

    async def slot(self, stored: Receipt) -> datetime:
        return (await self.stage.delivery(stored, Channel.EMAIL)).digest_slot

    async def email_events(self, stored: Receipt) -> list[tuple[str, str]]:
        rows = await self.stage.rows(
            "SELECT event, reason FROM notification_events"
            " WHERE notification_id = :id AND channel = 'email' ORDER BY id",
            id=stored.id,
        )
        return [(row.event, row.reason) for row in rows]


@pytest.fixture
def post(stage: Stage) -> Post:
    return Post(stage)


# --- one letter --------------------------------------------------------------------------------


async def test_one_letter_for_all_types_that_fall_into_a_slot(post: Post) -> None:
    user = await post.user()
    stored = [await post.stage.post(user, request) for request in (ORDINARY, BILL, ORDINARY)]

    await post.sweep(SLOT - timedelta(seconds=1))
    assert await post.digests(user) == []
    await post.sweep(SLOT)
    assert (await post.digest(user)).next_attempt_at == SLOT + jitter(user)
    assert await post.mails(user) == []
    await post.sweep(SLOT + jitter(user))

    (mail,) = await post.mails(user)
    assert "3" in mail["subject"]
    assert mail["html"].count("A title") >= 3
    assert mail["text"].count("A title") >= 3
    digest = await post.digest(user)
    assert mail["idempotency_key"] == str(digest.id)
    assert {"digest_id": str(digest.id)}.items() <= {
        tag["name"]: tag["value"] for tag in mail["tags"]
    }.items()
    assert (digest.status, digest.reason, digest.scheduled_for, digest.sent_at) == (
        "sent", "digest", SLOT, SLOT + jitter(user),
    )  # fmt: skip
    assert digest.provider_id == mail["id"]
    assert digest.frequency == "daily"
    assert sorted(digest.notification_ids) == sorted(item.id for item in stored)
    for item in stored:
        assert await post.email(item) == ("sent", "digest")
        assert await post.email_events(item) == [("sent", "digest")]
    (event, *_) = await post.stage.rows(
        "SELECT detail FROM notification_events WHERE notification_id = :id", id=stored[0].id
    )
    assert event.detail["digest_id"] == str(digest.id)
    await post.sweep(SLOT + LATE)
    assert len(await post.mails(user)) == 1


async def test_types_with_times_of_their_own_have_digests_of_their_own(post: Post) -> None:
    user = await post.user()
    await post.choose(user, BILLING, digest_frequency="weekly", digest_time="18:00", digest_day=5)
    task, weekly = [await post.stage.post(user, request) for request in (ORDINARY, BILL)]
    assert (await post.slot(task), await post.slot(weekly)) == (SLOT, SLOT.replace(hour=18))
    await post.sweep(SLOT + LATE)
    await post.sweep(SLOT.replace(hour=18) + LATE)
    first, second = await post.digests(user)
    assert (first.frequency, second.frequency) == ("daily", "weekly")
    assert [first.notification_ids, second.notification_ids] == [[task.id], [weekly.id]]


async def test_read_cancelled_expired_and_unwanted_ones_are_left_out(post: Post) -> None:
    user = await post.user()
    kept, read, deleted, cancelled = [await post.stage.post(user, ORDINARY) for _ in range(4)]
    unwanted = await post.stage.post(user, BILL)
    expiring = Request(TASK, expires_at=SLOT + timedelta(milliseconds=1))
    expired = await post.stage.post(user, expiring)
    await post.inbox.mark_read(user, read.id)
    await post.inbox.delete(user, deleted.id)
    await post.cancellation.cancel(cancelled.id, by="tests")
    await post.choose(user, BILLING, email_enabled=False)
    await post.sweep(SLOT + LATE)

    assert (await post.digest(user)).notification_ids == [kept.id]
    assert [await post.email(item) for item in (read, deleted, cancelled, unwanted, expired)] == [
        ("skipped", "read_elsewhere"),
        ("skipped", "read_elsewhere"),
        ("cancelled", "cancelled"),
        ("skipped", "preference_off"),
        ("skipped", "expired"),
    ]
    assert await post.email_events(unwanted) == [("skipped", "preference_off")]
    said = await post.stage.rows(
        "SELECT inputs, outcomes FROM notification_decisions"
        " WHERE notification_id = ANY(:ids) AND stage = 'claim' ORDER BY notification_id",
        ids=[kept.id, unwanted.id],
    )
    assert [[(o["action"], o["reason"]) for o in row.outcomes] for row in said] == [
        [("send", "digest")],
        [("skip", "preference_off")],
    ]
    assert len(await post.mails(user)) == 1


async def test_what_is_there_until_after_the_slot_is_not_expired(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, Request(TASK, expires_at=SLOT + timedelta(hours=1)))
    await post.sweep(SLOT + LATE)
    assert await post.email(stored) == ("sent", "digest")


async def test_no_letter_when_nothing_is_left(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.sweep(SLOT)
    await post.choose(user, digest_frequency="never")
    await post.sweep(SLOT + LATE)
    digest = await post.digest(user)
    assert (digest.status, digest.notification_ids, digest.sent_at) == ("skipped", [], None)
    assert await post.email(stored) == ("skipped", "preference_off")
    assert await post.mails(user) == []


async def test_who_has_read_everything_gets_no_digest(post: Post) -> None:
    user = await post.user()
    await post.stage.post(user, ORDINARY)
    await post.inbox.mark_all_read(user)
    await post.sweep(SLOT + LATE)
    assert (await post.digests(user), await post.mails(user)) == ([], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [("UPDATE notification_recipients SET email = NULL WHERE user_id = :id", "no_address"),
     ("INSERT INTO email_suppressions (address_digest, reason, suppressed_at)"
      " SELECT sha256(convert_to(lower(email), 'UTF8')), 'bounced', now()"
      " FROM notification_recipients WHERE user_id = :id", "address_suppressed")],
)  # fmt: skip
async def test_nothing_goes_to_an_address_that_takes_none(
    post: Post, change: str, reason: str
) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.stage.rows(f"{change} RETURNING 1", id=user)
    await post.sweep(SLOT + LATE)
    assert await post.email(stored) == ("skipped", reason)
    assert (await post.digest(user)).status == "skipped"


async def test_a_digest_uses_up_no_limit(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.sweep(SLOT + LATE)
    row = await post.stage.delivery(stored, Channel.EMAIL)
    assert (row.status, row.counted_at) == ("sent", None)


# --- late --------------------------------------------------------------------------------------


async def test_slots_that_passed_while_nobody_looked_become_one_letter(post: Post) -> None:
    user = await post.user()
    await post.choose(user, BILLING, digest_time="15:00")
    stored = [await post.stage.post(user, request) for request in (ORDINARY, BILL)]
    await post.sweep(SLOT + 3 * A_DAY)
    digest = await post.digest(user)
    assert (digest.status, digest.scheduled_for) == ("sent", SLOT)
    assert sorted(digest.notification_ids) == sorted(item.id for item in stored)
    await post.sweep(SLOT + 4 * A_DAY)
    assert len(await post.mails(user)) == 1


async def test_what_came_too_late_for_its_digest_goes_with_the_next(post: Post) -> None:
    user = await post.user()
    await post.stage.post(user, ORDINARY)
    await post.sweep(SLOT + LATE)
    straggler = await post.stage.post(user, ORDINARY)
    await post.stage.rows(
        "UPDATE notification_deliveries SET digest_slot = :slot"
        " WHERE notification_id = :id AND channel = 'email' RETURNING 1",
        id=straggler.id,
        slot=SLOT,
    )
    await post.sweep(SLOT + 2 * LATE)
    assert await post.slot(straggler) == SLOT + A_DAY
    assert len(await post.mails(user)) == 1
    await post.sweep(SLOT + A_DAY + LATE)
    assert [digest.scheduled_for for digest in await post.digests(user)] == [SLOT, SLOT + A_DAY]
    assert await post.email(straggler) == ("sent", "digest")


# --- choosing otherwise ------------------------------------------------------------------------


async def test_who_is_held_is_not_looked_for_again_and_again(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "OPENED_AT_ONCE", 1)
    user = await post.user()
    await post.stage.post(user, ORDINARY)
    await post.sweep(SLOT + LATE)
    late = await post.stage.post(user, ORDINARY)
    await post.stage.rows(
        "UPDATE notification_deliveries SET digest_slot = :slot"
        " WHERE notification_id = :id AND channel = 'email' RETURNING 1",
        id=late.id,
        slot=SLOT,
    )
    settings, database, clock = post.stage.settings, post.stage.database, post.stage.clock
    queue = DigestQueue(settings, database, Defaults.from_settings(settings), clock)
    async with database.group_as_service() as holder:
        await lock_inboxes(holder, [user])
        async with asyncio.timeout(20):
            assert await queue.open_due() == 0
    assert await post.slot(late) == SLOT
    await queue.open_due()
    assert await post.slot(late) == SLOT + A_DAY


async def test_what_is_parked_goes_with_the_digest_that_is_wanted_now(post: Post) -> None:
    user = await post.user()
    task, bill = [await post.stage.post(user, request) for request in (ORDINARY, BILL)]
    scheduled = await post.stage.post(user, Request(TASK, send_at=SLOT + A_DAY))

    await post.choose(user, digest_time="18:00")
    noon = post.stage.clock()
    assert await post.slot(task) == noon.replace(hour=18)
    assert await post.slot(bill) == SLOT
    assert await post.slot(scheduled) == (SLOT + A_DAY).replace(hour=18)
    assert await post.email_events(task) == [("digested", "digest")]
    assert await post.email_events(bill) == []
    await post.choose_for_all(user, default_digest_frequency="weekly", default_digest_day=7)
    assert await post.slot(task) == datetime(2026, 1, 11, 18, tzinfo=UTC)
    assert await post.slot(bill) == datetime(2026, 1, 11, 9, tzinfo=UTC)
    kolkata = UpdateSettings.model_validate({"timezone": "Asia/Kolkata"})
    await post.settings.update(user, kolkata)
    assert await post.slot(bill) == datetime(2026, 1, 11, 3, 30, tzinfo=UTC)
    await post.users.upsert(user, UpsertUser(timezone="America/New_York"))
    assert await post.slot(bill) == datetime(2026, 1, 11, 14, tzinfo=UTC)


@pytest.mark.parametrize("choice", ["instant", "never"])
async def test_who_wants_no_digests_any_more_keeps_the_slot(post: Post, choice: str) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    low = await post.stage.post(user, Request(TASK, Priority.LOW))
    await post.choose(user, digest_frequency=choice, digest_time="10:00")
    assert await post.slot(stored) == SLOT
    assert await post.slot(low) == (SLOT if choice == "never" else SLOT.replace(hour=10))
    await post.sweep(SLOT + LATE)
    ends = {"instant": ("sent", "digest"), "never": ("skipped", "preference_off")}
    assert await post.email(stored) == ends[choice]


async def test_a_digest_whose_slot_has_come_is_not_disturbed(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.sweep(SLOT)
    await post.choose(user, digest_time="18:00")
    assert await post.slot(stored) == SLOT
    await post.sweep(SLOT + LATE)
    assert await post.email(stored) == ("sent", "digest")


async def test_only_ones_own_waits_are_moved(post: Post) -> None:
    one, other = await post.user(), await post.user()
    mine, theirs = await post.stage.post(one, ORDINARY), await post.stage.post(other, ORDINARY)
    await post.choose(one, digest_time="18:00")
    assert (await post.slot(mine), await post.slot(theirs)) == (
        post.stage.clock().replace(hour=18),
        SLOT,
    )


# --- failing -----------------------------------------------------------------------------------


async def test_a_refused_digest_is_tried_again_with_what_is_left_then(post: Post) -> None:
    user = await post.user()
    kept, read = [await post.stage.post(user, ORDINARY) for _ in range(2)]
    await post.stage.fault(kind="status", status=429, retry_after=1, times=1)
    await post.sweep(SLOT + LATE)
    digest = await post.digest(user)
    assert (digest.status, digest.reason, digest.attempts) == ("pending", "provider_limit", 1)
    assert digest.next_attempt_at == SLOT + LATE + timedelta(seconds=1)
    assert (await post.email(kept))[0] == "pending"
    assert await post.email_events(kept) == [("retry", "provider_limit")]
    await post.inbox.mark_read(user, read.id)
    assert await post.email(read) == ("skipped", "read_elsewhere")
    await post.sweep(digest.next_attempt_at)
    digest = await post.digest(user)
    assert (digest.status, digest.attempts, digest.notification_ids) == ("sent", 2, [kept.id])
    assert len(await post.mails(user)) == 1


async def test_a_digest_that_fails_makes_dead_letters_that_can_be_retried(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.stage.fault(kind="status", status=422, times=1)
    await post.sweep(SLOT + LATE)
    digest = await post.digest(user)
    assert (digest.status, digest.reason) == ("failed", "provider_rejected")
    row = await post.stage.delivery(stored, Channel.EMAIL)
    assert (row.status, row.reason, row.failed_at) == (
        "failed", "provider_rejected", SLOT + LATE,
    )  # fmt: skip
    assert row.error_message == digest.error_message is not None

    retried = await post.dead.retry(row.id, by="tests")
    assert retried.status == "pending"
    await post.stage.worker.deliverer.deliver()
    assert await post.email(stored) == ("pending", "digest")  # it is what the user wants
    assert await post.slot(stored) == SLOT + A_DAY
    await post.sweep(SLOT + A_DAY + LATE)
    assert await post.email(stored) == ("sent", "digest")
    assert [digest.status for digest in await post.digests(user)] == ["failed", "sent"]


async def test_attempts_end(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.stage.fault(kind="status", status=503)
    at = SLOT + LATE
    for _ in range(3):
        await post.sweep(at)
        at += timedelta(hours=2)
    assert await post.email(stored) == ("failed", "attempts_exhausted")
    digest = await post.digest(user)
    assert (digest.status, digest.reason, digest.attempts) == ("failed", "attempts_exhausted", 3)


# --- workers that die --------------------------------------------------------------------------


@dataclass
class Gate:
    """A mailer before which letters wait, in front of another."""

    letters: list[Letter] = field(default_factory=list[Letter])
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, letter: Letter) -> MailOutcome:
        self.letters.append(letter)
        await self.opened.wait()
        raise AssertionError("a dead worker sends nothing")


@asynccontextmanager
async def dying_worker(post: Post, gate: Gate) -> AsyncGenerator[EmailDigestService]:
    """A worker that has digests in its hands when it dies."""
    stage = post.stage
    settings, clock = stage.settings, stage.clock
    audience = Audience(Defaults.from_settings(settings))
    async with DigestQueue(settings, stage.database, audience.defaults, clock) as queue:
        gatherer = Gatherer(settings, stage.database, audience, clock)
        composer = Composer(settings, EmailTokens(settings.encryption_keys))
        service = EmailDigestService(queue, gatherer, composer, gate, clock)
        sweeper = service.sweeper(interval=1.0)
        stopping = asyncio.Event()
        running = asyncio.create_task(sweeper.run(stopping))
        try:
            async with asyncio.timeout(20):
                while not gate.letters:
                    await asyncio.sleep(0.01)
            yield service
        finally:
            stopping.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_what_a_worker_has_in_hand_is_let_alone(post: Post) -> None:
    user = await post.user()
    one, other = [await post.stage.post(user, ORDINARY) for _ in range(2)]
    post.stage.clock.now = SLOT + LATE
    async with dying_worker(post, Gate()):
        assert sorted((await post.digest(user)).notification_ids) == sorted([one.id, other.id])
        told = await post.cancellation.cancel(one.id, by="tests")
        assert told.sending == [Channel.EMAIL]
        await post.inbox.mark_read(user, other.id)
        await post.choose(user, digest_time="18:00")
        assert (await post.email(one))[0] == (await post.email(other))[0] == "pending"
        await post.sweep()  # another worker
        assert await post.mails(user) == []


async def test_a_digest_of_a_dead_worker_is_gathered_anew(post: Post) -> None:
    user = await post.user()
    kept, read, cancelled = [await post.stage.post(user, ORDINARY) for _ in range(3)]
    post.stage.clock.now = SLOT + LATE
    async with dying_worker(post, Gate()):
        await post.inbox.mark_read(user, read.id)
        await post.cancellation.cancel(cancelled.id, by="tests")
    await post.sweep(SLOT + 2 * LATE)  # past the lease
    digest = await post.digest(user)
    assert (digest.status, digest.expired_leases) == ("sent", 1)
    assert digest.notification_ids == [kept.id]
    assert await post.email(read) == ("skipped", "read_elsewhere")
    assert await post.email(cancelled) == ("cancelled", "cancelled")
    assert len(await post.mails(user)) == 1


async def test_a_letter_that_may_have_gone_out_keeps_its_members(post: Post) -> None:
    user = await post.user()
    first, read = [await post.stage.post(user, ORDINARY) for _ in range(2)]
    post.stage.clock.now = SLOT + LATE
    async with dying_worker(post, Gate()):
        digest = await post.digest(user)
        await post.stage.rows(
            "WITH request AS (INSERT INTO email_requests (id, provider, payload)"
            " VALUES (:id, 'tests', '') RETURNING id)"
            " INSERT INTO email_request_letters (letter_id, request_id, place)"
            " SELECT id, id, 0 FROM request RETURNING 1",
            id=digest.id,
        )
        await post.inbox.mark_read(user, read.id)
        added = await post.stage.post(user, ORDINARY)
    await post.stage.rows(
        "UPDATE notification_deliveries SET digest_slot = :slot"
        " WHERE notification_id = :id AND channel = 'email' RETURNING 1",
        id=added.id,
        slot=SLOT,
    )
    gate = Gate()
    post.stage.clock.now = SLOT + 2 * LATE
    async with dying_worker(post, gate):
        (letter,) = gate.letters
        assert letter.id == digest.id
        assert (await post.digest(user)).notification_ids == digest.notification_ids
        assert (await post.email(first))[0] == (await post.email(read))[0] == "pending"


async def test_a_complaint_stops_a_letter_that_may_have_gone_out(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    await post.stage.fault(kind="drop", times=1)  # nobody knows whether Resend has it
    await post.sweep(SLOT + LATE)
    assert len(await post.stage.rows("SELECT 1 FROM email_requests")) == 1
    async with post.stage.database.group_as_service() as driver:
        now = post.stage.clock()
        await suppress(driver, f"{user}@example.com", Suppressed.COMPLAINED, now, now)
    await post.sweep((await post.digest(user)).next_attempt_at)
    assert await post.mails(user) == []
    assert await post.email(stored) == ("failed", "address_suppressed")
    assert ((await post.digest(user)).notification_ids) == [stored.id]


async def test_a_letter_has_its_whole_lease_however_long_it_was_gathered(post: Post) -> None:
    user = await post.user()
    await post.stage.post(user, ORDINARY)
    settings, clock = post.stage.settings, post.stage.clock
    audience = Audience(Defaults.from_settings(settings))
    clock.now = SLOT + LATE
    async with DigestQueue(settings, post.stage.database, audience.defaults, clock) as queue:
        await queue.open_due()
        (group,) = await queue.lease_due(1)
        clock.advance(seconds=settings.delivery_lease_seconds - 1)
        gatherer = Gatherer(settings, post.stage.database, audience, clock)
        (gathered,) = await gatherer.gather(group)
    until = clock() + timedelta(seconds=settings.delivery_lease_seconds)
    assert (await post.digest(user)).next_attempt_at == gathered.lease.until == until


async def test_a_digest_that_workers_die_of_is_poison(post: Post) -> None:
    user = await post.user()
    stored = await post.stage.post(user, ORDINARY)
    for times in (1, 2):
        post.stage.clock.now = SLOT + times * LATE
        async with dying_worker(post, Gate()):
            pass
    await post.sweep(SLOT + 3 * LATE)
    digest = await post.digest(user)
    assert (digest.status, digest.reason) == ("failed", "poison")
    assert await post.email(stored) == ("failed", "poison")
    assert await post.mails(user) == []


async def test_several_workers_send_one_letter_a_user(post: Post) -> None:
    users = [await post.user() for _ in range(30)]
    for user in users:
        await asyncio.gather(*(post.stage.post(user, ORDINARY) for _ in range(2)))
    post.stage.clock.now = SLOT + LATE
    async with open_worker(post.stage.settings, post.stage.clock) as other:
        workers = [post.stage.worker.digests, other.digests]
        while await post.waiting():
            await asyncio.gather(*(worker.look() for worker in workers))
            await asyncio.gather(*(worker.settle() for worker in workers))
    to = [address for mail in await post.stage.mails() for address in mail["to"]]
    assert sorted(to) == sorted(f"{user}@example.com" for user in users)
