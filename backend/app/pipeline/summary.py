"""When quiet time ends, what was held comes as one push instead of many (REQ-019).

Whoever claims some of a user's held pushes looks at all of them that are due, whichever worker has
them, under the lock of the user's inbox. So one worker decides, and those that come after it find
what it left. More than three for one device become one: the most urgent, of these the newest,
carries it; the others are skipped. What has been looked at goes out for no other reason than any
push: its row says `sent_now`, so it is looked at once, and is sent by whoever has it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from app.channels.base import Claim, Deferred, Outcome, Recorded
from app.db.database import Database, Driver, dumps, is_busy
from app.pipeline.decide import Profile, request_of, run_policy
from app.policy.kinds import Action, Channel, DeviceKind, Reason
from app.ratelimit.user_limits import SOON, Lock
from app.realtime.inboxes import lock_free_inboxes, lock_inboxes

MOST_SINGLE: Final = 3
"""So many go out each by itself."""

LATEST: Final = 5  # of the others, of which the trace and the text tell

BUSY: Final = Deferred(Reason.QUIET_HOURS, "The inbox is busy.", after=SOON.total_seconds())

Row = Mapping[str, Any]

# Of a suspect, which two workers died with, the summary must not depend: it goes alone.
READ_HELD = """
    SELECT d.id, d.lease_token, d.notification_id, d.user_id, d.device_id,
           mod(d.urgency, 4) AS urgency, coalesce(d.summarises, 1) AS number,
           d.expired_leases > 1 AS is_suspect, p.kind, n.type, n.priority, n.channels,
           n.send_email, n.send_at, n.expires_at, n.data, n.cancelled_at,
           coalesce(n.read_at, n.deleted_at) IS NOT NULL AS has_read
    FROM notification_deliveries d
    JOIN notifications n ON n.id = d.notification_id
    LEFT JOIN push_subscriptions p ON p.id = d.device_id AND p.is_active
    WHERE d.user_id = ANY($1::uuid[]) AND d.channel = 'push' AND d.status = 'pending'
      AND d.reason = 'quiet_hours' AND (d.lease_token IS NOT NULL OR d.next_attempt_at <= $2)
    ORDER BY d.id FOR UPDATE OF d
"""

# What another worker holds is taken from it and due again at once: nobody waits for one that died.
KEEP = """
    WITH kept AS (
        UPDATE notification_deliveries d
        SET reason = 'sent_now', summarises = v.number,
            attempts = attempts - (NOT v.is_mine AND lease_token IS NOT NULL)::int,
            lease_token = CASE WHEN v.is_mine THEN lease_token END,
            next_attempt_at = CASE WHEN v.is_mine THEN next_attempt_at ELSE $1 END
        FROM unnest($2::uuid[], $3::int[], $4::bool[], $5::text[])
            AS v (id, number, is_mine, latest)
        WHERE d.id = v.id
        RETURNING d.notification_id, d.user_id, d.channel, d.device_id, v.number, v.latest
    )
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, device_id, detail, at
    )
    SELECT notification_id, user_id, channel, 'summary', 'quiet_hours', device_id,
           jsonb_build_object('summarises', number, 'latest', latest::jsonb), $1
    FROM kept WHERE latest IS NOT NULL
"""

TAKE_IN = """
    WITH taken AS (
        UPDATE notification_deliveries d
        SET status = 'skipped', reason = 'summarised', next_attempt_at = NULL,
            attempts = attempts - (lease_token IS NOT NULL)::int, lease_token = NULL
        FROM unnest($2::uuid[], $3::uuid[]) AS v (id, summarised_by)
        WHERE d.id = v.id
        RETURNING d.notification_id, d.user_id, d.channel, d.device_id, v.summarised_by
    )
    INSERT INTO notification_events (
        notification_id, user_id, channel, event, reason, device_id, detail, at
    )
    SELECT notification_id, user_id, channel, 'skipped', 'summarised', device_id,
           jsonb_build_object('summarised_by', summarised_by), $1
    FROM taken
"""

# Whoever sends it, and however late, tells the same, but for what needs no telling any more.
READ_TITLES = """
    SELECT c.id, ARRAY(
        SELECT n.title FROM notifications n
        WHERE n.id IN (
            SELECT jsonb_array_elements_text(e.detail -> 'latest')::uuid FROM notification_events e
            WHERE e.notification_id = c.notification_id AND e.event = 'summary'
        )
        AND n.read_at IS NULL AND n.deleted_at IS NULL AND n.cancelled_at IS NULL
        AND (n.expires_at IS NULL OR n.expires_at > $2)
        ORDER BY n.id DESC
    ) AS titles
    FROM notification_deliveries c WHERE c.id = ANY($1::uuid[])
