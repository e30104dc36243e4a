"""The email channel: claims become letters, and letters are sent (REQ-014)."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import structlog

from app.channels.base import Claim, Failed, Outcome, Report, Retry
from app.channels.email.compose import Composer
from app.channels.email.letter import Mailer
from app.policy.kinds import Channel, Reason

log = structlog.get_logger()


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
        try:
            letter = self._composer.instant(claim, claim.email)
        except Exception as error:  # of this one alone: others may be on their way
            log.exception("letter_not_written", delivery_id=str(claim.id))
            return Retry(Reason.INTERNAL_ERROR, type(error).__name__)
        return await self._mailer.send(letter)
