"""In-app delivery of notifications that were held: they become visible in the inbox (REQ-010).

Notifications that need no holding are visible with the commit that creates them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.channels.base import Claim, Held, Outcome, Recorded, Report, Sent
from app.db.database import Database, Driver, driver_of
from app.policy.kinds import Channel, Reason
from app.policy.limits import Limit
from app.policy.routing import is_limited
from app.ratelimit.lines import read_lines
from app.realtime.backplane import Change
from app.realtime.frames import InboxItem, visible_change
from app.realtime.inboxes import Inbox, lock_inboxes, open_inboxes, save_inboxes

Record = Callable[[AsyncConnection, Sequence[tuple[Claim, Outcome]]], Awaitable[None]]

# The lease's token fences: what another worker has taken over meanwhile is that worker's to show.
STILL_HIDDEN = text("""
    SELECT n.id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:tokens AS uuid[])) AS held (id, token)
    JOIN notification_deliveries d
        ON d.id = held.id AND d.lease_token = held.token AND d.status = 'pending'
    JOIN notifications n ON n.id = d.notification_id
    WHERE n.position IS NULL AND n.deleted_at IS NULL
    FOR UPDATE OF d
""")

SHOW = text("""
    UPDATE notifications n SET position = v.position, seq = v.position
    FROM unnest(CAST(:ids AS uuid[]), CAST(:positions AS bigint[])) AS v (id, position)
    WHERE n.id = v.id
""")


class InAppChannel:
    """Gives held notifications their position and tells live sessions.

    Args:
        limit: how many a user's inbox shows in a window of time; critical ones are always shown.
        clock: the present instant.
        publish: takes the changes once they are committed; never waits or raises.
        record: writes outcomes in the transaction it is given.
    """

    channel: ClassVar[Channel] = Channel.IN_APP

    def __init__(
        self,
        database: Database,
        limit: Limit,
        clock: Callable[[], datetime],
        publish: Callable[[tuple[Change, ...]], None],
        record: Record,
    ) -> None:
        self._database = database
        self._limit = limit
        self._clock = clock
        self._publish = publish
        self._record = record

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Make the claims visible that there is room for, in the order they were created.

        Positions and outcomes are one transaction: a worker that dies leaves both or neither.
        """
        ordered = sorted(claims, key=lambda claim: (claim.created_at, claim.notification_id))
        async with self._database.as_service() as connection:
            driver = await driver_of(connection)
            inboxes = await _lock(driver, claims)
            outcomes = await self._admit(driver, ordered)
            shown = [claim for claim, outcome in outcomes if isinstance(outcome, Sent)]
            changes = await _show(connection, shown, inboxes)
            await self._record(connection, outcomes)
        self._publish(changes)
        for claim in claims:
            report(claim, Recorded())

    async def _admit(self, driver: Driver, claims: Sequence[Claim]) -> list[tuple[Claim, Outcome]]:
        """What becomes of each claim, under the locks of their inboxes."""
        now = self._clock()
        users = {claim.user_id for claim in claims if is_limited(claim.request)}
        limits = {Channel.IN_APP: self._limit}
        lines = await read_lines(driver, ((user, Channel.IN_APP) for user in users), limits, now)
        outcomes: list[tuple[Claim, Outcome]] = []
        for claim in claims:
            if not is_limited(claim.request):
                outcomes.append((claim, Sent()))
                continue
            line = lines[claim.user_id, Channel.IN_APP]
            turn = line.admit(claim.notification_id, self._limit, now)
            outcomes.append(
                (replace(claim, counted_at=now), Sent())
                if turn is None
                else (claim, Held(Reason.USER_LIMIT, turn))
            )
        return outcomes


async def _lock(driver: Driver, claims: Sequence[Claim]) -> dict[UUID, Inbox]:
    users = {claim.user_id for claim in claims}
    await open_inboxes(driver, users)
    return await lock_inboxes(driver, users)


async def _show(
    connection: AsyncConnection, claims: Sequence[Claim], inboxes: Mapping[UUID, Inbox]
) -> tuple[Change, ...]:
    held = {
        "ids": [claim.id for claim in claims],
        "tokens": [claim.lease_token for claim in claims],
    }
    hidden = set((await connection.execute(STILL_HIDDEN, held)).scalars())
    changes: list[Change] = []
    shown = [claim for claim in claims if claim.notification_id in hidden]
    positions: list[int] = []
    for claim in shown:
        inbox = inboxes[claim.user_id]
        positions.append(inbox.admit(claim.type))
        changes.append(visible_change(_item(claim, inbox.seq), inbox))
    await connection.execute(
        SHOW, {"ids": [claim.notification_id for claim in shown], "positions": positions}
    )
    await save_inboxes(await driver_of(connection), inboxes.values())
    return tuple(changes)


def _item(claim: Claim, position: int) -> InboxItem:
    return InboxItem(
        id=claim.notification_id,
        type=claim.type,
        priority=claim.priority,
        title=claim.title,
        body=claim.body,
        body_html=claim.body_html,
        data=claim.data,
        read_at=None,
        created_at=claim.created_at,
        expires_at=claim.expires_at,
        seq=position,
        position=position,
    )
