"""The sockets of this process, and how each gets every change exactly once (REQ-010).

Changes arrive through the backplane, which may lose them. A session notices a hole in the numbers
itself; a last frame that got lost leaves no hole, so positions are compared with PostgreSQL every
few seconds. Either way the user is refilled with net changes, one query for all their sessions.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog

from app.errors import Unavailable
from app.realtime import frames
from app.realtime.acknowledgements import Acknowledgements
from app.realtime.backplane import Backplane, Change
from app.realtime.close_codes import CloseCode
from app.realtime.reader import InboxReader, NetChanges, net_changes
from app.realtime.session import Session
from app.realtime.timing import Timing

log = structlog.get_logger()


class Audience:
    """The sessions of one user.

    `target` is the highest position known to exist; whoever stays behind it is refilled.
    """

    __slots__ = ("refill", "sessions", "target", "timer")

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.target = 0
        self.timer: asyncio.TimerHandle | None = None
        self.refill: asyncio.Task[None] | None = None

    def behind(self) -> list[Session]:
        """Live sessions that have yet to reach the target."""
        return [session for session in self.sessions if session.is_behind(self.target)]


async def cancel(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancel until all have ended: before Python 3.12 `wait_for` may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


class Hub:
    """Distributes changes to sessions and repairs what got lost.

    Args:
        inbox: reads positions and net changes.
        per_user: sockets one user may hold here.
    """

    def __init__(self, inbox: InboxReader, *, per_user: int, timing: Timing | None = None) -> None:
        self._inbox = inbox
        self._per_user = per_user
        self._timing = timing or Timing()
        self._audiences: dict[UUID, Audience] = {}
        self._compare_now = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self.sessions: set[Session] = set()
        self.acknowledgements = Acknowledgements(inbox, self._timing)

    @asynccontextmanager
    async def running(self, backplane: Backplane) -> AsyncGenerator[None]:
        """Listen and repair as long as the context lasts."""
        tasks = [
            asyncio.create_task(self._listen_forever(backplane)),
            asyncio.create_task(self._compare_forever()),
        ]
        try:
            yield
        finally:
            tasks += [a.refill for a in self._audiences.values() if a.refill is not None]
            await cancel(tasks)
            await self.acknowledgements.close()

    def open(self, session: Session) -> None:
        """Count a socket that was accepted."""
        self.sessions.add(session)
        self._empty.clear()

    def join(self, session: Session, user_id: UUID) -> bool:
        """Let the session hear the user's changes, which it holds back until it is released.

        Returns:
            False when the user holds all the sockets one user may.
        """
        audience = self._audiences.setdefault(user_id, Audience())
        if len(audience.sessions) >= self._per_user:
            return False
        session.user_id = user_id
        audience.sessions.append(session)
        return True

    def release(self, session: Session, seq: int) -> None:
        """Let a session that was told everything up to `seq` go live."""
        session.release(seq)
        if session.user_id is not None:
            self._expect(session.user_id, seq)

    def leave(self, session: Session) -> None:
        """Forget a socket that is gone."""
        self.sessions.discard(session)
        session.abandon()
        if not self.sessions:
            self._empty.set()
        user_id = session.user_id
        audience = None if user_id is None else self._audiences.get(user_id)
        if user_id is None or audience is None or session not in audience.sessions:
            return
        audience.sessions.remove(session)
        if not audience.sessions:
            del self._audiences[user_id]
            if audience.timer is not None:
                audience.timer.cancel()

    async def close_all(self, code: CloseCode) -> None:
        """Close every socket, and wait until all have taken it or are given up."""
        for session in self.sessions:
            session.close(code)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timing.drain_within):
                await self._empty.wait()

    def apply(self, change: Change) -> None:
        """Pass a change on to the user's sessions; safe to call with the same change again."""
        audience = self._audiences.get(change.user_id)
        if audience is None:
            return
        for session in audience.sessions:
            session.offer(change)
        self._expect(change.user_id, change.seq)

    def compare_soon(self) -> None:
        """Changes may have been missed: compare all positions now."""
        self._compare_now.set()

    def _expect(self, user_id: UUID, seq: int) -> None:
        """Position `seq` exists: refill whoever has not reached it in a moment."""
        audience = self._audiences.get(user_id)
        if audience is None:
            return
        audience.target = max(audience.target, seq)
        self._schedule(user_id, audience, self._timing.hole_wait)

    def _schedule(self, user_id: UUID, audience: Audience, delay: float) -> None:
        if audience.timer is None and audience.refill is None and audience.behind():
            loop = asyncio.get_running_loop()
            audience.timer = loop.call_later(delay, self._start_refill, user_id, audience)

    def _start_refill(self, user_id: UUID, audience: Audience) -> None:
        audience.timer = None
        if audience.behind():
            audience.refill = asyncio.create_task(self._refill(user_id, audience))

    async def _refill(self, user_id: UUID, audience: Audience) -> None:
        sessions, target = audience.behind(), audience.target
        if not sessions:  # told by other means since this was asked for
            audience.refill = None
            return
        # Only what arrives from here on may ask for another refill: a position that PostgreSQL
        # does not know would ask for ever.
        audience.target = 0
        delay = self._timing.hole_wait
        for session in sessions:
            session.hold()
        try:
            await self._tell_missed(user_id, sessions)
        except Unavailable:
            audience.target = max(audience.target, target)
            delay = self._timing.retry_after
        except Exception:
            # Nobody awaits this task; the next comparison tries again.
            log.exception("refill_failed")
        finally:
            audience.refill = None
            for session in sessions:
                session.release(session.seq)
        self._schedule(user_id, audience, delay)

    async def _tell_missed(self, user_id: UUID, sessions: Sequence[Session]) -> None:
        since = min(session.seq for session in sessions)
        async for part in net_changes(self._inbox, user_id, since):
            for session in sessions:
                if part.snapshot.can_resume(session.seq):
                    session.feed(missed_by(session.seq, part))
                    session.seq = max(session.seq, part.reached)
                else:
                    session.close(CloseCode.POSITION_LOST)
            if all(session.is_closing for session in sessions):
                return
            await self.flush(sessions)

    async def flush(self, sessions: Collection[Session]) -> None:
        """Wait until the sessions have sent what waits; close those that do not get it sent."""
        writers = {session.writer: session for session in sessions if session.writer is not None}
        if not writers:
            return
        _, stalled = await asyncio.wait(writers, timeout=self._timing.flush_within)
        for writer in stalled:
            writers[writer].close(CloseCode.TOO_SLOW)

    async def _listen_forever(self, backplane: Backplane) -> None:
        while True:
            try:
                await backplane.listen(self.apply, self.compare_soon)
            except Exception:
                # Whatever it is, changes must be heard again.
                log.exception("listening_failed")
                await asyncio.sleep(self._timing.retry_after)

    async def _compare_forever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.compare_every):
                    await self._compare_now.wait()
            self._compare_now.clear()
            try:
                await self._compare()
            except Unavailable:
                log.warning("positions_not_compared")
            except Exception:
                # The only repair of a lost last frame must not end with one failure.
                log.exception("positions_not_compared")

    async def _compare(self) -> None:
        # Noted before the query: a session that advances meanwhile is not ahead of PostgreSQL.
        noted = {
            user_id: max(session.seq for session in live)
            for user_id, audience in self._audiences.items()
            if (live := [session for session in audience.sessions if session.is_live])
        }
        if not noted:
            return
        positions = await self._inbox.positions(noted.keys())
        for user_id, seq in noted.items():
            position = positions.get(user_id, 0)
            if seq > position:
                self._close_ahead(user_id)
            else:
                self._expect(user_id, position)

    def _close_ahead(self, user_id: UUID) -> None:
        audience = self._audiences.get(user_id)
        for session in audience.sessions if audience is not None else ():
            session.close(CloseCode.POSITION_LOST)


def missed_by(seq: int, part: NetChanges) -> list[bytes]:
    """Messages that bring a live client from position `seq` to the end of a part.

    Net changes may skip numbers, which on live frames means a hole. So unless they are what the
    client would have got live, `sync_complete` says which position they lead to.
    """
    messages = list(part.frames(since=seq))
    if part.is_last and part.reached > seq:
        messages.append(frames.unread_count(part.snapshot.by_type, seq=part.reached))
    if not part.is_gapless(since=seq):
        messages.append(frames.sync_complete(seq=part.reached))
    return messages
