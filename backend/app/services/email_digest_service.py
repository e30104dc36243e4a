"""Sending digests (REQ-015, REQ-016): gathered, written as one letter, handed over, recorded."""

import asyncio
from collections.abc import Sequence

import structlog

from app.channels.base import Failed, Retry
from app.channels.email.compose import Composer
from app.channels.email.digest import Digest
from app.channels.email.letter import Mailer, MailOutcome
from app.pipeline.deliver import Clock
from app.pipeline.digests import GROUPS_AT_ONCE, DigestQueue, Lease
from app.pipeline.gather import Gathered, Gatherer
from app.pipeline.leased import LeaseSweeper
from app.policy.kinds import Reason

log = structlog.get_logger()

NOT_CONFIGURED = Failed(Reason.CHANNEL_NOT_CONFIGURED, "There is no email provider any more.")


class EmailDigestService:
    """Sends the digests of a queue.

    Args:
        composer: writes letters; None, as is the mailer, where no email is sent.
        mailer: sends them.
        clock: the present instant.
    """

    def __init__(
        self,
        queue: DigestQueue,
        gatherer: Gatherer,
        composer: Composer | None,
        mailer: Mailer | None,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._gatherer = gatherer
        self._composer = composer
        self._mailer = mailer
        self._clock = clock

    def sweeper(self, *, interval: float) -> LeaseSweeper[tuple[Lease, ...]]:
        """Sends the digests that are due, for as long as the worker runs.

        Args:
            interval: longest sleep, in seconds.
        """
        return LeaseSweeper(
            self._queue, self.send, self._clock, at_once=GROUPS_AT_ONCE, interval=interval
        )

    async def send(self, group: Sequence[Lease]) -> None:
        """Send leased digests, each as one letter, and record what became of them.

        Raises:
            Unavailable: PostgreSQL is away; they are due again when their leases end.
        """
        try:
            gathered = await self._gatherer.gather(group)
            results = await asyncio.gather(*map(self._send, gathered), return_exceptions=True)
        finally:
            self._queue.let_go(group)
        for error in results:
            if error is not None:
                raise error

    async def _send(self, gathered: Gathered) -> None:
        what = gathered.what
        if self._clock() >= gathered.lease.until:
            return  # this worker stood still, and another has taken over
        outcome = await self._outcome(what) if isinstance(what, Digest) else what
        await self._queue.record(gathered.lease, outcome)

    async def _outcome(self, digest: Digest) -> MailOutcome:
        if self._composer is None or self._mailer is None:
            return NOT_CONFIGURED
        try:
            return await self._mailer.send(self._composer.digest(digest))
        except Exception as error:
            log.exception("digest_failed", digest_id=str(digest.id))
            return Retry(Reason.INTERNAL_ERROR, type(error).__name__)
