"""What a socket may ask of its user's inbox (requirements 5.4, contract, WebSocket; REQ-012)."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

from app.pipeline.change import InboxEdit, all_read_frame, read_status_frame
from app.policy.kinds import NotificationType
from app.realtime.gateway import BadMessage, Command, Message, optional_seq, user_of
from app.realtime.session import Session
from app.services.inbox_changes import InboxChanges


class InboxCommands:
    """Messages that change the inbox; every session of the user is told.

    One that changes nothing is answered with what is the case.

    Args:
        at_once: changes made at the same time; who finds all places taken waits.
    """

    def __init__(self, changes: InboxChanges, *, at_once: int) -> None:
        self._changes = changes
        self._places = asyncio.Semaphore(at_once)

    def by_type(self) -> Mapping[str, Command]:
        """The commands, by the `type` of their message."""
        return {
            "mark_read": self._mark_read,
            "mark_unread": self._mark_unread,
            "mark_all_read": self._mark_all_read,
        }

    async def _mark_read(self, session: Session, message: Message) -> None:
        notification_id = notification_id_of(message)
        async with self._places, self._changes.editing(user_of(session)) as edit:
            status = await edit.read(notification_id)
        answer(session, edit, status.seq, read_status_frame(status))

    async def _mark_unread(self, session: Session, message: Message) -> None:
        notification_id = notification_id_of(message)
        async with self._places, self._changes.editing(user_of(session)) as edit:
            status = await edit.unread(notification_id)
        answer(session, edit, status.seq, read_status_frame(status))

    async def _mark_all_read(self, session: Session, message: Message) -> None:
        up_to, kind = optional_seq(message, "up_to"), optional_type(message)
        async with self._places, self._changes.editing(user_of(session)) as edit:
            done = await edit.read_all(up_to, kind)
        answer(session, edit, done.seq, all_read_frame(done))


def answer(session: Session, edit: InboxEdit, seq: int, unchanged: bytes) -> None:
    """Tell the session what is the case since `seq`, when there was nothing to change.

    A change is told to all sessions. What this one has not been told yet it will be, in its turn:
    an answer that ran ahead would let its client resume behind what it never saw.
    """
    is_told = any(change.seq == seq for change in edit.changes)
    if not is_told and seq <= session.seq:
        session.push(unchanged)


def notification_id_of(message: Message) -> UUID:
    """The notification that a message is about.

    Raises:
        BadMessage: it names none.
    """
    given = message.get("notification_id")
    try:
        return UUID(given if isinstance(given, str) else "")
    except ValueError:
        raise BadMessage("notification_id: must be a UUID") from None


def optional_type(message: Message) -> str | None:
    """The type of notifications that a message is about, None for all.

    Raises:
        BadMessage: there is no such type.
    """
    given = message.get("notification_type")
    try:
        return None if given is None else NotificationType(given).value
    except ValueError:
        raise BadMessage("notification_type: there is no such type") from None
