"""Changes of inboxes, from whoever commits them to the gateways that hold the sockets (REQ-010).

Redis carries them by sharded publish and subscribe over a fixed number of buckets of users; the
hash tag in a channel's name puts it on one master of a cluster, so the load spreads over all, and
the death of one is felt in its own buckets alone. A message may be lost: gateways compare positions
with PostgreSQL. It must not be believed delivered when it is not, so every doubt about a connection
or about who has a bucket is reported as a gap.

A message is a sequence of records: 16 bytes user id, 8 bytes seq, 4 bytes length, all big-endian,
then the frames, separated by newlines, which JSON never contains unescaped.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.realtime.connection import REDIS_FAULTS, RedisClient
from app.realtime.subscription import Subscription

log = structlog.get_logger()

BUCKETS = 64
CHANNELS = tuple(f"notify:{{b{bucket}}}" for bucket in range(BUCKETS))
MESSAGE_LIMIT = 256 * 1024  # bytes; a longer one would hold up what follows it
RECORD_HEADER = struct.Struct(">16sQI")


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
        redis: one server or a cluster; the listener takes a connection of its own to each server
            that has channels.
        keepalive: seconds of silence after which a server is asked whether it is still there, and
            between two looks at who has which channels.
        longest_pause: seconds between two attempts to connect, at most.
    """

    def __init__(
        self, redis: RedisClient, *, keepalive: float = 5.0, longest_pause: float = 2.0
    ) -> None:
        self._redis = redis
        self._keepalive = keepalive
        self._longest_pause = longest_pause
        self._heard: frozenset[str] = frozenset()
        self._look = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether the changes of all users arrive at present."""
        return len(self._heard) == BUCKETS

    async def publish(self, changes: Sequence[Change], *, timeout: float = 1.0) -> None:  # noqa: ASYNC109 -- part of the contract
        """Tell all gateways, in one round trip to each server that has some of the channels.

        Args:
            changes: what was committed; those of one user in order.
            timeout: seconds after which it is given up.

        Raises:
            RedisError: a server refused, or its connection broke.
            TimeoutError: it took too long. Either way that server's share counts as lost, which
                repairs itself, and all others have theirs: callers may log it and go on.
        """
        messages: dict[str, list[bytes]] = {}
        for channel, message in messages_of(changes):
            messages.setdefault(channel, []).append(message)
        deadline = asyncio.get_running_loop().time() + timeout
        async with asyncio.timeout_at(deadline):
            shares = await self._redis.shares(messages)
        outcomes = await asyncio.gather(
            *(
                self._tell(server, {channel: messages[channel] for channel in share}, deadline)
                for server, share in shares.items()
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome
        if sum(map(len, shares.values())) < len(messages):
            raise RedisConnectionError("channels are without a server")

    async def _tell(
        self, server: Redis, messages: Mapping[str, Sequence[bytes]], deadline: float
    ) -> None:
        """Publish what a server has, or what it had, through whoever has that now."""
        try:
            async with asyncio.timeout_at(deadline):
                await _publish(server, messages)
        except REDIS_FAULTS:
            self._redis.doubt(server)
            async with asyncio.timeout_at(deadline):
                shares = await self._redis.shares(messages)
                if shares.keys() <= {server}:
                    raise
                for heir, share in shares.items():
                    await _publish(heir, {channel: messages[channel] for channel in share})

    async def listen(self, on_change: OnChange, on_gap: OnGap) -> NoReturn:
        """Hand over every change that is published, until cancelled.

        Args:
            on_change: called for each change, in the order of each publisher.
            on_gap: called whenever changes may have been missed: after every connect, and while
                a server cannot be reached before every further attempt.
        """
        ears: dict[Share, asyncio.Task[NoReturn]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._look.clear()
                shares = await self._shares()
                for share in ears.keys() - shares:
                    ear = ears.pop(share)
                    ear.cancel()
                    await asyncio.wait([ear])
                for share in shares - ears.keys():
                    ears[share] = group.create_task(self._hear(share, on_change, on_gap))
                pause = self._keepalive
                if sum(len(share.channels) for share in shares) < BUCKETS:
                    on_gap()
                    pause = min(pause, self._longest_pause)
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._look.wait()

    async def _shares(self) -> set["Share"]:
        try:
            shares = await self._redis.shares(CHANNELS)
        except REDIS_FAULTS as error:
            log.warning("backplane_unknown", error=type(error).__name__)
            return set()
        return {Share(server, frozenset(channels)) for server, channels in shares.items()}

    async def _hear(self, share: "Share", on_change: OnChange, on_gap: OnGap) -> NoReturn:
        """Listen to one server, through all its faults."""
        failures = 0

        def take(message: bytes) -> None:
            _hand_over(message, on_change)

        while True:
            subscription = Subscription(share.server, share.channels, keepalive=self._keepalive)
            try:
                await subscription.open()
                failures = 0
                self._heard |= share.channels
                on_gap()
                await subscription.relay(take)
            except REDIS_FAULTS as error:
                failures += 1
                if failures == 1:
                    log.warning("backplane_lost", error=type(error).__name__)
            finally:
                self._heard -= share.channels
                await subscription.close()
            on_gap()
            self._redis.doubt(share.server)
            self._look.set()
            pause = min(self._longest_pause, 0.05 * 2**failures)
            await asyncio.sleep(pause * random.random())  # noqa: S311 -- jitter


@dataclass(frozen=True, slots=True)
class Share:
    """The channels that a server has."""

    server: Redis
    channels: frozenset[str]


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


async def _publish(server: Redis, messages: Mapping[str, Sequence[bytes]]) -> None:
    async with server.pipeline(transaction=False) as pipeline:
        for channel, parts in messages.items():
            for message in parts:
                pipeline.spublish(channel, message)
        await pipeline.execute()


def _hand_over(message: bytes, on_change: OnChange) -> None:
    try:
        for change in decode(message):
            on_change(change)
    except Exception:
        # What one message breaks is repaired from PostgreSQL; the next ones must still arrive.
        log.exception("change_not_handled")
