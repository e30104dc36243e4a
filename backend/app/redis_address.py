"""What `REDIS_URL` may say: one server, or a cluster (section 8.3)."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

SERVER_SCHEMES = ("redis://", "rediss://", "unix://", "valkey://")
CLUSTER_SCHEMES = {"redis-cluster": "redis", "rediss-cluster": "rediss"}


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where a cluster is found, and how its servers are spoken to.

    Args:
        nodes: `host:port` of servers that know the others; one that answers is enough.
    """

    nodes: tuple[str, ...]
    _scheme: str
    _user: str = field(repr=False)
    _query: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `redis-cluster://[user:password@]host:port[,host:port…][?options]`.

        Raises:
            ValueError: it is another; the message says what is wrong, and repeats no secret.
        """
        parts = urlsplit(url)
        if parts.path not in {"", "/", "/0"}:
            raise ValueError("a cluster has database 0 alone; leave the number out")
        user, at, hosts = parts.netloc.rpartition("@")
        nodes = tuple(hosts.split(","))
        if not all(is_node(node) for node in nodes):
            raise ValueError("must name servers as redis-cluster://host:port[,host:port…]")
        return cls(nodes, CLUSTER_SCHEMES[parts.scheme], user + at, parts.query)

    def server_url(self, node: str) -> str:
        """URL of one server.

        Args:
            node: `host:port`, from here or as the cluster names it.
        """
        return f"{self._scheme}://{self._user}{node}{'?' if self._query else ''}{self._query}"


def is_cluster(url: str) -> bool:
    """Whether the URL names a cluster, well or badly."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def is_node(text: str) -> bool:
    """Whether the text is `host:port`, the host of IP version 6 in brackets."""
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname and parts.port)
    except ValueError:
        return False


def check_redis_url(url: str) -> None:
    """Raise ValueError, which says what is wrong, unless a client can be made of the URL."""
    if is_cluster(url):
        ClusterAddress.parse(url)
    elif not url.startswith(SERVER_SCHEMES):
        raise ValueError("must be a redis:// or redis-cluster:// address")
