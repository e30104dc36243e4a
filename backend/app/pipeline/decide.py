"""Stage 2: what is known of the users, and what the policy says for each draft."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.config import Settings
from app.db.database import Driver
from app.pipeline.choices import ChoicesCache, UserChoices
from app.pipeline.draft import Draft
from app.pipeline.suppression import IS_SUPPRESSED
from app.policy.kinds import Action, Channel, DeviceKind, NotificationType, Priority, Reason
from app.policy.limits import Limit
from app.policy.preferences import Preferences
from app.policy.replay import Record, inputs_of, outcomes_of, schedule_of
from app.policy.routing import Decision, Recipient, Request, decide, is_limited
from app.ratelimit.lines import Line, UserChannel, read_lines
from app.realtime.inboxes import Inbox, inbox_of

# Inboxes are locked in the order of user ids.
LOCK_RECIPIENTS = f"""
    SELECT i.user_id, i.seq, i.unread, i.choices_version, r.email IS NOT NULL AS has_address,
           {IS_SUPPRESSED} AS is_suppressed, r.timezone, r.quiet_hours, r.pause_until,
           EXISTS (SELECT FROM push_subscriptions p WHERE p.user_id = i.user_id) AS has_device
    FROM inbox_state i
    LEFT JOIN notification_recipients r ON r.user_id = i.user_id
    WHERE i.user_id = ANY($1::uuid[])
    ORDER BY i.user_id FOR UPDATE OF i
"""  # noqa: S608 -- composed of a constant
# Who has no inbox yet would be given an empty one.
READ_RECIPIENTS = f"""
    SELECT u.id AS user_id, coalesce(i.seq, 0) AS seq, coalesce(i.unread, '{{{{}}}}') AS unread,
           coalesce(i.choices_version, 0) AS choices_version, r.email IS NOT NULL AS has_address,
           {IS_SUPPRESSED} AS is_suppressed, r.timezone, r.quiet_hours, r.pause_until,
           EXISTS (SELECT FROM push_subscriptions p WHERE p.user_id = u.id) AS has_device
    FROM {{users}}
    LEFT JOIN inbox_state i ON i.user_id = u.id
    LEFT JOIN notification_recipients r ON r.user_id = u.id
    WHERE u.id = ANY($1::uuid[])
"""  # noqa: S608 -- composed of a constant
READ_KNOWN = READ_RECIPIENTS.format(users="users u")
# A platform's own table of users is not theirs to read.
READ_ONESELF = READ_RECIPIENTS.format(users="unnest($1::uuid[]) AS u (id)")
READ_DEVICES = """
    SELECT user_id, id, kind, created_at FROM push_subscriptions
    WHERE user_id = ANY($1::uuid[]) AND is_active
    ORDER BY id
