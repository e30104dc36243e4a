"""Which pages may open a socket (SEC-004); CORS does not cover WebSockets."""

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit


def origin_is_allowed(headers: Mapping[str, str], allowed: Collection[str]) -> bool:
    """Whether a handshake comes from a page that may open a socket.

    Args:
        headers: of the handshake, names in lower case.
        allowed: origins such as `https://app.example.com`.

    Returns:
        True without an `Origin`, for no page is involved then; for the server's own origin; and
        for those listed.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    origin = origin.lower()
    return _is_own(origin, headers.get("host", "")) or origin in {
        entry.lower() for entry in allowed
    }


def _is_own(origin: str, host: str) -> bool:
    # A proxy that ends TLS hides which scheme the page used, so host and port decide.
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    own = parts.scheme in {"http", "https"} and parts.netloc == host.lower()
    return own and origin == f"{parts.scheme}://{parts.netloc}"
