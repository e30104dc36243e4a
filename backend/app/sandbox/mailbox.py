"""Mails the sandbox accepted, what it promised for idempotency keys, and how often each arrived.

Memory holds what lists and filters need; whole mails are read from the journal when asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.sandbox.journal import Journal, Place

MAX_MAILS = 50_000
MAX_COUNTED_KEYS = 200_000
KEY_LIFETIME = timedelta(hours=24)
WASTE_BEFORE_COMPACTION = 8 * 1024 * 1024

Clock = Callable[[], datetime]
Provider = Literal["resend", "smtp"]


def utc_now() -> datetime:
    """The present, with its timezone."""
    return datetime.now(UTC)


class Tag(BaseModel):
    """A name and value the sender attached to a mail."""

    name: str
    value: str


class Mail(BaseModel):
    """One mail as the provider accepted it.

    `attempts` counts the requests that carried its idempotency key, the accepted one included.
    """

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    id: str
    idempotency_key: str | None
    sender: str = Field(validation_alias="from", serialization_alias="from")
    to: list[str]
    cc: list[str]
    bcc: list[str]
    reply_to: list[str]
    subject: str
    html: str | None
    text: str | None
    headers: dict[str, str]
    tags: list[Tag]
    received_at: datetime
    via: Provider = "resend"
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept in memory of a mail."""

    id: str
    idempotency_key: str | None
    sender: str
    to: list[str]
    subject: str
    tags: list[Tag]
    received_at: datetime
    via: Provider
    addresses: frozenset[str]
    place: Place


@dataclass(frozen=True, slots=True)
class Promise:
    """The answer an idempotency key stands for, and the payload it was given for."""

    key: str
    fingerprint: str
    answer: str
    at: datetime


@dataclass(slots=True)
class Arrivals:
    """How often an idempotency key arrived, and how many mails are stored for it."""

    requests: int = 0
    mails: int = 0


class _ArrivalLine(BaseModel):
    type: Literal["arrival"] = "arrival"
    key: str | None
    requests: int = 1
    mails: int = 0


class _MailLine(BaseModel):
    """A mail; `source` holds the bytes that came over SMTP, each as the character of its number."""

    type: Literal["mail"] = "mail"
    mail: Mail
    source: str | None = None


class _CommitLine(BaseModel):
    """Makes the mails before it count: a request is stored whole or not at all."""

    type: Literal["commit"] = "commit"
    mails: int
    promise: Promise | None


_Line = Annotated[_ArrivalLine | _MailLine | _CommitLine, Field(discriminator="type")]
_line_adapter: TypeAdapter[_ArrivalLine | _MailLine | _CommitLine] = TypeAdapter(_Line)


@dataclass(slots=True)
class _Contents:
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    promises: dict[str, Promise] = field(default_factory=dict[str, Promise])
    arrivals: dict[str | None, Arrivals] = field(default_factory=dict[str | None, Arrivals])