"""
# Read when the inboxes are locked, however long that took: who waited would see devices that are
# gone, and not see those that took their place. They stay until what is for them is stored. Locked
# in the order of ids, as whoever removes devices does.
HOLD_DEVICES = f"{READ_DEVICES} FOR KEY SHARE"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds in this installation, and for users who chose nothing.

    Args:
        configured: channels that have a provider.
        limits: how much of a channel a user gets, where it is limited.
    """

    timezone: ZoneInfo
    preferences: Preferences
    configured: frozenset[Channel]
    limits: Mapping[Channel, Limit]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Defaults":
        """The defaults of this installation."""
        # Browsers need no provider's account.
        configured = {Channel.IN_APP, Channel.PUSH}
        if settings.email_configured:
            configured.add(Channel.EMAIL)
        hour, day = timedelta(hours=1), timedelta(days=1)
        return cls(
            timezone=settings.default_timezone,
            preferences=Preferences(
                digest_time=time.fromisoformat(settings.digest_default_time),
                digest_day=settings.digest_default_day,
            ),
            configured=frozenset(configured),
            limits={
                Channel.PUSH: Limit(settings.rate_limit_push_per_hour, hour),
                Channel.IN_APP: Limit(settings.rate_limit_in_app_per_hour, hour),
                Channel.EMAIL: Limit(settings.rate_limit_email_per_day, day),
            },
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a user, whatever the notification is.

    Args:
        basis: all that does not depend on the notification or its devices.
        choices_version: counts changes of the choices and the basis.
    """

    basis: Recipient
    choices: UserChoices
    choices_version: int
    defaults: Defaults

    def recipient(self, of: NotificationType, kinds: Iterable[DeviceKind]) -> Recipient:
        """The user as the policy sees them for a type, with devices of these kinds."""
        kinds = set(kinds)
        return replace(
            self.basis,
            has_device=bool(kinds),
            has_phone=DeviceKind.FCM in kinds,
            preferences=self.choices.preferences(of, self.defaults.preferences),
        )


@dataclass(frozen=True, slots=True)
class Target:
    """A user as drafts find them; advanced in memory as they are decided.

    Args:
        inbox: locked, if something is to be stored.
        devices: those that pushes go to, the oldest first.
        line: their use of the limit of in-app notifications.
    """

    profile: Profile
    inbox: Inbox
    devices: Mapping[UUID, DeviceKind]
    line: Line

    def narrowed(self, draft: Draft) -> "Target":
        """The same user with those devices alone that the draft is for."""
        if draft.only_device is None:
            return self
        kind = self.devices.get(draft.only_device)
        return replace(self, devices={} if kind is None else {draft.only_device: kind})

    def decide(self, draft: Draft) -> "Run":
        """Run the policy for a draft, at the instant it was made; nothing is advanced."""
        recipient = self.profile.recipient(draft.request.type, self.devices.values())
        line = self.line
        if line.counted or line.waiting:
            ahead = line.ahead_of(draft.id)
            frees_at = self._limit.frees_at([*line.counted.values()], draft.created_at, ahead=ahead)
            if frees_at is not None:
                recipient = replace(recipient, frees_at={Channel.IN_APP: frees_at})
        return run_policy(draft.request, recipient, draft.created_at)

    def count(self, draft: Draft, decision: Decision) -> None:
        """Count what was decided for the inbox against its limit."""
        if not is_limited(draft.request):
            return
        if decision.action is Action.SEND:
            self.line.counted[draft.id] = draft.created_at
        elif decision.reason is Reason.USER_LIMIT:
            self.line.waiting.add(draft.id)

    @property
    def _limit(self) -> Limit:
        return self.profile.defaults.limits[Channel.IN_APP]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the policy: what it saw, and what it decided."""

    request: Request
    recipient: Recipient
    now: datetime
    decisions: tuple[Decision, ...]

    def inputs(self) -> Record:
        """What it saw, as the trace keeps it."""
        return inputs_of(self.request, self.recipient, self.now)

    def outcomes(self) -> list[Record]:
        """The decisions as the trace shows them."""
        return outcomes_of(self.decisions)


def run_policy(
    request: Request, recipient: Recipient, now: datetime, channels: Iterable[Channel] = Channel
) -> Run:
    """Decide, and keep what it was decided from."""
    return Run(request, recipient, now, decide(request, recipient, now=now, channels=channels))


class Row(Protocol):
    """A row of either driver."""

    def __getitem__(self, name: str, /) -> Any:
        """A column."""
        ...


def request_of(row: Row) -> Request:
    """What the caller of a stored notification asked for.

    Args:
        row: with `type`, `priority`, `channels`, `send_email`, `send_at`, `expires_at`, `data`.
    """
    channels = row["channels"]
    return Request(
        type=NotificationType(row["type"]),
        priority=Priority(row["priority"]),
        channels=None if channels is None else frozenset(map(Channel, channels)),
        send_email=row["send_email"],
        send_at=row["send_at"],
        expires_at=row["expires_at"],
        silent=row["data"].get("silent") is True,
    )


class Audience:
    """Knows users as recipients.

    Args:
        defaults: what holds for users who chose nothing.
    """

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self._choices = ChoicesCache()

    async def lock(self, driver: Driver, drafts: Sequence[Draft]) -> dict[UUID, Target]:
        """Each user of the drafts who has an inbox, which is locked.

        Args:
            driver: a transaction as the service role.
        """
        return await self._targets(driver, drafts, LOCK_RECIPIENTS, HOLD_DEVICES)

    async def look(self, driver: Driver, draft: Draft) -> Target | None:
        """The user of a draft, without locking anything; None if there is no such user.

        Args:
            driver: a transaction as the service role.
        """
        found = await self._targets(driver, [draft], READ_KNOWN, READ_DEVICES)
        return found.get(draft.user_id)

    async def look_at_oneself(self, driver: Driver, draft: Draft) -> Target:
        """The user of a draft as they see themselves; one never seen before has nothing.

        Args:
            driver: a transaction as that user.
        """
        found = await self._targets(driver, [draft], READ_ONESELF, READ_DEVICES)
        return found[draft.user_id]

    async def profiles(
        self, driver: Driver, rows: Iterable[Mapping[str, Any]]
    ) -> dict[UUID, Profile]:
        """The users of rows.

        Args:
            rows: with `user_id`, `choices_version`, `has_address`, `is_suppressed`, `timezone`,
                `quiet_hours` and `pause_until`, as they were read in the driver's transaction.
        """
        rows = list(rows)
        choices = await self._choices.read(
            driver, {row["user_id"]: row["choices_version"] for row in rows}
        )
        return {
            row["user_id"]: Profile(
                basis=Recipient(
                    has_address=row["has_address"],
                    has_device=False,
                    is_suppressed=row["is_suppressed"],
                    timezone=timezone_of(row["timezone"], self.defaults.timezone),
                    configured=self.defaults.configured,
                    schedule=None
                    if row["quiet_hours"] is None
                    else schedule_of(row["quiet_hours"]),
                    pause_until=row["pause_until"],
                ),
                choices=choices[row["user_id"]],
                choices_version=row["choices_version"],
                defaults=self.defaults,
            )
            for row in rows
        }

    async def _targets(
        self, driver: Driver, drafts: Sequence[Draft], users: str, devices: str
    ) -> dict[UUID, Target]:
        wanted = Counter(draft.user_id for draft in drafts)
        rows = await driver.fetch(users, sorted(wanted))
        profiles = await self.profiles(driver, rows)
        owned: dict[UUID, dict[UUID, DeviceKind]] = {row["user_id"]: {} for row in rows}
        if having := [row["user_id"] for row in rows if row["has_device"]]:
            found = await driver.fetch(devices, having)
            for device in sorted(found, key=lambda row: (row["created_at"], row["id"])):
                owned[device["user_id"]][device["id"]] = DeviceKind(device["kind"])
        lines = await self._lines(driver, rows, drafts)
        return {
            row["user_id"]: Target(
                profiles[row["user_id"]],
                inbox_of(row),
                owned[row["user_id"]],
                lines.get((row["user_id"], Channel.IN_APP)) or Line(),
            )
            for row in rows
        }

    async def _lines(
        self, driver: Driver, rows: Sequence[Mapping[str, Any]], drafts: Sequence[Draft]
    ) -> dict[UserChannel, Line]:
        """What inboxes have shown of late."""
        # One that has hardly ever changed cannot have shown too much.
        room = self.defaults.limits[Channel.IN_APP].most - len(drafts)
        busy = [(row["user_id"], Channel.IN_APP) for row in rows if row["seq"] > room]
        now = min(draft.created_at for draft in drafts)
        return await read_lines(driver, busy, self.defaults.limits, now)


def timezone_of(name: str | None, default: ZoneInfo) -> ZoneInfo:
    """A user's timezone, by the name that is stored of it."""
    # A zone that this machine does not know must not stop the user's notifications.
    try:
        return ZoneInfo(name) if name else default
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return default
