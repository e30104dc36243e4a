"""Calls to addresses that users and services give us (REQ-008, REQ-013; OWASP A10).

Every address is judged when it is called, whatever was said of it before: by its spelling, and by
what its name resolves to (`AddressRules`). The connection goes to the very addresses that were
judged, while TLS and `Host` keep the name, so that a name which resolves to something else a moment
later changes nothing.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self
from weakref import WeakValueDictionary

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from app.security.address_rules import AddressRefused, AddressRules, literal
from app.security.authorities import public_authorities

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

CONNECTIONS: Final = 100
CALLS_TO_ONE_ORIGIN: Final = 20  # so that one that hangs leaves connections to others
RESOLVING_AT_ONCE: Final = 64  # threads; the event loop's own are left to others
ADDRESSES_TRIED: Final = 4
KEPT_SECONDS: Final = 5.0  # a connection that nobody uses
MAX_ANSWER: Final = 16 * 1024  # bytes
OWN_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "notify"}


class Unreachable(Exception):
    """No complete answer came; the message says what was in the way."""


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


class _JudgedResolver(AbstractResolver):
    """Resolves names to addresses that may be called."""

    def __init__(self, rules: AddressRules, resolve: Resolver) -> None:
        self._rules = rules
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What the host resolves to, all of which may be called.

        Raises:
            AddressRefused: one of its addresses is not public.
            OSError: it does not resolve.
        """
        try:
            found = [host] if literal(host) else await self._resolve(host, port)
        except UnicodeError as error:
            raise OSError("the name can't be asked for") from error
        if not found:
            raise OSError("the name has no address")
        if not all(self._rules.permits(host, port, ip_address(address)) for address in found):
            raise AddressRefused("does not lead to a public address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found[:ADDRESSES_TRIED]
        ]

    async def close(self) -> None:
        """Nothing is held."""


class _Connector(TCPConnector):
    """Keeps a limited number of idle connections, which aiohttp's own limits do not count."""

    most_idle = CONNECTIONS

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        full = sum(map(len, self._conns.values())) >= self.most_idle
        super()._release(key, protocol, should_close=should_close or full)


class Outbound:
    """A client for such addresses, to be shared: no redirects, proxies, cookies or compression.

    It speaks HTTP/1.1, as aiohttp does. No call is sent twice: an idle connection that was closed
    is not taken, and aiohttp repeats none but idempotent methods.

    Args:
        rules: where calls may go.
        connections: at once, and as many that are idle.
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
        self._lookups: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._resolver = _JudgedResolver(rules, resolve or self._resolve)
        connector = _Connector(
            resolver=self._resolver,
            use_dns_cache=False,  # what a name leads to is judged for every connection
            ssl=tls or public_authorities(),
            limit=0,  # aiohttp forgets to pass on a turn whose call was given up just then
            keepalive_timeout=KEPT_SECONDS,
        )
        connector.most_idle = connections
        self._session = ClientSession(
            connector=connector,
            cookie_jar=DummyCookieJar(),
            headers=OWN_HEADERS,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=MAX_ANSWER,
        )
        self._places = asyncio.Semaphore(connections)
        # Each is kept only as long as somebody calls there.
        self._origins = WeakValueDictionary[str, asyncio.Semaphore]()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()
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
        origin = target.origin
        place = self._origins.setdefault(origin, asyncio.Semaphore(self._calls_to_one_origin))
        try:
            async with (
                asyncio.timeout(seconds),
                place,
                self._places,
                self._session.post(
                    URL(origin + target.path, encoded=True),
                    data=content,
                    headers=headers,
                    allow_redirects=False,
                    # Half of the time is left for another address, should the first not answer.
                    timeout=ClientTimeout(sock_connect=seconds / 2),
                ) as response,
            ):
                return await _answer(response, most)
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        except (ClientError, OSError) as error:
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
                await self._resolver.resolve(target.host, target.port)
        except OSError:  # TimeoutError too
            return

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        # A look-up can't be given up, so a name whose servers hang gets no second thread.
        lookup = self._lookups.get(host)
        if lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.run_in_executor(self._threads, _addresses, host, port)
            self._lookups[host] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(host, done))
        return await asyncio.shield(lookup)

    def _looked_up(self, host: str, lookup: asyncio.Future[Sequence[str]]) -> None:
        del self._lookups[host]
        if not lookup.cancelled():
            lookup.exception()  # perhaps nobody waits for it any more


def _addresses(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def _answer(response: ClientResponse, most: int) -> Answer:
    body: bytearray | None = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            response.close()
            body = None
            break
    return Answer(
        response.status,
        {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.raw_headers
        },
        None if body is None else bytes(body),
    )
