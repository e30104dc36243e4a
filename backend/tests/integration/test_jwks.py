"""Keys that roll over, and a provider that is slow, away or odd (SEC-004, RFC 7517)."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt import PyJWK
from structlog.testing import capture_logs
from structlog.typing import EventDict

from app.errors import Unavailable
from app.security import jwks
from app.security.jwks import COOL_DOWN_SECONDS, KEEP_SECONDS, KeySet, usable_keys
from tests.integration.sockets import eventually
from tests.issuer import Issuer, Json, SigningKey, new_key, running_issuer


class Clock:
    """Monotonic seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logs() -> Generator[list[EventDict]]:
    with capture_logs() as logged:
        yield logged


@asynccontextmanager
async def keys_of(issuer: Issuer, clock: Callable[[], float]) -> AsyncGenerator[KeySet]:
    """A key set that has made its first fetch."""
    keys = KeySet(issuer.url, clock=clock)
    async with keys.kept_fresh():
        with capture_logs() as logged:
            await eventually(lambda: bool(logged))
        yield keys


async def knows(keys: KeySet, key: SigningKey) -> bool:
    found = await keys.find(key.algorithm, key.kid)
    assert found is None or found.key_id == key.kid
    return found is not None


async def test_keys_are_fetched_before_anybody_asks(clock: Clock) -> None:
    key = new_key()
    async with running_issuer(key) as issuer, keys_of(issuer, clock) as keys:
        assert await knows(keys, key)
        assert issuer.requests == 1


@pytest.mark.parametrize("algorithm", sorted(jwks.ALGORITHMS))
async def test_a_key_is_found_by_its_algorithm_and_id_only(clock: Clock, algorithm: str) -> None:
    key = new_key(algorithm)
    async with running_issuer(key) as issuer, keys_of(issuer, clock) as keys:
        assert await knows(keys, key)
        for other in jwks.ALGORITHMS - {algorithm}:
            assert await keys.find(other, key.kid) is None
        assert await keys.find(algorithm, "another") is None


async def test_without_an_id_the_only_key_of_the_algorithm_is_meant(clock: Clock) -> None:
    one, other = new_key("ES256"), new_key("RS256")
    async with running_issuer(one, other) as issuer, keys_of(issuer, clock) as keys:
        found = await keys.find("ES256", None)
        assert found is not None
        assert found.key_id == one.kid
        issuer.keys = [one, other, new_key("ES256")]
        assert await keys.find("EdDSA", None) is None  # which fetches again
        assert await keys.find("ES256", None) is None
        assert await keys.find("RS256", None) is not None


async def test_a_new_key_is_known_at_once_and_an_old_one_no_more(clock: Clock) -> None:
    old, new = new_key(), new_key("RS256")
    async with running_issuer(old) as issuer, keys_of(issuer, clock) as keys:
        issuer.keys = [old, new]
        assert await knows(keys, new)
        assert await knows(keys, old)
        clock.now += COOL_DOWN_SECONDS
        issuer.keys = [new]
        assert not await knows(keys, new_key())
        assert not await knows(keys, old)


async def test_a_key_that_was_taken_back_is_gone_when_its_time_has_come(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.02)
    old, new = new_key(), new_key()
    async with running_issuer(old) as issuer, keys_of(issuer, clock) as keys:
        issuer.keys = [new]
        seen = issuer.requests
        await eventually(lambda: issuer.requests > seen + 1)
        clock.now -= 2 * COOL_DOWN_SECONDS  # nobody's question fetches
        assert await knows(keys, new)
        assert not await knows(keys, old)


async def test_unknown_ids_cause_one_fetch_in_a_while(clock: Clock) -> None:
    async with running_issuer(new_key()) as issuer, keys_of(issuer, clock) as keys:
        for _ in range(3):
            assert not await knows(keys, new_key())
        assert issuer.requests == 2
        clock.now += COOL_DOWN_SECONDS - 0.01
        assert not await knows(keys, new_key())
        assert issuer.requests == 2
        clock.now += 0.01
        assert not await knows(keys, new_key())
        assert issuer.requests == 3


async def test_a_thousand_who_ask_at_once_make_one_fetch(clock: Clock) -> None:
    old, new = new_key(), new_key()
    async with running_issuer(old) as issuer, keys_of(issuer, clock) as keys:
        issuer.keys = [old, new]
        issuer.open.clear()
        asking = [asyncio.create_task(knows(keys, new)) for _ in range(1000)]
        await eventually(lambda: issuer.requests == 2)
        assert await knows(keys, old)  # nobody waits for a key that is known
        asking[0].cancel()  # its caller gave up, which is nobody else's concern
        issuer.open.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [True] * 999
        assert issuer.requests == 2


