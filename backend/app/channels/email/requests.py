"""The requests to email providers whose outcome is not settled, written before they are made.

Why no worker's death and no silent provider loses a letter or sends it twice:

1. A request is committed, with its letters and its key, before its first byte goes out. So
   whatever a provider may have taken is here.
2. A letter is in one request at most (its primary key). Whoever holds a letter looks here first,
   and makes the request it is in again as it was, under its key, at the provider it was for; the
   provider answers as it did the first time. Two workers that hold letters of one batch, or the
   same letter because a lease ended, so make the same request. Of two that store at once, one is
   told so (`AlreadyOpen`), and looks again.
3. A request is forgotten only when its first and only try was refused for certain: then nothing
   was taken, and the letter may be written anew, or go to another provider. A refusal of a
   repetition says nothing of the try before, unless it is of the content, which is the same.
4. What was taken stays here until every letter of it has its end written down (`tidy`), since a
   worker may die in between; and a failed one for a day, as operators retry those. What was taken
   and reported as failed later leaves its request when it is retried, and goes under a new key.
5. Providers keep keys for 24 hours. A letter whose outcome is still unknown after 23 is given up
   (the mailer does that) and never sent under another key; `tidy` leaves its request until then.

SMTP knows no keys: a repetition has the same Message-ID, by which mailboxes tell it.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import asyncpg

from app.channels.email.letter import Letter
from app.db.database import Database, dumps
from app.security.encryption import Cipher

KEPT: Final = timedelta(hours=25)  # a key's 24 hours, and a margin
TIDIED_AT_ONCE: Final = 5_000

FIND = """
    SELECT letter_id, request_id, place FROM email_request_letters
    WHERE letter_id = ANY($1::uuid[])
"""
READ = """
    SELECT id, provider, payload, created_at FROM email_requests WHERE id = ANY($1::uuid[])
"""
KEEP = """
    WITH requests AS (
        INSERT INTO email_requests (id, provider, payload, created_at)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[])
        RETURNING id
    ), links AS (
        INSERT INTO email_links (letter_id, user_id, targets, created_at)
        SELECT letter_id, user_id,
               ARRAY(SELECT jsonb_array_elements_text(targets::jsonb)), created_at
        FROM unnest($8::uuid[], $9::uuid[], $10::text[], $11::timestamptz[])
            AS l (letter_id, user_id, targets, created_at)
        ON CONFLICT (letter_id) DO UPDATE
        SET targets = excluded.targets, created_at = excluded.created_at
    )
    INSERT INTO email_request_letters (letter_id, request_id, place)
    SELECT l.letter_id, l.request_id, l.place
    FROM unnest($5::uuid[], $6::uuid[], $7::int[]) AS l (letter_id, request_id, place)
    JOIN requests r ON r.id = l.request_id
    ORDER BY l.letter_id
"""
FORGET = "DELETE FROM email_requests WHERE id = ANY($1::uuid[])"
TIDY_REQUESTS = """
    DELETE FROM email_requests WHERE id IN (
        SELECT r.id FROM email_requests r
        WHERE NOT EXISTS (
            SELECT FROM email_request_letters l
            LEFT JOIN notification_deliveries d ON d.id = l.letter_id
            LEFT JOIN email_digests g ON g.id = l.letter_id
            WHERE l.request_id = r.id AND (
                'pending' IN (d.status, g.status)
                OR ('failed' IN (d.status, g.status) AND r.created_at > $1::timestamptz)
            )
        )
        LIMIT $2 FOR UPDATE OF r SKIP LOCKED
    )
    RETURNING id
