"""Where calls to addresses that others gave us may lead: REQ-008, REQ-013, OWASP A10."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Settings
from app.security.address_rules import AddressRefused, AddressRules, Target, is_public

STRICT = AddressRules()
LOOPBACK = AddressRules(allow_loopback=True)
SANDBOX = AddressRules(trusted=frozenset({("127.0.0.1", 8025)}))

GOOD = {
    "https://hooks.example.com/a/b?c=d": Target("https", "hooks.example.com", 443, "/a/b?c=d"),
    "https://hooks.example.com": Target("https", "hooks.example.com", 443, "/"),
    "https://hooks.example.com:8443/": Target("https", "hooks.example.com", 8443, "/"),
    "https://hooks.example.com/#part": Target("https", "hooks.example.com", 443, "/"),
    "HTTPS://Hooks.Example.COM/A": Target("https", "hooks.example.com", 443, "/A"),
    "https://bücher.example/ä": Target("https", "xn--bcher-kva.example", 443, "/%C3%A4"),
    "https://9.example.com/": Target("https", "9.example.com", 443, "/"),
    "https://8.8.8.8/": Target("https", "8.8.8.8", 443, "/"),
    "https://[2606:4700::1111]/": Target("https", "2606:4700::1111", 443, "/"),
}
EVIL = [
    # another scheme, or none
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com:11211/",
    "javascript:alert(1)",
    "//hooks.example.com/",
    "/relative",
    "hooks.example.com",
    "",
    "https:",
    "https://",
    "https:///path",
    "https:/hooks.example.com",
    # somebody's name
    "https://user@hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com%40127.0.0.1/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com\t@127.0.0.1/",
    # this machine and its neighbours
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://127.0.0.1/",
    "https://127.255.255.254/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[ff02::1]/",
    # the same, spelled otherwise
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.0.0.1./",
    "https://a.127.0.0.0x1/",
    "https://1.2.3.4.5/",
    "https://256.256.256.256/",
    "https://１２７.０.０.１/",
    "https://127。0。0。1/",
    "https://①②⑦.0.0.1/",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "https://localhost\u3002/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::127.0.0.1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::808:808]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    # no public name
    "https://intranet/",
    "https://hooks.example.com./",
    "https://hooks..example.com/",
    "https://.example.com/",
    "https://-hooks.example.com/",
    "https://hooks.example.com-/",
    "https://exa%6dple.com/",
    "https://exa mple.com/",
    f"https://{'a' * 64}.example.com/",
    f"https://{'a.' * 130}com/",
    # ports
    "https://hooks.example.com:0/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:/",
    "https://hooks.example.com:-1/",
    "https://hooks.example.com:443a/",
    # what could end a line or hide
    "https://hooks.example.com/\r\nX-Evil: 1",
    " https://hooks.example.com/",
    "https://hooks.example.com/\x00",
    "https://hooks.example.com/\u202e",
    "https://[hooks.example.com]/",
    "https://[::1/",
    f"https://hooks.example.com/{'a' * 2048}",
]


@pytest.mark.parametrize("url", GOOD)
def test_public_addresses_are_taken(url: str) -> None:
    assert STRICT.parse(url) == GOOD[url]


@pytest.mark.parametrize("url", EVIL)
@pytest.mark.parametrize("rules", [STRICT, SANDBOX], ids=["strict", "sandbox"])
def test_all_others_are_refused(rules: AddressRules, url: str) -> None:
    with pytest.raises(AddressRefused):
        rules.parse(url)


LOCAL = [
    "http://localhost:8080/",
    "http://127.0.0.1:8080/a",
    "http://127.8.8.8/",
    "http://[::1]:8080/",
    "https://localhost/",
    "https://127.0.0.1:8443/",
]


@pytest.mark.parametrize("url", LOCAL)
def test_loopback_is_taken_where_the_operator_allows_it(url: str) -> None:
    assert LOOPBACK.parse(url).scheme == url.partition(":")[0]


@pytest.mark.parametrize("url", [url for url in EVIL if "localhost/" not in url.lower()])
def test_nothing_else_is_allowed_with_it(url: str) -> None:
    try:
        target = LOOPBACK.parse(url)
    except AddressRefused:
        return
    assert ip_address(target.host).is_loopback


@pytest.mark.parametrize(
    "url",
    ["http://hooks.example.com/", "http://10.0.0.1/", "http://169.254.169.254/", "http://8.8.8.8/"],
)
def test_http_never_leaves_the_machine(url: str) -> None:
    with pytest.raises(AddressRefused):
        LOOPBACK.parse(url)


def test_the_sandbox_is_one_port_of_one_address() -> None:
    assert SANDBOX.parse("http://127.0.0.1:8025/push").port == 8025
    for url in ("http://127.0.0.1:8026/", "http://localhost:8025/", "http://127.0.0.2:8025/"):
        with pytest.raises(AddressRefused):
            SANDBOX.parse(url)


def test_production_trusts_no_sandbox() -> None:
    chosen: dict[str, Any] = {"_env_file": None, "sandbox_port": 8025}
    development = Settings(**chosen)
    production = development.model_copy(update={"app_env": "production"})
    assert AddressRules.from_settings(development) == SANDBOX
    assert AddressRules.from_settings(production) == STRICT
    opened = production.model_copy(update={"push_allow_private_endpoints": True})
    assert AddressRules.from_settings(opened) == LOOPBACK


def test_a_name_may_not_resolve_to_this_machine_unless_it_says_so() -> None:
    here = ip_address("127.0.0.1")
    assert LOOPBACK.permits("localhost", 80, here)
    assert not LOOPBACK.permits("hooks.example.com", 80, here)
    assert not STRICT.permits("localhost", 80, here)
    # Nor may this machine's name lead elsewhere.
    assert not LOOPBACK.permits("localhost", 80, ip_address("8.8.8.8"))
    assert not LOOPBACK.permits("localhost", 80, ip_address("10.0.0.1"))
    assert LOOPBACK.permits("hooks.example.com", 443, ip_address("8.8.8.8"))


# Every block of IANA's special-purpose registries that is not reachable from everywhere, and those
# that lead to IPv4.
CLOSED = [
    ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/8", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        *("5f00::/16", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
]
closed = st.sampled_from(CLOSED).flatmap(
    lambda block: (
        st.ip_addresses(network=block)
        if block.version == 4
        else st.integers(int(block.network_address), int(block.broadcast_address)).map(IPv6Address)
    )
)


@given(closed)
def test_no_address_of_a_closed_block_is_public(address: IPv4Address | IPv6Address) -> None:
    if address in ip_network("64:ff9b::/96"):  # which lies in none of them but ::/8
        return
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_what_carries_ipv4_is_no_more_public_than_that(address: IPv4Address) -> None:
    carried = {
        "NAT64": (0x64FF9B << 96) | int(address),
        "mapped": (0xFFFF << 32) | int(address),
        "compatible": int(address),
        "6to4": (0x2002 << 112) | (int(address) << 80),
    }
    public = {kind: is_public(IPv6Address(value)) for kind, value in carried.items()}
    assert public.pop("NAT64") == is_public(address)
    assert set(public.values()) == {False}


@given(st.ip_addresses())
def test_only_what_is_global_is_public(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_loopback
        assert not address.is_link_local


@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://", "https://a@"]))
def test_any_text_is_judged(text: str, scheme: str) -> None:
    try:
        target = STRICT.parse(scheme + text)
    except AddressRefused:
        return
    assert target.scheme == "https"
    assert 1 <= target.port <= 65535
    assert not set(target.host) & set("@/\\?#% ")
    assert target.path.startswith("/")
    assert target.path.isascii()
    assert target.path.isprintable()
