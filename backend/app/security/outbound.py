"""Calls to addresses that users and services give us (REQ-008, REQ-013; OWASP A10).

Such an address may lead to https on the public internet, and nowhere else. That is judged twice:
by its spelling when it is registered (`AddressRules.parse`), and by what its name resolves to when
it is called. The connection goes to the very addresses that were judged, while TLS and `Host` keep
the name, so that a name which resolves to something else a moment later changes nothing.
"""

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from types import TracebackType
from typing import Final, Self, cast
from weakref import WeakValueDictionary

import httpcore
import httpx

from app.config import Settings
from app.security.addresses import MAX_ADDRESS, UNSAFE, WEB

IPAddress = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

ADDRESS_NOT_ALLOWED: Final = "address_not_allowed"
LOOPBACK_NAME: Final = "localhost"
MAX_PORT: Final = 65_535
# What is called a number is an IPv4 address to a resolver, however it is written: 0x7f.1, 127.1.
NAME: Final = re.compile(
    r"(?=.{1,253}\Z) (?: [a-z0-9_] (?: [a-z0-9_-]{0,61} [a-z0-9_] )? \. )+"
    r" (?! \d+\Z | 0x[0-9a-f]*\Z ) [a-z0-9] (?: [a-z0-9-]{0,61} [a-z0-9] )?",
    re.VERBOSE,
)

GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
NAT64: Final = IPv6Network("64:ff9b::/96")
# Global by some of Python's tables, but for protocols and documents, or leading to IPv4.
NOT_PUBLIC: Final = tuple(
    ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
)

CONNECTIONS: Final = 100
CALLS_TO_ONE_ORIGIN: Final = 20  # so that one that hangs leaves connections to others
RESOLVING_AT_ONCE: Final = 16  # threads; the event loop's own are left to others
ADDRESSES_TRIED: Final = 4
KEPT_SECONDS: Final = 5.0  # a connection that nobody uses
MAX_ANSWER: Final = 16 * 1024  # bytes


class AddressRefused(Exception):
    """The address must not be called; the message says why, and names no resolved address."""


class Unreachable(Exception):
    """No complete answer came; the message says what was in the way."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address taken apart.

    Args:
        host: in ASCII and lower case; an IPv6 address without its brackets.
        path: with the query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.scheme == "https" else 80)
        return host if usual else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """As browsers write it (RFC 6454, section 6.2)."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Where calls may go.

    Args:
        allow_loopback: http and https on this machine too, when the address says so itself
            (`localhost`, `127.0.0.0/8`, `::1`); never what a name merely resolves to.
        trusted: host and port of programs of our own on loopback.
    """

    allow_loopback: bool = False
    trusted: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The operator's choice; in development the sandbox may always be called."""
        sandbox = frozenset({("127.0.0.1", settings.sandbox_port)})
        return cls(
            allow_loopback=settings.push_allow_private_endpoints,
            trusted=sandbox if settings.is_development else frozenset(),
        )

    def parse(self, url: str) -> Target:
        """The address, judged by its spelling.

        Raises:
            AddressRefused: it is not https, names a person or a port that is none, or a host that
                can't be public.
        """
        target = _taken_apart(url)
        if self._is_open_loopback(target.host, target.port):
            return target
        if target.scheme != "https":
            raise AddressRefused("must be an https address")
        address = _literal(target.host)
        if address is None and NAME.fullmatch(target.host) is None:
            raise AddressRefused("must name a public host")
        if address is not None and not is_public(address):
            raise AddressRefused("must lead to a public address")
        return target

    def permits(self, host: str, port: int, address: IPAddress) -> bool:
        """Whether a connection to `host` may go to what it resolved to."""
        if self._is_open_loopback(host, port):
            return address.is_loopback
        return is_public(address)

    def _is_open_loopback(self, host: str, port: int) -> bool:
        if not (self.allow_loopback or (host, port) in self.trusted):
            return False
        address = _literal(host)
        return host == LOOPBACK_NAME if address is None else address.is_loopback


def is_public(address: IPAddress) -> bool:
    """Whether the address is one host's on the public internet."""
    if isinstance(address, IPv6Address) and address in NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if any(address in block for block in NOT_PUBLIC):
        return False
    if isinstance(address, IPv6Address):
        # Outside of it are those that carry IPv4, loopback, link-local and private ones.
        return address in GLOBAL_UNICAST and address.is_global
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _taken_apart(url: str) -> Target:
    if len(url) > MAX_ADDRESS:
        raise AddressRefused(f"must have at most {MAX_ADDRESS} characters")
    if UNSAFE.search(url) is not None or WEB.match(url) is None:
        raise AddressRefused("must be an https address without a user's name")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, ValueError):
        raise AddressRefused("must be a valid address") from None
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    if parsed.port == 0 or port > MAX_PORT:
        raise AddressRefused("must have a port from 1 to 65535")
    return Target(parsed.scheme, host, port, parsed.raw_path.decode("ascii"))


def _literal(host: str) -> IPAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


