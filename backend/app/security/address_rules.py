"""Which addresses that others gave us may be called (REQ-008, REQ-013; OWASP A10).

Such an address may lead to https on the public internet, and nowhere else. That is judged twice:
by its spelling when it is registered (`AddressRules.parse`), and by what its name resolves to when
it is called (`AddressRules.permits`).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

import httpx

from app.config import Settings
from app.security.addresses import MAX_ADDRESS, UNSAFE, WEB

IPAddress = IPv4Address | IPv6Address

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


class AddressRefused(Exception):
    """The address must not be called; the message says why, and names no resolved address."""


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
        address = literal(target.host)
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
        address = literal(host)
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


@lru_cache(maxsize=4_096)  # each push asks twice, and most go where others went before
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


def literal(host: str) -> IPAddress | None:
    """The address that a host is written as; None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
