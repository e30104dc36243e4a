"""What may stand in `REDIS_URL`, and how the buckets spread over a cluster (section 8.3)."""

from collections import Counter

import pytest

from app.realtime.backplane import CHANNELS
from app.realtime.connection import SlotMap
from app.redis_address import ClusterAddress, check_redis_url

THREE_MASTERS = SlotMap.from_reply(
    [
        [10923, 16383, [b"10.0.0.3", 6379, b"c"]],
        [0, 5460, [b"10.0.0.1", 6379, b"a"], [b"10.0.0.4", 6379, b"d"]],
        [5461, 10922, [b"10.0.0.2", 6379, b"b"]],
    ],
    "10.0.0.1:6379",
)


@pytest.mark.parametrize(
    ("url", "nodes", "first"),
    [
        ("redis-cluster://one:7000", ("one:7000",), "redis://one:7000"),
        ("redis-cluster://:s3@one:7000,two:7001/0", ("one:7000", "two:7001"), "redis://:s3@one:7000"),
        ("rediss-cluster://me:s%403@one:1", ("one:1",), "rediss://me:s%403@one:1"),
        ("rediss-cluster://one:1?ssl_ca_certs=/ca", ("one:1",), "rediss://one:1?ssl_ca_certs=/ca"),
        ("redis-cluster://[::1]:1,b:2/", ("[::1]:1", "b:2"), "redis://[::1]:1"),
    ],
)  # fmt: skip
def test_a_clusters_address(url: str, nodes: tuple[str, ...], first: str) -> None:
    address = ClusterAddress.parse(url)
    assert address.nodes == nodes
    assert address.server_url(nodes[0]) == first
    check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis-cluster://",
        "redis-cluster://one",
        "redis-cluster://one:",
        "redis-cluster://one:0",
        "redis-cluster://one:port",
        "redis-cluster://one:70000",
        "redis-cluster://one:7000,",
        "redis-cluster://one:7000,two",
        "redis-cluster://me:secret@one",
        "redis-cluster://one:7000/1",
        "redis-clusters://one:7000",
        "http://one:7000",
    ],
)
def test_addresses_that_name_no_cluster(url: str) -> None:
    with pytest.raises(ValueError, match=r"must name|must be|database 0") as refusal:
        check_redis_url(url)
    assert "secret" not in str(refusal.value)


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(ClusterAddress.parse("redis-cluster://me:s3cret@one:7000"))


def test_the_buckets_spread_evenly_over_the_masters() -> None:
    owners = Counter(THREE_MASTERS.owner(channel) for channel in CHANNELS)
    assert owners.keys() == THREE_MASTERS.masters
    assert min(owners.values()) >= 0.9 * len(CHANNELS) / 3


def test_every_slot_has_the_owner_of_its_range() -> None:
    assert THREE_MASTERS.size == 16_384
    assert THREE_MASTERS.nodes == THREE_MASTERS.masters | {"10.0.0.4:6379"}
    # The keys' slots, as CLUSTER KEYSLOT answers: 12182, 5061, 12182.
    assert [THREE_MASTERS.owner(key) for key in ("foo", "bar", "rl:{foo}:push")] == [
        "10.0.0.3:6379",
        "10.0.0.1:6379",
        "10.0.0.3:6379",
    ]


def test_slots_that_nobody_has() -> None:
    some = SlotMap.from_reply([[100, 200, [b"a", 1, b""]], [5062, 6000, [b"b", 2, b""]]], "a:1")
    assert (some.owner("bar"), some.owner("foo")) == (None, None)
    assert some.size == 101 + 939
    assert SlotMap.from_reply([[5061, 5061, [b"a", 1, b""]]], "a:1").owner("bar") == "a:1"


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (b"node.example", "node.example:7"),
        (b"2001:db8::1", "[2001:db8::1]:7"),
        (b"", "asked:7"),
        (None, "asked:7"),
        (b"?", "asked:7"),
    ],
)
def test_a_server_that_does_not_know_a_name_means_its_own(told: bytes | None, meant: str) -> None:
    assert SlotMap.from_reply([[0, 16383, [told, 7, b""]]], "asked:1").masters == {meant}
