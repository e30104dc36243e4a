"""The push channel of a worker, with the clients that it sends through."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.channels.fcm import open_fcm
from app.channels.push import DeviceSender, PushChannel
from app.channels.vapid import Keyring
from app.channels.web_push import PUSHES_TO_ONE_ORIGIN, WebPushSender
from app.config import Settings
from app.db.database import Database
from app.pipeline.closings import ClosingSweeper, closing_queue
from app.pipeline.deliver import Clock
from app.policy.kinds import DeviceKind
from app.security.ack_tokens import AckTokens
from app.security.address_rules import AddressRules
from app.security.outbound import Outbound


@dataclass(frozen=True, slots=True)
class Push:
    """What pushes, and what closes pushes again.

    Args:
        closings: None where no phones are reached.
    """

    channel: PushChannel
    closings: ClosingSweeper | None


@asynccontextmanager
async def open_push(
    settings: Settings, database: Database, keyring: Keyring, clock: Clock
) -> AsyncGenerator[Push]:
    """Build it, and close its clients in the end."""
    async with (
        Outbound(
            AddressRules.from_settings(settings),
            connections=settings.delivery_slots,
            calls_to_one_origin=PUSHES_TO_ONE_ORIGIN,
        ) as outbound,
        open_fcm(settings, clock) as fcm,
    ):
        ack_token = AckTokens(settings.encryption_keys).issue
        senders: dict[DeviceKind, DeviceSender] = {
            DeviceKind.WEB: WebPushSender(settings, keyring, outbound, ack_token, clock)
        }
        closings = None
        if fcm is not None:
            senders[DeviceKind.FCM] = fcm
            closings = ClosingSweeper(
                closing_queue(settings, database, fcm, clock),
                clock,
                interval=settings.sweep_interval_seconds,
            )
        yield Push(PushChannel(senders), closings)