"""


class Summariser:
    """Makes one push of many that were held."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def summarise(
        self, claims: Sequence[Claim], profiles: Mapping[UUID, Profile], now: datetime
    ) -> dict[UUID, Claim | Outcome]:
        """Look at what was held for the users of claims, and for which there is no reason now.

        Args:
            claims: pushes that may go out; others than `concerns` names are left out.
            profiles: of their users.

        Returns:
            For the id of each claim, as it is to be sent, or what becomes of it instead.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        claims = [claim for claim in claims if concerns(claim)]
        if not claims:
            return {}
        held = [claim for claim in claims if claim.reason is Reason.QUIET_HOURS]
        try:
            return await self._summarise(claims, held, profiles, now, lock_inboxes)
        except Exception as error:
            if not is_busy(error):
                raise
        try:
            # One of the users is held for long: the others do without that one.
            return await self._summarise(claims, held, profiles, now, lock_free_inboxes)
        except Exception as error:
            if not is_busy(error):
                raise
        return {claim.id: BUSY for claim in claims}

    async def _summarise(
        self,
        claims: Sequence[Claim],
        held: Sequence[Claim],
        profiles: Mapping[UUID, Profile],
        now: datetime,
        lock: Lock,
    ) -> dict[UUID, Claim | Outcome]:
        results: dict[UUID, Claim | Outcome] = {claim.id: claim for claim in claims}
        async with self._database.group_as_service() as driver:
            if held:
                locked = await lock(driver, {claim.user_id for claim in held})
                results |= {claim.id: BUSY for claim in held if claim.user_id not in locked}
                free = [claim for claim in held if claim.user_id in locked]
                results |= await _settle(driver, free, profiles, now)
            return results | await _with_titles(driver, results.values(), now)


def concerns(claim: Claim) -> bool:
    """Whether a push was held for quiet hours, or stands for others that were."""
    if claim.channel is not Channel.PUSH or claim.request.silent:
        return False
    return claim.reason is Reason.QUIET_HOURS or claim.summarises is not None


async def _settle(
    driver: Driver, claims: Sequence[Claim], profiles: Mapping[UUID, Profile], now: datetime
) -> dict[UUID, Claim | Outcome]:
    """Summarise what there is too much of; the inboxes are locked until the transaction ends."""
    users = sorted({claim.user_id for claim in claims})
    rows = {row["id"]: row for row in await driver.fetch(READ_HELD, users, now)}
    mine = {
        claim.id: claim
        for claim in claims
        if claim.id in rows and rows[claim.id]["lease_token"] == claim.lease_token
    }
    devices: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows.values():
        if _may_go(row, profiles[row["user_id"]], now):
            devices[row["device_id"]].append(row)
    kept: list[tuple[UUID, int | None, bool, str | None]] = []
    taken: list[tuple[UUID, UUID]] = []
    for of_device in devices.values():
        number = sum(row["number"] for row in of_device)
        if number <= MOST_SINGLE:
            kept += [(row["id"], None, True, None) for row in of_device if row["id"] in mine]
            continue
        carrier, *others = sorted(of_device, key=_place)
        latest = [
            str(id_) for id_ in sorted((row["notification_id"] for row in others), reverse=True)
        ][:LATEST]
        kept.append(
            (carrier["id"], number, carrier["id"] in mine, dumps(latest) if latest else None)
        )
        taken += [(row["id"], carrier["notification_id"]) for row in others]
    await driver.execute(KEEP, now, *_columns(kept, 4))
    await driver.execute(TAKE_IN, now, *_columns(taken, 2))
    numbers = {id_: number for id_, number, _, _ in kept}
    gone = {id_ for id_, _ in taken}
    return {
        claim.id: Recorded()
        if claim.id in gone or claim.id not in mine
        else replace(
            claim,
            summarises=numbers.get(claim.id, claim.summarises),
            has_read=rows[claim.id]["has_read"],
        )
        for claim in claims
    }


def _may_go(row: Row, profile: Profile, now: datetime) -> bool:
    """Whether a held push is one that a summary may tell of, by the policy itself."""
    request = request_of(row)
    if request.silent or row["is_suspect"] or row["cancelled_at"] is not None:
        return False
    kinds = () if row["kind"] is None else (DeviceKind(row["kind"]),)
    recipient = replace(profile.recipient(request.type, kinds), has_read=row["has_read"])
    (decision,) = run_policy(request, recipient, now, (Channel.PUSH,)).decisions
    return decision.action is Action.SEND


def _place(row: Row) -> tuple[int, int]:
    """Order of those that may carry a summary; ids are in the order of creation."""
    return row["urgency"], -row["notification_id"].int


async def _with_titles(
    driver: Driver, results: Iterable[Claim | Outcome], now: datetime
) -> dict[UUID, Claim | Outcome]:
    """Those that stand for others, with what they tell of them."""
    carriers = {
        item.id: item for item in results if isinstance(item, Claim) and item.summarises is not None
    }
    if not carriers:
        return {}
    rows = await driver.fetch(READ_TITLES, [*carriers], now)
    return {row["id"]: replace(carriers[row["id"]], titles=tuple(row["titles"])) for row in rows}


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> Iterable[list[Any]]:
    return ([row[place] for row in rows] for place in range(width))
