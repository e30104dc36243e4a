"""Push: each device by the way it is reached (REQ-006, REQ-007)."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from app.channels.base import Claim, Report, Skipped
from app.channels.push_content import as_shown
from app.policy.kinds import Channel, DeviceKind, Reason


class DeviceSender(Protocol):
    """Sends pushes to devices of one kind."""

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send the claims, all of which have a device, and report each one's outcome."""
        ...


class PushChannel:
    """Sends claims as pushes.

    Args:
        senders: by the kind of devices they reach; what none reaches is skipped with a reason.
    """

    channel: ClassVar[Channel] = Channel.PUSH

    def __init__(self, senders: Mapping[DeviceKind, DeviceSender]) -> None:
        self._senders = senders

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Send claims of all kinds at once: none waits for a sender of another kind."""
        by_kind: dict[DeviceKind, list[Claim]] = defaultdict(list)
        for claim in claims:
            if claim.device is None:
                report(claim, Skipped(Reason.NO_DEVICE))
            elif claim.device.kind not in self._senders:
                report(claim, Skipped(Reason.CHANNEL_NOT_CONFIGURED))
            else:
                by_kind[claim.device.kind].append(as_shown(claim))
        results = await asyncio.gather(
            *(self._senders[kind].send(of_kind, report) for kind, of_kind in by_kind.items()),
            return_exceptions=True,  # what is wrong with one kind stops no other
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
