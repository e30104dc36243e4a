"""Laws of a batch's counts: whatever its recipients' deliveries go through, they add up."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.policy.kinds import Channel, DeliveryStatus
from tests.contract.callers import V1, Api, open_api

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)
Status = DeliveryStatus


@dataclass(frozen=True)
class Row:
    """A delivery; `held` is a pending one that waits for a time of its own."""

    channel: Channel
    status: Status
    held: bool


rows = st.builds(Row, st.sampled_from(Channel), st.sampled_from(Status), st.booleans())
recipients = st.lists(
    st.one_of(
        st.just("pending"),
        st.just("unknown"),
        st.lists(rows, max_size=4).map(lambda found: sorted(found, key=lambda row: row.channel)),
    ),
    max_size=8,
)


def verdict(recipient: str | Sequence[Row]) -> str:
    """What the contract says of a recipient."""
    if isinstance(recipient, str):
        return {"pending": "working", "unknown": "failed"}[recipient]
    if any(row.status is Status.PENDING and not row.held for row in recipient):
        return "working"
    best: list[str] = []
    for _, channel in groupby(recipient, key=lambda row: row.channel):
        statuses = {row.status for row in channel}
        if statuses & {Status.SENT, Status.DELIVERED}:
            best.append("delivered")
        elif Status.PENDING in statuses:
            best.append("held")
        elif statuses & {Status.FAILED, Status.BOUNCED}:
            best.append("failed")
    return next((name for name in ("failed", "delivered", "held") if name in best), "skipped")


async def insert(database: Database, batch: Sequence[str | Sequence[Row]]) -> UUID:
    batch_id = uuid4()
    async with database.as_service() as connection:

        async def run(query: str, *parameters: Mapping[str, object]) -> None:
            if parameters:
                await connection.execute(text(query), list(parameters))

        await run(
            "INSERT INTO notification_batches (id, service, content, recipient_count)"
            " VALUES (:id, 'tests', '{}', :count)",
            {"id": batch_id, "count": len(batch)},
        )
        for recipient in batch:
            user, notification = uuid4(), uuid4()
            state = recipient if isinstance(recipient, str) else "created"
            await run(
                "INSERT INTO notification_batch_recipients VALUES (:batch, :user, :state)",
                {"batch": batch_id, "user": user, "state": state},
            )
            if isinstance(recipient, str):
                continue
            await run("INSERT INTO users (id) VALUES (:user)", {"user": user})
            await run(
                "INSERT INTO notifications"
                " (id, user_id, type, title, body, body_html, service, batch_id)"
                " VALUES (:id, :user, 'task', 't', 'b', 'b', 'tests', :batch)",
                {"id": notification, "user": user, "batch": batch_id},
            )
            await run(
                "INSERT INTO notification_deliveries"
                " (notification_id, user_id, channel, status, reason, next_attempt_at)"
                " VALUES (:notification, :user, :channel, :status, :reason, :due)",
                *(
                    {
                        "notification": notification,
                        "user": user,
                        "channel": row.channel.value,
                        "status": row.status.value,
                        "reason": "scheduled" if row.held else "sent_now",
                        "due": NOW + timedelta(hours=1) if row.held else NOW,
                    }
                    for row in recipient
                ),
            )
    return batch_id


@pytest.fixture(scope="module")
async def api(settings: Settings) -> AsyncGenerator[Api]:
    async with open_api(settings, lambda: NOW) as running:
        yield running


@bounded(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=recipients)
async def test_the_counts_are_the_recipients_verdicts(
    api: Api, batch: list[str | list[Row]]
) -> None:
    batch_id = await insert(api.database, batch)
    answer = await api.client.get(f"{V1}/notifications/bulk/{batch_id}", headers=api.admin())
    verdicts = [verdict(recipient) for recipient in batch]
    ended = "partially_failed" if "failed" in verdicts else "completed"
    assert answer.json() == {
        "batch_id": str(batch_id),
        "recipient_count": len(batch),
        "created": sum(not isinstance(recipient, str) for recipient in batch),
        "delivered": verdicts.count("delivered"),
        "failed": verdicts.count("failed"),
        "skipped": verdicts.count("skipped"),
        "pending": verdicts.count("held") + verdicts.count("working"),
        "status": "processing" if "working" in verdicts else ended,
    }
