"""Creating notifications one at a time (REQ-003)."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.errors import ValidationFailed
from app.pipeline.commit import GroupCommit
from app.pipeline.deliver import Clock
from app.pipeline.draft import Draft
from app.pipeline.idempotency import Attempt, fingerprint_of
from app.pipeline.receipt import Receipt
from app.policy.kinds import Channel, NotificationType, Priority
from app.schemas.notification import CreateNotification, NotificationContent
from app.services.wording import Wording

TEST_SERVICE = "notify"
TEST_NOTIFICATION = {
    "type": NotificationType.SYSTEM,
    "priority": Priority.HIGH,
    "title": "Test notification",
    "body": "Notifications reach this device.",
    "channels": [Channel.PUSH],
}


class NotificationService:
    """Takes notifications in.

    Args:
        groups: stores them.
        wording: says what they say.
        clock: the present instant.
    """

    def __init__(self, groups: GroupCommit, wording: Wording, clock: Clock) -> None:
        self._groups = groups
        self._wording = wording
        self._clock = clock

    async def create(
        self,
        service: str,
        wanted: CreateNotification,
        key: str | None = None,
        *,
        only_device: UUID | None = None,
    ) -> Receipt:
        """Store one notification and everything decided about it.

        Args:
            service: name of the caller.
            key: the idempotency key beside the body; the body may hold it too.
            only_device: a device of the user's, the only one that pushes go to.

        Returns:
            What was stored, now or by the first call with the same key; it will reach its
            channels, or end with a reason.

        Raises:
            ValidationFailed: it has expired already, or there are no words for it.
            IdempotencyConflict: the key was used for another request.
            UnknownUser: no such user.
            QueueFull: too much waits already, and it is not critical.
            Unavailable: PostgreSQL is away, the inbox stayed locked, or templates cannot be
                rendered.
        """
        now = self._clock()
        notification_id = uuid7()
        attempt = attempt_of(service, wanted, key, notification_id, now)
        try:
            request, content = await self._wording.of(wanted)
        except ValidationFailed:
            # Its template may have been another one when the call was made first.
            earlier = None if attempt is None else await self._groups.earlier(attempt)
            if earlier is None:
                raise
            return earlier
        return await self._groups.store(
            Draft(
                id=notification_id,
                user_id=wanted.user_id,
                service=service,
                request=request,
                content=content,
                created_at=now,
                attempt=attempt,
                only_device=only_device,
            )
        )

    async def send_test(self, user_id: UUID, device_id: UUID) -> Receipt:
        """Store a notification with which a user tries one of their devices.

        Raises:
            QueueFull: too much waits already.
            Unavailable: PostgreSQL is away, or the inbox stayed locked.
        """
        wanted = CreateNotification.model_validate({**TEST_NOTIFICATION, "user_id": user_id})
        return await self.create(TEST_SERVICE, wanted, only_device=device_id)


def attempt_of(
    service: str, wanted: NotificationContent, key: str | None, owner_id: UUID, now: datetime
) -> Attempt | None:
    """The call's idempotency key, with what it is to protect.

    Args:
        key: from the call's header.
        owner_id: id of what the call would create.

    Raises:
        ValidationFailed: header and body have different keys.
    """
    if key is not None and wanted.idempotency_key not in {None, key}:
        raise ValidationFailed(
            details=[
                {
                    "path": "idempotency_key",
                    "code": "differs_from_header",
                    "message": "must be the same as the Idempotency-Key header",
                }
            ]
        )
    key = key or wanted.idempotency_key
    if key is None:
        return None
    return Attempt(service, key, fingerprint_of(wanted), owner_id, now)
