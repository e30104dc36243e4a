"""Tokens of an identity provider (SEC-004; contract, `JWT_JWKS_URL`): its keys and no others."""

import asyncio
import base64
import hmac
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app.config import Settings
from app.db.database import Database
from app.security.jwks import COOL_DOWN_SECONDS
from app.security.jwt import REMEMBERED_SECONDS
from tests.contract.callers import V1, Api, Headers, Json, assert_refused, content, open_api
from tests.integration.sockets import eventually, running_gateway
from tests.issuer import Issuer, SigningKey, claims_of, new_key, running_issuer
from tests.stack import NOTIFY

INBOX = f"{V1}/notifications"
AUDIENCE, ISSUER = "notify", "https://issuer.example/"
# Made once: keys take their time.
KEYS = {algorithm: new_key(algorithm) for algorithm in ("ES256", "RS256", "EdDSA")}
STRANGER = new_key("ES256")
FOR_ENCRYPTION = new_key("ES256", use="enc")
SECRET_JWK = {"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0" * 8}


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def api_of(settings: Settings, issuer: Issuer, **overrides: Any) -> AsyncGenerator[Api]:
    """The API with an issuer's keys, and without a secret unless it is given."""
    given = {"jwt_secret": None, "jwt_jwks_url": issuer.url, **overrides}
    async with open_api(settings.model_copy(update=given)) as api:
        yield api


async def ask(api: Api, token: str) -> httpx.Response:
    return await api.client.get(INBOX, headers=bearer(token))


@pytest.fixture(scope="module")
async def issuer() -> AsyncGenerator[Issuer]:
    async with running_issuer(*KEYS.values(), FOR_ENCRYPTION, SECRET_JWK) as running:
        yield running


@pytest.fixture(scope="module")
async def keyed(settings: Settings, issuer: Issuer) -> AsyncGenerator[Api]:
    """An API that knows the issuer's keys only."""
    async with api_of(settings, issuer) as api:
        yield api


@pytest.fixture(scope="module")
async def mixed(settings: Settings, issuer: Issuer) -> AsyncGenerator[Api]:
    """An API that knows the issuer's keys and a secret."""
    async with api_of(settings, issuer, jwt_secret=settings.jwt_secret) as api:
        yield api


class TestKeys:
    @pytest.mark.parametrize("algorithm", KEYS)
    async def test_each_kind_lets_in_who_it_says(self, keyed: Api, algorithm: str) -> None:
        key, user = KEYS[algorithm], uuid4()
        assert (await ask(keyed, key.sign(claims_of(user)))).status_code == 200
        service = {
            **bearer(key.sign(claims_of("tests", role="service"))),
            "X-Service-Auth": keyed.service_key,
        }
        user = await keyed.new_user()
        created = await keyed.client.post(INBOX, json=content(user_id=user), headers=service)
        assert created.status_code == 202
        listed = await ask(keyed, key.sign(claims_of(user)))
        assert [item["id"] for item in listed.json()["items"]] == [created.json()["id"]]
        refused = await keyed.client.post(
            INBOX, json=content(user_id=user), headers=service | {"X-Service-Auth": "wrong"}
        )
        assert_refused(refused, 401, "not_authenticated")
        assert_refused(
            await ask(keyed, key.sign(claims_of("tests", role="service"))), 403, "forbidden"
        )

    async def test_without_an_id_the_only_key_of_the_algorithm_is_meant(self, keyed: Api) -> None:
        token = KEYS["RS256"].sign(claims_of(uuid4()), kid=None)
        assert (await ask(keyed, token)).status_code == 200

    async def test_a_token_of_the_secret_is_none_of_the_issuers(
        self, keyed: Api, settings: Settings
    ) -> None:
        assert settings.jwt_secret is not None
        token = jwt.encode(claims_of(uuid4()), settings.jwt_secret.get_secret_value())
        assert_refused(await ask(keyed, token), 401, "not_authenticated")


def handmade(header: Json, claims: Json, secret: bytes) -> str:
    """A token that no library would make."""
    claims = claims | {"exp": int(claims["exp"].timestamp())}
    parts = [base64url(json.dumps(part).encode()) for part in (header, claims)]
    signed = ".".join(parts).encode()
    return f"{signed.decode()}.{base64url(hmac.digest(secret, signed, 'sha256'))}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def confused(key: SigningKey, encoding: Encoding, kind: PublicFormat) -> Callable[[Json], str]:
    """HS256 with what everybody knows in the secret's place."""
    public = key.private.public_key().public_bytes(encoding, kind)
    return lambda claims: handmade({"alg": "HS256", "kid": key.kid}, claims, public)


