"""Senders that build push requests from the standards, by none of the application's own means."""

import base64
import json
import os
import time
from dataclasses import dataclass, field
from typing import Any, cast

import http_ece
import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ADA: dict[str, Any] = {"web_push": 8030, "notification": {"title": "Hello, Ada", "body": "…"}}


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def encrypt(plaintext: bytes, p256dh: str, auth: str, *, record_size: int = 4096) -> bytes:
    """An aes128gcm body for a subscription's keys (RFC 8291)."""
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_base64url(p256dh))
    body = http_ece.encrypt(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- http-ece has no types
        plaintext,
        salt=os.urandom(16),
        private_key=new_key(),
        dh=receiver,
        auth_secret=from_base64url(auth),
        rs=record_size,
        version="aes128gcm",
    )
    return cast(bytes, body)


@dataclass
class Sender:
    """An application server with its VAPID key; `now` is its clock in seconds since 1970."""

    client: httpx.AsyncClient
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    now: float = field(default_factory=time.time)

    @property
    def public_key(self) -> str:
        return base64url(point(self.key))

    def claims(self, **changes: object) -> dict[str, object]:
        claims = {
            "aud": str(self.client.base_url).rstrip("/"),
            "exp": int(self.now) + 3600,
            "sub": "mailto:admin@yourapp.com",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def authorization(self, **changes: object) -> str:
        token = jwt.encode(self.claims(**changes), self.key, algorithm="ES256")
        return f"vapid t={token}, k={self.public_key}"

    async def send(
        self,
        browser: dict[str, Any],
        message: object = ADA,
        *,
        body: bytes | None = None,
        without: str | None = None,
        **headers: str,
    ) -> httpx.Response:
        """Send a message; `headers` replace the usual ones, `without` leaves one of them out."""
        if body is None:
            body = encrypt(json.dumps(message).encode(), **browser["keys"])
        every = {
            "TTL": "60",
            "Content-Encoding": "aes128gcm",
            "Authorization": self.authorization(),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if without is not None:
            del every[without]
        return await self.client.post(browser["endpoint"], content=body, headers=every)
