"""Browsers that can be pushed to, and the messages that wait for them (RFC 8030)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from secrets import token_bytes
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import BaseModel

from app.sandbox.ledger import Device, Entry, Ledger, Message
from app.sandbox.mailbox import Clock
from app.sandbox.push.base64url import decoded, encoded

MAX_TTL = timedelta(days=28)

_POINT = (Encoding.X962, PublicFormat.UncompressedPoint)


class Browser(Device):
    """A browser's subscription: its keys, and the sender's key it was made for, if any."""

    private_key: str
    auth: str
    application_server_key: str | None

    @property
    def p256dh(self) -> str:
        """Its public key for senders."""
        return encoded(self.key.public_key().public_bytes(*_POINT))

    @property
    def key(self) -> EllipticCurvePrivateKey:
        """Its private key."""
        return _private_key(self.private_key)


class SentHeaders(BaseModel):
    """The request's own words; null where it had none."""

    TTL: str
    Urgency: str | None
    Topic: str | None


class SentBy(BaseModel):
    """The VAPID key and claims a message came with."""

    key: str
    claims: Mapping[str, Any]


class PushMessage(Message):
    """A message as the browser reads it.

    `state` is `waiting`, until it is `fetched`, `replaced` by one of its topic, or `expired`.
    `device` is the last part of the endpoint, `size` that of the encrypted body in bytes;
    `payload` is the JSON value, or the text where it is none.
    """

    endpoint: str
    headers: SentHeaders
    vapid: SentBy
    payload: Any
    size: int
    expires_at: datetime


class Browsers:
    """The push service's books.

    Args:
        path: their journal.
        clock: tells the time of arrivals and expiries.

    Raises:
        JournalInUse: another sandbox has them open.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.ledger = Ledger(path, Browser, PushMessage)
        self._clock = clock

    def subscribe(self, name: str, application_server_key: str | None) -> tuple[Browser, bool]:
        """The browser of this name, and whether it subscribed anew.

        It does when it is unknown, or another application server's key is given than before.
        """
        known = self.ledger.device(name)
        if known is not None and application_server_key in {None, known.application_server_key}:
            return known, False
        browser = Browser(
            name=name,
            address=encoded(token_bytes(16)),
            created_at=self._clock(),
            private_key=_new_private_key(),
            auth=encoded(token_bytes(16)),
            application_server_key=application_server_key,
        )
        self.ledger.put(browser)
        return browser, True

    def accept(
        self,
        browser: Browser,
        *,
        endpoint: str,
        headers: SentHeaders,
        vapid: SentBy,
        payload: object,
        size: int,
        keep: bool = True,
    ) -> PushMessage:
        """Take a message; it replaces those of its topic that the browser has not fetched yet.

        Args:
            keep: false loses it instead.
        """
        at = self._clock()
        message = PushMessage(
            id=str(uuid4()),
            device=browser.address,
            device_name=browser.name,
            at=at,
            state="waiting",
            topic=headers.Topic,
            endpoint=endpoint,
            headers=headers,
            vapid=vapid,
            payload=payload,
            size=size,
            expires_at=at + min(timedelta(seconds=int(headers.TTL)), MAX_TTL),
        )
        if keep:
            self.ledger.mark(self._outdated_by(message), "replaced")
            self.ledger.add(message)
        return message

    def fetch(self, browser: Browser) -> Sequence[PushMessage]:
        """The browser comes online: what waits for it, oldest first, is fetched."""
        waiting = [
            message
            for entry in self.ledger.entries()
            if entry.device == browser.address and (message := self.read(entry)).state == "waiting"
        ]
        self.ledger.mark([message.id for message in waiting], "fetched")
        return [message.model_copy(update={"state": "fetched"}) for message in waiting]

    def find(self, message_id: str) -> PushMessage | None:
        """The message with this id."""
        message = self.ledger.find(message_id)
        return None if message is None else self._at_present(message)

    def read(self, entry: Entry) -> PushMessage:
        """The whole message behind an entry."""
        return self._at_present(self.ledger.read(entry))

    def _at_present(self, message: PushMessage) -> PushMessage:
        if message.state == "waiting" and message.expires_at <= self._clock():
            return message.model_copy(update={"state": "expired"})
        return message

    def _outdated_by(self, message: PushMessage) -> Sequence[str]:
        if message.topic is None:
            return []
        return [
            entry.id
            for entry in self.ledger.entries()
            if (entry.device, entry.topic, entry.state)
            == (message.device, message.topic, "waiting")
        ]


def _new_private_key() -> str:
    scalar = generate_private_key(SECP256R1()).private_numbers().private_value
    return encoded(scalar.to_bytes(32, "big"))


@lru_cache(maxsize=1024)
def _private_key(scalar: str) -> EllipticCurvePrivateKey:
    return derive_private_key(int.from_bytes(decoded(scalar), "big"), SECP256R1())
