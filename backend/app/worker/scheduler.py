"""The scheduler process: TaskIQ's scheduler, which only rings.

What is due is decided by PostgreSQL, so a ring that comes twice, late or not at all does no harm.
"""

import asyncio
import signal

import structlog
from taskiq import TaskiqScheduler
from taskiq.abc.schedule_source import ScheduleSource
from taskiq.api import run_scheduler_task
from taskiq.scheduler.scheduled_task import ScheduledTask

from app.collector import leave_startup_alone
from app.config import Settings
from app.pipeline.doorbell import SWEEP_TASK, TIDY_TASK, StreamBroker
from app.realtime.connection import redis_url

log = structlog.get_logger()

TIMES = {SWEEP_TASK: "* * * * *", TIDY_TASK: "17 * * * *"}


class Rings(ScheduleSource):
    """The fixed times at which workers are woken."""

    async def get_schedules(self) -> list[ScheduledTask]:
        """One sweep a minute, one tidying-up an hour."""
        return [
            ScheduledTask(
                task_name=name, labels={}, args=[], kwargs={}, cron=cron, schedule_id=name
            )
            for name, cron in TIMES.items()
        ]


async def run_scheduler(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    leave_startup_alone()
    broker = StreamBroker(redis_url(settings))
    scheduler = TaskiqScheduler(broker, [Rings()])
    running = asyncio.create_task(run_scheduler_task(scheduler, run_startup=True))
    log.info("scheduler_started")
    await asyncio.wait(
        {running, asyncio.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    if running.done():
        running.result()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.shutdown()