class Mailbox:
    """The sandbox's mails, in the order they arrived.

    Args:
        path: the journal; what an earlier mailbox wrote there is here again.
        clock: tells the time that idempotency keys expire by.
        capacity: how many mails are kept; older ones fall out.

    Raises:
        JournalInUse: another mailbox has this file open.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, *, clock: Clock = utc_now, capacity: int = MAX_MAILS) -> None:
        self._clock = clock
        self._capacity = capacity
        self._journal = Journal(path)
        self._contents = _Contents()
        self.version = 0
        self._load()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def count_request(self, key: str | None) -> None:
        """Note that a request with this idempotency key arrived, whatever becomes of it."""
        line = _ArrivalLine(key=key)
        self._journal.append([_encoded(line)])
        self._count(line)
        self.version += 1

    def promised(self, key: str) -> Promise | None:
        """What was answered for this idempotency key in the last 24 hours."""
        promise = self._contents.promises.get(key)
        if promise is None or promise.at + KEY_LIFETIME <= self._clock():
            return None
        return promise

    def accept(self, mails: Sequence[Mail], promise: Promise | None) -> None:
        """Store the mails of one request, all of them or none, and keep the promise for its key.

        Args:
            mails: what the request asks to send.
            promise: what repeats are to be answered; `None` for a request without a key.

        Raises:
            OSError: they could not be written; nothing is stored.
        """
        self._store([_MailLine(mail=mail) for mail in mails], promise)

    def accept_message(self, mail: Mail, source: bytes) -> None:
        """Store a mail that came over SMTP, with its source.

        Raises:
            OSError: it could not be written; nothing is stored.
        """
        self._store([_MailLine(mail=mail, source=source.decode("latin-1"))], None)

    def source(self, mail_id: str) -> bytes | None:
        """The bytes of a mail that came over SMTP."""
        entry = self._contents.entries.get(mail_id)
        if entry is None:
            return None
        source = self._line(entry).source
        return None if source is None else source.encode("latin-1")

    def find(self, mail_id: str) -> Mail | None:
        """The mail with this id."""
        entry = self._contents.entries.get(mail_id)
        return None if entry is None else self.read(entry)

    def read(self, entry: Entry) -> Mail:
        """The whole mail behind an entry."""
        return self._line(entry).mail.model_copy(update={"attempts": self.attempts(entry)})

    def attempts(self, entry: Entry) -> int:
        """How many requests carried the mail's idempotency key; 1 for a mail without one."""
        if entry.idempotency_key is None:
            return 1
        counted = self._contents.arrivals.get(entry.idempotency_key)
        return max(1, counted.requests if counted else 1)

    def newest(self, keep: Callable[[Entry], bool], limit: int) -> tuple[list[Entry], int]:
        """The newest entries that `keep` lets through, newest first, and how many there are."""
        kept = [entry for entry in reversed(self._contents.entries.values()) if keep(entry)]
        return kept[:limit], len(kept)

    def arrivals(self) -> dict[str | None, Arrivals]:
        """Counts by idempotency key, in order of first arrival; `None` counts requests without."""
        return dict(self._contents.arrivals)

    def empty(self) -> None:
        """Forget all mails and counts. Promises stay: a late retry is still answered by them."""
        self._contents = _Contents(promises=self._contents.promises)
        self._compact()

    def reset(self) -> None:
        """Forget everything, promises too."""
        self._contents = _Contents()
        self._compact()

    def _store(self, mails: Sequence[_MailLine], promise: Promise | None) -> None:
        commit = _CommitLine(mails=len(mails), promise=promise)
        places = self._journal.append([*map(_encoded, mails), _encoded(commit)])
        for line, place in zip(mails, places, strict=False):
            self._add(line.mail, place)
        self._commit(commit)
        self.version += 1

    def _line(self, entry: Entry) -> _MailLine:
        return _MailLine.model_validate_json(self._journal.read(entry.place))

    def _load(self) -> None:
        pending: list[tuple[Mail, Place]] = []
        whole = 0
        for place, content in self._journal.lines():
            try:
                line = _line_adapter.validate_json(content)
            except ValidationError:
                pending.clear()
                continue
            match line:
                case _MailLine():
                    pending.append((line.mail, place))
                    continue
                case _CommitLine():
                    for mail, mail_place in pending:
                        self._add(mail, mail_place)
                    self._commit(line)
                    pending.clear()
                case _ArrivalLine():
                    self._count(line)
            whole = place.offset + place.length + 1
        self._journal.cut(whole)
        live = sum(entry.place.length for entry in self._contents.entries.values())
        if self._journal.size > 2 * live + WASTE_BEFORE_COMPACTION:
            self._compact()

    def _compact(self) -> None:
        entries = list(self._contents.entries.values())
        places = self._journal.rewrite(self._live_lines())
        self._contents.entries = {
            entry.id: replace(entry, place=place)
            for entry, place in zip(entries, places, strict=False)
        }
        self.version += 1

    def _live_lines(self) -> Iterator[bytes]:
        for entry in self._contents.entries.values():
            yield self._journal.read(entry.place)
        # The counts below include these mails already.
        yield _encoded(_CommitLine(mails=0, promise=None))
        for promise in self._contents.promises.values():
            yield _encoded(_CommitLine(mails=0, promise=promise))
        for key, counted in self._contents.arrivals.items():
            yield _encoded(_ArrivalLine(key=key, requests=counted.requests, mails=counted.mails))

    def _add(self, mail: Mail, place: Place) -> None:
        entries = self._contents.entries
        entries[mail.id] = Entry(
            id=mail.id,
            idempotency_key=mail.idempotency_key,
            sender=mail.sender,
            to=mail.to,
            subject=mail.subject,
            tags=mail.tags,
            received_at=mail.received_at,
            via=mail.via,
            addresses=frozenset(map(bare_address, (*mail.to, *mail.cc, *mail.bcc))),
            place=place,
        )
        while len(entries) > self._capacity:
            del entries[next(iter(entries))]

    def _commit(self, line: _CommitLine) -> None:
        key = line.promise.key if line.promise else None
        if line.mails:
            self._count(_ArrivalLine(key=key, requests=0, mails=line.mails))
        if line.promise:
            self._keep(line.promise)

    def _keep(self, promise: Promise) -> None:
        promises = self._contents.promises
        expired_by = self._clock() - KEY_LIFETIME
        # Promises are in the order of their age, so the expired ones come first.
        for key in [k for k, p in islice(promises.items(), 100) if p.at <= expired_by]:
            del promises[key]
        if promise.at > expired_by:
            promises.pop(promise.key, None)
            promises[promise.key] = promise

    def _count(self, line: _ArrivalLine) -> None:
        arrivals = self._contents.arrivals
        counted = arrivals.setdefault(line.key, Arrivals())
        counted.requests += line.requests
        counted.mails += line.mails
        if len(arrivals) > MAX_COUNTED_KEYS:
            del arrivals[next(iter(arrivals))]


def bare_address(address: str) -> str:
    """The address alone of `Name <address>`, in lower case."""
    return (parseaddr(address)[1] or address).lower()


def _encoded(line: _ArrivalLine | _MailLine | _CommitLine) -> bytes:
    return line.model_dump_json(by_alias=True).encode()
