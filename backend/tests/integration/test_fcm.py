"""Pushing to apps (REQ-007): against the sandbox, which checks what Google checks, and against
servers that answer what it does not."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from app.channels.base import (
    Claim,
    Deferred,
    Device,
    DeviceFate,
    Failed,
    Outcome,
    Retry,
    Sent,
    Skipped,
    TokenVerdict,
    fcm_token_context,
)
from app.channels.breaker import Breakers
from app.channels.fcm import AT_ONCE, FcmSender, fcm_client
from app.config import Settings
from app.load_settings import load_settings
from app.policy.kinds import DeviceKind, Reason
from app.sandbox.server import serving_sandbox
from app.security.encryption import Cipher
from tests.http_client import client_of
from tests.integration.receiver import Receiver, Reply, receiving
from tests.ports import free_ports
from tests.pushing import a_claim

PATIENCE = 20.0
FAULTS = "/faults"


@dataclass
class Hand:
    """A clock that is set by hand."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Phone:
    """An app's token, as it is stored."""

    token: str
    cipher: Cipher
    id: UUID = field(default_factory=uuid4)

    @property
    def device(self) -> Device:
        sealed = self.cipher.encrypt(self.token.encode(), context=fcm_token_context(self.id))
        return Device(self.id, DeviceKind.FCM, None, None, None, None, sealed, "ios")

    def claim(self, **changes: Any) -> Claim:
        return a_claim(self.device, created_at=datetime.now(UTC), **changes)


@dataclass
class Scene:
    """A sender, and the FCM that it sends to."""

    sender: FcmSender
    cipher: Cipher
    clock: Hand

    async def send(self, *claims: Claim) -> list[Outcome]:
        """The outcomes, in the order of claims; each is reported once."""
        outcomes: dict[UUID, Outcome] = {}

        def report(claim: Claim, outcome: Outcome) -> None:
            assert claim.id not in outcomes
            outcomes[claim.id] = outcome

        async with asyncio.timeout(PATIENCE):
            await self.sender.send(claims, report)
        return [outcomes[claim.id] for claim in claims]

    async def send_one(self, **changes: Any) -> Outcome:
        (outcome,) = await self.send(self.phone().claim(**changes))
        return outcome

    def phone(self, token: str = "some:APA91b-token") -> Phone:
        return Phone(token, self.cipher)


@dataclass
class SandboxScene(Scene):
    sandbox: httpx.AsyncClient

    async def install(self, platform: str = "android") -> Phone:
        name = f"phone-{uuid4().hex[:8]}"
        answer = await self.sandbox.put(f"/fcm/phones/{name}", json={"platform": platform})
        return self.phone(answer.raise_for_status().json()["token"])

    async def arrived(self, phone: Phone) -> list[dict[str, Any]]:
        answer = await self.sandbox.get("/fcm/messages", params={"token": phone.token})
        return answer.raise_for_status().json()["items"]

    async def fault(self, **rule: Any) -> None:
        rule = {"provider": "fcm", **rule}
        (await self.sandbox.put(FAULTS, json=rule)).raise_for_status()


@asynccontextmanager
async def sending(
    settings: Settings, clock: Hand, breakers: Breakers | None = None
) -> AsyncGenerator[tuple[FcmSender, Cipher]]:
    cipher = Cipher(settings.encryption_keys)

    def ack_token(delivery_id: UUID) -> str:
        return f"ack-{delivery_id}"

    # However slow the machine is, nobody leaves the line.
    breakers = breakers or Breakers(AT_ONCE, line=PATIENCE)
    async with fcm_client(settings) as client:
        yield FcmSender(settings, client, cipher, ack_token, clock, breakers), cipher


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Settings]:
    """Settings of a sandbox that runs."""
    settings = load_settings(_env_file=None, data_dir=tmp_path_factory.mktemp("data"))
    async with serving_sandbox(settings) as url:
        yield settings.model_copy(update={"sandbox_port": httpx.URL(url).port})


