"""The identity provider's public keys (SEC-004, RFC 7517), fetched without blocking and kept.

Keys are fetched at the start and every ten minutes, and at once when a token names a key that is
not known, so that a roll-over needs no restart. While the provider is away the last keys serve on.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, cast

import httpx
import jwt
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.errors import Unavailable
from app.security.authorities import public_authorities

log = structlog.get_logger()

ALGORITHMS = frozenset({"ES256", "RS256", "EdDSA"})

REFRESH_SECONDS = 600.0
"""How long a key that the provider took back may still be good."""

RETRY_SECONDS = 2.0
"""Pause after a fetch that failed."""

COOL_DOWN_SECONDS = 10.0
"""Tokens that name unknown keys cause one fetch in this time, however many they are."""

KEEP_SECONDS = 6 * 3600.0
"""How long keys serve on while they cannot be fetched anew."""

FETCH_SECONDS = 5.0
MAX_BYTES = 256 * 1024
MIN_RSA_BITS = 2048


class UnusableAnswer(Exception):
    """The provider answered with something else than a set of keys; the text says with what."""


class KeySet:
    """The keys at one address.

    Args:
        url: where the provider publishes its JWK set.
        clock: monotonic seconds.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._client = httpx.AsyncClient(
            verify=public_authorities(),
            follow_redirects=False,
            timeout=FETCH_SECONDS,
            # Fetches are rare, and a packed answer could be larger than it looks.
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        self._keys: Sequence[jwt.PyJWK] = ()
        self._fetched_at = -math.inf
        self._asked_at = -math.inf
        self._failing = False
        self._fetching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncGenerator[None]:
        """Fetch the keys now and ever again, as long as the context lasts."""
        # Under way before anybody asks, who would start the pause between two fetches.
        self._start_fetch()
        refresher = asyncio.create_task(self._refresh_forever())
        try:
            yield
        finally:
            tasks = [task for task in (refresher, self._fetching) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

    async def find(self, algorithm: str, key_id: str | None) -> jwt.PyJWK | None:
        """The key that a token was signed with.

        Args:
            algorithm: the token's `alg`, one of `ALGORITHMS`.
            key_id: the token's `kid`. Without one, the only key of the algorithm is meant.

        Returns:
            None when the provider has no such key, or several that could be meant.

        Raises:
            Unavailable: the provider does not answer, so there may be such a key.
        """
        keys = self._known(algorithm, key_id)
        if not keys:
            await self._look_again()
            keys = self._known(algorithm, key_id)
            if not keys and self._failing:
                raise Unavailable(
                    "The keys of access tokens cannot be fetched; try again.",
                    retry_after=math.ceil(RETRY_SECONDS),
                )
        return keys[0] if len(keys) == 1 else None

    def _known(self, algorithm: str, key_id: str | None) -> Sequence[jwt.PyJWK]:
        if self._clock() - self._fetched_at > KEEP_SECONDS:
            return ()
        return [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and key_id in (None, key.key_id)
        ]

    async def _look_again(self) -> None:
        if self._fetching is None:
            if self._clock() - self._asked_at < COOL_DOWN_SECONDS:
                return
            self._asked_at = self._clock()
        await self._fetch_once()

    async def _refresh_forever(self) -> None:
        while True:
            await self._fetch_once()
            await asyncio.sleep(RETRY_SECONDS if self._failing else REFRESH_SECONDS)

    async def _fetch_once(self) -> None:
        """Fetch the keys, or wait for the fetch that is under way."""
        # A caller who gives up must not end what others wait for.
        await asyncio.shield(self._fetching or self._start_fetch())

    def _start_fetch(self) -> asyncio.Task[None]:
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = usable_keys(await self._download())
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnusableAnswer) as error:
            if not self._failing:
                reason = str(error) if isinstance(error, UnusableAnswer) else type(error).__name__
                log.warning("jwks_unavailable", reason=reason, keys_known=len(self._keys))
            self._failing = True
        else:
            if self._failing or ids_of(keys) != ids_of(self._keys):
                log.info("jwks_fetched", key_ids=ids_of(keys))
            self._keys, self._fetched_at, self._failing = keys, self._clock(), False
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != HTTPStatus.OK:
                raise UnusableAnswer(f"status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise UnusableAnswer(f"more than {MAX_BYTES} bytes")
            return bytes(body)


def usable_keys(body: bytes) -> Sequence[jwt.PyJWK]:
    """The keys of a JWK set that verify access tokens; all others are left out (RFC 7517, 5).

    Secrets have no place in a set that anybody may read: symmetric and private keys are left out.

    Raises:
        UnusableAnswer: it is no JWK set, or none of its keys can be used.
    """
    try:
        told: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnusableAnswer("no JSON") from None
    listed: object = cast("dict[str, object]", told).get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise UnusableAnswer("no JWK set")
    found = [usable_key(item) for item in cast("list[object]", listed)]
    if keys := [key for key in found if key is not None]:
        return keys
    raise UnusableAnswer("no key that can be used")


def usable_key(item: object) -> jwt.PyJWK | None:
    """A key that verifies signatures of one of `ALGORITHMS`, from its JWK; else None."""
    if not isinstance(item, dict):
        return None
    told = cast("dict[str, Any]", item)
    try:
        is_ours = (
            told.get("use", "sig") == "sig"
            and "verify" in told.get("key_ops", ["verify"])
            and told.get("alg") in {None, *ALGORITHMS}
            and told.get("kty") != "oct"
            and "d" not in told
        )
        key = jwt.PyJWK(told) if is_ours else None
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    # Without `alg` it follows from the kind of key, and may be one that is not accepted.
    if key is None or key.algorithm_name not in ALGORITHMS:
        return None
    public = key.key
    is_weak = isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS
    return None if is_weak else key


def ids_of(keys: Sequence[jwt.PyJWK]) -> list[str | None]:
    """The keys' ids, None for those without."""
    return [key.key_id for key in keys]
