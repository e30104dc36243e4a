"""Each answer of a push service, over real sockets, and what becomes of it (REQ-006, REQ-008)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.channels.base import Claim, Deferred, DeviceFate, Failed, Outcome, Retry, Sent, Skipped
from app.channels.breaker import FAULTS_ALLOWED, Breakers
from app.channels.web_push import PUSHES_TO_ONE_ORIGIN, WebPushSender, outcome_of
from app.config import Settings
from app.policy.kinds import Reason
from app.security.address_rules import AddressRules
from app.security.outbound import Answer, Outbound, Resolver
from app.security.vapid_keys import VapidKey
from tests.integration.receiver import Call, Receiver, Reply, receiving
from tests.integration.sockets import eventually
from tests.pushing import NOW, Browser, Ring, a_claim, vapid_claims, vapid_key

OPEN = AddressRules(allow_loopback=True)
CREATED = Reply(201, b"", {"Location": "https://push.example/m/message-1"})
NEWEST, OLDER, OLDEST = vapid_key("newest"), vapid_key("older"), vapid_key("oldest")
BROWSER = Browser()
TTL = timedelta(days=1)

Sending = list[tuple[Claim, Outcome]]


@pytest.fixture
async def service() -> AsyncGenerator[Receiver]:
    async with receiving() as running:
        running.replies = [CREATED]
        yield running


@asynccontextmanager
async def sending(
    rules: AddressRules = OPEN,
    *,
    seconds: float = 20.0,
    breakers: Breakers | None = None,
    now: datetime = NOW,
    ring: Sequence[VapidKey] = (NEWEST, OLDER, OLDEST),
    resolve: Resolver | None = None,
) -> AsyncGenerator[WebPushSender]:
    chosen: dict[str, Any] = {
        "_env_file": None,
        "provider_timeout_seconds": seconds,
        "delivery_lease_seconds": seconds + 1,
        "public_url": "https://notify.example",
        "vapid_subject": "mailto:ops@example.com",
    }
    async with Outbound(
        rules, calls_to_one_origin=PUSHES_TO_ONE_ORIGIN, resolve=resolve
    ) as outbound:
        yield WebPushSender(
            Settings(**chosen),
            Ring(list(ring)),
            outbound,
            lambda delivery_id: f"ack-{delivery_id}",
            lambda: now,
            breakers,
        )


async def outcomes(sender: WebPushSender, *claims: Claim) -> list[Outcome]:
    told: dict[Claim | int, Outcome] = {}

    def report(claim: Claim, outcome: Outcome) -> None:
        assert id(claim) not in told
        told[id(claim)] = outcome

    await sender.send(claims, report)
    return [told[id(claim)] for claim in claims]


async def outcome(sender: WebPushSender, claim: Claim) -> Outcome:
    (only,) = await outcomes(sender, claim)
    return only


def to(service: Receiver, key_id: str | None = "newest", **changes: Any) -> Claim:
    return a_claim(BROWSER.device(service.url(path="/push/1"), key_id), **changes)


def signer(call: Call) -> str:
    """Which key a call was signed with."""
    for key in (NEWEST, OLDER, OLDEST):
        try:
            vapid_claims(call.headers["authorization"], key)
        except AssertionError:
            continue
        return key.id
    raise AssertionError("signed with none of ours")


async def test_a_push_is_what_the_standards_say(service: Receiver) -> None:
    claim = to(service, priority="critical", data={"ttl": 60, "topic": "build"}, unread_count=2)
    async with sending() as sender:
        assert await outcome(sender, claim) == Sent("message-1")
    (call,) = service.calls
    assert (call.method, call.path) == ("POST", "/push/1")
    assert call.headers["content-encoding"] == "aes128gcm"
    assert call.headers["ttl"] == "60"
    assert call.headers["urgency"] == "high"
    assert call.headers["topic"] == "build"
    token = vapid_claims(call.headers["authorization"], NEWEST)
    assert token["aud"] == f"http://127.0.0.1:{service.port}"
    assert token["sub"] == "mailto:ops@example.com"
    told = BROWSER.message(call.body)["notification"]
    assert told["title"] == claim.title
    assert told["data"]["ack_token"] == f"ack-{claim.id}"
    assert told["navigate"].startswith("https://notify.example/?notification=")


async def test_a_push_without_a_topic_or_a_ttl_has_the_usual_one(service: Receiver) -> None:
    async with sending() as sender:
        await outcome(sender, to(service))
    assert service.calls[0].headers["ttl"] == "86400"
    assert "topic" not in service.calls[0].headers


REASONS = {
    403: b'{"reason": "BadJwtToken"}',
    400: b'{"reason": "VapidPkHashMismatch"}',
    401: b'{"errno": 109, "message": "Request did not validate"}',
}
GONE, COUNT = DeviceFate.REMOVE, DeviceFate.COUNT
LATER = {"Retry-After": "7"}
DATE = {"Retry-After": "Sun, 01 Mar 2026 12:00:09 GMT"}
TABLE: dict[str, tuple[Reply, Outcome, int]] = {
    "200": (Reply(200), Sent(), 1),
    "201": (CREATED, Sent("message-1"), 1),
    "202": (Reply(202), Sent(), 1),
    "204": (Reply(204, b""), Sent(), 1),
    "301": (
        Reply(301, headers={"Location": "http://127.0.0.1/"}),
        Failed(Reason.DEVICE_REFUSED, "301: redirects are not followed.", COUNT),
        1,
    ),
    "307": (
        Reply(307),
        Failed(Reason.DEVICE_REFUSED, "307: redirects are not followed.", COUNT),
        1,
    ),
    "400": (Reply(400), Failed(Reason.DEVICE_REFUSED, "400", COUNT), 1),
    "400 of Apple, another": (
        Reply(400, b'{"reason": "BadWebPushTopic"}'),
        Failed(Reason.DEVICE_REFUSED, "400 BadWebPushTopic", COUNT),
        1,
    ),
    "400 of Apple, foreign key": (
        Reply(400, REASONS[400]),
        Failed(Reason.DEVICE_REFUSED, "400 VapidPkHashMismatch", COUNT),
        3,
    ),
    "401": (Reply(401, REASONS[401]), Retry(Reason.PROVIDER_REJECTED, "401"), 3),
    "403": (Reply(403), Failed(Reason.DEVICE_REFUSED, "403", COUNT), 3),
    "403 of Apple, bad token": (
        Reply(403, REASONS[403]),
        Retry(Reason.PROVIDER_REJECTED, "403 BadJwtToken"),
        3,
    ),
    "404": (Reply(404), Failed(Reason.DEVICE_GONE, "404", GONE), 1),
    "405": (Reply(405), Failed(Reason.DEVICE_REFUSED, "405", COUNT), 1),
    "406": (Reply(406), Failed(Reason.DEVICE_REFUSED, "406", COUNT), 1),
    "408": (Reply(408), Retry(Reason.PROVIDER_UNAVAILABLE, "408"), 1),
    "410": (Reply(410, b"gone"), Failed(Reason.DEVICE_GONE, "410", GONE), 1),
    "413": (Reply(413), Failed(Reason.PAYLOAD_TOO_LARGE, "413"), 2),
    "425": (Reply(425), Retry(Reason.PROVIDER_UNAVAILABLE, "425"), 1),
    "429": (Reply(429), Deferred(Reason.PROVIDER_LIMIT, "429", 30.0), 1),
    "429 with seconds": (
        Reply(429, headers=LATER),
        Deferred(Reason.PROVIDER_LIMIT, "429", 7.0),
        1,
    ),
    "429 with a date": (Reply(429, headers=DATE), Deferred(Reason.PROVIDER_LIMIT, "429", 9.0), 1),
    "500": (Reply(500), Retry(Reason.PROVIDER_UNAVAILABLE, "500"), 1),
    "502": (Reply(502), Retry(Reason.PROVIDER_UNAVAILABLE, "502"), 1),
    "503 with seconds": (
        Reply(503, headers=LATER),
        Retry(Reason.PROVIDER_UNAVAILABLE, "503", 7.0),
        1,
    ),
}


@pytest.mark.parametrize("case", TABLE)
async def test_every_answer_has_its_outcome(service: Receiver, case: str) -> None:
    reply, expected, calls = TABLE[case]
    service.replies = [reply]
    async with sending() as sender:
        assert await outcome(sender, to(service)) == expected
    assert len(service.calls) == calls


def test_windows_service_has_a_limit_of_its_own() -> None:
    answer = Answer(406, {"retry-after": "7"}, b"")
    limit = Deferred(Reason.PROVIDER_LIMIT, "406", 7.0)
    assert outcome_of(answer, "db5p.notify.windows.com", NOW) == limit
    refused = Failed(Reason.DEVICE_REFUSED, "406", COUNT)
    assert outcome_of(answer, "notify.windows.com.example", NOW) == refused


async def test_silence_is_no_fault_of_the_device(service: Receiver) -> None:
    service.replies = [Reply(hangs=True)]
    async with sending(seconds=0.3) as sender:
        late = await outcome(sender, to(service))
    assert late == Retry(Reason.PROVIDER_UNAVAILABLE, "no answer in time")
    async with receiving() as gone:
        claim = to(gone)
    async with sending() as sender:
        dropped = await outcome(sender, claim)
    assert isinstance(dropped, Retry)
    assert dropped.reason is Reason.PROVIDER_UNAVAILABLE


@pytest.mark.parametrize("refusal", [Reply(403), Reply(401), Reply(400, REASONS[400])])
async def test_a_foreign_key_is_no_fault_of_the_device(service: Receiver, refusal: Reply) -> None:
    """The subscription is another key's than the row says: the one that is taken is told."""
    service.replies = [refusal, refusal, CREATED]
    async with sending() as sender:
        assert await outcome(sender, to(service, "older")) == Sent("message-1", "oldest")
    assert [signer(call) for call in service.calls] == ["older", "newest", "oldest"]