PEM, DER, INFO = Encoding.PEM, Encoding.DER, PublicFormat.SubjectPublicKeyInfo
ES, RS = KEYS["ES256"], KEYS["RS256"]
FORGERIES: dict[str, Callable[[Json], str]] = {
    "HS256 with the public ES256 key, PEM": confused(ES, PEM, INFO),
    "HS256 with the public RS256 key, PEM": confused(RS, PEM, INFO),
    "HS256 with the public RS256 key, PKCS 1": confused(RS, PEM, PublicFormat.PKCS1),
    "HS256 with the public RS256 key, DER": confused(RS, DER, INFO),
    "HS256 with the JWK": lambda claims: handmade(
        {"alg": "HS256", "kid": ES.kid}, claims, json.dumps(ES.jwk).encode()
    ),
    "HS256 with the set's own secret": lambda claims: handmade(
        {"alg": "HS256", "kid": "secret"}, claims, base64.urlsafe_b64decode(SECRET_JWK["k"])
    ),
    "HS256 with nothing": lambda claims: handmade({"alg": "HS256"}, claims, b""),
    "none": lambda claims: handmade({"alg": "none"}, claims, b"").rpartition(".")[0] + ".",
    "none, of a key": lambda claims: handmade({"alg": "none", "kid": ES.kid}, claims, b""),
    "None": lambda claims: handmade({"alg": "None"}, claims, b""),
    "no alg": lambda claims: handmade({"kid": ES.kid}, claims, b""),
    "alg that is no text": lambda claims: handmade({"alg": ["ES256"]}, claims, b""),
    "kid that is no text": lambda claims: handmade({"alg": "ES256", "kid": 7}, claims, b""),
    "a key of another": lambda claims: STRANGER.sign(claims, kid=ES.kid),
    "a key of another, without an id": lambda claims: STRANGER.sign(claims, kid=None),
    "an unknown id": lambda claims: ES.sign(claims, kid="unknown"),
    "another key's id": lambda claims: ES.sign(claims, kid=RS.kid),
    "a key that it brings along": lambda claims: STRANGER.sign(claims, jwk=STRANGER.jwk),
    "a key that lies elsewhere": lambda claims: STRANGER.sign(
        claims, jku="http://127.0.0.1:1/", x5u="http://127.0.0.1:1/"
    ),
    "a key for encryption": FOR_ENCRYPTION.sign,
    "RS512": lambda claims: RS.sign(claims, alg="RS512"),
    "PS256": lambda claims: RS.sign(claims, alg="PS256"),
    "an extension that must be known": lambda claims: ES.sign(claims, crit=["x"], x=1),
    "altered": lambda claims: ES.sign(claims)[:-6] + "AAAAAA",
    "cut": lambda claims: ES.sign(claims).rpartition(".")[0],
    "expired": lambda claims: ES.sign(claims | {"exp": datetime.now(UTC) - timedelta(seconds=6)}),
    "without exp": lambda claims: ES.sign({"sub": claims["sub"]}),
    "without sub": lambda claims: ES.sign({"exp": claims["exp"]}),
    "sub that is no UUID": lambda claims: ES.sign(claims | {"sub": "somebody"}),
    "not valid yet": lambda claims: ES.sign(
        claims | {"nbf": datetime.now(UTC) + timedelta(hours=1)}
    ),
    "type refresh": lambda claims: ES.sign(claims | {"type": "refresh"}),
}


