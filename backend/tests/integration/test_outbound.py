"""Calls to addresses that others gave us, over real sockets: REQ-008, REQ-013, OWASP A10."""

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass
class Keeper:
    """A server that keeps its connections open, or hangs up instead of answering from `rude` on."""

    port: int = 0
    rude: int | None = None
    size: int = 2000
    calls: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list[asyncio.StreamWriter])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                self.calls += 1
                if self.rude is not None and self.calls >= self.rude:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
                writer.write(b"x" * self.size)
        writer.close()

    @property
    def open_connections(self) -> int:
        return sum(not writer.is_closing() for writer in self.writers)


@asynccontextmanager
async def keeping(*, rude: int | None = None, size: int = 2000) -> AsyncGenerator[Keeper]:
    keeper = Keeper(rude=rude, size=size)
    server = await asyncio.start_server(keeper.serve, "127.0.0.1", 0)
    keeper.port = server.sockets[0].getsockname()[1]
    try:
        yield keeper
    finally:
        server.close()
        for writer in keeper.writers:
            writer.close()


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


async def test_connections_that_were_closed_meanwhile_disturb_no_call() -> None:
    # Each call finds all of them, and others look while it puts them away.
    calls = 8
    together = asyncio.Barrier(calls)  # so that each has a connection of its own
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await together.wait()
            writer.write(b"HTTP/1.1 204 Told\r\n\r\n")
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server, Outbound(OPEN) as outbound:
        for _ in range(3):
            answers = await asyncio.gather(
                *(outbound.post(address, b"", {}, seconds=PATIENCE) for _ in range(calls))
            )
            assert {answer.status for answer in answers} == {204}
            for writer in writers:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers))
            await asyncio.sleep(0.05)  # until the client has seen it
            writers.clear()


async def test_a_name_whose_servers_hang_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answered = threading.Event()

    def hang(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        answered.wait(PATIENCE)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with Outbound(AddressRules()) as outbound:
        calls = (outbound.post("https://hang.example/x", b"", {}, seconds=0.2) for _ in range(20))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {Unreachable}
        assert asked == ["hang.example"]
        answered.set()


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


async def test_a_connection_is_used_again() -> None:
    async with keeping() as keeper, Outbound(OPEN) as outbound:
        for _ in range(5):
            url = f"http://127.0.0.1:{keeper.port}/"
            assert (await outbound.post(url, b"body", {}, seconds=PATIENCE)).status == 200
        assert (keeper.calls, len(keeper.writers)) == (5, 1)


async def test_an_idle_connection_that_was_closed_is_replaced() -> None:
    async with keeping() as keeper, Outbound(OPEN) as outbound:
        url = f"http://127.0.0.1:{keeper.port}/"
        await outbound.post(url, b"body", {}, seconds=PATIENCE)
        keeper.writers[0].close()
        await keeper.writers[0].wait_closed()
        await asyncio.sleep(0.1)  # it is the other end that has to notice
        assert (await outbound.post(url, b"body", {}, seconds=PATIENCE)).status == 200
        assert (keeper.calls, len(keeper.writers)) == (2, 2)


@pytest.mark.parametrize("rude", [1, 2], ids=["a new connection", "a used one"])
async def test_what_may_have_arrived_is_not_sent_again(rude: int) -> None:
    async with keeping(rude=rude) as keeper, Outbound(OPEN) as outbound:
        url = f"http://127.0.0.1:{keeper.port}/"
        for _ in range(rude - 1):
            await outbound.post(url, b"body", {}, seconds=PATIENCE)
        with pytest.raises(Unreachable):
            await outbound.post(url, b"body", {}, seconds=PATIENCE)
        assert (keeper.calls, len(keeper.writers)) == (rude, 1)


async def test_a_connection_with_more_to_read_is_closed() -> None:
    async with keeping(size=5_000_000) as keeper, Outbound(OPEN) as outbound:
        url = f"http://127.0.0.1:{keeper.port}/"
        answer = await outbound.post(url, b"body", {}, seconds=PATIENCE)
        assert (answer.status, answer.body) == (200, None)
        await eventually(lambda: keeper.open_connections == 0)


async def test_idle_connections_are_few_however_many_origins_were_called() -> None:
    async with AsyncExitStack() as stack:
        outbound = await stack.enter_async_context(Outbound(OPEN, connections=3))
        keepers = [await stack.enter_async_context(keeping()) for _ in range(8)]
        for keeper in keepers:
            url = f"http://127.0.0.1:{keeper.port}/"
            assert (await outbound.post(url, b"body", {}, seconds=PATIENCE)).status == 200
        await eventually(lambda: sum(keeper.open_connections for keeper in keepers) == 3)


@pytest.mark.parametrize(
    ("connections", "to_one_origin"), [(10, 1), (1, 10)], ids=["of its origin", "of all"]
)
async def test_waiting_for_a_place_takes_of_the_time_too(
    receiver: Receiver, connections: int, to_one_origin: int
) -> None:
    receiver.replies = [Reply(hangs=True)]
    async with Outbound(
        OPEN, connections=connections, calls_to_one_origin=to_one_origin
    ) as outbound:
        hanging = asyncio.create_task(outbound.post(receiver.url(), b"", {}, seconds=PATIENCE))
        await receiver.until(1)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unreachable, match="in time"):
                await outbound.post(receiver.url(), b"", {}, seconds=0.1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
    assert len(receiver.calls) == 1


async def test_a_resolver_that_hangs_is_given_up() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    async with Outbound(AddressRules(), resolve=resolve) as outbound, asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable, match="in time"):
            await outbound.post("https://hooks.example.com/", b"", {}, seconds=0.1)
        await outbound.judge("https://hooks.example.com/", seconds=0.1)


async def test_no_header_ends_early(receiver: Receiver) -> None:
    async with Outbound(OPEN) as outbound:
        with pytest.raises(ValueError, match="control character"):
            await outbound.post(receiver.url(), b"", {"X-A": "1\r\nX-B: 2"}, seconds=PATIENCE)
    assert receiver.calls == []


async def test_what_is_said_of_us_and_asked_for(receiver: Receiver) -> None:
    async with Outbound(OPEN) as outbound:
        await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
        receiver.replies = [Reply(200, b"not gzip", {"Content-Encoding": "gzip", "X-A": "ä"})]
        answer = await outbound.post(receiver.url(), b"", {}, seconds=PATIENCE)
    assert receiver.calls[0].headers["user-agent"] == "notify"
    assert receiver.calls[0].headers["accept-encoding"] == "identity"
    assert answer.body == b"not gzip"
    assert answer.headers["x-a"].encode("latin-1").decode() == "ä"


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
