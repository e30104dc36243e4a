"""What would happen to a notification, without storing it (REQ-002, REQ-017).

Everything is as in storing one but the locks and the writing: the same reading of the call, the
same view of the user, the same run of the policy.
"""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.db.database import Database, driver_of
from app.errors import UnknownUser
from app.pipeline.decide import Audience, Run
from app.pipeline.deliver import Clock
from app.pipeline.draft import Content, Draft, already_expired
from app.policy.routing import Decision, Request
from app.schemas.explain import ExplainedChannel, Explanation, PreviewPreferences
from app.schemas.notification import CreateNotification
from app.services.wording import Wording, policy_request

EXPLAINER = "explain"
WORDLESS = Content(title="", body="", body_html="", data={})


class ExplainService:
    """Explains; everything raises `Unavailable` while PostgreSQL cannot be reached.

    Args:
        audience: knows the users.
        wording: says what notifications say.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, audience: Audience, wording: Wording, clock: Clock
    ) -> None:
        self._database = database
        self._audience = audience
        self._wording = wording
        self._clock = clock

    async def explain(self, wanted: CreateNotification) -> Explanation:
        """What creating this notification would decide now; its idempotency key is ignored.

        Raises:
            ValidationFailed: it has expired already, or there are no words for it.
            UnknownUser: no such user.
        """
        now = self._clock()
        draft = _draft(wanted.user_id, *await self._wording.of(wanted), now)
        async with self._database.as_service() as connection:
            target = await self._audience.look(await driver_of(connection), draft)
        if target is None:
            raise UnknownUser
        return _explanation(target.narrowed(draft).decide(draft))

    async def preview(self, user_id: UUID, wanted: PreviewPreferences) -> Explanation:
        """What would be decided now for the user who asks; read with no more rights than theirs.

        Raises:
            ValidationFailed: it has expired already.
        """
        draft = _draft(user_id, policy_request(wanted), WORDLESS, self._clock())
        async with self._database.as_user(user_id) as connection:
            target = await self._audience.look_at_oneself(await driver_of(connection), draft)
        return _explanation(target.narrowed(draft).decide(draft))


def _draft(user_id: UUID, request: Request, content: Content, now: datetime) -> Draft:
    draft = Draft(uuid7(), user_id, EXPLAINER, request, content, created_at=now)
    if draft.is_expired:
        raise already_expired()
    return draft


def _explanation(run: Run) -> Explanation:
    return Explanation(channels=[_explained(decision) for decision in run.decisions])


def _explained(decision: Decision) -> ExplainedChannel:
    return ExplainedChannel(
        channel=decision.channel,
        action=decision.action,
        reason=decision.reason,
        until=decision.until,
    )
