"""What goes into a digest is decided when it is sent (REQ-015, REQ-018).

Since it was parked the user may have read it, chosen otherwise, or lost their address. So all that
is parked for the digest's slot or an earlier one is decided once more by the same policy, under the
lock of the inbox; what stays is written down before the letter is handed over. A letter that a
provider may have taken already keeps the members that it has.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from app.channels.base import Deferred, Failed
from app.channels.email.digest import Digest, DigestItem
from app.channels.email.letter import MailOutcome
from app.config import Settings
from app.db.database import Database, Driver, dumps, is_busy
from app.pipeline.decide import Audience, Profile, Run, request_of, run_policy
from app.pipeline.deliver import Clock
from app.pipeline.digests import Lease
from app.pipeline.suppression import IS_SUPPRESSED
from app.pipeline.track import NOTE
from app.policy.kinds import (
    Action,
    Channel,
    DeliveryStatus,
    DigestFrequency,
    NotificationType,
    Priority,
    Reason,
)
from app.realtime.inboxes import Inbox, lock_free_inboxes, lock_inboxes

BUSY: Final = Deferred(Reason.DIGEST, "The inbox is busy.", after=1.0)
POISON: Final = "Workers died while sending it, {} times."
GONE: Final = Failed(
    Reason.OUTCOME_UNKNOWN, "The user's address was taken away while the mail was being sent."
)
SUPPRESSED: Final = Failed(
    Reason.ADDRESS_SUPPRESSED, "Nothing goes to the address any more; a provider may have the mail."
)

Row = Mapping[str, Any]

# What another worker has taken over meanwhile is left to it.
HOLD = """
    SELECT g.id, g.notification_ids, EXISTS (
        SELECT FROM email_request_letters l WHERE l.letter_id = g.id
    ) AS is_open
    FROM unnest($1::uuid[], $2::uuid[]) AS t (id, token)
    JOIN email_digests g ON g.id = t.id AND g.lease_token = t.token AND g.status = 'pending'
    ORDER BY g.id FOR UPDATE OF g
"""

READ_PEOPLE = f"""
    SELECT i.user_id, i.choices_version, r.email IS NOT NULL AS has_address,
           {IS_SUPPRESSED} AS is_suppressed, r.timezone, r.quiet_hours, r.pause_until,
           r.email, r.full_name, r.locale, coalesce(r.email_epoch, 0) AS email_epoch
    FROM inbox_state i LEFT JOIN notification_recipients r ON r.user_id = i.user_id
    WHERE i.user_id = ANY($1::uuid[])
"""  # noqa: S608 -- composed of a constant

# The members that a digest has are its own, whoever leased it before.
READ_PARKED = """
    SELECT g.id AS digest_id, d.id, d.notification_id, d.user_id, n.type, n.priority, n.title,
           n.body_html, n.language, n.created_at, n.channels, n.send_email, n.send_at, n.expires_at,
           n.cancelled_at, '{}'::jsonb AS data,
           coalesce(n.read_at, n.deleted_at) IS NOT NULL AS has_read,
           d.notification_id = ANY(g.notification_ids) AS is_member
    FROM unnest($1::uuid[], $2::bool[]) AS v (id, keeps_members)
    JOIN email_digests g ON g.id = v.id
    JOIN notification_deliveries d ON d.user_id = g.user_id
    JOIN notifications n ON n.id = d.notification_id
    WHERE d.status = 'pending' AND d.digest_slot IS NOT NULL
      AND CASE
          WHEN v.keeps_members THEN d.notification_id = ANY(g.notification_ids)
          ELSE d.notification_id = ANY(g.notification_ids)
               OR (d.digest_slot <= $3 AND d.lease_token IS NULL)
      END
    ORDER BY d.id FOR UPDATE OF d
"""

END = """
    WITH ended AS (
        UPDATE notification_deliveries d
        SET status = v.status, reason = v.reason, lease_token = NULL
        FROM unnest($2::uuid[], $3::text[], $4::text[]) AS v (id, status, reason)
        WHERE d.id = v.id
        RETURNING d.notification_id, d.user_id, d.status, d.reason
    )
    INSERT INTO notification_events (notification_id, user_id, channel, event, reason, at)
    SELECT notification_id, user_id, 'email', status, reason, $1 FROM ended
