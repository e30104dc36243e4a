"""Phones with an app on them, and the messages FCM took for them."""

from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Literal
from uuid import uuid4

from app.sandbox.ledger import Device, Ledger, Message
from app.sandbox.mailbox import Clock

Platform = Literal["android", "ios"]


class Phone(Device):
    """A phone; its address is the app's registration token."""

    platform: Platform


class FcmMessage(Message):
    """A message FCM took.

    `device` is the token, `name` what FCM calls the message, `message` what was sent, whole.
    `state` is `arrived`, or `validated` where `validate_only` asked for no more.
    """

    name: str
    platform: Platform
    validate_only: bool
    message: Mapping[str, Any]


class Phones:
    """FCM's books.

    Args:
        path: their journal.
        clock: tells the time of arrivals.

    Raises:
        JournalInUse: another sandbox has them open.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.ledger = Ledger(path, Phone, FcmMessage)
        self._clock = clock

    def install(self, name: str, platform: Platform) -> tuple[Phone, bool]:
        """The phone of this name, and whether the app was installed anew.

        It is on a phone that is unknown, or was of another platform.
        """
        known = self.ledger.device(name)
        if known is not None and known.platform == platform:
            return known, False
        token = f"{token_urlsafe(16)}:APA91b{token_urlsafe(96)}"
        phone = Phone(name=name, address=token, created_at=self._clock(), platform=platform)
        self.ledger.put(phone)
        return phone, True

    def accept(
        self, phone: Phone, message: Mapping[str, Any], *, name: str, validate_only: bool
    ) -> None:
        """Take a message for a phone, or note that it was only checked."""
        self.ledger.add(
            FcmMessage(
                id=str(uuid4()),
                device=phone.address,
                device_name=phone.name,
                at=self._clock(),
                state="validated" if validate_only else "arrived",
                name=name,
                platform=phone.platform,
                validate_only=validate_only,
                message=message,
            )
        )
