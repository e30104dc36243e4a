"""The VAPID keyring: a browser is bound to the key it subscribed with (SEC-003, RFC 8292).

So keys are added, never exchanged. Browsers are offered the newest, and pushes are signed with
their device's own until no subscription needs it; then its private half is erased.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import Settings
from app.db.database import Database
from app.pipeline.deliver import Clock
from app.security.encryption import Cipher, DecryptionFailed
from app.security.vapid_keys import (
    VapidKey,
    configured_key,
    new_key,
    private_key_context,
    stored_key,
)

log = structlog.get_logger()

CACHED_SECONDS: Final = 60.0
# A browser may have fetched a key just before it was superseded, and subscribe with it later.
STILL_TAKEN_UP: Final = timedelta(days=1)
LOCK: Final = text(f"SELECT pg_advisory_xact_lock({0x7661706964})")  # "vapid": one adds at a time

IN_USE: Final = text("""
    SELECT id, private_key, created_at FROM vapid_keys
    WHERE retired_at IS NULL ORDER BY created_at DESC, id DESC
""")
IS_KNOWN: Final = text("SELECT EXISTS (SELECT FROM vapid_keys WHERE id = :id)")
ENCRYPT_ANEW: Final = text("UPDATE vapid_keys SET private_key = :private WHERE id = :id")
ADD: Final = text("""
    INSERT INTO vapid_keys (id, public_key, private_key, created_at)
    VALUES (:id, :public, :private, CAST(:now AS timestamptz))
""")

# A subscription that did not say its key may be bound to any that was there when it came. Those
# who subscribe hold the key's row, so that nobody is left behind with a key that retires.
LOCK_SUPERSEDED: Final = text("""
    SELECT id FROM (
        SELECT id, lead(created_at) OVER (ORDER BY created_at, id) AS superseded_at
        FROM vapid_keys
    ) AS aged
    JOIN vapid_keys USING (id)
    WHERE retired_at IS NULL AND superseded_at < CAST(:before AS timestamptz)
    ORDER BY id FOR UPDATE OF vapid_keys
""")
RETIRE: Final = text("""
    UPDATE vapid_keys k SET retired_at = CAST(:now AS timestamptz), private_key = ''
    WHERE k.id = ANY(CAST(:ids AS text[])) AND NOT EXISTS (
        SELECT FROM push_subscriptions p WHERE p.vapid_key_id = k.id
    ) AND NOT EXISTS (
        SELECT FROM push_subscriptions p
        WHERE p.kind = 'web' AND p.vapid_key_id IS NULL AND p.created_at >= k.created_at
    )
    RETURNING k.id
