"""Signatures of what we post, after Standard Webhooks 1.0 (standardwebhooks.com; REQ-013)."""

import base64
import hashlib
import hmac
import os

SECRET_PREFIX = "whsec_"  # noqa: S105 -- of every secret, none of its own
SECRET_BYTES = 32


def new_secret() -> str:
    """A signing secret, as both sides keep it."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_BYTES)).decode()


def signed_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers that tell a receiver who sent the body, and when.

    Args:
        secret: made by `new_secret`.
        message_id: the same for every attempt, without a dot.
        timestamp: of this attempt, in seconds since 1970.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
