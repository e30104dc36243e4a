"""The worker process: answers the doorbell, and sweeps."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from taskiq.receiver import Receiver

from app.channels.base import ChannelSender
from app.channels.callback import Call
from app.channels.email.channel import EmailChannel
from app.channels.in_app import InAppChannel
from app.collector import leave_startup_alone
from app.config import Settings
from app.db.database import Database
from app.errors import Unavailable
from app.pipeline.announce import Announcement, Announcer
from app.pipeline.callbacks import callback_queue, callback_sweeper
from app.pipeline.closings import ClosingSweeper
from app.pipeline.decide import Audience, Defaults
from app.pipeline.deliver import Clock, Deliverer, utc_now
from app.pipeline.digests import DigestQueue, Lease
from app.pipeline.doorbell import (
    DELIVER_TASK,
    EXPAND_TASK,
    SWEEP_TASK,
    TIDY_TASK,
    StreamBroker,
    StreamDoorbell,
)
from app.pipeline.expand import Expander
from app.pipeline.expire import Expirer
from app.pipeline.gather import Gatherer
from app.pipeline.keyring import Keyring
from app.pipeline.leased import LeaseSweeper
from app.pipeline.reconsider import Reconsiderer
from app.pipeline.sweep import DRAIN_SECONDS, Sweeper
from app.pipeline.tidy import Tidier
from app.pipeline.track import Recorder, retry_policy
from app.policy.kinds import Channel
from app.ratelimit.redis_lines import RedisLines
from app.ratelimit.user_limits import UserLimits
from app.realtime.backplane import Backplane
from app.realtime.connection import redis_client, redis_url
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound
from app.services.email_digest_service import EmailDigestService
from app.worker.mail import open_mail
from app.worker.push import open_push

log = structlog.get_logger()

TASKS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts of a worker, ready to run."""

    deliverer: Deliverer
    expander: Expander
    expirer: Expirer
    sweeper: Sweeper
    callbacks: LeaseSweeper[Call]
    digests: LeaseSweeper[tuple[Lease, ...]]
    closings: ClosingSweeper | None
    tidier: Tidier
    broker: StreamBroker


@asynccontextmanager
async def open_worker(settings: Settings, clock: Clock = utc_now) -> AsyncGenerator[Worker]:
    """Build a worker and close what it opened.

    Args:
        settings: with both URLs filled in.
        clock: the present instant; injected so that time can be driven.
    """
    database = Database(settings)
    redis = redis_client(settings)
    broker = StreamBroker(redis_url(settings))
    audience = Audience(Defaults.from_settings(settings))
    limits = audience.defaults.limits
    keyring = Keyring(settings, database, clock)
    try:
        async with (
            Outbound(AddressRules.from_settings(settings)) as outbound,
            open_push(settings, database, keyring, clock) as push,
            open_mail(settings, database, clock) as mail,
            Announcer(Backplane(redis), StreamDoorbell(broker)) as announcer,
            Recorder(database, retry_policy(settings), clock) as recorder,
            DigestQueue(settings, database, audience.defaults, clock) as digest_queue,
        ):
            channels: list[ChannelSender] = [
                InAppChannel(
                    database,
                    limits[Channel.IN_APP],
                    clock,
                    lambda changes: announcer.announce(Announcement(changes=changes)),
                    recorder.record,
                ),
                push.channel,
            ]
            if mail is not None:
                channels.append(EmailChannel(mail.composer, mail.mailer))
            admission = UserLimits(database, limits, RedisLines(redis, limits))
            reconsiderer = Reconsiderer(database, audience, admission)
            deliverer = Deliverer(settings, database, channels, reconsiderer, recorder, clock)
            expander = Expander(database, announcer, audience, clock)
            expirer = Expirer(database, announcer.announce, clock)
            sweeper = Sweeper(
                deliverer, expander, expirer, clock, interval=settings.sweep_interval_seconds
            )
            callbacks = callback_sweeper(
                callback_queue(settings, database, outbound, clock),
                clock,
                interval=settings.sweep_interval_seconds,
            )
            gatherer = Gatherer(settings, database, audience, clock)
            digests = EmailDigestService(
                digest_queue,
                gatherer,
                None if mail is None else mail.composer,
                None if mail is None else mail.mailer,
                clock,
            )
            rotation = timedelta(days=settings.vapid_rotation_days)
            retention = timedelta(days=settings.notification_retention_days)
            tidier = Tidier(database, keyring, rotation, retention, clock)
            yield Worker(
                deliverer,
                expander,
                expirer,
                sweeper,
                callbacks,
                digests.sweeper(interval=settings.sweep_interval_seconds),
                push.closings,
                tidier,
                broker,
            )
    finally:
        await broker.shutdown()
        await redis.aclose()
        await database.close()


def register_tasks(worker: Worker) -> None:
    """Let the broker's messages reach the worker."""
    broker = worker.broker
    broker.is_worker_process = True

    @broker.task(DELIVER_TASK)
    async def deliver(_ids: list[str]) -> None:
        # What is due is claimed in its order, whichever rows the bell was rung for.
        worker.sweeper.wake()

    @broker.task(EXPAND_TASK)
    async def expand(batch_id: str) -> None:  # the sweeper finds it, in its turn
        worker.sweeper.wake_for_batches()

    @broker.task(SWEEP_TASK)
    async def sweep() -> None:
        worker.sweeper.wake()
        worker.digests.wake()

    @broker.task(TIDY_TASK)
    async def tidy() -> None:
        with contextlib.suppress(Unavailable):
            await worker.tidier.tidy()


@asynccontextmanager
async def running(worker: Worker) -> AsyncGenerator[None]:
    """Answer the doorbell and sweep while the context lasts, then finish what is in flight."""
    register_tasks(worker)
    stopping = asyncio.Event()
    with ThreadPoolExecutor(max_workers=1) as executor:
        receiver = Receiver(
            worker.broker,
            executor=executor,
            max_async_tasks=TASKS_AT_ONCE,
            max_prefetch=TASKS_AT_ONCE,
            run_startup=True,
            wait_tasks_timeout=DRAIN_SECONDS,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(receiver.listen(stopping))
            group.create_task(worker.sweeper.run(stopping))
            group.create_task(worker.callbacks.run(stopping))
            group.create_task(worker.digests.run(stopping))
            if worker.closings is not None:
                group.create_task(worker.closings.run(stopping))
            try:
                yield
            finally:
                stopping.set()


async def run_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then finish what is in flight or give it back."""
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, told_to_stop.set)
    leave_startup_alone()
    async with open_worker(settings) as worker, running(worker):
        log.info("worker_started")
        with contextlib.suppress(Unavailable):
            await worker.tidier.tidy()  # the scheduler may ring for the first time in an hour
        await told_to_stop.wait()
    log.info("worker_stopped")