""")


class Keyring:
    """The keys that are in use, read again every minute.

    The first look of an installation makes a key, or takes over the configured one. Everything
    raises `Unavailable` while PostgreSQL cannot be reached and nothing is known yet.

    Args:
        settings: the encryption keys, and the pair to take over.
        clock: the present instant.

    Raises:
        ConfigurationError: the configured pair cannot be used.
    """

    def __init__(self, settings: Settings, database: Database, clock: Clock) -> None:
        self._database = database
        self._cipher = Cipher(settings.encryption_keys)
        self._clock = clock
        self._configured = configured_key(settings, clock())
        self._keys: tuple[VapidKey, ...] = ()
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def newest(self) -> VapidKey:
        """The key that browsers subscribe with from now on."""
        return (await self.all())[0]

    async def get(self, key_id: str) -> VapidKey | None:
        """The key of this id, None when there is none, or it has retired."""
        for key in await self.all():
            if key.id == key_id:
                return key
        return next((key for key in await self._read_again() if key.id == key_id), None)

    async def all(self) -> Sequence[VapidKey]:
        """All keys that have not retired, newest first."""
        if time.monotonic() < self._fresh_until:
            return self._keys
        return await self._read_again()

    async def rotate(self) -> VapidKey:
        """Offer a new key from now on; those who subscribed before keep theirs."""
        async with self._database.as_service() as connection:
            key = await self._superseding(connection, await self._opened(connection))
        return self._rotated(key)

    async def rotate_when_older_than(self, age: timedelta) -> VapidKey | None:
        """Offer a new key when the newest is so old; of several who find it so, one makes a key.

        Returns:
            The new key, None when the newest is not old enough.
        """
        async with self._database.as_service() as connection:
            keys = await self._opened(connection)
            if keys[0].created_at > self._clock() - age:
                return None
            key = await self._superseding(connection, keys)
        return self._rotated(key)

    async def retire(self) -> list[str]:
        """Erase the private halves of superseded keys that no subscription needs.

        Returns:
            Ids of the keys that retired.
        """
        now = self._clock()
        async with self._database.as_service() as connection:
            before = {"before": now - STILL_TAKEN_UP}
            ids = list((await connection.execute(LOCK_SUPERSEDED, before)).scalars())
            retired = list((await connection.execute(RETIRE, {"ids": ids, "now": now})).scalars())
        for key_id in retired:
            log.info("vapid_key_retired", key_id=key_id)
        if retired:
            self._fresh_until = 0.0
        return retired

    async def _read_again(self) -> Sequence[VapidKey]:
        seen = self._fresh_until
        async with self._reading:
            if self._fresh_until != seen and time.monotonic() < self._fresh_until:
                return self._keys  # somebody else has just read them
            async with self._database.as_service() as connection:
                self._keys = tuple(await self._stored(connection))
                if not self._keys or self._configured is not None:
                    self._keys = tuple(await self._opened(connection))
            self._configured = None
            self._fresh_until = time.monotonic() + CACHED_SECONDS
            return self._keys

    async def _opened(self, connection: AsyncConnection) -> list[VapidKey]:
        """The keys, of which there is one at least, with nobody else adding any."""
        await connection.execute(LOCK)
        if (key := self._configured) is not None:
            is_known = (await connection.execute(IS_KNOWN, {"id": key.id})).scalar()
            if not is_known:
                await self._add(connection, key)
                log.info("vapid_key_imported", key_id=key.id)
        if keys := await self._stored(connection, encrypt_anew=True):
            return keys
        key = new_key(self._clock())
        await self._add(connection, key)
        log.info("vapid_key_made", key_id=key.id)
        return [key]

    async def _stored(
        self, connection: AsyncConnection, *, encrypt_anew: bool = False
    ) -> list[VapidKey]:
        keys: list[VapidKey] = []
        for row in (await connection.execute(IN_USE)).all():
            try:
                scalar = self._cipher.decrypt(row.private_key, context=private_key_context(row.id))
            except DecryptionFailed:
                log.error("vapid_key_unreadable", key_id=row.id)
                continue
            keys.append(stored_key(scalar, row.created_at))
            if encrypt_anew and self._cipher.needs_rotation(row.private_key):
                sealed = {"id": row.id, "private": self._sealed(keys[-1])}
                await connection.execute(ENCRYPT_ANEW, sealed)
        return keys

    async def _superseding(self, connection: AsyncConnection, keys: Sequence[VapidKey]) -> VapidKey:
        # Another process' clock may be ahead.
        key = new_key(max(self._clock(), keys[0].created_at + timedelta(microseconds=1)))
        await self._add(connection, key)
        return key

    def _rotated(self, key: VapidKey) -> VapidKey:
        log.info("vapid_key_rotated", key_id=key.id)
        self._fresh_until = 0.0
        return key

    async def _add(self, connection: AsyncConnection, key: VapidKey) -> None:
        values = {"public": key.public, "private": self._sealed(key), "now": key.created_at}
        await connection.execute(ADD, {"id": key.id, **values})

    def _sealed(self, key: VapidKey) -> bytes:
        return self._cipher.encrypt(key.scalar, context=private_key_context(key.id))