@pytest.fixture
async def scene(served: Settings) -> AsyncGenerator[SandboxScene]:
    async with (
        client_of(served.sandbox_url) as sandbox,
        sending(served, clock := Hand()) as (sender, cipher),
    ):
        (await sandbox.delete("/state")).raise_for_status()
        yield SandboxScene(sender, cipher, clock, sandbox)


async def test_a_push_reaches_the_phone(scene: SandboxScene) -> None:
    android, iphone = await scene.install(), await scene.install("ios")
    first, second = android.claim(priority="high", unread_count=2), iphone.claim()
    outcomes = await scene.send(first, second)
    for phone, claim, outcome in zip((android, iphone), (first, second), outcomes, strict=True):
        (message,) = await scene.arrived(phone)
        assert outcome == Sent(message["name"].rpartition("/")[2])
        assert message["message"]["notification"]["title"] == claim.title
        assert message["message"]["data"]["ack_token"] == f"ack-{claim.id}"


async def test_a_closing_reaches_the_phone(scene: SandboxScene) -> None:
    phone, ids = await scene.install("ios"), [uuid4(), uuid4()]
    assert isinstance(await scene.sender.close(phone.device, ids, 4), Sent)
    (message,) = await scene.arrived(phone)
    assert message["message"]["data"]["ids"] == ",".join(map(str, ids))


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"status": 404}, Failed(Reason.DEVICE_GONE, "404 UNREGISTERED", DeviceFate.REMOVE)),
        (
            {"status": 403},
            Failed(
                Reason.DEVICE_REFUSED,
                "403 SENDER_ID_MISMATCH: the token belongs to another Firebase project",
                DeviceFate.DISABLE,
            ),
        ),
        ({"status": 400}, Failed(Reason.PROVIDER_REJECTED, "400 INVALID_ARGUMENT")),
        ({"status": 429}, Deferred(Reason.PROVIDER_LIMIT, "429 QUOTA_EXCEEDED", 60.0)),
        (
            {"status": 429, "retry_after": 9},
            Deferred(Reason.PROVIDER_LIMIT, "429 QUOTA_EXCEEDED", 9.0),
        ),
        (
            {"status": 503, "retry_after": 9},
            Retry(Reason.PROVIDER_UNAVAILABLE, "503 UNAVAILABLE", 9.0),
        ),
        ({"status": 500}, Retry(Reason.PROVIDER_UNAVAILABLE, "500 INTERNAL")),
        (
            {"status": 401},
            Retry(
                Reason.PROVIDER_REJECTED,
                "401 THIRD_PARTY_AUTH_ERROR:"
                " the Firebase project has no valid APNs key for this app",
            ),
        ),
    ],
)
async def test_errors_have_outcomes(
    scene: SandboxScene, rule: dict[str, Any], outcome: Outcome
) -> None:
    phone, well = await scene.install(), await scene.install()
    await scene.fault(kind="status", to=phone.token, **rule)
    assert (await scene.send(phone.claim(), well.claim()))[0] == outcome
    # What is wrong with one is nothing to another.
    assert len(await scene.arrived(well)) == 1


@pytest.mark.parametrize("kind", ["drop", "drop_after"])
async def test_without_an_answer_it_is_tried_again(scene: SandboxScene, kind: str) -> None:
    phone, well = await scene.install(), await scene.install()
    await scene.fault(kind=kind, to=phone.token)
    outcome, other = await scene.send(phone.claim(), well.claim())
    assert isinstance(outcome, Retry)
    assert outcome.reason is Reason.PROVIDER_UNAVAILABLE
    assert isinstance(other, Sent)


async def test_an_ill_fcm_is_left_alone(served: Settings, scene: SandboxScene) -> None:
    phone = await scene.install()
    await scene.fault(kind="status", status=503)
    timeless = Breakers(AT_ONCE, clock=lambda: 0.0)
    async with sending(served, scene.clock, timeless) as (sender, _):
        scene.sender = sender
        outcomes = [(await scene.send(phone.claim()))[0] for _ in range(8)]
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Retry] * 5 + [Deferred] * 3
    hits = (await scene.sandbox.get(FAULTS)).json()["items"][0]["hits"]
    assert hits == 5


