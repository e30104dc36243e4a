"""The doorbell: a TaskIQ stream broker on Redis that wakes workers (section 8.4).

A message names a batch of rows that may be due; the rows decide. So a message that is lost, or
delivered twice, changes nothing but the time until the next sweep.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from taskiq import AckableMessage, BrokerMessage, SendTaskError
from taskiq.kicker import AsyncKicker
from taskiq_redis import RedisStreamBroker

from app.realtime.connection import REDIS_FAULTS, connect

log = structlog.get_logger()

StreamEntry = tuple[bytes, dict[bytes, bytes] | None]
"""An entry's id and fields, which are None where it was deleted before it was acknowledged."""

STREAM = "notify:doorbell"
DATA = b"data"  # the field that TaskIQ's broker puts a message in
GROUP = "workers"
DELIVER_TASK = "deliver"
EXPAND_TASK = "expand"
SWEEP_TASK = "sweep"
TIDY_TASK = "tidy"
IDS_PER_RING = 100  # more than these wake more workers
READ_BLOCK_MS = 2_000
READ_COUNT = 16
CONNECTIONS = 16
RECLAIM_INTERVAL = 15.0  # seconds between looks at what dead workers left unacknowledged
RECLAIM_IDLE_MS = 60_000  # longer than any task runs
RECONNECT_DELAY = 0.5  # seconds
STREAM_LENGTH = 100_000  # rings kept when no worker reads; sweeping needs none of them


class StreamBroker(RedisStreamBroker):
    """The stream broker, made to survive what the stock one does not.

    Messages of dead workers are reclaimed on a timer (the stock broker reclaims only after a
    message arrives), acknowledged entries are deleted, a flushed or restarted Redis gets its
    group back, and a group starts at the stream's beginning. In a cluster it follows the stream
    to whichever server has it; the stock broker for clusters reclaims nothing.

    Args:
        url: as `redis_url` gives it.
    """

    def __init__(self, url: str) -> None:
        # A blocking read must end before its socket's patience does.
        self._client = connect(
            url, socket_timeout=READ_BLOCK_MS / 1000 + 3, max_connections=CONNECTIONS
        )
        super().__init__(
            "redis://",  # of a pool that stays empty: the client has its own
            queue_name=STREAM,
            consumer_group_name=GROUP,
            consumer_id="0",
            xread_block=READ_BLOCK_MS,
            xread_count=READ_COUNT,
            idle_timeout=RECLAIM_IDLE_MS,
            maxlen=STREAM_LENGTH,
        )

    async def startup(self) -> None:
        """Start without Redis too: `listen` declares the group once it can."""
        with contextlib.suppress(*REDIS_FAULTS):
            await super().startup()

    async def shutdown(self) -> None:
        """Close what was opened."""
        await super().shutdown()
        await self._client.aclose()

    async def kick(self, message: BrokerMessage) -> None:
        """Put a message on the stream.

        Raises:
            RedisError, OSError, TimeoutError: the server that has it cannot be reached.
        """
        async with self._server() as redis:
            await redis.xadd(STREAM, {DATA: message.message}, maxlen=self.maxlen)

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Messages for this worker, through every fault of Redis, for ever."""
        while True:
            try:
                async for message in self._listen_until_fault():
                    yield message
            except REDIS_FAULTS as error:
                _end_if_cancelled()
                log.info("doorbell_reconnecting", error=type(error).__name__)
                await asyncio.sleep(RECONNECT_DELAY)

    async def _listen_until_fault(self) -> AsyncGenerator[AckableMessage, None]:
        await self._declare_consumer_group()
        loop = asyncio.get_running_loop()
        reclaim_at = loop.time()
        async with self._server() as redis:
            while True:
                _end_if_cancelled()
                if loop.time() >= reclaim_at:
                    reclaim_at = loop.time() + RECLAIM_INTERVAL
                    for message in await self._understood(await self._reclaim(redis)):
                        yield message
                for message in await self._understood(await self._read(redis)):
                    yield message

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncGenerator[Redis]:
        """The server that has the stream; after a fault it is looked for again."""
        server = await self._client.at(STREAM)
        try:
            yield server
        except REDIS_FAULTS:
            self._client.doubt(server)
            raise

    async def _read(self, redis: "Redis") -> list[StreamEntry]:
        fetched = cast(
            "list[tuple[bytes, list[StreamEntry]]]",
            await redis.xreadgroup(
                GROUP, self.consumer_name, {STREAM: ">"}, block=self.block, count=self.count
            ),
        )
        return [entry for _, entries in fetched or () for entry in entries]

    async def _reclaim(self, redis: "Redis") -> list[StreamEntry]:
        reply = cast(
            "tuple[bytes, list[StreamEntry], list[bytes]]",
            await redis.xautoclaim(
                STREAM, GROUP, self.consumer_name, min_idle_time=self.idle_timeout, count=self.count
            ),
        )
        return reply[1]

    async def _understood(self, entries: Sequence[StreamEntry]) -> list[AckableMessage]:
        """The entries as messages; those of another version are dropped, the rows are swept."""
        messages: list[AckableMessage] = []
        for entry_id, fields in entries:
            acknowledge = self._ack_generator(entry_id, STREAM)
            if fields and DATA in fields:
                messages.append(AckableMessage(data=fields[DATA], ack=acknowledge))
            else:
                log.warning("ring_not_understood")
                await acknowledge()
        return messages

    def _ack_generator(self, id: Any, queue_name: str) -> Any:
        async def acknowledge() -> None:
            with contextlib.suppress(*REDIS_FAULTS):
                async with (
                    self._server() as redis,
                    redis.pipeline(transaction=False) as pipeline,
                ):
                    pipeline.xack(queue_name, GROUP, id)
                    pipeline.xdel(queue_name, id)
                    await pipeline.execute()

        return acknowledge

    async def _declare_consumer_group(self) -> None:
        async with self._server() as redis:
            try:
                await redis.xgroup_create(STREAM, GROUP, id=self.consumer_id, mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise


def _end_if_cancelled() -> None:
    # Before Python 3.12 `wait_for`, which the client writes with, may swallow a cancellation. The
    # receiver awaits the end of what it cancelled, so a worker would never stop.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class StreamDoorbell:
    """Rings through a broker; the one face of TaskIQ that the API process has."""

    def __init__(self, broker: StreamBroker) -> None:
        self._broker = broker

    async def ring(self, delivery_ids: Sequence[UUID], batch_ids: Sequence[UUID] = ()) -> None:
        """Wake workers for the deliveries and batches, a few hundred ids in a message.

        Raises:
            RedisError, OSError: Redis cannot be reached.
        """
        for start in range(0, len(delivery_ids), IDS_PER_RING):
            chunk = delivery_ids[start : start + IDS_PER_RING]
            await self._kick(DELIVER_TASK, [str(item) for item in chunk])
        for batch_id in batch_ids:
            await self._kick(EXPAND_TASK, str(batch_id))

    async def _kick(self, task: str, argument: str | list[str]) -> None:
        try:
            await AsyncKicker(task, self._broker, {}).kiq(argument)
        except SendTaskError as error:
            raise RedisConnectionError("The doorbell cannot be rung.") from error
