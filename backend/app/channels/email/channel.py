"""The email channel: claims become letters, and letters are sent (REQ-014)."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from app.channels.base import Claim, Failed, Outcome, Report
from app.channels.email.compose import Composer
from app.channels.email.letter import Mailer
from app.policy.kinds import Channel, Reason


class EmailChannel:
    """Sends claims as emails.

    Args:
        composer: writes them.
        mailer: sends them.
    """

    channel: ClassVar[Channel] = Channel.EMAIL

    def __init__(self, composer: Composer, mailer: Mailer) -> None:
        self._composer = composer
        self._mailer = mailer

    async def send(self, claims: Sequence[Claim], report: Report) -> None:
        """Hand all claims to the mailer at once: a slow one delays no other."""

        async def send_one(claim: Claim) -> None:
            report(claim, await self._send(claim))

        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(send_one(claim))

    async def _send(self, claim: Claim) -> Outcome:
        if claim.email is None:
            return Failed(Reason.NO_ADDRESS, "The user has no email address any more.")
        return await self._mailer.send(self._composer.instant(claim, claim.email))