AWAY: dict[str, bytes | None] = {
    "drops the connection": b"",
    "has a fault": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "sends elsewhere": b"HTTP/1.1 302 Found\r\nLocation: /jwks/\r\nContent-Length: 0\r\n\r\n",
    "speaks something else": b"220 mail.example ESMTP\r\n",
    "sends a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "sends no set": b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"keys":1}',
    "sends a list": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "sends no key": b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}',
    "sends too much": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (jwks.MAX_BYTES + 1) + b'{"keys":[]}',
    "ends too early": b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"keys":',
}


@pytest.mark.parametrize("how", AWAY)
async def test_known_keys_serve_on_while_the_provider(
    clock: Clock, logs: list[EventDict], how: str
) -> None:
    key, new = new_key(), new_key()
    async with running_issuer(key) as issuer, keys_of(issuer, clock) as keys:
        issuer.answer = AWAY[how]
        logs.clear()
        with pytest.raises(Unavailable):
            await knows(keys, new)
        (told,) = logs
        assert (told["event"], told["keys_known"]) == ("jwks_unavailable", 1)
        assert await knows(keys, key)
        clock.now += KEEP_SECONDS
        assert await knows(keys, key)
        clock.now += 1
        with pytest.raises(Unavailable):
            await knows(keys, key)
        clock.now += COOL_DOWN_SECONDS
        issuer.answer, issuer.keys = None, [key, new]
        assert await knows(keys, key)
        assert await knows(keys, new)


async def test_a_provider_that_never_answers_is_given_up(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    async with running_issuer(key) as issuer, keys_of(issuer, clock) as keys:
        monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.05)
        issuer.open.clear()
        with pytest.raises(Unavailable) as caught:
            await knows(keys, new_key())
        assert caught.value.headers == {"Retry-After": "2"}
        assert await knows(keys, key)


async def test_a_provider_that_comes_later_is_found_without_being_asked_for(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, logs: list[EventDict]
) -> None:
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.02)
    key = new_key()
    async with running_issuer(key) as issuer:
        issuer.answer = b""
        async with keys_of(issuer, clock) as keys:
            with pytest.raises(Unavailable):
                await knows(keys, key)
            assert logs == []  # the first failure was told of, the others are the same
            issuer.answer = None
            await eventually(lambda: bool(logs))
            (told,) = logs
            assert (told["event"], told["key_ids"]) == ("jwks_fetched", [key.kid])
            assert await knows(keys, key)


ES256, RS256, EDDSA = new_key("ES256"), new_key("RS256"), new_key("EdDSA")
P384 = ec.generate_private_key(ec.SECP384R1())
WEAK = SigningKey(rsa.generate_private_key(65537, 1024), "RS256", "weak")
LEFT_OUT: dict[str, object] = {
    "a secret": {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "1", "alg": "HS256", "use": "sig"},
    "a secret that claims to be more": {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "ES256"},
    "one for encryption": new_key(use="enc").jwk,
    "one that only signs": new_key(key_ops=["sign"]).jwk,
    "operations that are none": new_key(key_ops=7).jwk,
    "another algorithm": {**RS256.jwk, "alg": "RS512"},
    "an algorithm of another kind": {**RS256.jwk, "alg": "ES256"},
    "a secret's algorithm": {**RS256.jwk, "alg": "HS256"},
    "no algorithm at all": {**RS256.jwk, "alg": "none"},
    "another curve": SigningKey(P384, "ES384", "1", {"alg": None}).jwk,
    "a weak one": WEAK.jwk,
    "a private one": {**ES256.jwk, "d": "A" * 43},
    "a point that is not on the curve": {**ES256.jwk, "y": ES256.jwk["x"]},
    "half of one": {name: value for name, value in ES256.jwk.items() if name != "y"},
    "no text": {**ES256.jwk, "x": 7},
    "no object": "key",
}


@pytest.mark.parametrize("which", LEFT_OUT)
def test_keys_that_are_not_for_this_are_left_out(which: str) -> None:
    found = usable_keys(orjson.dumps({"keys": [LEFT_OUT[which], ES256.jwk]}))
    assert [key.key_id for key in found] == [ES256.kid]


@pytest.mark.parametrize("key", [ES256, RS256, EDDSA], ids=lambda key: key.algorithm)
@pytest.mark.parametrize(
    "told", [{}, {"alg": None}, {"use": None}, {"use": None, "key_ops": ["verify"]}], ids=str
)
def test_what_a_key_does_not_say_follows_from_its_kind(key: SigningKey, told: Json) -> None:
    published = {name: value for name, value in (key.jwk | told).items() if value is not None}
    (found,) = usable_keys(orjson.dumps({"keys": [published]}))
    assert isinstance(found, PyJWK)
    assert found.algorithm_name == key.algorithm
