"""HTTP clients for tests."""

from typing import Any

import httpx

from app.security.authorities import public_authorities


def client_of(url: str, **options: Any) -> httpx.AsyncClient:
    """A client of the server at this address, with httpx's options.

    Left to itself each would read the authorities of the system anew, which takes longer than most
    tests do.
    """
    return httpx.AsyncClient(base_url=url, verify=public_authorities(), **options)