async def test_another_key_may_find_the_device_gone(service: Receiver) -> None:
    service.replies = [Reply(403), Reply(410)]
    async with sending() as sender:
        gone = await outcome(sender, to(service))
    assert gone == Failed(Reason.DEVICE_GONE, "410", GONE)


@pytest.mark.parametrize("key_id", [None, "retired"])
async def test_an_unknown_key_is_tried_with_the_newest(
    service: Receiver, key_id: str | None
) -> None:
    service.replies = [Reply(403), CREATED]
    async with sending() as sender:
        assert await outcome(sender, to(service, key_id)) == Sent("message-1", "older")
    assert [signer(call) for call in service.calls] == ["newest", "older"]


@pytest.mark.parametrize("refusal", [Reply(403), Reply(401), Reply(400, REASONS[400])])
async def test_a_key_that_is_missing_here_is_no_fault_of_the_device(
    service: Receiver, refusal: Reply
) -> None:
    """As when the encryption key is the wrong one: it must not cost the subscriptions."""
    service.replies = [refusal]
    missing = Retry(Reason.INTERNAL_ERROR, "The VAPID key it subscribed with is missing.")
    async with sending() as sender:
        assert await outcome(sender, to(service, "unreadable")) == missing
        assert await outcome(sender, to(service, "older")) != missing
    service.replies = [Reply(410)]
    async with sending() as sender:
        gone = await outcome(sender, to(service, "unreadable"))
    assert gone == Failed(Reason.DEVICE_GONE, "410", GONE)


