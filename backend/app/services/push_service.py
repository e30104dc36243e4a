"""Devices of users: subscribing, listing, unsubscribing (REQ-008, REQ-009, SEC-003).

A device is one row, whoever subscribes it how often: those who name the same device at the same
time take turns at an advisory lock of its name. Locks are taken in one order: the user, the
device, then rows by their ids. Of one user's calls one at a time has a connection: those that wait
for that lock would otherwise hold the connections of everybody.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import text
from uuid_utils.compat import uuid7

from app.channels.base import TokenVerdict, ValidateToken, fcm_token_context
from app.db.database import Database, Driver, dumps, is_busy
from app.errors import Busy, EndpointInUse, NotFound, ValidationFailed
from app.pipeline.announce import Announcement
from app.pipeline.deliver import Clock
from app.pipeline.succession import succeed
from app.policy.kinds import DeviceKind
from app.schemas.push import (
    INVALID_FCM_TOKEN,
    BrowserSubscription,
    Subscribe,
    Subscribed,
    Subscription,
    SubscriptionList,
)
from app.security.address_rules import ADDRESS_NOT_ALLOWED, AddressRefused
from app.security.encryption import Cipher
from app.security.outbound import Outbound
from app.services.user_service import make_known

log = structlog.get_logger()

Result = TypeVar("Result")

DEVICES_OF_A_USER: Final = 50
TRIES: Final = 3
BUSY_MESSAGE: Final = "The device is being subscribed elsewhere; try again."
TOKEN_HASH: Final = b"fcm token hash"

LOCK_NAME = "SELECT pg_advisory_xact_lock($1), pg_advisory_xact_lock($2)"
HOLD_KEY = "SELECT FROM vapid_keys WHERE id = $1 AND retired_at IS NULL FOR SHARE"
LOCK_DEVICES = """
    SELECT id, user_id, kind, p256dh_key, auth_key, created_at, is_active,
           coalesce(endpoint = $2, false) OR coalesce(fcm_token_hash = ANY($3), false) AS is_it,
           coalesce(last_used_at, created_at) AS used_at
    FROM push_subscriptions
    WHERE user_id = $1 OR endpoint = $2 OR fcm_token_hash = ANY($3)
    ORDER BY id FOR NO KEY UPDATE
"""
# Who does not say the key keeps the one that is known: an endpoint is bound to one.
PUT = """
    INSERT INTO push_subscriptions AS p (
        id, user_id, kind, endpoint, p256dh_key, auth_key, fcm_token, fcm_token_hash, vapid_key_id,
        device_info, created_at
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11)
    ON CONFLICT (id) DO UPDATE SET
        p256dh_key = excluded.p256dh_key, auth_key = excluded.auth_key,
        fcm_token = excluded.fcm_token, fcm_token_hash = excluded.fcm_token_hash,
        vapid_key_id = coalesce(excluded.vapid_key_id, p.vapid_key_id),
        device_info = excluded.device_info, is_active = true, failure_count = 0
    RETURNING id, user_id, is_active, created_at
"""
DELETE = "DELETE FROM push_subscriptions WHERE id = ANY($1::uuid[])"

LIST = text("""
    SELECT id, kind, endpoint, device_info, is_active, vapid_key_id AS key_id, last_used_at,
           created_at
    FROM push_subscriptions WHERE user_id = CAST(:user_id AS uuid)
    ORDER BY created_at DESC, id DESC
""")
UNSUBSCRIBE = "DELETE FROM push_subscriptions WHERE id = $1 AND user_id = $2 RETURNING kind"
IS_OWN = text("""
    SELECT EXISTS (
        SELECT FROM push_subscriptions
        WHERE id = CAST(:id AS uuid) AND user_id = CAST(:user_id AS uuid)
    )
""")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device as it is to be stored.

    Args:
        name: what tells the device from all others: its endpoint or its token.
        hashes: of the token, under each of the installation's keys; the first is stored.
        replaces: an older subscription of the user that this one succeeds.
    """

    user_id: UUID
    kind: DeviceKind
    name: str
    device_info: str
    browser: BrowserSubscription | None
    hashes: list[bytes]
    key_id: str | None
    replaces: UUID | None


