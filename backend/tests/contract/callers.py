"""The API in this process, and callers of every kind that the contract knows."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from sqlalchemy import text

from app.config import Settings
from app.db.database import Database
from app.main import create_app
from app.pipeline.deliver import Clock, utc_now

V1 = "/api/v1"
GENERATOR = (
    ec.derive_private_key(1, ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)
STOPS_WITHIN = 10.0  # seconds
Headers = dict[str, str]
Json = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """The running API, a client of it, and the database behind it."""

    settings: Settings
    app: FastAPI
    client: httpx.AsyncClient
    database: Database

    def claims(self, subject: object, **others: Any) -> Json:
        """Claims of a token that is valid for an hour."""
        return {"sub": str(subject), "exp": datetime.now(UTC) + timedelta(hours=1), **others}

    def sign(self, claims: Json, *, key: str | None = None, algorithm: str = "HS256") -> Headers:
        """The header of a token with these claims, whatever they are."""
        secret = key if key is not None else self.jwt_secret
        token = jwt.encode(claims, secret, algorithm=algorithm)
        return {"Authorization": f"Bearer {token}"}

    @property
    def jwt_secret(self) -> str:
        assert self.settings.jwt_secret is not None
        return self.settings.jwt_secret.get_secret_value()

    @property
    def service_key(self) -> str:
        return self.settings.service_keys[0]

    def user(self, user_id: UUID) -> Headers:
        """Credentials of a user."""
        return self.sign(self.claims(user_id, role="authenticated"))

    def admin(self) -> Headers:
        """Credentials of an operator."""
        return self.sign(self.claims(uuid4(), role="admin"))

    def service(self, name: str = "tests") -> Headers:
        """Credentials of a service on the public routes."""
        token = self.sign(self.claims(name, role="service"))
        return {**token, "X-Service-Auth": self.service_key, "X-Service-Name": name}

    def internal(self, name: str = "tests") -> Headers:
        """Credentials of a service on the internal routes."""
        return {"X-Internal-Service-Key": self.service_key, "X-Service-Name": name}

    async def new_user(self, **fields: Any) -> UUID:
        """A user who exists."""
        user_id = uuid4()
        answer = await self.client.put(
            f"{V1}/internal/users/{user_id}", json=fields, headers=self.internal()
        )
        assert answer.status_code == 200, answer.text
        return user_id

    async def create(self, user_id: UUID, **fields: Any) -> Json:
        """Create a notification, and the answer."""
        answer = await self.client.post(
            f"{V1}/notifications", json=content(user_id=user_id, **fields), headers=self.service()
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def register_callback(
        self, name: str, url: str = "https://hooks.example.com/notify"
    ) -> Json:
        """Register where clicks on an action are posted, and the answer."""
        answer = await self.client.put(
            f"{V1}/internal/action-callbacks/{name}", json={"url": url}, headers=self.internal()
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def dead_letter(self, user_id: UUID, **fields: Any) -> UUID:
        """A new notification's in-app delivery, as if it had failed for good."""
        created = await self.create(user_id)
        values = {"reason": "poison", "failed_at": datetime.now(UTC), **fields}
        (row,) = await self.rows(
            "UPDATE notification_deliveries SET status = 'failed', reason = :reason, attempts = 3,"
            " failed_at = CAST(:failed_at AS timestamptz)"
            " WHERE notification_id = :id AND channel = 'in_app' RETURNING id",
            id=created["id"],
            **values,
        )
        return row.id

    async def subscribe(self, user_id: UUID, subscription: Json, **fields: Any) -> Json:
        """Subscribe a browser of the user's, and the answer."""
        answer = await self.try_to_subscribe(user_id, subscription=subscription, **fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def try_to_subscribe(self, user_id: UUID, **fields: Any) -> httpx.Response:
        """Subscribe a device of the user's, whatever comes of it."""
        path = f"{V1}/notifications/push/subscribe"
        return await self.client.post(path, json=fields, headers=self.user(user_id))

    async def pushed(self, user_id: UUID) -> tuple[Json, UUID]:
        """A new browser of the user's, and the delivery of a push that waits for it."""
        subscription = await self.subscribe(user_id, browser())
        answer = await self.client.post(
            f"{V1}/notifications/push/subscriptions/{subscription['id']}/test",
            headers=self.user(user_id),
        )
        assert answer.status_code == 202, answer.text
        (row,) = await self.rows(
            "SELECT id FROM notification_deliveries WHERE device_id = CAST(:id AS uuid)",
            id=subscription["id"],
        )
        return subscription, row.id

    async def read(self, user_id: UUID, path: str = "") -> Json:
        """What the user gets under /notifications."""
        answer = await self.client.get(f"{V1}/notifications{path}", headers=self.user(user_id))
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stored_by(self, service: str) -> int:
        """Notifications and batches that a service has stored."""
        counts = await self.rows(
            "SELECT (SELECT count(*) FROM notifications WHERE service = :service)"
            " + (SELECT count(*) FROM notification_batches WHERE service = :service) AS count",
            service=service,
        )
        return counts[0].count

    async def rows(self, query: str, **parameters: Any) -> Sequence[Any]:
        """Rows that the service sees."""
        async with self.database.as_service() as connection:
            return (await connection.execute(text(query), parameters)).all()


@asynccontextmanager
async def open_api(
    settings: Settings, clock: Clock = utc_now, *, peer: str = "127.0.0.1"
) -> AsyncGenerator[Api]:
    """The API with everything it opens, for as long as the context lasts.

    Args:
        settings: with both URLs filled in.
        clock: the present instant.
        peer: address the client connects from.
    """
    app = create_app(settings, clock)
    database = Database(settings)
    # An unexpected error shall be judged by what it answers.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 50_000))
    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")
    async with client, AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        await stack.enter_async_context(app.router.lifespan_context(app))
        try:
            yield Api(settings, app, client, database)
        finally:
            async with asyncio.timeout(STOPS_WITHIN):
                await stack.aclose()


def browser(
    name: str | None = None, *, point: bytes | None = None, auth: bytes = b"a" * 16
) -> Json:
    """What a browser's `PushSubscription` gives, at the sandbox's push service.

    Args:
        name: the same for the same endpoint; default: a new one.
        point: its public key; default: that of the curve's generator.
    """
    return {
        "endpoint": f"http://127.0.0.1:8025/push/{name or uuid4()}",
        "expirationTime": None,
        "keys": {"p256dh": base64url(point or GENERATOR), "auth": base64url(auth)},
    }


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def content(**fields: Any) -> Json:
    """The body of a create call; fields that are given as ... are left out."""
    body: Json = {"type": "task", "title": "New Task Assigned", "body": "Review **PR #123**."}
    body |= {
        name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()
    }
    return {name: value for name, value in body.items() if value is not ...}


def assert_refused(answer: httpx.Response, status: int, code: str) -> list[Json]:
    """Check an error's status, code and shape, and return its details."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    told = answer.json()
    assert set(told) == {"error", "correlation_id"}
    assert set(told["error"]) == {"code", "message", "details"}
    assert told["error"]["code"] == code
    assert told["error"]["message"]
    assert told["correlation_id"] == answer.headers["X-Correlation-ID"]
    details: list[Json] = told["error"]["details"]
    for detail in details:
        assert set(detail) == {"path", "code", "message"}
        assert all(isinstance(value, str) for value in detail.values())
        assert detail["code"]
        assert detail["message"]
    return details
