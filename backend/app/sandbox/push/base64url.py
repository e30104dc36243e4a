"""Bytes as URL-safe text without padding, as push addresses and keys are written."""

import base64
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]+={0,2}")


def encoded(content: bytes) -> str:
    """The text for these bytes."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes behind a text; padding may be there.

    Raises:
        ValueError: it is not base64url.
    """
    if _ALPHABET.fullmatch(text) is None:
        raise ValueError("must be base64url")
    bare = text.rstrip("=")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
