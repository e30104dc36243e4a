"""Dead letters retried and notifications cancelled: what the queue and the trace then say."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from uuid_utils.compat import uuid7

from app.cli import main
from app.errors import NotFound
from app.pipeline.announce import Announcement
from app.pipeline.receipt import Receipt
from app.policy.kinds import Channel, NotificationType, Priority, Reason
from app.policy.routing import Request
from app.services.cancel_service import CancelService
from app.services.dead_letter_service import DeadLetterService, Filter
from app.worker.main import running
from tests.integration import test_pipeline
from tests.integration.test_pipeline import START, URGENT_MAIL, Stage, eventually

stage = test_pipeline.stage
OPERATOR = "operator:tests"


def service(stage: Stage, told: list[Announcement] | None = None) -> DeadLetterService:
    """The service; what it announces is put into `told`, or reaches the workers."""
    announce = stage.announcer.announce if told is None else told.append
    return DeadLetterService(stage.settings, stage.database, announce, stage.clock)


async def refused(stage: Stage, **fields: Any) -> Receipt:
    """A notification whose mail the provider refused."""
    stored = await stage.post(
        await stage.user(), Request(NotificationType.TASK, send_email=True, **fields)
    )
    await stage.fault(kind="status", status=422, times=1)
    await stage.worker.deliverer.deliver()
    await stage.sandbox.delete("/faults")
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "failed"
    return stored


async def many(stage: Stage, count: int) -> list[UUID]:
    """Dead letters that failed at the same instant."""
    user = await stage.user()
    stored = await stage.post(user, Request(NotificationType.TASK, send_email=False))
    ids = [uuid7() for _ in range(count)]
    await stage.rows(
        "INSERT INTO notification_deliveries"
        " (id, notification_id, user_id, channel, status, reason, attempts, failed_at)"
        " SELECT id, :notification, :user, 'email', 'failed', 'poison', 1,"
        " CAST(:at AS timestamptz)"
        " FROM unnest(CAST(:ids AS uuid[])) AS id RETURNING 1",
        notification=stored.id,
        user=user,
        ids=ids,
        at=stage.clock(),
    )
    return ids


# --- listing ---------------------------------------------------------------------------------


async def test_pages_hold_each_dead_letter_once_newest_first(stage: Stage) -> None:
    older = await many(stage, 5)
    stage.clock.advance(seconds=1)
    newer = await many(stage, 6)
    listed: list[UUID] = []
    cursor, more = None, True
    while more:
        page = await service(stage).page(Filter(), limit=4, cursor=cursor)
        listed += [item.id for item in page.items]
        cursor, more = page.next_cursor, page.has_more
    assert listed == [*sorted(newer, reverse=True), *sorted(older, reverse=True)]
    assert cursor is None


async def test_a_dead_letter_says_what_happened(stage: Stage) -> None:
    stored = await refused(stage)
    (item,) = (await service(stage).page(Filter(), limit=10)).items
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (item.id, item.notification_id) == (email.id, stored.id)
    assert (item.channel, item.type) == (Channel.EMAIL, NotificationType.TASK)
    assert item.reason is Reason.PROVIDER_REJECTED
    assert item.detail is not None
    assert item.detail.startswith("422")
    assert (item.attempts, item.failed_at) == (1, START)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Filter(channel=Channel.EMAIL), 4),
        (Filter(channel=Channel.PUSH), 0),
        (Filter(reason=Reason.POISON), 3),
        (Filter(channel=Channel.EMAIL, reason=Reason.PROVIDER_REJECTED), 1),
    ],
)
async def test_a_filter_narrows_the_list_and_the_retry(
    stage: Stage, wanted: Filter, count: int
) -> None:
    await many(stage, 3)
    await refused(stage)
    assert len((await service(stage).page(wanted, limit=10)).items) == count
    assert await service(stage).retry_all(wanted, by=OPERATOR) == count
    assert len((await service(stage).page(Filter(), limit=10)).items) == 4 - count


# --- retrying --------------------------------------------------------------------------------


async def test_a_retried_dead_letter_starts_anew_and_the_trace_says_who(stage: Stage) -> None:
    stored = await refused(stage)
    email = await stage.delivery(stored, Channel.EMAIL)
    stage.clock.advance(hours=1)
    told: list[Announcement] = []
    answer = await service(stage, told).retry(email.id, by=OPERATOR)
    assert (answer.id, answer.status) == (email.id, "pending")
    assert [item.delivery_ids for item in told] == [(email.id,)]
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.next_attempt_at) == (
        "pending",
        "retried",
        stage.clock(),
    )
    assert (email.attempts, email.expired_leases, email.lease_token) == (0, 0, None)
    assert (email.failed_at, email.error_message) == (None, None)
    assert await stage.worker.deliverer.deliver() == 1
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"
    assert await stage.events(stored) == [
        ("failed", "provider_rejected"),
        ("retried", "provider_rejected"),
        ("sent", "sent_now"),
    ]
    (row,) = await stage.rows("SELECT detail FROM notification_events WHERE event = 'retried'")
    assert row.detail == {"by": OPERATOR, "delivery_id": str(email.id)}


async def test_a_retry_rings_for_a_running_worker(stage: Stage) -> None:
    stored = await refused(stage)

    async def mailed() -> bool:
        return len(await stage.mails()) == 1

    async with running(stage.worker):
        await service(stage).retry((await stage.delivery(stored, Channel.EMAIL)).id, by=OPERATOR)
        await eventually(mailed)


async def test_retrying_twice_is_retrying_once(stage: Stage) -> None:
    stored = await refused(stage)
    email = await stage.delivery(stored, Channel.EMAIL)
    answers = await asyncio.gather(*(service(stage).retry(email.id, by=OPERATOR) for _ in range(3)))
    assert {answer.status for answer in answers} == {"pending"}
    await stage.worker.deliverer.deliver()
    assert (await service(stage).retry(email.id, by=OPERATOR)).status == "sent"
    assert [event for event, _ in await stage.events(stored)] == ["failed", "retried", "sent"]
    assert len(await stage.mails()) == 1


async def test_what_never_failed_is_no_dead_letter(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    waiting = (await stage.delivery(stored, Channel.EMAIL)).id
    for unknown in (waiting, uuid4()):
        with pytest.raises(NotFound):
            await service(stage).retry(unknown, by=OPERATOR)
    assert await service(stage).retry_all(Filter(ids=(waiting, uuid4())), by=OPERATOR) == 0


async def test_what_expired_meanwhile_is_retried_but_not_sent(stage: Stage) -> None:
    stored = await refused(stage, expires_at=START + timedelta(minutes=1))
    stage.clock.advance(minutes=2)
    assert await service(stage).retry_all(Filter(channel=Channel.EMAIL), by=OPERATOR) == 1
    await stage.worker.deliverer.deliver()
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason) == ("skipped", "expired")
    assert await stage.mails() == []


async def test_one_call_retries_a_thousand_and_repeated_ones_all(stage: Stage) -> None:
    await many(stage, 1_200)
    assert await service(stage).retry_all(Filter(reason=Reason.POISON), by=OPERATOR) == 1_000
    assert await service(stage).retry_all(Filter(reason=Reason.POISON), by=OPERATOR) == 200


async def test_only_what_failed_before_is_retried(stage: Stage) -> None:
    await many(stage, 2)
    later = START + timedelta(seconds=1)
    stage.clock.advance(seconds=1)
    await many(stage, 3)
    assert await service(stage).retry_all(Filter(before=later), by=OPERATOR) == 2


# --- the command line ------------------------------------------------------------------------


async def notify(stage: Stage, *arguments: str) -> Result:
    assert stage.settings.database_url is not None
    assert stage.settings.redis_url is not None
    environment = {
        "DATABASE_URL": stage.settings.database_url.get_secret_value(),
        "REDIS_URL": stage.settings.redis_url.get_secret_value(),
        "DATA_DIR": str(stage.settings.data_dir),
    }
    return await asyncio.to_thread(CliRunner().invoke, main, ["dead", *arguments], env=environment)


def listed(result: Result) -> Sequence[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


async def test_an_operator_lists_and_retries_from_the_command_line(stage: Stage) -> None:
    ids = {str(item) for item in await many(stage, 3)}
    stored = await refused(stage)
    email = str((await stage.delivery(stored, Channel.EMAIL)).id)
    assert set(listed(await notify(stage, "list", "--json"))) == {*ids, email}
    assert len(listed(await notify(stage, "list", "--json", "--limit", "2"))) == 2
    shown = await notify(stage, "list", "--reason", "provider_rejected")
    assert email in shown.output
    assert not any(item in shown.output for item in ids)

    assert (await notify(stage, "retry", email)).output == "1 retried.\n"
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "pending"
    again = await notify(stage, "retry", email)
    assert again.exit_code == 1
    assert "1 of the ids are no dead letters" in again.output
    done = await notify(stage, "retry", "--all", "--channel", "email", "--reason", "poison")
    assert done.output == "3 retried.\n"
    assert listed(await notify(stage, "list", "--json")) == []
    events = await stage.rows("SELECT detail FROM notification_events WHERE event = 'retried'")
    assert {row.detail["by"] for row in events} == {"operator:cli"}


@pytest.mark.parametrize(
    "arguments",
    [(), ("--all", str(uuid4())), ("--channel", "email", str(uuid4())), ("--all", "--reason", "x")],
)
async def test_the_command_line_asks_for_ids_or_all(
    stage: Stage, arguments: tuple[str, ...]
) -> None:
    assert (await notify(stage, "retry", *arguments)).exit_code == 2


# --- cancelling ------------------------------------------------------------------------------


def cancelling(stage: Stage) -> CancelService:
    return CancelService(stage.database, stage.clock)


async def test_what_waits_is_cancelled_and_what_is_visible_stays(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    for _ in range(2):
        answer = await cancelling(stage).cancel(stored.id, by="tests")
        assert (answer.cancelled, answer.sending) == ([Channel.EMAIL], [])
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.next_attempt_at) == ("cancelled", "cancelled", None)
    assert (await stage.delivery(stored, Channel.IN_APP)).status == "sent"
    assert await stage.events(stored) == [("cancelled", "cancelled")]
    assert await stage.worker.deliverer.deliver() == 0


async def test_what_is_scheduled_never_appears(stage: Stage) -> None:
    later = START + timedelta(hours=1)
    request = Request(NotificationType.TASK, Priority.HIGH, send_email=True, send_at=later)
    stored = await stage.post(await stage.user(), request)
    answer = await cancelling(stage).cancel(stored.id, by="tests")
    assert answer.cancelled == [Channel.IN_APP, Channel.EMAIL]
    stage.clock.advance(hours=2)
    assert await stage.worker.deliverer.deliver() == 0
    (row,) = await stage.rows("SELECT position FROM notifications WHERE id = :id", id=stored.id)
    assert row.position is None
    assert await stage.mails() == []


async def test_what_waits_for_a_digest_is_taken_out_of_it(stage: Stage) -> None:
    stored = await stage.post(await stage.user(), Request(NotificationType.TASK))
    answer = await cancelling(stage).cancel(stored.id, by="tests")
    assert answer.cancelled == [Channel.EMAIL]
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "cancelled"


async def test_what_is_being_sent_is_left_to_finish(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    claims = await stage.worker.deliverer.claim()
    answer = await cancelling(stage).cancel(stored.id, by="tests")
    assert (answer.cancelled, answer.sending) == ([], [Channel.EMAIL])
    await stage.worker.deliverer.dispatch(claims)
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"
    assert len(await stage.mails()) == 1
    answer = await cancelling(stage).cancel(stored.id, by="tests")
    assert (answer.cancelled, answer.sending) == ([], [])


async def test_what_is_being_sent_is_not_tried_again(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    claims = await stage.worker.deliverer.claim()
    await cancelling(stage).cancel(stored.id, by="tests")
    await stage.fault(kind="status", status=503, times=1)
    await stage.worker.deliverer.dispatch(claims)
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason, email.next_attempt_at) == ("cancelled", "cancelled", None)
    assert email.error_message.startswith("503")
    assert await stage.events(stored) == [("cancelled", "cancelled")]


async def test_what_a_dead_worker_was_sending_is_not_sent_again(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.worker.deliverer.claim()
    await cancelling(stage).cancel(stored.id, by="tests")
    stage.clock.advance(seconds=stage.settings.delivery_lease_seconds)
    assert await stage.worker.deliverer.deliver() == 1
    email = await stage.delivery(stored, Channel.EMAIL)
    assert (email.status, email.reason) == ("cancelled", "cancelled")
    assert await stage.mails() == []


async def test_a_dead_letter_of_a_cancelled_notification_is_not_sent(stage: Stage) -> None:
    stored = await refused(stage)
    answer = await cancelling(stage).cancel(stored.id, by="tests")
    assert (answer.cancelled, answer.sending) == ([], [])
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "failed"
    await service(stage).retry_all(Filter(channel=Channel.EMAIL), by=OPERATOR)
    await stage.worker.deliverer.deliver()
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "cancelled"
    assert await stage.mails() == []


async def test_cancelling_races_with_sending_and_the_state_tells_the_truth(stage: Stage) -> None:
    user = await stage.user()
    stored = [await stage.post(user, URGENT_MAIL) for _ in range(40)]

    async def cancel(item: Receipt) -> None:
        await cancelling(stage).cancel(item.id, by="tests")

    await asyncio.gather(stage.worker.deliverer.deliver(), *(cancel(item) for item in stored))
    await stage.worker.deliverer.deliver()
    states = {str(item.id): (await stage.delivery(item, Channel.EMAIL)).status for item in stored}
    assert set(states.values()) <= {"sent", "cancelled"}
    mailed = {mail["tags"][0]["value"] for mail in await stage.mails()}
    assert mailed == {item for item, status in states.items() if status == "sent"}


async def test_nobody_cancels_what_is_not(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await cancelling(stage).cancel(uuid4(), by="tests")
