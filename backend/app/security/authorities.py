"""Whom we believe when we call https addresses."""

import ssl
from functools import cache

import certifi


@cache  # reading the authorities takes longer than a connection
def public_authorities(protocol: str = "http/1.1") -> ssl.SSLContext:
    """The authorities of the system, and those of browsers where it has none.

    Args:
        protocol: the newest version of HTTP to be spoken, `http/1.1` or `h2`. Clients of different
            ones must not share a context.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(list(dict.fromkeys([protocol, "http/1.1"])))
    return context
