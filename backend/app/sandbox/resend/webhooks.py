"""Resend's webhooks, signed and repeated as Svix does it (https://docs.svix.com/receiving).

A webhook is posted until it is answered 2xx, under one id and with a signature of its own each
time. Nothing waits for them: mails are accepted at the same speed whether or not anybody listens.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count, islice
from typing import Any, Literal
from uuid import uuid4

import httpx
import orjson

from app.sandbox.faults import DelayFault, DuplicateFault, Faults, LoseFault
from app.sandbox.mailbox import Clock, Mail, bare_address
from app.sandbox.resend.events import EventType, event_body, fates
from app.security.authorities import public_authorities

# Svix goes on for more than a day, which nobody at a sandbox waits for.
PAUSES = (1.0, 5.0, 30.0, 120.0)
SECONDS_TO_DELIVERY = 0.3
SECONDS_TO_COMPLAINT = 0.3
ANSWER_SECONDS = 15.0
MAX_KEPT = 20_000
MAX_WAITING = 10_000
MAX_AT_ONCE = 4

State = Literal["waiting", "accepted", "refused", "lost", "dropped"]
Signature = Literal["valid", "wrong", "missing"]


@dataclass(slots=True)
class Attempt:
    """One post of a webhook: the status it was answered, or what went wrong."""

    at: datetime
    status: int | None
    error: str | None


@dataclass(slots=True)
class Webhook:
    """An event on its way.

    `state` is `accepted` once it was answered 2xx, `refused` when nobody did in all attempts,
    `lost` when a fault lost it, and `dropped` when too many were waiting.
    """

    id: str
    mail_id: str
    type: EventType
    body: bytes
    created_at: datetime
    signature: Signature = "valid"
    seconds_ahead: int = 0
    state: State = "waiting"
    failures: int = 0
    attempts: list[Attempt] = field(default_factory=list[Attempt])


class Webhooks:
    """Posts what becomes of mails, in the background, while `run` does.

    Args:
        address: where they go; None sends none, and keeps none.
        secret: what they are signed with (`whsec_` and base64).
        faults: the rules for provider `webhook`.
        clock: tells when events happen; signatures carry the real time.
        pauses: seconds between attempts.
    """

    def __init__(
        self,
        address: str | None,
        secret: str,
        faults: Faults,
        clock: Clock,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.address = address
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._faults = faults
        self._clock = clock
        self._pauses = tuple(pauses)
        self._kept: dict[str, Webhook] = {}
        self._of_mail: dict[str, deque[Webhook]] = {}
        self._due: list[tuple[float, int, Webhook]] = []
        self._order = count()
        self._wake = asyncio.Event()
        self.version = 0

    def accepted(self, mails: Sequence[Mail]) -> None:
        """Tell what becomes of mails that were just accepted."""
        if self.address is None:
            return
        for mail in mails:
            self.tell(mail, "sent")
            after = SECONDS_TO_DELIVERY
            for event, recipients in fates(mail):
                later = after + (SECONDS_TO_COMPLAINT if event == "complained" else 0)
                self.tell(mail, event, to=recipients, after=later)

    def tell(
        self,
        mail: Mail,
        event: EventType,
        *,
        after: float = 0,
        webhook_id: str | None = None,
        signature: Signature = "valid",
        seconds_ahead: int = 0,
        at: datetime | None = None,
        to: list[str] | None = None,
        **details: Any,
    ) -> Webhook:
        """Post an event.

        Args:
            after: seconds until it is posted, where no fault delays it further.
            webhook_id: `svix-id`; a new one by default.
            signature: what it is signed like.
            seconds_ahead: how far `svix-timestamp` is in the future, or in the past.
            at: when the event happened; by default when it is due.
            to: the recipients it is about; all by default.
            details: for `event_body`.
        """
        happened = at or self._clock() + timedelta(seconds=after)
        body = event_body(event, mail, at=happened, to=to or mail.to, **details)
        webhook = Webhook(
            id=webhook_id or f"msg_{uuid4().hex}",
            mail_id=mail.id,
            type=event,
            body=orjson.dumps(body),
            created_at=happened,
            signature=signature,
            seconds_ahead=seconds_ahead,
        )
        self._keep(webhook)
        self._obey_faults(webhook, mail, after)
        return webhook

    def repeat(self, webhook: Webhook) -> None:
        """Post a webhook again, under the same id and with the same body."""
        webhook.state, webhook.failures = "waiting", 0
        self._schedule(webhook, 0)
        self.version += 1

    def find(self, webhook_id: str) -> Webhook | None:
        """The newest webhook of this id."""
        return self._kept.get(webhook_id)

    def of_mail(self, mail_id: str) -> list[Webhook]:
        """The webhooks about a mail, in the order they were made."""
        return list(self._of_mail.get(mail_id, ()))

    def newest(self, limit: int) -> list[Webhook]:
        """The newest webhooks, newest first."""
        return list(islice(reversed(self._kept.values()), limit))

    def last_event(self, mail_id: str) -> EventType | None:
        """What happened to a mail last, of what is told."""
        now = self._clock()
        past = [told for told in self._of_mail.get(mail_id, ()) if told.created_at <= now]
        return max(past, key=lambda told: told.created_at).type if past else None

    def forget(self) -> None:
        """Forget all webhooks; those that were waiting are never posted."""
        self._kept.clear()
        self._of_mail.clear()
        self._due.clear()
        self.version += 1

    async def run(self) -> None:
        """Post what is due until cancelled."""
        if self.address is None:
            return
        free = asyncio.Semaphore(MAX_AT_ONCE)
        async with (
            httpx.AsyncClient(
                verify=public_authorities(), timeout=ANSWER_SECONDS, trust_env=False
            ) as client,
            asyncio.TaskGroup() as posting,
        ):
            while True:
                webhook = await self._next_due()
                await free.acquire()
                task = posting.create_task(self._post(client, webhook))
                task.add_done_callback(lambda _task: free.release())

    async def _next_due(self) -> Webhook:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            wait = self._due[0][0] - loop.time() if self._due else None
            if wait is not None and wait <= 0:
                return heappop(self._due)[2]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _post(self, client: httpx.AsyncClient, webhook: Webhook) -> None:
        status, error = None, None
        try:
            answer = await client.post(
                self.address or "", content=webhook.body, headers=self._headers(webhook)
            )
            status = answer.status_code
        except httpx.HTTPError as failure:
            error = type(failure).__name__
        webhook.attempts.append(Attempt(self._clock(), status, error))
        if status is not None and 200 <= status < 300:  # noqa: PLR2004 -- success in HTTP
            webhook.state = "accepted"
        elif webhook.failures < len(self._pauses):
            self._schedule(webhook, self._pauses[webhook.failures])
            webhook.failures += 1
        else:
            webhook.state = "refused"
        self.version += 1

    def _headers(self, webhook: Webhook) -> dict[str, str]:
        timestamp = str(int(time.time()) + webhook.seconds_ahead)
        signed = f"{webhook.id}.{timestamp}.".encode() + webhook.body
        key = self._key if webhook.signature == "valid" else b"somebody else's"
        signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        headers = {
            "content-type": "application/json",
            "user-agent": "Svix-Webhooks/sandbox",
            "svix-id": webhook.id,
            "svix-timestamp": timestamp,
        }
        if webhook.signature != "missing":
            headers["svix-signature"] = f"v1,{signature}"
        return headers

    def _obey_faults(self, webhook: Webhook, mail: Mail, after: float) -> None:
        recipients = {bare_address(recipient) for recipient in mail.to}
        match self._faults.next("webhook", {f"email.{webhook.type}", webhook.type, *recipients}):
            case LoseFault():
                webhook.state = "lost"
            case DelayFault(seconds=seconds):
                self._schedule(webhook, after + seconds)
            case DuplicateFault():
                self._schedule(webhook, after)
                self._schedule(webhook, after)
            case _:
                self._schedule(webhook, after)

    def _schedule(self, webhook: Webhook, after: float) -> None:
        if len(self._due) >= MAX_WAITING:
            webhook.state = "dropped"
            return
        due = asyncio.get_running_loop().time() + after
        heappush(self._due, (due, next(self._order), webhook))
        self._wake.set()

    def _keep(self, webhook: Webhook) -> None:
        self._kept.pop(webhook.id, None)
        self._kept[webhook.id] = webhook
        self._of_mail.setdefault(webhook.mail_id, deque(maxlen=100)).append(webhook)
        while len(self._kept) > MAX_KEPT:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._of_mail.pop(oldest.mail_id, None)
        self.version += 1