class PushService:
    """Keeps the devices of users; everything raises `Unavailable` while PostgreSQL is away.

    Args:
        keys: of the encryption at rest: the first encrypts tokens, all find them.
        outbound: judges the endpoints of browsers.
        validate: asks FCM about a token, None where FCM is not configured.
        announce: rings for what is due again; never waits or raises.
        clock: the present instant.
    """

    def __init__(
        self,
        database: Database,
        keys: Sequence[bytes],
        outbound: Outbound,
        validate: ValidateToken | None,
        announce: Callable[[Announcement], None],
        clock: Clock,
    ) -> None:
        self._database = database
        self._cipher = Cipher(keys)
        self._hash_keys = [hmac.digest(key, TOKEN_HASH, "sha256") for key in keys]
        self._outbound = outbound
        self._validate = validate
        self._announce = announce
        self._clock = clock
        # Each is kept only as long as somebody waits for it.
        self._turns = WeakValueDictionary[UUID, asyncio.Lock]()

    @property
    def takes_apps(self) -> bool:
        """Whether FCM is configured."""
        return self._validate is not None

    async def subscribe(self, user_id: UUID, wanted: Subscribe) -> Subscribed:
        """Store a device, or what is new about it; the same device keeps its id.

        Raises:
            ValidationFailed: its endpoint may not be called, its key is not known, or FCM refuses
                its token.
            EndpointInUse: another user has its endpoint, with other keys.
            UnknownUser: users are the platform's own, and it has none with this id.
            Busy: somebody else held the device for long.
        """
        if wanted.subscription is not None:
            await self._check_endpoint(wanted.subscription.endpoint)
        else:
            await self._check_token(wanted.fcm_token or "")
        device = self._wanted(user_id, wanted)
        turn = self._turns.setdefault(user_id, asyncio.Lock())
        async with turn:
            stored = await _patiently(lambda: self._store(device))
            old_id = wanted.replaces
            if old_id is not None and old_id != stored.id:
                await _patiently(lambda: self._succeed(user_id, old_id, stored.id))
        return stored

    async def listed(self, user_id: UUID) -> SubscriptionList:
        """The user's devices, newest first."""
        async with self._database.as_service() as connection:
            rows = (await connection.execute(LIST, {"user_id": user_id})).mappings().all()
        return SubscriptionList(items=[Subscription.model_validate(dict(row)) for row in rows])

    async def unsubscribe(self, user_id: UUID, subscription_id: UUID) -> None:
        """Remove a device; pushes that wait for it are skipped.

        Raises:
            NotFound: the user has no such subscription.
            Busy: somebody else held the device for long.
        """

        async def remove() -> Sequence[Mapping[str, Any]]:
            async with self._database.group_as_service() as driver:
                return await driver.fetch(UNSUBSCRIBE, subscription_id, user_id)

        rows = await _patiently(remove)
        if not rows:
            raise NotFound
        _log("push_unsubscribed", subscription_id, user_id, rows[0]["kind"])

    async def check_own(self, user_id: UUID, subscription_id: UUID) -> None:
        """Make sure that the subscription is the user's.

        Raises:
            NotFound: it is not.
        """
        parameters = {"id": subscription_id, "user_id": user_id}
        async with self._database.as_service() as connection:
            if not (await connection.execute(IS_OWN, parameters)).scalar():
                raise NotFound

    async def _check_endpoint(self, endpoint: str) -> None:
        try:
            await self._outbound.judge(endpoint)
        except AddressRefused as error:
            raise _refused("subscription.endpoint", ADDRESS_NOT_ALLOWED, str(error)) from None

    async def _check_token(self, token: str) -> None:
        if self._validate is None:
            raise _refused("fcm_token", "fcm_not_configured", "FCM is not configured here")
        verdict = await self._validate(token)
        if verdict is TokenVerdict.INVALID:
            raise _refused("fcm_token", INVALID_FCM_TOKEN, "is not a token of this app")
        if verdict is TokenVerdict.UNKNOWN:
            log.warning("fcm_token_not_validated")

    def _wanted(self, user_id: UUID, wanted: Subscribe) -> Wanted:
        browser, token = wanted.subscription, wanted.fcm_token or ""
        return Wanted(
            user_id=user_id,
            kind=DeviceKind.FCM if browser is None else DeviceKind.WEB,
            name=token if browser is None else browser.endpoint,
            device_info=dumps(wanted.device_info.model_dump(exclude_unset=True)),
            browser=browser,
            hashes=[hmac.digest(key, token.encode(), "sha256") for key in self._hash_keys]
            if browser is None
            else [],
            key_id=None if browser is None else wanted.key_id,
            replaces=wanted.replaces,
        )

    async def _store(self, wanted: Wanted) -> Subscribed:
        async with self._database.group_as_service() as driver:
            await _prepare(driver, wanted)
            endpoint = None if wanted.browser is None else wanted.browser.endpoint
            rows = await driver.fetch(LOCK_DEVICES, wanted.user_id, endpoint, wanted.hashes)
            # Never more than one, unless processes with different keys stored the same token.
            kept, removed = _succession([row for row in rows if row["is_it"]], wanted)
            left = [row for row in rows if row["id"] not in {kept, wanted.replaces, *removed}]
            removed |= _too_many([row for row in left if row["user_id"] == wanted.user_id])
            # First, since endpoints and tokens are unique.
            await driver.execute(DELETE, list(removed))
            device_id = kept or uuid7()
            (row,) = await driver.fetch(PUT, *self._columns(device_id, wanted, self._clock()))
        for row_id, cause in removed.items():
            log.info("push_subscription_removed", subscription_id=str(row_id), cause=cause)
        _log("push_subscribed", device_id, wanted.user_id, wanted.kind, again=kept is not None)
        return Subscribed.model_validate(dict(row))

    async def _succeed(self, user_id: UUID, old_id: UUID, new_id: UUID) -> None:
        """Let a device take an older one's place, once it is there for all to see.

        Were that one transaction, who stores a notification meanwhile would find the old device
        gone and not see the new one.
        """
        async with self._database.group_as_service() as driver:
            done = await succeed(driver, user_id, old_id, new_id, self._clock())
        if done.due:
            self._announce(Announcement(delivery_ids=done.due))
        if done.is_removed:
            log.info("push_subscription_removed", subscription_id=str(old_id), cause="replaced")

    def _columns(self, device_id: UUID, wanted: Wanted, now: datetime) -> Sequence[Any]:
        if wanted.browser is not None:
            keys = wanted.browser.keys
            kind = (wanted.browser.endpoint, keys.p256dh, keys.auth, None, None)
        else:
            context = fcm_token_context(device_id)
            token = self._cipher.encrypt(wanted.name.encode(), context=context)
            kind = (None, None, None, token, wanted.hashes[0])
        columns = (device_id, wanted.user_id, wanted.kind.value, *kind, wanted.key_id)
        return (*columns, wanted.device_info, now)


