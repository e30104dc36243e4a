"""A click that was stored is posted, whatever is killed in the middle (REQ-013)."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.receiver import Reply, receiving
from tests.stack import Stack, running_stack

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("stack")]

ENVIRONMENT = {
    "PUSH_ALLOW_PRIVATE_ENDPOINTS": "true",
    "PROVIDER_TIMEOUT_SECONDS": "2",
    "DELIVERY_LEASE_SECONDS": "3",
}
PATIENCE = 60.0


async def click(stack: Stack, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """What a click is answered, once the API is there."""
    while True:
        try:
            answer = await stack.api.post(path, headers=headers)
            if answer.status_code == 200:
                return answer.json()
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)


async def test_a_click_survives_the_death_of_those_who_post_it(data_dir: Path) -> None:
    async with receiving() as receiver, running_stack(data_dir, ENVIRONMENT) as stack:
        receiver.replies = [Reply(hangs=True)]
        put = await stack.api.put(
            "/api/v1/internal/action-callbacks/accept", json={"url": receiver.url()}
        )
        put.raise_for_status()
        user = await stack.add_user()
        created = await stack.api.post(
            "/api/v1/internal/notifications/send",
            json={
                "user_id": str(user),
                "type": "task",
                "title": "Accept?",
                "body": "Please",
                "data": {"actions": [{"label": "Accept", "action": "accept"}]},
            },
        )
        path = f"/api/v1/notifications/{created.json()['notification_id']}/actions/accept"
        headers = {"Authorization": f"Bearer {stack.user_token(user)}"}

        first = asyncio.create_task(click(stack, path, headers))
        await receiver.until(1, PATIENCE)
        await stack.kill("notify api")  # in the middle of the call
        await receiver.until(2, PATIENCE)  # a worker has taken over
        await stack.kill("notify worker")  # and is killed as well
        receiver.replies = [Reply(200, b'{"state": "accepted"}')]

        async with asyncio.timeout(PATIENCE):
            while (told := await click(stack, path, headers))["status"] == "pending":
                await asyncio.sleep(0.1)
            assert (await first)["status"] in {"pending", "completed"}
        assert told["status"] == "completed"
        assert told["result"] == {"state": "accepted"}
        assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
        assert len({call.body for call in receiver.calls}) == 1
