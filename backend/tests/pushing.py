"""Browsers, keys and claims to push with; what was sent is read with another implementation."""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import http_ece
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.channels.base import Claim, Device
from app.policy.kinds import Channel, DeviceKind, NotificationType
from app.policy.routing import Request
from app.security.vapid_keys import VapidKey

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def encoded(value: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """What `encoded` encoded."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, 65 bytes."""
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def vapid_key(name: str) -> VapidKey:
    """A key pair of ours, which is called so."""
    private = private_key()
    return VapidKey(id=name, public=point(private), private=private, created_at=NOW)


@dataclass
class Ring:
    """A keyring in memory, the newest key first."""

    keys: list[VapidKey]

    async def get(self, key_id: str) -> VapidKey | None:
        return next((key for key in self.keys if key.id == key_id), None)

    async def newest(self) -> VapidKey:
        return self.keys[0]

    async def all(self) -> Sequence[VapidKey]:
        return self.keys


@dataclass(frozen=True)
class Browser:
    """A browser's half of a subscription."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=private_key)
    auth: bytes = field(default_factory=lambda: os.urandom(16))

    def device(self, endpoint: str, key_id: str | None = None) -> Device:
        return Device(
            id=uuid4(),
            kind=DeviceKind.WEB,
            endpoint=endpoint,
            p256dh=encoded(point(self.private)),
            auth=encoded(self.auth),
            vapid_key_id=key_id,
            fcm_token=None,
            platform=None,
        )

    def read(self, body: bytes) -> bytes:
        """The plaintext of what was sent."""
        return http_ece.decrypt(  # pyright: ignore[reportUnknownMemberType] -- http-ece has no types
            body, private_key=self.private, auth_secret=self.auth, version="aes128gcm"
        )

    def message(self, body: bytes) -> dict[str, Any]:
        message: dict[str, Any] = orjson.loads(self.read(body))
        return message


def a_claim(device: Device | None = None, **changes: Any) -> Claim:
    claim = Claim(
        id=uuid4(),
        lease_token=uuid4(),
        notification_id=UUID("0197a000-0000-7000-8000-00000000abcd"),
        user_id=uuid4(),
        channel=Channel.PUSH,
        attempts=1,
        expired_leases=0,
        type="task",
        priority="normal",
        title="Build failed",
        body="The build of **main** failed.",
        body_html="<p>The build of <strong>main</strong> failed.</p>",
        data={},
        created_at=NOW,
        expires_at=None,
        cancelled_at=None,
        email=None,
        full_name=None,
        request=Request(NotificationType.TASK),
        device=device,
    )
    return replace(claim, **changes)


def vapid_claims(authorization: str, key: VapidKey) -> dict[str, Any]:
    """The token's claims, once its signature is verified.

    Raises:
        jwt.InvalidSignatureError: another key signed it.
    """
    scheme, _, rest = authorization.partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid"
    assert decoded(fields["k"]) == key.public
    claims: dict[str, Any] = jwt.decode(
        fields["t"],
        key.private.public_key(),
        algorithms=["ES256"],
        options={"verify_exp": False, "verify_aud": False},
    )
    return claims
