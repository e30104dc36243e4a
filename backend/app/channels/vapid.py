"""Tells a push service who sends (RFC 8292): a token, signed with the subscription's key."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import jwt

from app.security.vapid_keys import VapidKey

LIFETIME: Final = timedelta(hours=12)  # push services take at most 24
RENEWED_AFTER: Final = timedelta(hours=10)  # well before it ends, for a service with another clock
TOKENS_KEPT: Final = 4_096


class Keyring(Protocol):
    """Our key pairs that are not retired; a browser's subscription is bound to one of them."""

    async def get(self, key_id: str) -> VapidKey | None:
        """The key of that id, None when it is unknown or retired."""
        ...

    async def newest(self) -> VapidKey:
        """The key that browsers are offered."""
        ...

    async def all(self) -> Sequence[VapidKey]:
        """Every key, newest first."""
        ...


@dataclass(slots=True)
class VapidTokens:
    """Values of the `Authorization` header, signed once for each origin and key.

    Args:
        subject: whom a push service may turn to, `mailto:` or `https:`.
        clock: the present instant.
        limit: how many are kept, those used last.
    """

    subject: str
    clock: Callable[[], datetime]
    limit: int = TOKENS_KEPT
    _kept: OrderedDict[tuple[str, str], tuple[str, datetime]] = field(
        default_factory=OrderedDict[tuple[str, str], tuple[str, datetime]]
    )

    def authorization(self, origin: str, key: VapidKey) -> str:
        """The header for a push service.

        Args:
            origin: scheme, host and port of its endpoints, as in `https://push.example`.
        """
        now, name = self.clock(), (origin, key.id)
        value, renewed_at = self._kept.get(name, ("", now))
        # A clock that was put back must not keep what it signed before for longer.
        if not now < renewed_at <= now + RENEWED_AFTER:
            value = self._signed(origin, key, now)
            self._kept[name] = (value, now + RENEWED_AFTER)
            if len(self._kept) > self.limit:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return value

    def _signed(self, origin: str, key: VapidKey, now: datetime) -> str:
        claims = {
            "aud": origin,
            "exp": int((now + LIFETIME).timestamp()),
            "sub": self.subject,
        }
        token = jwt.encode(claims, key.private, algorithm="ES256")
        public = key.public_text
        return f"vapid t={token}, k={public}"
