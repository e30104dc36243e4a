"""Opens and clicks of letters, noticed by their own pixel and links (REQ-014, REQ-021).

Each is an event of the notification once, and once more if a machine was there before a person.
In a digest an open is one of every notification that it tells of, and a click one of the
notification that the link leads to.
"""

import re
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import structlog

from app.db.database import Database, Driver, driver_of
from app.pipeline.deliver import Clock
from app.pipeline.mail_events import MailEvent, Report, SentLetter, find_letter, record
from app.policy.machines import is_machine
from app.security.email_tokens import EmailTokens
from app.security.redact import mask_text

log = structlog.get_logger()

READ_TARGETS: Final = "SELECT targets FROM email_links WHERE letter_id = $1"
NOTIFICATION: Final = re.compile(
    r"[?&]notification=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:[&#]|$)"
)


class EmailTrackingService:
    """Notices opens and clicks.

    Args:
        tokens: say which letter, and which of its links.
        clock: the present instant.
    """

    def __init__(self, database: Database, tokens: EmailTokens, clock: Clock) -> None:
        self._database = database
        self._tokens = tokens
        self._clock = clock

    async def opened(self, token: str, headers: Mapping[str, str], *, counts: bool) -> None:
        """Notice that a letter was opened; what cannot be recorded is let go.

        Args:
            headers: of the request, by lower-case name.
            counts: whether anybody may have looked.

        Raises:
            NotSealed: nobody was given this token.
        """
        letter_id = self._tokens.read_opened(token)
        if not counts:
            return
        try:
            async with self._database.as_service() as connection:
                driver = await driver_of(connection)
                if (letter := await find_letter(driver, letter_id=letter_id)) is not None:
                    await self._record(driver, letter, MailEvent.OPENED, headers)
        except Exception as error:
            # A picture that does not load would be seen, an open that is not counted is not.
            log.warning("open_not_recorded", error=type(error).__name__)

    async def clicked(self, token: str, headers: Mapping[str, str], *, counts: bool) -> str | None:
        """Where a link leads, None if its letter is gone; notices that it was followed.

        Args:
            headers: of the request, by lower-case name.
            counts: whether anybody may have followed it.

        Raises:
            NotSealed: nobody was given this token.
            Unavailable: PostgreSQL is away.
        """
        letter_id, place = self._tokens.read_clicked(token)
        async with self._database.as_service() as connection:
            rows = await (await driver_of(connection)).fetch(READ_TARGETS, letter_id)
        targets: list[str] = rows[0]["targets"] if rows else []
        if place >= len(targets):
            return None
        if counts:
            await self._note_click(letter_id, targets[place], headers)
        return targets[place]

    async def _note_click(self, letter_id: UUID, link: str, headers: Mapping[str, str]) -> None:
        try:
            async with self._database.as_service() as connection:
                driver = await driver_of(connection)
                letter = await find_letter(driver, letter_id=letter_id)
                if letter is None:
                    return
                if letter.is_digest:
                    letter = letter.about(_told_of(link))
                await self._record(driver, letter, MailEvent.CLICKED, headers, link)
        except Exception as error:
            log.warning("click_not_recorded", error=type(error).__name__)  # who clicked goes on

    async def _record(
        self,
        driver: Driver,
        letter: SentLetter,
        event: MailEvent,
        headers: Mapping[str, str],
        link: str | None = None,
    ) -> None:
        now = self._clock()
        since_sent = None if letter.sent_at is None else now - letter.sent_at
        detail: dict[str, str | bool] = {}
        if is_machine(headers.get("user-agent", ""), headers, since_sent):
            detail["machine"] = True
        if link is not None:
            detail["link"] = mask_text(link)
        await record(driver, letter, Report(event, now, detail=detail))


def _told_of(link: str) -> list[UUID]:
    """The notification that a link in a digest leads to."""
    return [UUID(found) for found in NOTIFICATION.findall(link)[:1]]
