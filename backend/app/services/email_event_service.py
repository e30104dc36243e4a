"""What email providers report: delivered, bounced, complained, opened, clicked (REQ-014).

A report is taken in once, in one transaction with what follows from it. It is about a letter that
went out from here, or it has no effect.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from app.db.database import Database, Driver, driver_of, is_busy
from app.errors import Busy, InvalidSignature, Unavailable
from app.pipeline.deliver import Clock
from app.pipeline.mail_events import MailEvent, Report, SentLetter, find_letter, record
from app.pipeline.suppression import Suppressed, note_delivered, note_soft_bounce, suppress
from app.pipeline.webhook_receipts import is_new
from app.policy.kinds import Reason
from app.policy.machines import is_machine
from app.schemas.webhook import ResendEvent
from app.security.webhooks import NotSigned, verified_id
from app.services.resend_report import HARD, ResendReport

NOT_CONFIGURED: Final = "RESEND_WEBHOOK_SECRET is not set: nobody can be believed."
RETRY_AFTER: Final = 300  # seconds; somebody has to set it

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

READ_ADDRESS: Final = """
    SELECT email FROM notification_recipients WHERE user_id = $1 AND email IS NOT NULL
"""

EVENTS: Final = {
    "email.sent": MailEvent.SENT,
    "email.delivery_delayed": MailEvent.DELAYED,
    "email.failed": MailEvent.FAILED,
    "email.delivered": MailEvent.DELIVERED,
    "email.bounced": MailEvent.BOUNCED,
    "email.suppressed": MailEvent.BOUNCED,
    "email.complained": MailEvent.COMPLAINED,
    "email.opened": MailEvent.OPENED,
    "email.clicked": MailEvent.CLICKED,
}
REASONS: Final = {
    "email.failed": Reason.PROVIDER_REJECTED,
    "email.bounced": Reason.BOUNCED,
    "email.suppressed": Reason.ADDRESS_SUPPRESSED,
}
# Resend sends nothing more to an address that it suppresses itself.
SUPPRESSED_THERE: Final = "email.suppressed"


class EmailEventService:
    """Takes in what Resend reports.

    Args:
        secrets: any of them may have signed it.
        own_links: how the addresses of links in letters begin.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, secrets: Sequence[str], own_links: str, clock: Clock
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._own_links = own_links
        self._clock = clock

    def message_id(self, headers: Mapping[str, str], body: bytes) -> str:
        """The id of a webhook, once it is known to be Resend's.

        Args:
            headers: by lower-case name.
            body: as it came, byte for byte.

        Raises:
            InvalidSignature: it is not, or more than five minutes old or early.
            Unavailable: no secret is configured.
        """
        if not self._secrets:
            raise Unavailable(NOT_CONFIGURED, retry_after=RETRY_AFTER)
        try:
            return verified_id(self._secrets, headers, body, self._clock().timestamp())
        except NotSigned as error:
            raise InvalidSignature(str(error)) from None

    async def receive(self, message_id: str, told: ResendEvent) -> None:
        """Take in a report; one whose id was there before has no effect.

        Raises:
            Unavailable: PostgreSQL is away.
            Busy: others were changing the same; the provider tries again.
        """
        try:
            async with self._database.as_service() as connection:
                driver = await driver_of(connection)
                if await is_new(driver, message_id, self._clock()):
                    await self._take_in(driver, told)
        except Exception as error:
            if is_busy(error):
                raise Busy from error
            raise

    async def _take_in(self, driver: Driver, told: ResendEvent) -> None:
        event = EVENTS.get(told.type)
        said = ResendReport(told.data, self._own_links)
        if event is None or (event is MailEvent.CLICKED and said.is_own_link):
            return  # such a click is noticed where it arrives
        letter = await find_letter(
            driver,
            provider_id=said.email_id,
            notification_id=said.tagged("notification_id"),
            digest_id=said.tagged("digest_id"),
        )
        if letter is None:
            return
        now = self._clock()
        at = now if told.created_at is None else max(EPOCH, min(told.created_at, now))
        report = _report(told.type, event, said, letter, at)
        await record(driver, letter, report)
        for address in said.addresses or await _addresses_of(driver, letter):
            await _judge_address(driver, told.type, said, address, at, now)


def _report(
    kind: str, event: MailEvent, said: ResendReport, letter: SentLetter, at: datetime
) -> Report:
    detail: dict[str, str | bool] = {}
    if event is MailEvent.BOUNCED and kind != SUPPRESSED_THERE:
        detail["bounce"] = said.bounce
    if event in {MailEvent.OPENED, MailEvent.CLICKED}:
        if is_machine(said.user_agent, {}, _since_sent(letter, at)):
            detail["machine"] = True
        if said.link is not None:
            detail["link"] = said.link
    if kind in REASONS and said.explanation:
        detail["detail"] = said.explanation
    return Report(
        event,
        at,
        reason=REASONS.get(kind),
        detail=detail,
        explanation=said.explanation or None,
        provider_id=said.email_id,
    )


def _since_sent(letter: SentLetter, at: datetime) -> timedelta | None:
    return None if letter.sent_at is None else at - letter.sent_at


async def _addresses_of(driver: Driver, letter: SentLetter) -> list[str]:
    return [row["email"] for row in await driver.fetch(READ_ADDRESS, letter.user_id)]


async def _judge_address(
    driver: Driver, kind: str, said: ResendReport, address: str, at: datetime, now: datetime
) -> None:
    """What a report means for whether anything more is sent to the address."""
    match kind:
        case "email.complained":
            await suppress(driver, address, Suppressed.COMPLAINED, at, now)
        case "email.suppressed":
            await suppress(driver, address, Suppressed.BOUNCED, at, now)
        case "email.bounced" if said.bounce == HARD:
            await suppress(driver, address, Suppressed.BOUNCED, at, now)
        case "email.bounced":
            await note_soft_bounce(driver, address, at, now)
        case "email.delivered":
            await note_delivered(driver, address, at, now)
        case _:
            pass
