"""Ports for servers of tests.

They are below those that outgoing connections take, and drawn, so that tests of several processes
do not come upon the same at once.
"""

import random
import socket
from collections.abc import Iterator

DRAW = random.SystemRandom()  # which nobody seeds
BELOW_OUTGOING = range(20_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    free = (port for port in _drawn() if _is_free(port))
    return [next(free) for _ in range(count)]


def free_neighbours() -> tuple[int, int]:
    """Two ports that nobody listens on, one after the other."""
    return next((port, port + 1) for port in _drawn() if _is_free(port) and _is_free(port + 1))


def _drawn() -> Iterator[int]:
    yield from DRAW.sample(BELOW_OUTGOING[:-1], 500)
    raise LookupError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
