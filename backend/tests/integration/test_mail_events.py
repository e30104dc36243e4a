"""Reports of letters race with the worker that sends them, and stop what is queued (REQ-014)."""

import asyncio
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest

from app.channels.base import Failed, Outcome, Retry, Sent
from app.channels.email.requests import tidy
from app.pipeline.receipt import Receipt
from app.pipeline.suppression import Suppressed
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel, NotificationType, Priority, Reason
from app.policy.routing import Request
from app.schemas.webhook import ResendEvent
from app.services.dead_letter_service import DeadLetterService
from app.services.email_event_service import EmailEventService
from app.services.suppression_service import Suppression, SuppressionService
from tests.integration import test_pipeline
from tests.integration.test_pipeline import URGENT_MAIL, Stage

stage = test_pipeline.stage
ADDRESS = "ada@example.com"
CRITICAL = Request(NotificationType.SECURITY, Priority.CRITICAL)


async def report(stage: Stage, stored: Receipt, kind: str, **data: Any) -> None:
    """What Resend posts of a notification's email, before anybody knows its id."""
    service = EmailEventService(stage.database, [], "http://127.0.0.1:8000/", stage.clock)
    told = ResendEvent.model_validate(
        {
            "type": f"email.{kind}",
            "created_at": stage.clock().isoformat(),
            "data": {
                "email_id": "re_1",
                "to": [ADDRESS],
                "tags": {"notification_id": str(stored.id)},
                **data,
            },
        }
    )
    await service.receive(uuid4().hex, told)


@pytest.mark.parametrize("kind", ["delivered", "bounced", "failed"])
@pytest.mark.parametrize(
    "outcome",
    [
        Sent("re_1"),
        Retry(Reason.PROVIDER_UNAVAILABLE, "ReadTimeout"),
        Failed(Reason.PROVIDER_REJECTED, "422"),
    ],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_a_report_may_come_before_the_attempt_is_recorded(
    stage: Stage, kind: str, outcome: Outcome
) -> None:
    stored = await stage.post(await stage.user())
    (claim,) = await stage.worker.deliverer.claim()
    await report(stage, stored, kind)
    reported = await stage.delivery(stored, Channel.EMAIL)
    recorder = Recorder(stage.database, retry_policy(stage.settings), stage.clock)
    async with stage.database.as_service() as connection:
        await recorder.record(connection, [(claim, outcome)])
    row = await stage.delivery(stored, Channel.EMAIL)
    assert row.status == kind
    assert (row.reason, row.provider_id) == (reported.reason, "re_1")
    assert (row.lease_token, row.next_attempt_at) == (None, None)
    stage.clock.advance(hours=2)
    assert await stage.worker.deliverer.deliver() == 0


@pytest.mark.parametrize("kind", ["sent", "delivered", "bounced"])
async def test_what_went_out_unnoticed_is_not_sent_again(stage: Stage, kind: str) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=503, times=1)
    await stage.worker.deliverer.deliver()
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "pending"
    await report(stage, stored, kind)
    stage.clock.advance(hours=2)
    assert await stage.worker.deliverer.deliver() == 0
    assert (await stage.delivery(stored, Channel.EMAIL)).status == kind
    assert [event for event, _ in await stage.events(stored)][-1] == kind


async def test_what_a_worker_has_in_its_hands_it_says_itself_that_it_sent(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    claims = await stage.worker.deliverer.claim()
    await report(stage, stored, "sent")
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "pending"
    await stage.worker.deliverer.dispatch(claims)
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "sent"
    assert [event for event, _ in await stage.events(stored)] == ["sent"]


@pytest.mark.parametrize("request_", [URGENT_MAIL, CRITICAL], ids=["urgent", "critical"])
async def test_a_complaint_stops_what_is_queued(stage: Stage, request_: Request) -> None:
    user = await stage.user()
    first = await stage.post(user)
    await stage.worker.deliverer.deliver()
    queued = await stage.post(user, request_)
    await report(stage, first, "complained")
    await stage.worker.deliverer.deliver()
    row = await stage.delivery(queued, Channel.EMAIL)
    assert (row.status, row.reason) == ("skipped", "address_suppressed")
    assert ("skipped", "address_suppressed") in await stage.events(queued)
    assert len(await stage.mails()) == 1


async def test_reports_race_with_the_worker(stage: Stage) -> None:
    user = await stage.user()
    for _ in range(8):
        stored = await stage.post(user)
        claims = await stage.worker.deliverer.claim()
        await asyncio.gather(
            report(stage, stored, "delivered"),
            stage.worker.deliverer.dispatch(claims),
            report(stage, stored, "bounced", bounce={"type": "Transient"}),
            report(stage, stored, "opened"),
        )
        row = await stage.delivery(stored, Channel.EMAIL)
        assert (row.status, row.lease_token, row.next_attempt_at) == ("bounced", None, None)
        await SuppressionService(stage.database).lift(ADDRESS)


async def test_operators_list_and_lift_without_addresses(stage: Stage) -> None:
    user = await stage.user()
    stored = await stage.post(user)
    await stage.worker.deliverer.deliver()
    await report(stage, stored, "complained")
    service = SuppressionService(stage.database)
    (item,) = await service.listed(10)
    digest = sha256(ADDRESS.encode()).hexdigest()[:12]
    assert item == Suppression(digest, Suppressed.COMPLAINED, stage.clock())
    assert await service.lift("somebody@example.com") is False
    assert await service.lift(" ADA@example.com ") is True
    assert await service.listed(10) == []
    assert Channel.EMAIL in (await stage.post(user)).channels


@pytest.mark.parametrize("is_tidied", [False, True])
async def test_what_failed_after_it_was_taken_is_sent_once_more_when_an_operator_wants_it(
    stage: Stage, is_tidied: bool
) -> None:
    """The provider knows the key of the first request, and would answer as it did then."""
    stored = await stage.post(await stage.user())
    await stage.worker.deliverer.deliver()
    first = await stage.delivery(stored, Channel.EMAIL)
    if is_tidied:
        await tidy(stage.database, stage.clock(), stage.clock())
    await report(stage, stored, "failed", email_id=first.provider_id)
    dead = DeadLetterService(stage.settings, stage.database, stage.announcer.announce, stage.clock)
    assert (await dead.retry(first.id, by="tests")).status == "pending"
    await stage.fault(kind="drop_after", times=1)
    await stage.worker.deliverer.deliver()
    assert (await stage.delivery(stored, Channel.EMAIL)).status == "pending"
    stage.clock.advance(hours=2)
    await stage.worker.deliverer.deliver()
    row = await stage.delivery(stored, Channel.EMAIL)
    assert row.status == "sent"
    ids = [mail["id"] for mail in await stage.mails()]
    assert len(ids) == len(set(ids)) == 2
    assert row.provider_id in ids
    assert row.provider_id != first.provider_id