async def test_a_phone_without_the_app_is_gone(scene: SandboxScene) -> None:
    name = "gone"
    answer = await scene.sandbox.put(f"/fcm/phones/{name}", json={"platform": "ios"})
    await scene.sandbox.delete(f"/fcm/phones/{name}")
    phone = scene.phone(answer.json()["token"])
    (outcome,) = await scene.send(phone.claim())
    assert outcome == Failed(Reason.DEVICE_GONE, "404 UNREGISTERED", DeviceFate.REMOVE)
    (outcome,) = await scene.send(scene.phone("no-token").claim())
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.device) == (Reason.DEVICE_REFUSED, DeviceFate.COUNT)


async def test_many_go_out_at_once(scene: SandboxScene) -> None:
    phones = [await scene.install() for _ in range(120)]
    outcomes = await scene.send(*(phone.claim() for phone in phones))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)


async def test_a_token_is_tried_without_a_push(scene: SandboxScene) -> None:
    phone = await scene.install()
    assert await scene.sender.validate(phone.token) is TokenVerdict.VALID
    assert [item["validate_only"] for item in await scene.arrived(phone)] == [True]
    assert await scene.sender.validate("no-token") is TokenVerdict.INVALID
    await scene.fault(kind="status", status=404)
    assert await scene.sender.validate(phone.token) is TokenVerdict.INVALID
    for status in (401, 429, 503):
        await scene.fault(kind="status", status=status)
        assert await scene.sender.validate(phone.token) is TokenVerdict.UNKNOWN
    await scene.fault(kind="drop")
    assert await scene.sender.validate(phone.token) is TokenVerdict.UNKNOWN


async def test_an_unreadable_token_costs_its_own_delivery_alone(scene: SandboxScene) -> None:
    well, ill = await scene.install(), scene.phone()
    moved = replace(ill.device, id=uuid4())  # a ciphertext of another row
    with capture_logs() as logs:
        outcomes = await scene.send(a_claim(moved), a_claim(None), well.claim())
    assert outcomes[0] == Retry(Reason.INTERNAL_ERROR, "Its token is unreadable.")
    assert outcomes[1] == Skipped(Reason.NO_DEVICE)
    assert isinstance(outcomes[2], Sent)
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "fcm_token_unreadable")
    ]


async def test_nothing_personal_is_logged(
    scene: SandboxScene, caplog: pytest.LogCaptureFixture
) -> None:
    phone = await scene.install()
    caplog.set_level("INFO")
    with capture_logs() as logs:
        for rule in ({"status": 400}, {"status": 403}, {"status": 404}, {"status": 500}):
            await scene.fault(kind="status", message=f"About {phone.token}.", **rule)
            (outcome,) = await scene.send(phone.claim(title="Dear Ada", body_html="Lovelace"))
            assert phone.token not in repr(outcome)
        await scene.fault(kind="drop")
        await scene.send(phone.claim(title="Dear Ada", body_html="Lovelace"))
        scene.clock.pass_by(hours=2)
        await scene.fault(kind="status", provider="fcm_oauth", status=400, message="Dear Ada")
        await scene.send(phone.claim(title="Dear Ada", body_html="Lovelace"))
    told = repr(logs) + caplog.text
    assert "fcm_access_failed" in told
    for word in (phone.token, "Ada", "Lovelace", "Bearer", "ya29", "assertion"):
        assert word not in told


