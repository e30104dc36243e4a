"""Signatures after Standard Webhooks 1.0: of what we post, and of what is posted to us.

standardwebhooks.com; REQ-013, REQ-014. Svix, whose senders name the headers after themselves, signs
the same way.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Final

SECRET_PREFIX = "whsec_"  # noqa: S105 -- of every secret, none of its own
SECRET_BYTES = 32
VERSION: Final = "v1,"
TOLERANCE: Final = 300
"""Seconds that the clock of a sender may differ from ours, and a message may take."""

FAMILIES: Final = ("svix", "webhook")
LONGEST_ID: Final = 256  # characters


class NotSigned(ValueError):
    """Nobody who has a secret posted this, or not now; the message says which."""


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
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": VERSION + _signature(secret, message_id, str(timestamp), body),
    }


def verified_id(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """The id of a message that was posted to us.

    Args:
        secrets: any of them may have signed it.
        headers: by lower-case name, as `webhook-id` or `svix-id` and so on.
        body: as it came, byte for byte.
        now: seconds since 1970.

    Raises:
        NotSigned: a header is missing, the time is off, or no signature is right.
    """
    for family in FAMILIES:
        names = [f"{family}-{part}" for part in ("id", "timestamp", "signature")]
        if all(name in headers for name in names):
            message_id, timestamp, signatures = (headers[name] for name in names)
            break
    else:
        raise NotSigned("The headers of a signature are missing.")
    if not 0 < len(message_id) <= LONGEST_ID:
        raise NotSigned("The message's id cannot be used.")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):  # noqa: PLR2004 -- digits
        raise NotSigned("The timestamp is no number of seconds.")
    if abs(now - int(timestamp)) > TOLERANCE:
        raise NotSigned("The timestamp is too far from the present.")
    given = [item[len(VERSION) :] for item in signatures.split() if item.startswith(VERSION)]
    right = [_signature(secret, message_id, timestamp, body) for secret in secrets]
    # All are compared: how long it takes says nothing.
    matches = [hmac.compare_digest(a.encode(), b.encode()) for a in given for b in right]
    if not any(matches):
        raise NotSigned("The signature is not right.")
    return message_id


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
