"""Calls to addresses that others gave us, over real sockets: REQ-008, REQ-013, OWASP A10."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.security.address_rules import AddressRefused, AddressRules
from app.security.outbound import CALLS_TO_ONE_ORIGIN, CONNECTIONS, Outbound, Resolver, Unreachable
from tests.integration.receiver import Receiver, Reply, receiving
from tests.integration.sockets import eventually

OPEN = AddressRules(allow_loopback=True)
PATIENCE = 20.0


def resolving(*answers: Sequence[str]) -> Resolver:
    """A resolver that gives one answer after the other, and the last one for ever."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving() as running:
        yield running


async def test_a_call_arrives_as_it_was_sent_and_is_answered(receiver: Receiver) -> None:
    receiver.replies = [Reply(202, b'{"a": 1}', {"Retry-After": "7", "Set-Cookie": "a=b"})]
    async with Outbound(OPEN) as outbound:
        answer = await outbound.post(
            receiver.url(path="/a%20b?c=d"), b"body", {"X-Own": "1"}, seconds=PATIENCE
        )
        again = await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
    assert (answer.status, answer.body) == (202, b'{"a": 1}')
    assert answer.headers["retry-after"] == "7"
    assert again.status == 202
    first, second = receiver.calls
    assert (first.method, first.path, first.body) == ("POST", "/a%20b?c=d", b"body")
    assert first.headers["x-own"] == "1"
    assert first.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert "cookie" not in second.headers


async def test_redirects_are_answers_and_not_followed(receiver: Receiver) -> None:
    receiver.replies = [Reply(307, headers={"Location": receiver.url(path="/secret")})]
    async with Outbound(OPEN) as outbound:
        answer = await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
    assert answer.status == 307
    assert [call.path for call in receiver.calls] == ["/hook"]


async def test_the_environments_proxies_are_not_asked(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Outbound(OPEN) as outbound:
        assert (await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)).status == 200


@pytest.mark.parametrize(("size", "is_read"), [(1000, True), (1001, False), (5_000_000, False)])
async def test_no_more_of_an_answer_is_read_than_allowed(
    receiver: Receiver, size: int, is_read: bool
) -> None:
    receiver.replies = [Reply(200, b"x" * size)]
    async with Outbound(OPEN) as outbound:
        answer = await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE, most=1000)
    assert (answer.status, answer.body is not None) == (200, is_read)


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(drips=True)], ids=["hangs", "drips"])
async def test_an_answer_that_does_not_end_is_given_up(receiver: Receiver, reply: Reply) -> None:
    receiver.replies = [reply]
    async with Outbound(OPEN) as outbound, asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable):
            await outbound.post(receiver.url(), b"", {}, seconds=0.3, most=10_000_000)


async def test_a_receiver_that_hangs_leaves_connections_to_others(receiver: Receiver) -> None:
    async with receiving() as hanging, Outbound(OPEN) as outbound:
        hanging.replies = [Reply(hangs=True)]
        calls = [
            asyncio.create_task(outbound.post(hanging.url(), b"", {}, seconds=10 * PATIENCE))
            for _ in range(2 * CONNECTIONS)
        ]
        await eventually(lambda: len(hanging.calls) == CALLS_TO_ONE_ORIGIN)
        answer = await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
        assert answer.status == 200
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert len(hanging.calls) == CALLS_TO_ONE_ORIGIN


async def test_what_answers_nothing_is_unreachable(receiver: Receiver) -> None:
    gone = receiver.url()
    async with receiving() as other:
        url = other.url()
    async with Outbound(OPEN) as outbound:
        with pytest.raises(Unreachable):
            await outbound.post(url, b"", {}, seconds=PATIENCE)
        assert (await outbound.post(gone, b"", {}, seconds=PATIENCE)).status == 200


async def test_a_name_that_does_not_resolve_is_unreachable_not_refused() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        raise OSError("no such name")

    async with Outbound(AddressRules(), resolve=resolve) as outbound:
        with pytest.raises(Unreachable):
            await outbound.post("https://hooks.example.com/", b"", {}, seconds=PATIENCE)


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["::1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["fe80::1%1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"],
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("rules", [AddressRules(), OPEN], ids=["strict", "loopback"])
async def test_a_name_that_leads_inside_is_refused(
    receiver: Receiver, rules: AddressRules, answer: Sequence[str]
) -> None:
    url = f"https://hooks.example.com:{receiver.port}/"
    rules.parse(url)  # when it was registered, nothing was wrong with it
    async with Outbound(rules, resolve=resolving(answer)) as outbound:
        with pytest.raises(AddressRefused):
            await outbound.post(url, b"", {}, seconds=PATIENCE)
    assert receiver.calls == []


async def test_the_systems_own_resolver_is_judged_too(receiver: Receiver) -> None:
    """`localhost` resolves for real; without leave it is refused, and with it called."""
    async with Outbound(OPEN) as outbound:
        assert (await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)).status
    async with Outbound(AddressRules()) as outbound:
        with pytest.raises(AddressRefused):
            await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)


async def test_leave_that_was_taken_back_counts_at_the_next_call(receiver: Receiver) -> None:
    OPEN.parse(receiver.url())
    async with Outbound(AddressRules()) as outbound:
        with pytest.raises(AddressRefused):
            await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
    assert receiver.calls == []


async def test_a_name_is_resolved_once_and_the_connection_goes_there(receiver: Receiver) -> None:
    """Were it resolved again to connect, the second answer, where nobody is, would be used."""
    resolve = resolving(["127.0.0.1"], ["127.0.0.99"])
    async with Outbound(OPEN, resolve=resolve) as outbound:
        answer = await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)
    assert answer.status == 200


async def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver) -> None:
    resolve = resolving(["127.0.0.99", "127.0.0.1"])
    async with Outbound(OPEN, resolve=resolve) as outbound:
        answer = await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)
    assert answer.status == 200


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for `name`, and a client's that believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = directory / "server.pem"
    path.write_bytes(pem + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls_and_host_keep_the_name(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "localhost")
    asked: list[str | None] = []

    def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        asked.append(name)

    server.sni_callback = note  # pyright: ignore[reportAttributeAccessIssue]
    async with receiving(server) as receiver:
        async with Outbound(OPEN, resolve=resolving(["127.0.0.1"]), tls=client) as outbound:
            answer = await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)
        assert answer.status == 200
        assert asked == ["localhost"]
        assert receiver.calls[0].headers["host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize("believed", [True, False])
async def test_a_certificate_for_another_name_or_by_nobody_is_not_believed(
    tmp_path: Path, believed: bool
) -> None:
    server, client = certificate(tmp_path, "other.example" if believed else "localhost")
    async with receiving(server) as receiver:
        async with Outbound(OPEN, tls=client if believed else None) as outbound:
            with pytest.raises(Unreachable):
                await outbound.post(receiver.url("localhost"), b"", {}, seconds=PATIENCE)
        assert receiver.calls == []
