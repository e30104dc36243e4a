"""Pushes and emails are decided once more when they are claimed (REQ-019, REQ-022).

Since they were created it may have become night, the user may have read them, chosen otherwise, or
have got enough. The policy is the same as before; what it saw and said is recorded for the trace.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from app.channels.base import Claim, Digested, Held, Outcome, Skipped
from app.db.database import Database
from app.pipeline.decide import Audience, Profile, Run, run_policy
from app.pipeline.summary import Summariser
from app.pipeline.suppression import IS_SUPPRESSED
from app.policy.kinds import Action, Channel, Reason
from app.policy.routing import Recipient, is_limited
from app.ratelimit.lines import Line, UserChannel, read_lines
from app.ratelimit.user_limits import Ask, UserLimits

READ_PROFILES = f"""
    SELECT i.user_id, i.choices_version, r.email IS NOT NULL AS has_address,
           {IS_SUPPRESSED} AS is_suppressed, r.timezone, r.quiet_hours, r.pause_until
    FROM inbox_state i LEFT JOIN notification_recipients r ON r.user_id = i.user_id
    WHERE i.user_id = ANY($1::uuid[])
"""  # noqa: S608 -- composed of a constant


@dataclass(frozen=True, slots=True)
class Reconsidered:
    """A claim, and what the policy says of it now.

    Args:
        claim: as it is to be sent.
        choices_version: of the choices that the run saw.
        run: the policy's run, with one decision.
        settled: what becomes of it instead, whatever the policy says.
    """

    claim: Claim
    choices_version: int
    run: Run
    settled: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What becomes of the claim without sending it; None when it is to be sent."""
        if self.settled is not None:
            return self.settled
        (decision,) = self.run.decisions
        if decision.action is Action.SEND:
            return None
        if decision.action is Action.SKIP or decision.until is None:
            return Skipped(decision.reason)
        if decision.action is Action.DIGEST:
            return Digested(decision.reason, decision.until)
        is_chosen = decision.reason is Reason.QUIET_HOURS
        return Held(decision.reason, decision.until, self.choices_version if is_chosen else None)


class Reconsiderer:
    """Runs the policy over claims.

    Args:
        audience: knows the users.
        limits: says who may get one more.
    """

    def __init__(self, database: Database, audience: Audience, limits: UserLimits) -> None:
        self._database = database
        self._audience = audience
        self._limits = limits
        self._summariser = Summariser(database)

    async def reconsider(self, claims: Sequence[Claim], now: datetime) -> list[Reconsidered]:
        """Decide claims of pushes and emails; those of users who are gone are left out.

        What is left to be sent is counted against its user's limit.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        if not claims:
            return []
        profiles, lines = await self._read(claims, now)
        found = [
            _decided(claim, profiles[claim.user_id], now)
            for claim in claims
            if claim.user_id in profiles
        ]
        ready = [item.claim for item in found if item.outcome is None]
        summarised = await self._summariser.summarise(ready, profiles, now)
        found = [_summed_up(item, summarised.get(item.claim.id), profiles, now) for item in found]
        asks = _asks(found)
        admitted = await self._limits.admit([*asks.values()], lines, now) if asks else {}
        return [
            item
            if (ask := asks.get(_key(item.claim))) is None or item.claim.id not in ask.delivery_ids
            else _limited(item, admitted[ask], now)
            for item in found
        ]

    async def _read(
        self, claims: Sequence[Claim], now: datetime
    ) -> tuple[dict[UUID, Profile], dict[UserChannel, Line]]:
        users = sorted({claim.user_id for claim in claims})
        wanted = ((c.user_id, c.channel) for c in claims if is_limited(c.request))
        async with self._database.group_as_service() as driver:
            rows = await driver.fetch(READ_PROFILES, users)
            profiles = await self._audience.profiles(driver, rows)
            lines = await read_lines(driver, wanted, self._audience.defaults.limits, now)
        return profiles, lines


def _recipient(claim: Claim, profile: Profile) -> Recipient:
    kinds = () if claim.device is None else (claim.device.kind,)
    return replace(
        profile.recipient(claim.request.type, kinds),
        has_address=claim.email is not None,
        has_read=claim.has_read,
    )


def _decided(claim: Claim, profile: Profile, now: datetime) -> Reconsidered:
    run = run_policy(claim.request, _recipient(claim, profile), now, (claim.channel,))
    return Reconsidered(claim, profile.choices_version, run)


def _summed_up(
    item: Reconsidered,
    result: Claim | Outcome | None,
    profiles: Mapping[UUID, Profile],
    now: datetime,
) -> Reconsidered:
    if result is None:
        return item
    if isinstance(result, Claim):  # it may have been read since it was claimed
        return _decided(result, profiles[result.user_id], now)
    return replace(item, settled=result)


def _asks(found: Iterable[Reconsidered]) -> dict[tuple[UUID, Channel], Ask]:
    """What is to go out and is limited, those first that were created first."""
    deliveries: dict[tuple[UUID, Channel], list[Claim]] = defaultdict(list)
    for item in found:
        if item.outcome is None and is_limited(item.claim.request):
            deliveries[_key(item.claim)].append(item.claim)
    return {
        key: Ask(of[0].user_id, of[0].channel, of[0].notification_id, tuple(c.id for c in of))
        for key, of in sorted(deliveries.items())
    }


def _limited(item: Reconsidered, frees_at: datetime | None, now: datetime) -> Reconsidered:
    if frees_at is None:
        return replace(item, claim=replace(item.claim, counted_at=now))
    recipient = replace(item.run.recipient, frees_at={item.claim.channel: frees_at})
    run = run_policy(item.claim.request, recipient, now, (item.claim.channel,))
    return replace(item, run=run)


def _key(claim: Claim) -> tuple[UUID, Channel]:
    return claim.notification_id, claim.channel