async def _patiently(work: Callable[[], Awaitable[Result]]) -> Result:
    """Do it again when others held its rows for too long, and then give up.

    Raises:
        Busy: they still do.
    """
    for _ in range(TRIES):
        try:
            return await work()
        except Exception as error:
            if not is_busy(error):
                raise
    raise Busy(BUSY_MESSAGE)


async def _prepare(driver: Driver, wanted: Wanted) -> None:
    """Take the locks, and see that what is referred to exists."""
    await driver.execute(LOCK_NAME, *_lock_names(wanted))
    await make_known(driver, wanted.user_id)
    if wanted.key_id is not None and not await driver.fetch(HOLD_KEY, wanted.key_id):
        raise _refused("key_id", "unknown_key", "names no VAPID key that is in use")


def _succession(
    same: Sequence[Mapping[str, Any]], wanted: Wanted
) -> tuple[UUID | None, dict[UUID, str]]:
    """Which row the device keeps, and which others of it are removed, with the cause.

    Raises:
        EndpointInUse: it is another user's, and nothing shows that it has changed hands.
    """
    kept: UUID | None = None
    removed: dict[UUID, str] = {}
    for row in same:
        if row["user_id"] == wanted.user_id and kept is None:
            kept = row["id"]
            continue
        if wanted.browser is not None and not _has_keys(row, wanted.browser):
            raise EndpointInUse
        # A new row for its new owner: what waits for the old owner's never reaches it.
        removed[row["id"]] = "moved"
    return kept, removed


def _has_keys(row: Mapping[str, Any], browser: BrowserSubscription) -> bool:
    given = f"{browser.keys.p256dh}.{browser.keys.auth}".encode()
    return hmac.compare_digest(f"{row['p256dh_key']}.{row['auth_key']}".encode(), given)


def _too_many(others: Sequence[Mapping[str, Any]]) -> dict[UUID, str]:
    """The least recently used of a user's other devices, when there is no room for this one."""
    surplus = max(0, len(others) + 1 - DEVICES_OF_A_USER)
    oldest = sorted(others, key=lambda row: row["used_at"])[:surplus]
    return {row["id"]: "made_room" for row in oldest}


def _lock_names(wanted: Wanted) -> tuple[int, int]:
    return _number(wanted.user_id.bytes), _number(f"{wanted.kind}:{wanted.name}".encode())


def _number(name: bytes) -> int:
    digest = hashlib.sha256(b"push subscription:" + name).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _refused(path: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(details=[{"path": path, "code": code, "message": message}])


def _log(event: str, subscription_id: UUID, user_id: UUID, kind: str, **others: bool) -> None:
    log.info(event, subscription_id=str(subscription_id), user_id=str(user_id), kind=kind, **others)
