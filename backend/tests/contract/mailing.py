"""Emails as the API's tests need them: sent already, and what their provider posts about them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

from app.security.email_tokens import EmailTokens
from app.security.webhooks import signed_headers
from tests.contract.callers import V1, Api, Json

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SENT = NOW - timedelta(hours=1)
WEBHOOK = f"{V1}/webhooks/resend"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/16.1 Safari/605.1.15"
)


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Post:
    """Resend, as far as it reports."""

    api: Api
    clock: Clock
    secret: str = SECRET

    async def deliver(
        self,
        kind: str,
        data: Json | None = None,
        *,
        id_: str | None = None,
        skew: int = 0,
        at: datetime | None = None,
    ) -> httpx.Response:
        """Post an event.

        Args:
            id_: the message's; default: a new one.
            skew: seconds that its clock goes ahead.
            at: when it happened; default: now.
        """
        event = {
            "type": kind,
            "created_at": (at or self.clock()).isoformat(),
            "data": {"email_id": str(uuid4()), **(data or {})},
        }
        return await self.raw(json.dumps(event).encode(), id_=id_, skew=skew)

    async def raw(
        self, body: bytes, *, id_: str | None = None, skew: int = 0, family: str = "svix"
    ) -> httpx.Response:
        """Post a body, signed."""
        at = int(self.clock().timestamp()) + skew
        signed = signed_headers(self.secret, id_ or f"msg_{uuid4().hex}", at, body)
        headers = {name.replace("webhook", family): value for name, value in signed.items()}
        return await self.api.client.post(
            WEBHOOK, content=body, headers={"Content-Type": "application/json", **headers}
        )


@dataclass
class Mail:
    """An email that went out, of a notification or of a digest's."""

    post: Post
    user: UUID
    address: str
    notifications: list[UUID]
    letter: UUID
    provider_id: str
    digest: bool = False
    told: list[httpx.Response] = field(default_factory=list[httpx.Response])

    @property
    def api(self) -> Api:
        return self.post.api

    @property
    def tokens(self) -> EmailTokens:
        return EmailTokens(self.api.settings.encryption_keys)

    @property
    def data(self) -> Json:
        name = "digest_id" if self.digest else "notification_id"
        value = self.letter if self.digest else self.notifications[0]
        return {
            "email_id": self.provider_id,
            "to": [self.address],
            "subject": "New Task Assigned",
            "tags": [{"name": name, "value": str(value)}],
        }

    async def report(self, kind: str, at: datetime | None = None, **data: Any) -> None:
        """Let the provider report of it."""
        answer = await self.post.deliver(kind, {**self.data, **data}, at=at)
        assert answer.status_code == 200, answer.text

    async def bounce(self, kind: str = "Permanent", at: datetime | None = None) -> None:
        said = {"type": kind, "subType": "General", "message": f"{self.address}: no such user"}
        await self.report("email.bounced", at, bounce=said)

    async def state(self) -> list[str]:
        """The states of its deliveries, and of its digest."""
        rows = await self.api.rows(
            "SELECT status FROM notification_deliveries"
            " WHERE channel = 'email' AND notification_id = ANY(CAST(:ids AS uuid[]))",
            ids=self.notifications,
        )
        if self.digest:
            rows = [
                *rows,
                *await self.api.rows(
                    "SELECT status FROM email_digests WHERE id = :id", id=self.letter
                ),
            ]
        return sorted({row.status for row in rows})

    async def events(self, notification: UUID | None = None) -> list[tuple[str, Json]]:
        """What was reported of it, in the trace."""
        trace = await self.api.read(self.user, f"/{notification or self.notifications[0]}/trace")
        return [
            (event["event"], event["detail"])
            for event in trace["events"]
            if event["channel"] == "email" and event["event"] != "digested"
        ]

    async def suppression(self) -> Any:
        """Why its address is suppressed, None if it is not."""
        rows = await self.api.rows(
            "SELECT reason FROM email_suppressions"
            " WHERE address_digest = sha256(convert_to(lower(:address), 'UTF8'))"
            " AND suppressed_at IS NOT NULL",
            address=self.address,
        )
        return rows[0].reason if rows else None


async def instant(
    post: Post, *, user: UUID | None = None, address: str | None = None, **fields: Any
) -> Mail:
    """A notification whose email was sent an hour ago."""
    address = address or f"Ada.{uuid4().hex}@Example.com"
    user = user or await post.api.new_user(email=address)
    created = await post.api.create(user, send_email=True, **fields)
    provider_id = str(uuid4())
    (row,) = await post.api.rows(
        "UPDATE notification_deliveries SET status = 'sent', sent_at = CAST(:at AS timestamptz),"
        " provider_id = :provider_id, next_attempt_at = NULL"
        " WHERE notification_id = :id AND channel = 'email' RETURNING id",
        id=created["id"],
        at=SENT,
        provider_id=provider_id,
    )
    return Mail(post, user, address, [UUID(created["id"])], row.id, provider_id)


async def digest(post: Post, count: int = 2) -> Mail:
    """A digest of several notifications that was sent an hour ago."""
    address = f"ada.{uuid4().hex}@example.com"
    user = await post.api.new_user(email=address)
    ids = [UUID((await post.api.create(user))["id"]) for _ in range(count)]
    provider_id = str(uuid4())
    await post.api.rows(
        "UPDATE notification_deliveries SET status = 'sent', sent_at = CAST(:at AS timestamptz),"
        " reason = 'digest', next_attempt_at = NULL"
        " WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND channel = 'email' RETURNING id",
        ids=ids,
        at=SENT,
    )
    (row,) = await post.api.rows(
        "INSERT INTO email_digests (user_id, frequency, scheduled_for, status, sent_at,"
        " notification_ids, provider_id) VALUES (CAST(:user AS uuid), 'daily',"
        " CAST(:at AS timestamptz), 'sent', CAST(:at AS timestamptz), CAST(:ids AS uuid[]),"
        " :provider_id) RETURNING id",
        user=user,
        at=SENT,
        ids=ids,
        provider_id=provider_id,
    )
    return Mail(post, user, address, ids, row.id, provider_id, digest=True)


async def store_links(mail: Mail, targets: Iterable[str]) -> None:
    """Store where the links of a letter lead, as whoever sends it does."""
    await mail.api.rows(
        "INSERT INTO email_links (letter_id, user_id, targets) VALUES (CAST(:id AS uuid),"
        " CAST(:user AS uuid), CAST(:targets AS text[])) RETURNING letter_id",
        id=mail.letter,
        user=mail.user,
        targets=list(targets),
    )
