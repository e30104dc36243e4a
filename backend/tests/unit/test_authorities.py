import ssl

import pytest

from app.security.authorities import public_authorities


def announced(context: ssl.SSLContext) -> bytes:
    """What a client with this context says first."""
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="mail.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def test_only_clients_of_http_announce_it() -> None:
    assert b"http/1.1" in announced(public_authorities())
    assert b"h2\x08http/1.1" in announced(public_authorities("h2"))
    assert b"http" not in announced(public_authorities(None))