async def test_one_that_is_too_large_is_halved_once(service: Receiver) -> None:
    service.replies = [Reply(413), CREATED]
    claim = to(service, body_html="long " * 2_000)
    async with sending() as sender:
        assert await outcome(sender, claim) == Sent("message-1")
    first, second = (BROWSER.read(call.body) for call in service.calls)
    assert (len(first), len(second)) == (3_993, 1_996)
    assert BROWSER.message(service.calls[1].body)["notification"]["body"].endswith("…")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://[::ffff:127.0.0.1]/",
        "https://user@push.example.com/",
        "https://10.0.0.1/",
        "http://push.example.com/",
        "ftp://push.example.com/",
    ],
)
@pytest.mark.parametrize("rules", [AddressRules(), OPEN], ids=["strict", "loopback"])
async def test_no_private_address_is_called(rules: AddressRules, endpoint: str) -> None:
    async with sending(rules) as sender:
        refused = await outcome(sender, a_claim(BROWSER.device(endpoint)))
    assert isinstance(refused, Failed)
    assert (refused.reason, refused.device) == (Reason.ADDRESS_REFUSED, COUNT)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1"])
async def test_a_name_that_leads_inside_is_not_called(service: Receiver, address: str) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [address]

    claim = a_claim(BROWSER.device(f"https://push.example.com:{service.port}/"))
    async with sending(resolve=resolve) as sender:
        refused = await outcome(sender, claim)
    assert refused == Failed(
        Reason.ADDRESS_REFUSED, "The address does not lead to a public address.", COUNT
    )
    assert service.calls == []


async def test_no_more_of_an_answer_is_read_than_is_of_use(service: Receiver) -> None:
    service.replies = [Reply(403, b'{"reason": "BadJwtToken"}' + b" " * 5_000_000)]
    async with sending(ring=[NEWEST]) as sender:
        refused = await outcome(sender, to(service))
    assert refused == Failed(Reason.DEVICE_REFUSED, "403", COUNT)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"x"', b'{"reason": 5}', b"\xff", b'{"reason": "a\\nb\\u202e "}']
)
async def test_whatever_is_answered_is_told_in_plain_words(service: Receiver, body: bytes) -> None:
    service.replies = [Reply(400, body, {"Location": "/a\tb"})]
    async with sending() as sender:
        refused = await outcome(sender, to(service))
    assert isinstance(refused, Failed)
    assert refused.detail in {"400", "400 ab"}


