"""Group commit: create calls that arrive together share one transaction and one doorbell.

Locks are taken in one order (idempotency keys, then inboxes, each sorted), so groups of several
processes do not deadlock. A group that fails is retried one by one, so no caller fails for
another's sake.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from app.db.database import Database, Driver, driver_of, is_busy
from app.errors import IdempotencyConflict, NotifyError, QueueFull, Unavailable, UnknownUser
from app.pipeline.announce import Announcer
from app.pipeline.coalescing import Coalescer
from app.pipeline.decide import Audience
from app.pipeline.draft import Draft, already_expired
from app.pipeline.enqueue import announcement_of, store
from app.pipeline.idempotency import Attempt, claim, earlier, keep, release
from app.pipeline.receipt import Receipt, answer_of, receipt_of, receipt_of_answer
from app.policy.routing import is_limited
from app.ratelimit.queue_bound import QueueBound
from app.realtime.inboxes import open_inboxes

GROUP_LIMIT = 64
# One at a time: groups grow while it commits, and fewer, larger groups cost the least.
WRITERS = 1
BUSY_MESSAGE = "The user's inbox, or the idempotency key, is busy; try again."

Results = dict[UUID, Receipt | Exception]


class GroupCommit:
    """Stores drafts durably; use it as an asynchronous context manager.

    Args:
        database: where notifications are stored.
        announcer: tells gateways and workers after the commit.
        audience: knows the users.
        bound: knows whether the queue is full.
    """

    def __init__(
        self, database: Database, announcer: Announcer, audience: Audience, bound: QueueBound
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._audience = audience
        self._bound = bound
        self._groups: Coalescer[Draft, Receipt] = Coalescer(
            self._commit_group, limit=GROUP_LIMIT, workers=WRITERS
        )

    async def __aenter__(self) -> Self:
        await self._groups.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._groups.__aexit__(kind, error, trace)

    async def store(self, draft: Draft) -> Receipt:
        """Commit a draft; on return it is in the inbox and in the queue of record.

        Raises:
            ValidationFailed: the draft has expired already.
            UnknownUser: no user has the draft's `user_id`.
            IdempotencyConflict: its key was used for another request.
            QueueFull: too much waits already, and the draft is not critical.
            Unavailable: PostgreSQL is away, or the user's inbox stayed locked.
        """
        return await self._groups.submit(draft)

    async def earlier(self, attempt: Attempt) -> Receipt | None:
        """What a call with this key stored before, None if there was none.

        Raises:
            IdempotencyConflict: the key was used for another request.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            found = await earlier(await driver_of(connection), attempt)
        if isinstance(found, IdempotencyConflict):
            raise found
        return None if found is None else receipt_of_answer(found)

    async def _commit_group(self, drafts: list[Draft]) -> Sequence[Receipt | Exception]:
        # Before any lock is held: the answer may take a look.
        full = any(is_limited(draft.request) for draft in drafts) and await self._bound.is_full()
        results = await self._settle(drafts, full=full, opening=False)
        # What is left is for users who are new or unknown, or repeats a key of this very group.
        while left := [draft for draft in drafts if draft.id not in results]:
            results |= await self._settle(left, full=full, opening=True)
        return [results[draft.id] for draft in drafts]

    async def _settle(self, drafts: list[Draft], *, full: bool, opening: bool) -> Results:
        """Store a group; one draft after the other when something is wrong with one of them."""
        try:
            return await self._store(drafts, full=full, opening=opening)
        except Unavailable as error:
            return dict.fromkeys((draft.id for draft in drafts), error)
        except Exception as error:
            if len(drafts) == 1:
                return {drafts[0].id: _as_refusal(error)}
        results: Results = {}
        busy: set[UUID] = set()
        for draft in drafts:
            if draft.user_id in busy:  # one wait for a lock is enough
                results[draft.id] = Unavailable(BUSY_MESSAGE)
                continue
            result = await self._settle([draft], full=full, opening=opening)
            results |= result
            if isinstance(result.get(draft.id), Unavailable) and draft.attempt is None:
                busy.add(draft.user_id)  # with a key, that may be what was waited for
        return results

    async def _store(self, drafts: list[Draft], *, full: bool, opening: bool) -> Results:
        results: Results
        async with self._database.group_as_service() as driver:
            attempts = _first_of_each_key(drafts)
            results = {
                owner: receipt_of_answer(found) if isinstance(found, dict) else found
                for owner, found in (await claim(driver, attempts)).items()
            }
            claimed = [attempt for attempt in attempts if attempt.owner_id not in results]
            owners = {attempt.owner_id for attempt in claimed}
            new = [draft for draft in drafts if draft.attempt is None or draft.id in owners]
            # Only now: a call that is repeated is answered as the first time, whatever holds since.
            refused = {draft.id: error for draft in new if (error := _refusal(draft, full=full))}
            results |= refused
            new = [draft for draft in new if draft.id not in refused]
            if opening:
                await open_inboxes(driver, {draft.user_id for draft in new})
            prepared = await store(driver, new, self._audience)
            receipts = {item.draft.id: receipt_of(item) for item in prepared}
            await _settle_keys(driver, claimed, receipts)
        self._bound.stored(sum(len(item.due_ids) for item in prepared))
        self._announcer.announce(announcement_of(prepared))
        if opening:
            results |= {draft.id: UnknownUser() for draft in new if draft.id not in receipts}
        return results | receipts


def _refusal(draft: Draft, *, full: bool) -> NotifyError | None:
    """Why a new draft is not stored, None if it is."""
    if draft.is_expired:
        return already_expired()
    return QueueFull() if full and is_limited(draft.request) else None


def _first_of_each_key(drafts: list[Draft]) -> list[Attempt]:
    keyed = [draft.attempt for draft in drafts if draft.attempt is not None]
    return list({(item.service, item.key): item for item in reversed(keyed)}.values())


async def _settle_keys(
    driver: Driver, claimed: list[Attempt], receipts: dict[UUID, Receipt]
) -> None:
    answered = [
        (attempt, answer_of(receipts[attempt.owner_id]))
        for attempt in claimed
        if attempt.owner_id in receipts
    ]
    await keep(driver, answered)
    await release(driver, [item for item in claimed if item.owner_id not in receipts])


def _as_refusal(error: Exception) -> Exception:
    """What the caller of a draft that cannot be stored is told; bugs stay what they are."""
    if not is_busy(error):
        return error
    refusal = Unavailable(BUSY_MESSAGE)
    refusal.__cause__ = error
    return refusal
