"""Clients of Redis or Valkey."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.config import ConfigurationError, Settings

# uvloop answers a write to a connection that was cut a moment ago with a RuntimeError.
REDIS_FAULTS = (RedisError, OSError, TimeoutError, RuntimeError)
"""What a client raises when Redis is away, refuses, or goes in the middle of something."""

SOCKET_TIMEOUT = 2.0  # seconds; a stalled Redis must not stall its callers


def redis_url(settings: Settings) -> str:
    """The configured address.

    Raises:
        ConfigurationError: none is configured.
    """
    if settings.redis_url is None:
        raise ConfigurationError("REDIS_URL: required")
    return settings.redis_url.get_secret_value().replace("valkey://", "redis://", 1)


def redis_client(settings: Settings) -> Redis:
    """A client for short commands; whoever opens it closes it."""
    return Redis.from_url(  # pyright: ignore[reportUnknownMemberType] -- redis-py leaves **kwargs untyped
        redis_url(settings),
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=SOCKET_TIMEOUT,
        max_connections=32,
    )