class _PinnedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name itself, and connects to what was judged."""

    def __init__(self, rules: AddressRules, resolve: Resolver) -> None:
        self._rules = rules
        self._resolve = resolve
        # Typed as one of two, for whoever has no anyio.
        self._below = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- the base's own
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one.

        Raises:
            AddressRefused: one of the host's addresses is not public.
        """
        failure = httpcore.ConnectError("the name has no address")
        for address in (await self.judged(host, port))[:ADDRESSES_TRIED]:
            try:
                return await self._below.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = httpcore.ConnectError(type(error).__name__)
        raise failure

    async def judged(self, host: str, port: int) -> Sequence[str]:
        """What the host resolves to, all of which may be called.

        Raises:
            AddressRefused: one of its addresses is not public.
            httpcore.ConnectError: it does not resolve.
        """
        try:
            found = [host] if _literal(host) else await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        if not all(self._rules.permits(host, port, ip_address(address)) for address in found):
            raise AddressRefused("does not lead to a public address")
        return found

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks for."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered.

    Args:
        headers: by names in lower case.
        body: None when it was longer than allowed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes | None


class Outbound:
    """A client for such addresses, to be shared: no redirects, proxies, cookies or compression.

    It stands on httpcore, as httpx does, which cannot be given a network backend. It speaks
    HTTP/1.1 alone: over httpcore's HTTP/2, two calls that hang keep the answers of all others on
    their connection from being read.

    Args:
        rules: where calls may go.
        connections: at once.
        calls_to_one_origin: at once; others wait for their turn.
        resolve: the addresses of a host; by default the system's resolver.
        tls: whom to believe; by default the public authorities.
    """

    def __init__(
        self,
        rules: AddressRules,
        *,
        connections: int = CONNECTIONS,
        calls_to_one_origin: int = CALLS_TO_ONE_ORIGIN,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.rules = rules
        self._calls_to_one_origin = calls_to_one_origin
        self._threads = ThreadPoolExecutor(RESOLVING_AT_ONCE, "resolver")
        # Made once: reading the authorities takes longer than a connection.
        self._tls = tls or httpcore.default_ssl_context()
        self._backend = _PinnedBackend(rules, resolve or self._resolve)
        self._places = asyncio.Semaphore(connections)
        # httpcore's pool looks at every connection, for every other one, at every call.
        self._idle = deque[httpcore.AsyncHTTPConnection](maxlen=connections)
        # Each is kept only as long as somebody calls there.
        self._origins = WeakValueDictionary[tuple[str, int], asyncio.Semaphore]()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for connection in self._idle:
            await connection.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(
        self,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        seconds: float,
        most: int = MAX_ANSWER,
    ) -> Answer:
        """Send a body and read what is answered, whatever its status.

        Args:
            seconds: for all of it, from resolving to the answer's last byte.
            most: bytes of an answer that are read; of a longer one the status is told alone.

        Raises:
            AddressRefused: it may not be called, or not any more.
            Unreachable: no connection, no answer, or not in time.
        """
        target = self.rules.parse(url)
        place = self._origins.setdefault(
            (target.host, target.port), asyncio.Semaphore(self._calls_to_one_origin)
        )
        request = httpcore.Request(
            "POST",
            _core_url(target),
            headers=_headers(target, headers, len(content)),
            content=content,
            # Half of the time is left for another address, should the first not answer.
            extensions={"timeout": {"connect": seconds / 2}},
        )
        try:
            async with asyncio.timeout(seconds), place, self._places:
                return await self._call(request, most)
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            OSError,
        ) as error:
            raise Unreachable(type(error).__name__) from error

    async def judge(self, url: str, *, seconds: float = 3.0) -> None:
        """Judge an address before it is kept, by its spelling and by what its name resolves to.

        A name that does not resolve now leads nowhere, and is judged again whenever it is called:
        a network that is closed, or a resolver that is ill, says nothing against it.

        Args:
            seconds: how long the resolver is waited for.

        Raises:
            AddressRefused: it may not be called.
        """
        target = self.rules.parse(url)
        try:
            async with asyncio.timeout(seconds):
                await self._backend.judged(target.host, target.port)
        except (TimeoutError, httpcore.ConnectError):
            return

    async def _call(self, request: httpcore.Request, most: int) -> Answer:
        connection = await self._connection(request.url.origin)
        try:
            response = await connection.handle_async_request(request)
            try:
                return Answer(
                    response.status,
                    {
                        name.decode("latin-1").lower(): value.decode("latin-1")
                        for name, value in response.headers
                    },
                    await _read(response, most),
                )
            finally:
                await response.aclose()
        finally:
            if connection.is_idle() and not connection.is_closed():
                await self._keep(connection)
            else:
                await connection.aclose()

    async def _connection(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        """The connection to it that was used last, or a new one."""
        for connection in reversed(tuple(self._idle)):
            if connection.can_handle_request(origin):
                self._idle.remove(connection)
                if not connection.has_expired():
                    return connection
                await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._tls,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=self._backend,
        )

    async def _keep(self, connection: httpcore.AsyncHTTPConnection) -> None:
        if len(self._idle) == self._idle.maxlen:
            await self._idle.popleft().aclose()
        self._idle.append(connection)

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]


async def _read(response: httpcore.Response, most: int) -> bytes | None:
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        if len(body) > most:
            return None
    return bytes(body)


def _core_url(target: Target) -> httpcore.URL:
    return httpcore.URL(
        scheme=target.scheme.encode(),
        host=target.host.encode(),
        port=target.port,
        target=target.path.encode(),
    )


def _headers(
    target: Target, given: Mapping[str, str], length: int
) -> list[tuple[bytes | str, bytes | str]]:
    own = {
        "Host": target.authority,
        "Content-Length": str(length),
        "Accept-Encoding": "identity",
        "User-Agent": "notify",
    }
    return [*own.items(), *given.items()]