@pytest.mark.parametrize("missing", ["endpoint", "p256dh", "auth"])
async def test_a_device_without_keys_is_refused(service: Receiver, missing: str) -> None:
    device = replace(BROWSER.device(service.url()), **{missing: None})  # pyright: ignore[reportArgumentType]
    bad = replace(BROWSER.device(service.url()), p256dh="AAAA")
    async with sending() as sender:
        refused = await outcomes(sender, a_claim(device), a_claim(bad))
    assert all(isinstance(one, Failed) and one.device is COUNT for one in refused)
    assert service.calls == []


async def test_browsers_get_no_silent_push(service: Receiver) -> None:
    async with sending() as sender:
        skipped = await outcome(sender, to(service, data={"silent": True}))
    assert skipped == Skipped(Reason.SILENT_NEEDS_FCM)
    assert service.calls == []


async def test_an_ill_service_costs_no_attempts(service: Receiver) -> None:
    service.replies = [Reply(500)]
    async with sending() as sender:
        told = [await outcome(sender, to(service)) for _ in range(FAULTS_ALLOWED + 1)]
        assert [type(one) for one in told] == [Retry] * FAULTS_ALLOWED + [Deferred]
        assert len(service.calls) == FAULTS_ALLOWED
        async with receiving() as other:
            other.replies = [CREATED]
            assert await outcome(sender, to(other)) == Sent("message-1")


async def test_what_outlived_its_time_is_not_put_off_for_ever(service: Receiver) -> None:
    service.replies = [Reply(429)]
    async with sending(now=NOW + TTL + timedelta(seconds=1)) as sender:
        assert await outcome(sender, to(service)) == Retry(Reason.PROVIDER_LIMIT, "429", 30.0)
    async with sending(now=NOW + TTL) as sender:
        assert isinstance(await outcome(sender, to(service)), Deferred)


async def test_a_service_that_hangs_delays_no_other(service: Receiver) -> None:
    """Its places are taken, the others in its line are put off, and another's are free."""
    service.replies = [Reply(hangs=True)]
    breakers = Breakers(3, line=0.2)
    told: Sending = []
    async with sending(seconds=60, breakers=breakers) as sender, receiving() as other:
        other.replies = [CREATED]
        slow = [to(service) for _ in range(10)]
        quick = [to(other) for _ in range(10)]
        task = asyncio.create_task(
            sender.send([*slow, *quick], lambda claim, result: told.append((claim, result)))
        )
        await eventually(lambda: len(told) == 17)
        assert len(service.calls) == 3
        by_id = {claim.id: result for claim, result in told}
        assert all(by_id[claim.id] == Sent("message-1") for claim in quick)
        put_off = [by_id[claim.id] for claim in slow if claim.id in by_id]
        assert all(isinstance(result, Deferred) for result in put_off)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_gone_device_is_told_before_others_are_done(service: Receiver) -> None:
    service.replies = [Reply(hangs=True)]
    told: Sending = []
    async with sending(seconds=60) as sender, receiving() as gone:
        gone.replies = [Reply(410)]
        claims = [to(service), to(gone), to(service)]
        task = asyncio.create_task(
            sender.send(claims, lambda claim, result: told.append((claim, result)))
        )
        await eventually(lambda: len(told) == 1)
        assert told == [(claims[1], Failed(Reason.DEVICE_GONE, "410", GONE))]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_fault_of_ours_is_that_claims_alone(service: Receiver) -> None:
    class Broken(Ring):
        async def get(self, key_id: str) -> VapidKey | None:
            if key_id == "broken":
                raise RuntimeError("the ring is broken")
            return await super().get(key_id)

    settings: dict[str, Any] = {"_env_file": None}
    async with Outbound(OPEN) as outbound:
        sender = WebPushSender(Settings(**settings), Broken([NEWEST]), outbound, str, lambda: NOW)
        with capture_logs() as logs:
            told = await outcomes(sender, to(service, "broken"), to(service))
    assert told == [Retry(Reason.INTERNAL_ERROR, "RuntimeError"), Sent("message-1")]
    assert [line["event"] for line in logs] == ["web_push_failed"]
    assert (BROWSER.device("x").p256dh or "") not in str(logs)


async def test_many_go_out_at_once(service: Receiver) -> None:
    async with sending() as sender:
        told = await outcomes(sender, *(to(service) for _ in range(120)))
    assert told == [Sent("message-1")] * 120
    assert len({call.body for call in service.calls}) == 120
