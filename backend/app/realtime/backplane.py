"""Changes of inboxes, from whoever commits them to the gateways that hold the sockets (REQ-010).

Redis carries them by sharded publish and subscribe over a fixed number of buckets of users; the
hash tag in a channel's name puts it on one master of a cluster, so the load spreads over all. A
message may be lost: gateways compare positions with PostgreSQL. It must not be believed delivered
when it is not, so every doubt about the connection is reported as a gap.

A message is a sequence of records: 16 bytes user id, 8 bytes seq, 4 bytes length, all big-endian,
then the frames, separated by newlines, which JSON never contains unescaped.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from app.realtime.connection import REDIS_FAULTS

log = structlog.get_logger()

BUCKETS = 64
CHANNELS = tuple(f"notify:{{b{bucket}}}" for bucket in range(BUCKETS))
MESSAGE_LIMIT = 256 * 1024  # bytes; a longer one would hold up what follows it
RECORD_HEADER = struct.Struct(">16sQI")

SUBSCRIBED, CHANGED = b"ssubscribe", b"smessage"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one inbox, told to the user's sessions.

    Args:
        seq: the change's number; the user's changes are numbered without holes.
        frames: messages as the sockets get them, in order.
    """

    user_id: UUID
    seq: int
    frames: tuple[bytes, ...]


OnChange = Callable[[Change], None]
OnGap = Callable[[], None]


class Backplane:
    """Publishes changes, and listens to those of all processes.

    Args:
        redis: a client of one Redis or Valkey server; the listener takes a connection of its own.
        keepalive: seconds of silence after which the server is asked whether it is still there.
        longest_pause: seconds between two attempts to connect, at most.
    """

    def __init__(self, redis: Redis, *, keepalive: float = 5.0, longest_pause: float = 2.0) -> None:
        self._redis = redis
        self._keepalive = keepalive
        self._longest_pause = longest_pause
        self._is_listening = False

    @property
    def is_listening(self) -> bool:
        """Whether changes arrive at present."""
        return self._is_listening

    async def publish(self, changes: Sequence[Change], *, timeout: float = 1.0) -> None:  # noqa: ASYNC109 -- part of the contract
        """Tell all gateways, in one round trip.

        Args:
            changes: what was committed; those of one user in order.
            timeout: seconds after which it is given up.

        Raises:
            RedisError: the server refused, or the connection broke.
            TimeoutError: it took too long. Either way the changes count as lost, which repairs
                itself: callers may log it and go on.
        """
        async with asyncio.timeout(timeout):
            pipeline = self._redis.pipeline(transaction=False)
            async with pipeline:
                for channel, message in messages_of(changes):
                    pipeline.spublish(channel, message)
                await pipeline.execute()

    async def listen(self, on_change: OnChange, on_gap: OnGap) -> NoReturn:
        """Hand over every change that is published, until cancelled.

        Args:
            on_change: called for each change, in the order of each publisher.
            on_gap: called whenever changes may have been missed: after every connect, and while
                the server cannot be reached before every further attempt.
        """
        failures = 0
        while True:
            subscription = Subscription(self._connection(), keepalive=self._keepalive)
            try:
                await subscription.open()
                failures = 0
                self._is_listening = True
                on_gap()
                await subscription.relay(on_change)
            except REDIS_FAULTS as error:
                failures += 1
                if failures == 1:
                    log.warning("backplane_lost", error=type(error).__name__)
            finally:
                self._is_listening = False
                await subscription.close()
            on_gap()
            pause = min(self._longest_pause, 0.05 * 2**failures)
            await asyncio.sleep(pause * random.random())  # noqa: S311 -- jitter

    def _connection(self) -> AbstractConnection:
        pool = self._redis.connection_pool
        settings = {
            name: value
            for name, value in pool.connection_kwargs.items()
            if not name.startswith(("maint", "orig_", "oss_", "retry", "event_"))
        }
        # Without a retry of its own the connection cannot come back unnoticed; with RESP 2 the
        # client does not format every message for a debug log.
        settings |= {"protocol": 2, "decode_responses": False, "health_check_interval": 0}
        return pool.connection_class(**settings)


class Subscription:
    """A connection that is subscribed to every channel.

    Args:
        connection: not yet connected; nobody else may use it.
        keepalive: seconds of silence after which the server is asked whether it is still there.
    """

    def __init__(self, connection: AbstractConnection, *, keepalive: float) -> None:
        self._connection = connection
        self._keepalive = keepalive
        self._early: list[bytes] = []

    async def open(self) -> None:
        """Connect and subscribe; on return nothing that is published any more is missed.

        Raises:
            RedisError: the server cannot be reached, or refuses.
        """
        await self._connection.connect()
        for channel in CHANNELS:
            await self._connection.send_command("SSUBSCRIBE", channel, check_health=False)
        confirmed = 0
        while confirmed < len(CHANNELS):
            reply = await self._reply()
            if reply is None:
                raise RedisConnectionError("the subscription was not confirmed in time")
            if reply[0] == SUBSCRIBED:
                confirmed += 1
            elif reply[0] == CHANGED:
                self._early.append(reply[2])

    async def relay(self, on_change: OnChange) -> NoReturn:
        """Hand over changes until the connection fails.

        Raises:
            RedisError: the connection broke, or the server no longer answers.
        """
        for message in self._early:
            _hand_over(message, on_change)
        asked = False
        while True:
            reply = await self._reply()
            if reply is None and asked:
                raise RedisConnectionError("the server does not answer")
            if reply is None:
                await self._connection.send_command("PING", check_health=False)
            elif reply[0] == CHANGED:
                _hand_over(reply[2], on_change)
                # A read that finds its data buffered does not yield; the sockets must get to write.
                await asyncio.sleep(0)
            asked = reply is None

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.disconnect(nowait=True)

    async def _reply(self) -> list[Any] | None:
        # An explicit timeout is not the socket's, which would break a connection that is silent.
        return cast(
            "list[Any] | None", await self._connection.read_response(timeout=self._keepalive)
        )


def messages_of(changes: Sequence[Change]) -> Iterator[tuple[str, bytes]]:
    """Channel and message for all changes; those of one bucket share messages."""
    buckets: dict[int, list[Change]] = {}
    for change in changes:
        buckets.setdefault(change.user_id.int % BUCKETS, []).append(change)
    for bucket, members in buckets.items():
        message = bytearray()
        for change in members:
            message += encode(change)
            if len(message) > MESSAGE_LIMIT:
                yield CHANNELS[bucket], bytes(message)
                message.clear()
        if message:
            yield CHANNELS[bucket], bytes(message)


def encode(change: Change) -> bytes:
    """The change as a record."""
    frames = b"\n".join(change.frames)
    return RECORD_HEADER.pack(change.user_id.bytes, change.seq, len(frames)) + frames


def decode(message: bytes) -> Iterator[Change]:
    """The changes of a message.

    Raises:
        ValueError: it is not one of ours.
    """
    offset = 0
    while offset < len(message):
        start = offset + RECORD_HEADER.size
        if start > len(message):
            raise ValueError("a record is cut short")
        user_id, seq, length = RECORD_HEADER.unpack_from(message, offset)
        offset = start + length
        if offset > len(message):
            raise ValueError("a record is cut short")
        yield Change(UUID(bytes=user_id), seq, tuple(message[start:offset].split(b"\n")))


def _hand_over(message: bytes, on_change: OnChange) -> None:
    try:
        for change in decode(message):
            on_change(change)
    except Exception:
        # What one message breaks is repaired from PostgreSQL; the next ones must still arrive.
        log.exception("change_not_handled")
