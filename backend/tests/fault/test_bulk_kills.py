"""A bulk call that was answered with 202 reaches each of its users once, whatever is killed."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app.db.database import Database
from tests.stack import Stack, running_stack

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("stack")]

BULK = "/api/v1/notifications/bulk"
KNOWN, UNKNOWN = 1_200, 7
# Storing decisions waits, so a worker that expands stands still in the middle of a transaction.
FREEZE = text("LOCK TABLE notification_decisions IN SHARE MODE")
FROZEN = text("""
    SELECT count(*) FROM pg_locks
    WHERE relation = 'notification_decisions'::regclass AND NOT granted
""")


async def status(stack: Stack, batch_id: str) -> dict[str, Any]:
    answer = await stack.api.get(f"{BULK}/{batch_id}")
    answer.raise_for_status()
    return answer.json()


async def kill_while_it_writes(stack: Stack, database: Database, batch_id: str) -> None:
    """Kill the worker in the middle of a transaction, if there is anything left to expand."""
    async with database.as_service() as connection:
        await connection.execute(FREEZE)
        async with asyncio.timeout(60):
            while not (await connection.execute(FROZEN)).scalar():
                counts = await status(stack, batch_id)
                if counts["created"] == KNOWN:
                    return
                await asyncio.sleep(0.02)
        await stack.kill("notify worker")


async def test_a_bulk_call_survives_workers_killed_half_way(data_dir: Path) -> None:
    async with running_stack(data_dir) as stack:
        database = Database(stack.settings)
        users = [uuid4() for _ in range(KNOWN)]
        async with database.as_service() as connection:
            await connection.execute(
                text("INSERT INTO users (id) SELECT unnest(CAST(:ids AS uuid[]))"), {"ids": users}
            )
        wanted = {
            "user_ids": [str(user) for user in [*users, *(uuid4() for _ in range(UNKNOWN))]],
            "type": "system",
            "title": "Maintenance",
            "body": "Tonight",
        }
        answer = await stack.api.post(BULK, json=wanted)
        assert answer.status_code == 202, answer.text
        batch_id: str = answer.json()["batch_id"]
        for _ in range(3):
            await kill_while_it_writes(stack, database, batch_id)
            created = (await status(stack, batch_id))["created"]
            async with asyncio.timeout(60):
                while created == (await status(stack, batch_id))["created"] < KNOWN:
                    await asyncio.sleep(0.02)
        async with asyncio.timeout(60):
            while (counts := await status(stack, batch_id))["status"] == "processing":
                await asyncio.sleep(0.1)
        assert counts == {
            "batch_id": batch_id,
            "recipient_count": KNOWN + UNKNOWN,
            "created": KNOWN,
            "delivered": KNOWN,
            "failed": UNKNOWN,
            "skipped": 0,
            "pending": 0,
            "status": "partially_failed",
        }
        async with database.as_service() as connection:
            rows = await connection.execute(
                text("SELECT user_id, position FROM notifications WHERE batch_id = :id"),
                {"id": UUID(batch_id)},
            )
            got = Counter((row.user_id, row.position) for row in rows)
        await database.close()
        assert got == Counter((user, 1) for user in users)