async def test_the_sandbox_may_start_later(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = load_settings(_env_file=None, data_dir=tmp_path, sandbox_port=port)
    async with sending(settings, clock := Hand()) as (sender, cipher):
        scene = Scene(sender, cipher, clock)
        outcome = await scene.send_one()
        assert outcome == Deferred(
            Reason.PROVIDER_UNAVAILABLE, "No access token: ConnectError.", 1.0
        )
        async with (
            serving_sandbox(settings, port=port) as url,
            client_of(url) as sandbox,
        ):
            phone = await SandboxScene(sender, cipher, clock, sandbox).install()
            clock.pass_by(seconds=1)
            (outcome,) = await scene.send(phone.claim())
            assert isinstance(outcome, Sent)


# Beyond what the sandbox does: Google's own two servers, each with answers of the test's choice.


@dataclass
class GoogleScene(Scene):
    tokens: Receiver
    api: Receiver
    key: RSAPrivateKey


def granted(token: str, seconds: float = 3600) -> Reply:
    return Reply(body=json.dumps({"access_token": token, "expires_in": seconds}).encode())


ACCEPTED = Reply(body=b'{"name": "projects/p/messages/1"}')
UNAUTHENTICATED = Reply(401, b'{"error": {"code": 401, "status": "UNAUTHENTICATED"}}')


@pytest.fixture(scope="module")
def key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
async def google(tmp_path: Path, key: RSAPrivateKey) -> AsyncGenerator[GoogleScene]:
    async with receiving() as tokens, receiving() as api:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        account = {
            "project_id": "ours",
            "client_email": "notify@ours.example",
            "private_key": pem,
            "private_key_id": "k1",
            "token_uri": tokens.url(path="/oauth/token"),
        }
        file = tmp_path / "account.json"
        file.write_text(json.dumps(account))
        settings = load_settings(
            _env_file=None,
            data_dir=tmp_path,
            fcm_service_account=str(file),
            fcm_api_url=api.url(path="/base/"),
            provider_timeout_seconds=2.0,
        )
        tokens.replies, api.replies = [granted("first")], [ACCEPTED]
        async with sending(settings, clock := Hand()) as (sender, cipher):
            yield GoogleScene(sender, cipher, clock, tokens, api, key)


async def test_the_accounts_own_token_address_is_asked(google: GoogleScene) -> None:
    assert await google.send_one() == Sent("1")
    (asked,), (call,) = google.tokens.calls, google.api.calls
    assert asked.path == "/oauth/token"
    form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    address = google.tokens.url(path="/oauth/token")
    claims = jwt.decode(
        form["assertion"], google.key.public_key(), algorithms=["RS256"], audience=address
    )
    assert claims["iss"] == "notify@ours.example"
    assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(form["assertion"])["kid"] == "k1"
    assert call.path == "/base/v1/projects/ours/messages:send"
    assert call.headers["authorization"] == "Bearer first"


async def test_one_request_gets_the_token_of_many(google: GoogleScene) -> None:
    outcomes = await google.send(*(google.phone().claim() for _ in range(50)))
    assert outcomes == [Sent("1")] * 50
    assert len(google.tokens.calls) == 1
    google.clock.pass_by(minutes=50)
    await google.send_one()
    assert len(google.tokens.calls) == 1


async def test_one_that_hangs_delays_no_other(google: GoogleScene) -> None:
    google.api.replies = [Reply(hangs=True), ACCEPTED]
    outcomes = await google.send(*(google.phone().claim() for _ in range(5)))
    assert [outcome for outcome in outcomes if outcome != Sent("1")] == [
        Retry(Reason.PROVIDER_UNAVAILABLE, "TimeoutError")
    ]


async def test_a_token_is_renewed_before_its_end_while_it_serves(google: GoogleScene) -> None:
    await google.send_one()
    google.tokens.replies = [Reply(500), granted("second")]
    google.clock.pass_by(minutes=54)
    # Even when it cannot be renewed just now.
    assert await google.send_one() == Sent("1")
    await google.tokens.until(2)
    async with asyncio.timeout(PATIENCE):
        while google.api.calls[-1].headers["authorization"] == "Bearer first":
            google.clock.pass_by(seconds=1)
            assert await google.send_one() == Sent("1")
    assert google.api.calls[-1].headers["authorization"] == "Bearer second"
    assert len(google.tokens.calls) == 3
    # After its end none is used.
    google.tokens.replies = [granted("third")]
    google.clock.pass_by(hours=1)
    await google.send_one()
    assert google.api.calls[-1].headers["authorization"] == "Bearer third"


async def test_a_refused_token_is_renewed_once(google: GoogleScene) -> None:
    google.api.replies = [UNAUTHENTICATED, ACCEPTED]
    google.tokens.replies = [granted("first"), granted("second")]
    assert await google.send_one() == Sent("1")
    used = [call.headers["authorization"] for call in google.api.calls]
    assert used == ["Bearer first", "Bearer second"]
    google.api.replies = [UNAUTHENTICATED]
    assert await google.send_one() == Retry(Reason.PROVIDER_REJECTED, "401 UNAUTHENTICATED")
    assert len(google.api.calls) == 4


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (
            Reply(400, b'{"error": "invalid_grant", "error_description": "for ada@x.org"}'),
            Retry(Reason.PROVIDER_REJECTED, "No access token: 400 invalid_grant.", 5.0),
        ),
        (
            Reply(400, b'{"error": {"message": "x"}}'),
            Retry(Reason.PROVIDER_REJECTED, "No access token: 400.", 5.0),
        ),
        (Reply(503), Deferred(Reason.PROVIDER_UNAVAILABLE, "No access token: 503.", 5.0)),
        (
            Reply(429, headers={"Retry-After": "30"}),
            Deferred(Reason.PROVIDER_UNAVAILABLE, "No access token: 429.", 30.0),
        ),
        (
            Reply(hangs=True),
            Deferred(Reason.PROVIDER_UNAVAILABLE, "No access token: TimeoutError.", 5.0),
        ),
        (
            Reply(body=b"<html>"),
            Deferred(
                Reason.PROVIDER_UNAVAILABLE,
                "No access token: an unreadable answer (JSONDecodeError).",
                5.0,
            ),
        ),
        (
            Reply(body=b'{"access_token": "x"}'),
            Deferred(
                Reason.PROVIDER_UNAVAILABLE,
                "No access token: an unreadable answer (KeyError).",
                5.0,
            ),
        ),
    ],
)
async def test_without_an_access_token_nothing_is_lost(
    google: GoogleScene, reply: Reply, outcome: Outcome
) -> None:
    google.tokens.replies = [reply]
    assert set(await google.send(*(google.phone().claim() for _ in range(20)))) == {outcome}
    # One asked for all of them, and nobody asks again too soon.
    google.clock.pass_by(seconds=4)
    assert type(await google.send_one()) is type(outcome)
    assert (len(google.tokens.calls), google.api.calls) == (1, [])
    google.tokens.replies = [granted("later")]
    google.clock.pass_by(seconds=26)
    assert await google.send_one() == Sent("1")


