"""Clicks on notifications' actions (REQ-013).

A click is stored in the transaction that marks its notification read, so it happens once, whatever
two clicks at the same instant do. What a service has registered for is then posted to it: by this
process while the click waits, by a worker when that takes longer (`app.pipeline.callbacks`).
"""

# ruff: noqa: S608 -- composed of nothing but the constants below

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID, uuid4

import structlog
from pydantic import JsonValue
from sqlalchemy import text

from app.db.database import Database, Driver, dumps
from app.errors import NotFound, Unavailable
from app.pipeline.callbacks import CallbackQueue
from app.pipeline.change import VISIBLE, InboxEdit
from app.schemas.actions import DISMISS, READ
from app.schemas.callback import ClickedAction
from app.services.inbox_changes import InboxChanges

log = structlog.get_logger()

PATIENCE: Final = 5.0  # seconds that a click waits for its first answer

IS_REGISTERED = text("SELECT EXISTS (SELECT FROM action_callbacks WHERE name = :name)")

FIND_RUN = """
    SELECT status, result FROM notification_actions
    WHERE notification_id = $1 AND action = $2 AND user_id = $3
"""
RUN = text("""
    SELECT status, result FROM notification_actions
    WHERE notification_id = CAST(:id AS uuid) AND action = :action
""")
FIND_DATA = f"SELECT n.data FROM notifications n WHERE n.id = $1 AND n.user_id = $2 AND {VISIBLE}"

# The clicked event goes with the row, so that a click is counted as often as it runs.
ADD_RUN = """
    WITH added AS (
        INSERT INTO notification_actions (
            notification_id, user_id, action, label, status, result, attempts, next_attempt_at,
            lease_token, created_at, finished_at
        )
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11)
        ON CONFLICT DO NOTHING RETURNING notification_id, user_id, action
    )
    INSERT INTO notification_events (notification_id, user_id, channel, event, detail, at)
    SELECT notification_id, user_id, 'in_app', 'clicked', jsonb_build_object('action', action), $10
    FROM added
"""


@dataclass(frozen=True, slots=True)
class Button:
    """What a click is on: a button of the notification, or one that every notification has."""

    label: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A click in the database.

    Args:
        run: status and result as they were stored.
        lease: with which this process may post it, None when there is nothing to post.
    """

    run: Mapping[str, Any]
    lease: UUID | None = None


class ActionService:
    """Runs actions, each once.

    Args:
        changes: marks notifications read and deletes them.
        queue: posts clicks to services.
        patience: seconds that a click waits for a service's first answer.
    """

    def __init__(
        self,
        database: Database,
        changes: InboxChanges,
        queue: CallbackQueue,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._database = database
        self._changes = changes
        self._queue = queue
        self._patience = patience
        self._posting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A worker goes on when the leases end.
        for task in self._posting:
            task.cancel()
        await asyncio.gather(*self._posting, return_exceptions=True)

    async def click(self, user_id: UUID, notification_id: UUID, action: str) -> ClickedAction:
        """Run an action; every later click is answered what came of the first.

        Args:
            action: the name of one of the notification's actions, `read` or `dismiss`, or the
                index of a button that leads to an address.

        Raises:
            NotFound: the user has no such notification, or it has no such action.
            Unavailable: PostgreSQL is away.
        """
        is_registered = await self._is_registered(action)
        async with self._changes.editing(user_id) as edit:
            stored = await self._store(edit, notification_id, action, is_registered=is_registered)
        run = stored.run
        if stored.lease is not None:
            await self._post(notification_id, action, stored.lease)
            with contextlib.suppress(Unavailable):  # it is stored, and goes on
                run = await self._state(user_id, notification_id, action) or run
        return ClickedAction(action=action, status=run["status"], result=run["result"])

    async def _is_registered(self, action: str) -> bool:
        if action in {READ, DISMISS} or action.isdigit():
            return False
        async with self._database.as_service() as connection:
            return bool((await connection.execute(IS_REGISTERED, {"name": action})).scalar())

    async def _store(
        self, edit: InboxEdit, notification_id: UUID, action: str, *, is_registered: bool
    ) -> Stored:
        driver, user_id = edit.driver, edit.inbox.user_id
        if run := await _find_run(driver, user_id, notification_id, action):
            if action != DISMISS:
                with contextlib.suppress(NotFound):  # deleted since
                    await edit.read(notification_id)
            return Stored(run)
        rows = await driver.fetch(FIND_DATA, notification_id, user_id)
        button = find_button(rows[0]["data"], action) if rows else None
        if button is None:
            raise NotFound
        result = None if button.url is None else {"url": button.url}
        run = {"status": "pending" if is_registered else "completed", "result": result}
        lease = uuid4() if is_registered else None
        await driver.execute(
            ADD_RUN,
            notification_id,
            user_id,
            action,
            button.label,
            run["status"],
            None if result is None else dumps(result),
            1 if is_registered else 0,
            edit.now + self._queue.lease if is_registered else None,
            lease,
            edit.now,
            None if is_registered else edit.now,
        )
        if action == DISMISS:
            await edit.delete(notification_id)
        else:
            await edit.read(notification_id)
        return Stored(run, lease)

    async def _post(self, notification_id: UUID, action: str, lease: UUID) -> None:
        """Begin to post the click, and wait for a while; it goes on when the caller leaves."""

        async def post() -> None:
            try:
                await self._queue.post_leased(notification_id, action, lease)
            except Exception as error:
                # The lease ends by itself.
                log.warning("callback_not_recorded", error=type(error).__name__)

        task = asyncio.create_task(post())
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)
        await asyncio.wait([task], timeout=self._patience)

    async def _state(
        self, user_id: UUID, notification_id: UUID, action: str
    ) -> Mapping[str, Any] | None:
        async with self._database.as_user(user_id) as connection:
            parameters = {"id": notification_id, "action": action}
            row = (await connection.execute(RUN, parameters)).one_or_none()
        return None if row is None else {"status": row.status, "result": row.result}


def find_button(data: Mapping[str, JsonValue], action: str) -> Button | None:
    """What the notification with this `data` has under a name or an index, None for nothing."""
    actions = data.get("actions")
    listed = actions if isinstance(actions, list) else []
    buttons = [item for item in listed if isinstance(item, dict)]
    if action.isdigit():
        # Written otherwise, one button would have several names.
        if action != str(int(action)) or int(action) >= len(buttons):
            return None
        button = buttons[int(action)]
        url = button.get("url")
        return Button(_text(button.get("label")), url) if isinstance(url, str) else None
    for button in buttons:
        if button.get("action") == action:
            return Button(_text(button.get("label")))
    return Button() if action in {READ, DISMISS} else None


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None


async def _find_run(
    driver: Driver, user_id: UUID, notification_id: UUID, action: str
) -> Mapping[str, Any] | None:
    rows = await driver.fetch(FIND_RUN, notification_id, action, user_id)
    return rows[0] if rows else None