"""
TIDY_LINKS = """
    DELETE FROM email_links WHERE letter_id IN (
        SELECT letter_id FROM email_links WHERE created_at < $1::timestamptz
        LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING letter_id
"""


class AlreadyOpen(Exception):
    """A letter is in another request that was stored meanwhile; nothing was stored."""


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that is about to be made.

    Args:
        id: its key.
        created_at: an aware instant.
    """

    id: UUID
    provider: str
    letters: Sequence[Letter]
    payload: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that was made, or was about to be.

    Args:
        sealed: its payload, for `RequestStore.unseal`.
        place: of the letter it was found by.
    """

    id: UUID
    provider: str
    sealed: bytes
    created_at: datetime
    place: int


class Requests(Protocol):
    """What the mailer needs of the store, one at a time; callers at the same time share a query.

    All raise `Unavailable` when PostgreSQL is away.
    """

    async def find(self, letter_id: UUID) -> OpenRequest | None:
        """The request that a letter is in."""
        ...

    async def keep(self, request: NewRequest) -> None:
        """Store a request, and where its letters' links lead; raises `AlreadyOpen`."""
        ...

    async def forget(self, request_id: UUID) -> None:
        """Forget a request that took no effect."""
        ...

    def unseal(self, request: OpenRequest) -> bytes:
        """Its payload; raises `DecryptionFailed`."""
        ...


class RequestStore:
    """The table of requests, many at a time.

    Args:
        cipher: for payloads, which are the letters themselves.
    """

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher

    async def find(self, letter_ids: Sequence[UUID]) -> list[OpenRequest | None]:
        """The request that each letter is in."""
        async with self._database.group_as_service() as driver:
            letters = {row["letter_id"]: row for row in await driver.fetch(FIND, letter_ids)}
            wanted = {row["request_id"] for row in letters.values()}
            # Few letters are in one.
            requests = (
                {row["id"]: row for row in await driver.fetch(READ, list(wanted))} if wanted else {}
            )
        found: list[OpenRequest | None] = []
        for letter_id in letter_ids:
            letter = letters.get(letter_id)
            request = None if letter is None else requests.get(letter["request_id"])
            if letter is None or request is None:
                found.append(None)
                continue
            found.append(
                OpenRequest(
                    request["id"],
                    request["provider"],
                    request["payload"],
                    request["created_at"],
                    letter["place"],
                )
            )
        return found

    async def keep(self, requests: Sequence[NewRequest]) -> list[Exception | None]:
        """Store requests, all in one statement; `AlreadyOpen` for one that may not be made."""
        try:
            await self._keep(requests)
        except asyncpg.UniqueViolationError:
            if len(requests) == 1:
                return [AlreadyOpen()]
        except asyncpg.PostgresError as error:
            if len(requests) == 1:
                return [error]
        else:
            return [None] * len(requests)
        # One that cannot be stored costs no other its turn.
        return [result for request in requests for result in await self.keep([request])]

    async def forget(self, request_ids: Sequence[UUID]) -> list[None]:
        """Forget requests that took no effect."""
        async with self._database.group_as_service() as driver:
            await driver.execute(FORGET, request_ids)
        return [None] * len(request_ids)

    def unseal(self, request: OpenRequest) -> bytes:
        """The payload of a request.

        Raises:
            DecryptionFailed: its key is gone.
        """
        return zlib.decompress(self._cipher.decrypt(request.sealed, context=_context(request.id)))

    async def _keep(self, requests: Sequence[NewRequest]) -> None:
        placed = [
            (letter, request, place)
            for request in requests
            for place, letter in enumerate(request.letters)
        ]
        linked = [(letter, request.created_at) for letter, request, _ in placed if letter.links]
        async with self._database.group_as_service() as driver:
            await driver.execute(
                KEEP,
                [request.id for request in requests],
                [request.provider for request in requests],
                [self._sealed(request) for request in requests],
                [request.created_at for request in requests],
                [letter.id for letter, _, _ in placed],
                [request.id for _, request, _ in placed],
                [place for _, _, place in placed],
                [letter.id for letter, _ in linked],
                [letter.user_id for letter, _ in linked],
                [dumps(letter.links) for letter, _ in linked],
                [created_at for _, created_at in linked],
            )

    def _sealed(self, request: NewRequest) -> bytes:
        return self._cipher.encrypt(
            zlib.compress(request.payload, level=1), context=_context(request.id)
        )


async def tidy(database: Database, now: datetime, links_since: datetime) -> int:
    """Delete requests that are settled, and the links of letters older than `links_since`.

    Returns:
        How many requests were deleted.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    deleted = await _delete(database, TIDY_REQUESTS, now - KEPT)
    await _delete(database, TIDY_LINKS, links_since)
    return deleted


async def _delete(database: Database, query: str, before: datetime) -> int:
    """Delete in transactions of a bounded size; returns how many rows."""
    deleted = TIDIED_AT_ONCE
    total = 0
    while deleted == TIDIED_AT_ONCE:
        async with database.group_as_service() as driver:
            deleted = len(await driver.fetch(query, before, TIDIED_AT_ONCE))
        total += deleted
    return total


def _context(request_id: UUID) -> str:
    return f"email_requests/{request_id}/payload"