async def test_what_outlived_its_time_is_not_put_off_for_ever(google: GoogleScene) -> None:
    google.tokens.replies = [Reply(503)]
    claim = replace(google.phone().claim(), created_at=google.clock() - timedelta(days=2))
    (outcome,) = await google.send(claim)
    assert isinstance(outcome, Retry)


async def test_the_loop_goes_on_while_a_token_is_awaited(google: GoogleScene) -> None:
    google.tokens.replies = [Reply(hangs=True)]
    sending_one = asyncio.create_task(google.send_one())
    # Served by this very loop.
    await google.tokens.until(1)
    assert not sending_one.done()
    # Whoever gives up takes the token from nobody.
    other = asyncio.create_task(google.send_one())
    await asyncio.sleep(0)
    other.cancel()
    assert isinstance(await sending_one, Deferred)
    assert len(google.tokens.calls) == 1


@pytest.mark.parametrize(
    ("project", "path"),
    [(None, "/v1/projects/ours/messages:send"), ("its-own", "/v1/projects/its-own/messages:send")],
)
async def test_the_project_may_be_another(
    tmp_path: Path, key: RSAPrivateKey, project: str | None, path: str
) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    async with receiving() as server:
        account = {
            "project_id": "ours",
            "client_email": "notify@ours.example",
            "private_key": pem,
            "token_uri": server.url(),
        }
        settings = load_settings(
            _env_file=None,
            data_dir=tmp_path,
            fcm_service_account=json.dumps(account),
            fcm_api_url=server.url(path=""),
            fcm_project_id=project,
        )
        server.replies = [granted("first"), ACCEPTED]
        async with sending(settings, clock := Hand()) as (sender, cipher):
            assert await Scene(sender, cipher, clock).send_one() == Sent("1")
        assert server.calls[1].path == path
