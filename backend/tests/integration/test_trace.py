"""The trace: all that was decided about a notification and has happened to it (REQ-002)."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from click.testing import CliRunner, Result

from app.cli import main
from app.pipeline.receipt import Receipt
from app.policy.kinds import NotificationType
from app.policy.routing import Request
from app.schemas.explain import Trace
from app.security.ack_tokens import AckTokens
from app.services.inbox_changes import InboxChanges
from app.services.receipt_service import PushEvent, ReceiptService
from app.services.trace_service import TraceService
from tests.integration import test_pipeline, test_push_queue
from tests.integration.test_pipeline import START, Stage
from tests.integration.test_push_queue import PUSH, Pushes

stage = test_pipeline.stage
pushes = test_push_queue.pushes


async def traced(stage: Stage, stored: Receipt) -> Trace:
    return await TraceService(stage.database).trace(stored.id, seen_by=None)


def decided(trace: Trace) -> list[tuple[str, str, str, str, datetime | None]]:
    return [(d.stage, d.channel, d.action, d.reason, d.until) for d in trace.decisions]


def happened(trace: Trace) -> list[tuple[datetime, str | None, str, str | None]]:
    return [(item.at, item.channel, item.event, item.reason) for item in trace.events]


async def test_it_has_every_attempt_with_what_the_provider_said(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=503, retry_after=30, times=1)
    await stage.worker.deliverer.deliver()
    stage.clock.advance(seconds=30)
    await stage.worker.deliverer.deliver()
    trace = await traced(stage, stored)
    (mail,) = await stage.mails()
    later = START + timedelta(seconds=30)
    assert happened(trace) == [
        (START, None, "created", None),
        (START, "in_app", "sent", "sent_now"),
        (START, "email", "retry", "provider_unavailable"),
        (later, "email", "sent", "sent_now"),
    ]
    retry, sent = (item.detail for item in trace.events[2:])
    assert (retry["attempt"], sent["attempt"]) == (1, 2)
    assert str(retry["detail"]).startswith("503")
    assert datetime.fromisoformat(str(retry["next_attempt_at"])) == later
    assert sent["provider_id"] == mail["id"]
    assert decided(trace) == [
        ("create", "push", "skip", "no_device", None),
        ("create", "in_app", "send", "sent_now", None),
        ("create", "email", "send", "sent_now", None),
        ("claim", "email", "send", "sent_now", None),  # once: nothing has changed since
    ]
    assert [item.at for item in trace.decisions[2:]] == [START, START]
    assert [item.inputs["now"] for item in trace.decisions[2:]] == [
        item.at.isoformat() for item in trace.decisions[2:]
    ]


async def test_it_has_what_was_held_sent_shown_and_clicked(stage: Stage, pushes: Pushes) -> None:
    user = await stage.user()
    device = await pushes.device(user)
    until = START + timedelta(hours=8)
    await stage.rows(
        "UPDATE notification_recipients SET pause_until = :until WHERE user_id = :id RETURNING 1",
        until=until,
        id=user,
    )
    stored = await stage.post(user, PUSH)
    stage.clock.now = until
    assert await pushes.deliver() == 1
    stage.clock.advance(seconds=5)
    (delivery,) = await stage.rows("SELECT id FROM notification_deliveries WHERE channel = 'push'")
    tokens = AckTokens(stage.settings.encryption_keys)
    changes = InboxChanges(stage.database, stage.announcer.announce, stage.clock)
    receipts = ReceiptService(stage.database, tokens, changes, stage.clock)
    await receipts.acknowledge(tokens.issue(delivery.id), PushEvent.CLICKED)
    trace = await traced(stage, stored)
    clicked = until + timedelta(seconds=5)
    assert happened(trace) == [
        (START, None, "created", None),
        (START, "push", "held", "quiet_hours"),
        (START, "in_app", "sent", "sent_now"),
        (until, "push", "sent", "sent_now"),
        (clicked, "in_app", "read", None),
        (clicked, "push", "delivered", None),
        (clicked, "push", "clicked", None),
    ]
    assert [item.device_id for item in trace.events] == [None] * 3 + [device, None, device, device]
    assert trace.events[1].detail == {"next_attempt_at": until.isoformat()}
    assert decided(trace)[0] == ("create", "push", "hold", "quiet_hours", until)
    assert decided(trace)[-1] == ("claim", "push", "send", "sent_now", None)


async def test_what_is_held_again_was_no_attempt(stage: Stage, pushes: Pushes) -> None:
    user = await stage.user()
    await pushes.device(user)
    until = START + timedelta(hours=8)
    pause = (
        "UPDATE notification_recipients SET pause_until = :until WHERE user_id = :id RETURNING 1"
    )
    await stage.rows(pause, until=until, id=user)
    stored = await stage.post(user, PUSH)
    later = until + timedelta(hours=1)
    await stage.rows(pause, until=later, id=user)
    stage.clock.now = until
    assert await pushes.deliver() == 1
    held = [item.detail for item in (await traced(stage, stored)).events if item.event == "held"]
    assert held == [{"next_attempt_at": moment.isoformat()} for moment in (until, later)]


async def test_it_has_what_reading_ended(stage: Stage, pushes: Pushes) -> None:
    user = await stage.user()
    await pushes.device(user)
    await stage.rows(
        "UPDATE notification_recipients SET pause_until = :until WHERE user_id = :id RETURNING 1",
        until=START + timedelta(hours=8),
        id=user,
    )
    stored = await stage.post(user, Request(NotificationType.TASK))
    stage.clock.advance(minutes=1)
    changes = InboxChanges(stage.database, stage.announcer.announce, stage.clock)
    await changes.mark_read(user, stored.id)
    assert [(c, e, r) for _, c, e, r in happened(await traced(stage, stored))] == [
        (None, "created", None),
        ("push", "held", "quiet_hours"),
        ("email", "digested", "digest"),
        ("in_app", "sent", "sent_now"),
        ("in_app", "read", None),
        ("push", "skipped", "read_elsewhere"),
        ("email", "skipped", "read_elsewhere"),
    ]


async def test_what_was_shown_late_is_told_once_and_when_it_was(stage: Stage) -> None:
    later = START + timedelta(hours=1)
    end = later + timedelta(hours=1)
    request = Request(NotificationType.TASK, send_email=False, send_at=later, expires_at=end)
    user = await stage.user()
    stored = await stage.post(user, request)
    assert happened(await traced(stage, stored)) == [
        (START, None, "created", None),
        (START, "in_app", "held", "scheduled"),
    ]
    stage.clock.now = later
    await stage.worker.deliverer.deliver()
    stage.clock.advance(hours=1)
    await stage.worker.expirer.expire_some()
    assert happened(await traced(stage, stored))[2:] == [
        (later, "in_app", "sent", "sent_now"),
        (end, "in_app", "expired", "expired"),
    ]


async def test_what_a_claim_decides_otherwise_is_in_it(stage: Stage) -> None:
    user = await stage.user()
    stored = await stage.post(user)
    await stage.rows(
        "UPDATE notification_recipients SET email = NULL WHERE user_id = :id RETURNING 1",
        id=user,
    )
    await stage.worker.deliverer.deliver()
    trace = await traced(stage, stored)
    assert decided(trace)[-1] == ("claim", "email", "skip", "no_address", None)
    assert happened(trace)[-1][1:] == ("email", "skipped", "no_address")
    before, after = (trace.decisions[index].inputs["recipient"] for index in (2, 3))
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert (before["has_address"], after["has_address"]) == (True, False)


# --- the command line ------------------------------------------------------------------------


async def notify(stage: Stage, *arguments: str) -> Result:
    assert stage.settings.database_url is not None
    assert stage.settings.redis_url is not None
    environment: dict[str, Any] = {
        "DATABASE_URL": stage.settings.database_url.get_secret_value(),
        "REDIS_URL": stage.settings.redis_url.get_secret_value(),
        "DATA_DIR": str(stage.settings.data_dir),
    }
    return await asyncio.to_thread(CliRunner().invoke, main, ["trace", *arguments], env=environment)


async def test_an_operator_reads_it_on_the_command_line(stage: Stage) -> None:
    stored = await stage.post(await stage.user())
    await stage.fault(kind="status", status=503, times=1)
    await stage.worker.deliverer.deliver()
    trace = await traced(stage, stored)
    told = await notify(stage, str(stored.id), "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == json.loads(trace.model_dump_json())
    told = await notify(stage, str(stored.id))
    assert told.exit_code == 0, told.output
    head, *lines = told.stdout.splitlines()
    assert head == "Decided"
    assert len(lines) == len(trace.decisions) + 1 + len(trace.events)
    at = START.astimezone().isoformat(sep=" ", timespec="milliseconds")
    assert lines[:2] == [
        f"  {at}  create  push    skip  no_device",
        f"  {at}  create  in_app  send  sent_now",
    ]
    assert lines[4:7] == [
        "Happened",
        f"  {at}          created                        service tests",
        f"  {at}  in_app  sent     sent_now",
    ]
    assert "  email   retry    provider_unavailable  " in lines[7]
    assert "503" in lines[7]


async def test_the_command_line_knows_no_notification_that_is_not(stage: Stage) -> None:
    told = await notify(stage, str(uuid4()))
    assert (told.exit_code, told.output) == (1, "Error: No notification has this id.\n")
