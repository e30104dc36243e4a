"""Whom we believe when we call https addresses."""

import ssl
from functools import cache

import certifi


@cache  # reading the authorities takes longer than a connection
def public_authorities(protocol: str | None = "http/1.1") -> ssl.SSLContext:
    """The authorities of the system, and those of browsers, for where it has none.

    Args:
        protocol: the newest version of HTTP to be spoken, `http/1.1` or `h2`; None for what is not
            HTTP, since mail servers refuse who announces it (RFC 7301). Clients of different ones
            must not share a context.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if protocol is not None:
        context.set_alpn_protocols(list(dict.fromkeys([protocol, "http/1.1"])))
    return context