"""

TAKE = """
    UPDATE notification_deliveries d SET lease_token = v.token
    FROM unnest($1::uuid[], $2::uuid[]) AS v (id, token) WHERE d.id = v.id
"""

# What it was waited for is not taken from the time for sending.
WRITE = """
    UPDATE email_digests g
    SET notification_ids = v.ids::uuid[], frequency = v.frequency, next_attempt_at = $4
    FROM unnest($1::uuid[], $2::text[], $3::text[]) AS v (id, ids, frequency) WHERE g.id = v.id
"""

SKIP = """
    UPDATE email_digests SET status = 'skipped', lease_token = NULL, next_attempt_at = NULL,
        notification_ids = '{}', reason = NULL, error_message = NULL
    WHERE id = ANY($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A digest that is to be sent.

    Args:
        what: what it tells, or what becomes of it without sending it.
    """

    lease: Lease
    what: Digest | MailOutcome


@dataclass(slots=True)
class _Gathering:
    """What a digest comes to, as it is gathered.

    Args:
        is_poison: workers died of it, or with it.
        is_open: a provider may have its letter already.
    """

    lease: Lease
    is_poison: bool
    is_open: bool
    members: list[Row] = field(default_factory=list[Row])

    @property
    def keeps_members(self) -> bool:
        """Whether it is not gathered anew."""
        return self.is_open or self.is_poison


class Gatherer:
    """Gathers what digests tell of.

    Args:
        audience: knows the users.
        clock: the present instant.
    """

    def __init__(
        self, settings: Settings, database: Database, audience: Audience, clock: Clock
    ) -> None:
        self._database = database
        self._audience = audience
        self._clock = clock
        self._max_expired_leases = settings.delivery_max_expired_leases
        self._lease = timedelta(seconds=settings.delivery_lease_seconds)

    async def gather(self, group: Sequence[Lease]) -> list[Gathered]:
        """Decide what goes out with the digests of a group, and write that down.

        Their leases begin anew.

        Returns:
            Those that are to go on, with their leases. A digest that nothing is left of is
            `skipped`, and not among them; nor is one that another worker has taken over.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        users = [lease.user_id for lease in group]
        try:
            async with self._database.group_as_service() as driver:
                return await self._gather(driver, group, await lock_inboxes(driver, users))
        except Exception as error:
            if not is_busy(error):
                raise
        # One of the users is held for long: the others do without that one.
        async with self._database.group_as_service() as driver:
            return await self._gather(driver, group, await lock_free_inboxes(driver, users))

    async def _gather(
        self, driver: Driver, group: Sequence[Lease], inboxes: Mapping[UUID, Inbox]
    ) -> list[Gathered]:
        now = self._clock()
        busy = [Gathered(lease, BUSY) for lease in group if lease.user_id not in inboxes]
        free = [lease for lease in group if lease.user_id in inboxes]
        held = {
            row["id"]: row
            for row in await driver.fetch(
                HOLD, [lease.id for lease in free], [lease.token for lease in free]
            )
        }
        digests = {
            lease.id: _Gathering(
                replace(lease, until=now + self._lease),
                is_poison=lease.expired_leases >= self._max_expired_leases,
                is_open=held[lease.id]["is_open"],
            )
            for lease in free
            if lease.id in held
        }
        people = {
            row["user_id"]: row
            for row in await driver.fetch(
                READ_PEOPLE, [item.lease.user_id for item in digests.values()]
            )
        }
        profiles = await self._audience.profiles(driver, people.values())
        rows = await driver.fetch(
            READ_PARKED,
            [*digests],
            [item.keeps_members for item in digests.values()],
            now,
        )
        await _decide(driver, digests, rows, profiles, now)
        await _write(driver, digests.values(), profiles, now + self._lease)
        return busy + [
            Gathered(item.lease, _what(item, people, profiles))
            for item in digests.values()
            if item.members or item.is_poison
        ]


def _what(
    item: _Gathering, people: Mapping[UUID, Row], profiles: Mapping[UUID, Profile]
) -> Digest | MailOutcome:
    lease = item.lease
    if item.is_poison:
        return Failed(Reason.POISON, POISON.format(lease.expired_leases))
    person, profile = people[lease.user_id], profiles[lease.user_id]
    if person["email"] is None:
        return GONE
    if item.is_open and person["is_suppressed"]:
        return SUPPRESSED
    newest_first = sorted(item.members, key=itemgetter("notification_id"), reverse=True)
    return Digest(
        id=lease.id,
        user_id=lease.user_id,
        email=person["email"],
        full_name=person["full_name"],
        locale=person["locale"],
        timezone=profile.basis.timezone,
        frequency=_frequency(item.members, profile),
        slot=lease.slot,
        email_epoch=person["email_epoch"],
        items=tuple(
            DigestItem(
                row["notification_id"],
                NotificationType(row["type"]),
                Priority(row["priority"]),
                row["title"],
                row["body_html"],
                row["created_at"],
                row["language"],
            )
            for row in newest_first
        ),
    )


async def _decide(
    driver: Driver,
    digests: Mapping[UUID, _Gathering],
    rows: Iterable[Row],
    profiles: Mapping[UUID, Profile],
    now: datetime,
) -> None:
    """Put those among the members that go out, and end the others."""
    ended: list[tuple[UUID, DeliveryStatus, Reason]] = []
    notes: list[tuple[UUID, Run]] = []
    decided: set[UUID] = set()  # a user whose slots follow upon each other may have two digests
    for row in rows:
        if row["id"] in decided:
            continue
        decided.add(row["id"])
        digest = digests[row["digest_id"]]
        if digest.keeps_members:
            digest.members.append(row)
            continue
        if row["cancelled_at"] is not None:
            ended.append((row["id"], DeliveryStatus.CANCELLED, Reason.CANCELLED))
            continue
        run = _run(row, profiles[row["user_id"]], now)
        (decision,) = run.decisions
        if decision.action is Action.SEND:
            digest.members.append(row)
        else:
            ended.append((row["id"], DeliveryStatus.SKIPPED, decision.reason))
        if decision.action is not Action.SEND or not row["is_member"]:
            notes.append((row["notification_id"], run))
    if ended:
        ids, statuses, reasons = zip(*ended, strict=True)
        await driver.execute(END, now, ids, statuses, reasons)
    if notes:
        await driver.execute(
            NOTE,
            [id_ for id_, _ in notes],
            [dumps(run.inputs()) for _, run in notes],
            [dumps(run.outcomes()) for _, run in notes],
            [now] * len(notes),
        )


async def _write(
    driver: Driver,
    digests: Collection[_Gathering],
    profiles: Mapping[UUID, Profile],
    until: datetime,
) -> None:
    full = [item for item in digests if item.members]
    empty = [item.lease.id for item in digests if not item.members and not item.is_poison]
    if full:
        members = [(row["id"], item.lease.token) for item in full for row in item.members]
        await driver.execute(TAKE, *map(list, zip(*members, strict=True)))
        await driver.execute(
            WRITE,
            [item.lease.id for item in full],
            [_uuids(row["notification_id"] for row in item.members) for item in full],
            [_frequency(item.members, profiles[item.lease.user_id]).value for item in full],
            until,
        )
    if empty:
        await driver.execute(SKIP, empty)


def _run(row: Row, profile: Profile, now: datetime) -> Run:
    request = request_of(row)
    recipient = replace(
        profile.recipient(request.type, ()), has_read=row["has_read"], in_digest=True
    )
    return run_policy(request, recipient, now, (Channel.EMAIL,))


def _frequency(members: Iterable[Row], profile: Profile) -> DigestFrequency:
    """Weekly where the user wants all of this weekly, else daily."""
    types = {NotificationType(row["type"]) for row in members}
    wanted = {profile.recipient(of, ()).preferences.digest_frequency for of in types}
    is_weekly = wanted == {DigestFrequency.WEEKLY}
    return DigestFrequency.WEEKLY if is_weekly else DigestFrequency.DAILY


def _uuids(ids: Iterable[UUID]) -> str:
    """An array of PostgreSQL's, as text: arrays of arrays cannot differ in length."""
    return "{" + ",".join(map(str, ids)) + "}"
