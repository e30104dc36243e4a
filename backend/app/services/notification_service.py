"""Creating notifications one at a time (REQ-003)."""

from datetime import datetime
from typing import cast
from uuid import UUID

from uuid_utils.compat import uuid7

from app.errors import ValidationFailed
from app.pipeline.commit import GroupCommit
from app.pipeline.deliver import Clock
from app.pipeline.draft import Content, Draft
from app.pipeline.idempotency import Attempt, fingerprint_of
from app.pipeline.receipt import Receipt
from app.policy.kinds import Channel, NotificationType, Priority
from app.policy.routing import Request
from app.schemas.base import MAX_TITLE, JsonObject
from app.schemas.notification import (
    CreateNotification,
    DeliveryWishes,
    NotificationContent,
)
from app.security.redact import redact
from app.security.sanitize import TooComplex, safe_html

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
        clock: the present instant.
    """

    def __init__(self, groups: GroupCommit, clock: Clock) -> None:
        self._groups = groups
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
            ValidationFailed: it has expired already, or its body is too complex.
            IdempotencyConflict: the key was used for another request.
            UnknownUser: no such user.
            QueueFull: too much waits already, and it is not critical.
            Unavailable: PostgreSQL is away, or the inbox stayed locked.
        """
        now = self._clock()
        notification_id = uuid7()
        return await self._groups.store(
            Draft(
                id=notification_id,
                user_id=wanted.user_id,
                service=service,
                request=policy_request(wanted),
                content=sanitised(wanted),
                created_at=now,
                attempt=attempt_of(service, wanted, key, notification_id, now),
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


def policy_request(wanted: DeliveryWishes) -> Request:
    """What the policy needs to know of a call."""
    return Request(
        type=wanted.type,
        priority=wanted.priority,
        channels=None if wanted.channels is None else frozenset(wanted.channels),
        send_email=wanted.send_email,
        send_at=wanted.send_at,
        expires_at=wanted.expires_at,
        silent=wanted.data.get("silent") is True,
    )


def sanitised(wanted: NotificationContent) -> Content:
    """Texts and data of a call as they are stored: without secrets, the body as safe HTML too.

    Raises:
        ValidationFailed: the body is too complex.
    """
    said: JsonObject = {
        "title": wanted.title,
        "body": wanted.body,
        "data": wanted.data,
        "variables": wanted.variables,
    }
    said, masked = redact(said)
    body = cast("str", said["body"])
    try:
        html = safe_html(body)
    except TooComplex as error:
        raise ValidationFailed(
            details=[{"path": "body", "code": "too_complex", "message": str(error)}]
        ) from None
    return Content(
        title=cast("str", said["title"])[:MAX_TITLE],  # a mask may be longer than its secret
        body=body,
        body_html=html,
        data=cast("JsonObject", said["data"]),
        template_id=wanted.template_id,
        variables=cast("JsonObject", said["variables"]),
        locale=wanted.locale,
        masked=masked,
    )
