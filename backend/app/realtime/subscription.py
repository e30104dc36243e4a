"""One connection that hears what is published on some channels of one server (REQ-010)."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, NoReturn, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from app.realtime.connection import SOCKET_TIMEOUT

SUBSCRIBED, UNSUBSCRIBED, CHANGED = b"ssubscribe", b"sunsubscribe", b"smessage"


class Subscription:
    """A connection that is subscribed to channels that one server has.

    Args:
        server: what it connects as; the connection is none of the client's.
        keepalive: seconds of silence after which the server is asked whether it is still there.
    """

    def __init__(self, server: Redis, channels: Collection[str], *, keepalive: float) -> None:
        self._connection = _connection(server)
        self._channels = channels
        self._keepalive = keepalive
        self._early: list[bytes] = []

    async def open(self) -> None:
        """Connect and subscribe; on return nothing that is published any more is missed.

        Raises:
            RedisError: the server cannot be reached, or refuses, as one does that does not have
                a channel.
            TimeoutError: it accepts the connection, and is silent.
        """
        async with asyncio.timeout(SOCKET_TIMEOUT):
            await self._connection.connect()
        for channel in self._channels:
            await self._connection.send_command("SSUBSCRIBE", channel, check_health=False)
        confirmed = 0
        while confirmed < len(self._channels):
            reply = await self._reply()
            if reply is None:
                raise RedisConnectionError("the subscription was not confirmed in time")
            if reply[0] == SUBSCRIBED:
                confirmed += 1
            elif reply[0] == CHANGED:
                self._early.append(reply[2])

    async def relay(self, on_message: Callable[[bytes], None]) -> NoReturn:
        """Hand over messages until they no longer arrive.

        Raises:
            RedisError: the connection broke, the server no longer answers, or a channel's slot
                has moved to another server.
        """
        for message in self._early:
            on_message(message)
        asked = False
        while True:
            reply = await self._reply()
            if reply is None and asked:
                raise RedisConnectionError("the server does not answer")
            if reply is None:
                await self._connection.send_command("PING", check_health=False)
            elif reply[0] == CHANGED:
                on_message(reply[2])
                # A read that finds its data buffered does not yield; the sockets must get to write.
                await asyncio.sleep(0)
            elif reply[0] == UNSUBSCRIBED:
                raise RedisConnectionError("a channel has moved")
            asked = reply is None

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.disconnect(nowait=True)

    async def _reply(self) -> list[Any] | None:
        # An explicit timeout is not the socket's, which would break a connection that is silent.
        return cast(
            "list[Any] | None", await self._connection.read_response(timeout=self._keepalive)
        )


def _connection(server: Redis) -> AbstractConnection:
    pool = server.connection_pool
    settings = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if not name.startswith(("maint", "orig_", "oss_", "retry", "event_"))
    }
    # Without a retry of its own the connection cannot come back unnoticed; with RESP 2 the
    # client does not format every message for a debug log; with a timeout for writing it would
    # now and then swallow a cancellation (asyncio.wait_for before Python 3.12).
    settings |= {
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "socket_timeout": None,
    }
    return pool.connection_class(**settings)