@pytest.mark.parametrize("which", FORGERIES)
async def test_forgeries_are_refused_however_tokens_are_verified(
    keyed: Api, mixed: Api, api: Api, which: str
) -> None:
    token = FORGERIES[which](claims_of(uuid4()))
    for running in (keyed, mixed, api):
        answer = await ask(running, token)
        assert_refused(answer, 401, "not_authenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_with_both_a_tokens_algorithm_chooses(mixed: Api) -> None:
    claims = claims_of(uuid4())
    assert (await ask(mixed, jwt.encode(claims, mixed.jwt_secret))).status_code == 200
    for key in KEYS.values():
        assert (await ask(mixed, key.sign(claims))).status_code == 200
    for algorithm in ("HS384", "HS512"):
        token = jwt.encode(claims, mixed.jwt_secret * 2, algorithm=algorithm)
        assert_refused(await ask(mixed, token), 401, "not_authenticated")


async def test_audience_and_issuer_are_asked_for_once_set(
    settings: Settings, issuer: Issuer
) -> None:
    named: Json = {"aud": AUDIENCE, "iss": ISSUER}
    others: list[Json] = [
        {},
        {"aud": AUDIENCE},
        {"iss": ISSUER},
        named | {"aud": "others"},
        named | {"iss": "https://issuer.example"},
    ]
    async with api_of(settings, issuer, jwt_audience=AUDIENCE, jwt_issuer=ISSUER) as strict:
        for audience in (AUDIENCE, ["others", AUDIENCE]):
            token = ES.sign(claims_of(uuid4(), **named | {"aud": audience}))
            assert (await ask(strict, token)).status_code == 200
        for claims in others:
            token = ES.sign(claims_of(uuid4(), **claims))
            assert_refused(await ask(strict, token), 401, "not_authenticated")


class TestRollOver:
    async def test_it_needs_no_restart(self, settings: Settings) -> None:
        old, new, user = new_key(), new_key("RS256"), uuid4()
        async with running_issuer(old) as issuer, api_of(settings, issuer) as api:
            assert (await ask(api, old.sign(claims_of(user)))).status_code == 200
            issuer.keys = [new]
            assert (await ask(api, new.sign(claims_of(user)))).status_code == 200
            fresh = old.sign(claims_of(user, jti="never seen"))
            assert_refused(await ask(api, fresh), 401, "not_authenticated")
            assert issuer.requests == 2

    async def test_a_removed_keys_tokens_are_forgotten_within_a_minute(
        self, settings: Settings
    ) -> None:
        old, new, user = new_key(), new_key(), uuid4()
        async with running_issuer(old) as issuer, api_of(settings, issuer) as api:
            token = old.sign(claims_of(user))
            assert (await ask(api, token)).status_code == 200
            issuer.keys = [new]
            assert (await ask(api, new.sign(claims_of(user)))).status_code == 200
            later = datetime.now(UTC) + timedelta(seconds=REMEMBERED_SECONDS)
            with time_machine.travel(later):
                assert_refused(await ask(api, token), 401, "not_authenticated")

    async def test_many_who_ask_at_once_make_one_fetch_and_hold_up_nobody(
        self, settings: Settings
    ) -> None:
        old, new = new_key(), new_key()
        async with running_issuer(old) as issuer, api_of(settings, issuer) as api:
            assert (await ask(api, old.sign(claims_of(uuid4())))).status_code == 200
            issuer.keys = [old, new]
            issuer.open.clear()
            asking = [
                asyncio.create_task(ask(api, new.sign(claims_of(uuid4())))) for _ in range(50)
            ]
            await eventually(lambda: issuer.requests == 2)
            assert (await ask(api, old.sign(claims_of(uuid4())))).status_code == 200
            assert not any(task.done() for task in asking)
            issuer.open.set()
            assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
            assert issuer.requests == 2


class TestOutage:
    async def test_without_any_key_it_is_the_server_that_cannot(self, settings: Settings) -> None:
        key = new_key()
        token = key.sign(claims_of(uuid4()))
        async with running_issuer(key) as issuer:
            issuer.answer = b""
            async with api_of(settings, issuer, jwt_secret=settings.jwt_secret) as api:
                answer = await ask(api, token)
                assert_refused(answer, 503, "unavailable")
                assert int(answer.headers["Retry-After"]) >= 1
                # What needs no key is judged as ever.
                assert (await ask(api, jwt.encode(claims_of(uuid4()), api.jwt_secret))).is_success
                for other in ("garbage", FORGERIES["none"](claims_of(uuid4()))):
                    assert_refused(await ask(api, other), 401, "not_authenticated")
                internal = await api.client.put(
                    f"{V1}/internal/users/{uuid4()}", json={}, headers=api.internal()
                )
                assert internal.status_code == 200
                issuer.answer = None
                async with asyncio.timeout(COOL_DOWN_SECONDS):
                    while (await ask(api, token)).status_code != 200:
                        await asyncio.sleep(0.05)

    async def test_known_keys_serve_on(self, settings: Settings) -> None:
        key = new_key()
        async with running_issuer(key) as issuer, api_of(settings, issuer) as api:
            assert (await ask(api, key.sign(claims_of(uuid4())))).status_code == 200
            issuer.answer = b""
            # It may be a new one: nobody can tell.
            assert_refused(await ask(api, new_key().sign(claims_of(uuid4()))), 503, "unavailable")
            assert (await ask(api, key.sign(claims_of(uuid4())))).status_code == 200
            assert_refused(
                await ask(api, STRANGER.sign(claims_of(uuid4()), kid=key.kid)),
                401,
                "not_authenticated",
            )


class TestSockets:
    async def test_a_key_opens_them_and_a_forgery_does_not(
        self, settings: Settings, database: Database, redis_client: Redis, issuer: Issuer
    ) -> None:
        keyed = settings.model_copy(update={"jwt_secret": None, "jwt_jwks_url": issuer.url})
        async with running_gateway(keyed, database, redis_client) as there:
            async with there.open() as client:
                await client.authenticate(ES.sign(claims_of(user := uuid4())))
                assert (await client.receive())["user_id"] == str(user)
            for which, code in (("expired", 3005), ("none", 4401), ("an unknown id", 4401)):
                async with there.open(f"token={FORGERIES[which](claims_of(user))}") as client:
                    assert await client.receive_close() == code

    async def test_they_are_asked_to_come_back_while_there_is_no_key(
        self, settings: Settings, database: Database, redis_client: Redis
    ) -> None:
        key = new_key()
        async with running_issuer(key) as issuer:
            issuer.answer = b""
            keyed = settings.model_copy(update={"jwt_secret": None, "jwt_jwks_url": issuer.url})
            async with (
                running_gateway(keyed, database, redis_client) as there,
                there.open(f"token={key.sign(claims_of(uuid4()))}") as client,
            ):
                assert await client.receive_close() == 3014


class TestWithoutASecret:
    async def test_the_demo_has_no_sign_in(self, keyed: Api) -> None:
        (somebody, *_) = (await keyed.client.get("/demo/users")).json()["users"]
        answer = await keyed.client.post("/demo/token", json={"user_id": somebody["id"]})
        assert_refused(answer, 404, "not_found")
        assert "JWT_SECRET" in answer.json()["error"]["message"]

    @pytest.mark.parametrize("which", [("--admin",), ("--service", "x"), ("--user", str(uuid4()))])
    def test_the_command_issues_no_tokens(self, data_dir: Path, which: tuple[str, ...]) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(data_dir),
            "JWT_JWKS_URL": "https://issuer.example/jwks",
        }
        done = subprocess.run(
            [NOTIFY, "token", *which],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=data_dir,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "JWT_SECRET" in done.stderr
        assert "Traceback" not in done.stderr


class TestAudit:
    """Refused access is logged (SEC-004, SEC-005), and nothing that opens a door with it."""

    async def test_each_refusal_says_where_and_why(self, keyed: Api) -> None:
        secrets: list[str] = []

        def secret(headers: Headers) -> Headers:
            secrets.extend(value.removeprefix("Bearer ") for value in headers.values())
            return headers

        forged = secret(bearer(STRANGER.sign(claims_of(uuid4()), kid=ES.kid)))
        ended = secret(bearer(FORGERIES["expired"](claims_of(uuid4()))))
        service = secret(bearer(ES.sign(claims_of("tests", role="service"))))
        wrong_key = secret({"X-Service-Auth": "a-key-that-is-wrong"})
        internal = secret({"X-Internal-Service-Key": "another-wrong-key"})
        send = f"{V1}/internal/notifications/send"
        calls: list[tuple[str, str, Mapping[str, str], str]] = [
            ("GET", INBOX, {}, "not_authenticated"),
            ("GET", f"{INBOX}?token=in-the-query", forged, "not_authenticated"),
            ("GET", INBOX, ended, "not_authenticated"),
            ("GET", INBOX, service, "forbidden"),
            ("POST", INBOX, {**service, **wrong_key}, "not_authenticated"),
            ("POST", send, {**internal, "X-Service-Name": "tests"}, "not_authenticated"),
        ]
        for method, path, headers, code in calls:
            with capture_logs() as logged:
                answer = await keyed.client.request(method, path, headers=headers)
            (told,) = (entry for entry in logged if entry["event"] == "access_refused")
            assert told == {
                "event": "access_refused",
                "log_level": "warning",
                "path": path.partition("?")[0],
                "code": code,
                "reason": answer.json()["error"]["message"],
            }
            assert not any(text in str(logged) for text in (*secrets, "in-the-query"))

    async def test_refused_sockets_are_told_of_alike(
        self, settings: Settings, database: Database, redis_client: Redis
    ) -> None:
        async with running_gateway(settings, database, redis_client) as there:
            user = uuid4()
            tokens = {
                there.token(user, seconds=-60): "TOKEN_EXPIRED",
                there.token(user, role="service"): "AUTH_FAILED",
                there.token(user)[:-6] + "AAAAAA": "AUTH_FAILED",
            }
            for token, code in tokens.items():
                with capture_logs() as logged:
                    async with there.open(f"token={token}") as client:
                        await client.receive_close()
                (told,) = [line for line in logged if line["event"] == "access_refused"]
                assert (told["path"], told["code"]) == ("websocket", code)
                assert told["reason"]
                assert token not in str(logged)
