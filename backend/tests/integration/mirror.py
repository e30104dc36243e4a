"""A reference client: an inbox kept from one snapshot and from frames alone.

It does what `docs/websocket-protocol.md` tells clients to do, in the fewest words, and notes every
promise of the protocol that a frame breaks.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Json = dict[str, Any]

# What a notification is in the list and is not in frames.
ONLY_LISTED = "delivery_status"


def listed(item: Json) -> Json:
    """A notification of the list as frames have it."""
    return {field: value for field, value in item.items() if field != ONLY_LISTED}


class Mirror:
    """What one client believes.

    Args:
        items: notifications by id.
        seq: the highest number up to which none was left out.
        since: the highest that is complete, which is where it resumes.
        counts: unread by type as it was last told, with the number that was said of.
        problems: promises that were broken, in words.
    """

    def __init__(self) -> None:
        self.items: dict[str, Json] = {}
        self.seq = 0
        self.since = 0
        self.unread_count = 0
        self.counts: tuple[int, Json] = (0, {})
        self.problems: list[str] = []
        self._told: tuple[int, set[str | None]] = (0, set())

    @property
    def ids(self) -> list[str]:
        """Ids as the list shows them, newest first."""
        return sorted(self.items, key=lambda key: self.items[key]["position"], reverse=True)

    @property
    def unread_by_type(self) -> Json:
        """A recount of the items."""
        return dict(
            Counter(item["type"] for item in self.items.values() if item["read_at"] is None)
        )

    def restart(self, items: list[Json], *, seq: int, unread_count: int) -> None:
        """Take a snapshot of the list, made at `seq` or a little later."""
        self.items = {item["id"]: listed(item) for item in items}
        self.seq = self.since = seq
        self.unread_count = unread_count

    def take(self, message: Json) -> None:
        """Take a frame in."""
        match message["type"]:
            case "notification" | "read_status_updated" | "notification_deleted" as kind:
                self._change(kind, message)
            case "unread_count":
                self._count(message)
            case "authenticated":
                self._resume()
                self.unread_count = message["unread_count"]
                self._expect(message["recovered"] is True, f"{self.since} was not recovered")
            case "sync_complete":
                self._complete(message["seq"])
                self._recount("a sync")
            case "error":
                # Another session was faster.
                self._expect(message["code"] == "NOT_FOUND", f"was refused: {message}")
            case _:
                pass

    def take_synced(self, item: Json) -> None:
        """Take an item of `GET /notifications/sync` in."""
        if item.get("deleted"):
            self.items.pop(item["id"], None)
        else:
            self.items[item["id"]] = listed(item)

    def _resume(self) -> None:
        """Forget what was told of beyond `since`: of what is gone by now nobody tells again."""
        self.seq, self._told = self.since, (self.since, set())
        self.items = {
            key: item for key, item in self.items.items() if item["position"] <= self.since
        }

    def _change(self, kind: str, message: Json) -> None:
        seq, about = message["seq"], message.get("notification_id")
        if kind == "notification":
            about = message["data"]["id"]
        last, known = self._told
        # Several notifications share a number when they were read at once.
        more = seq == last and about not in known
        if seq == self.seq + 1:
            # What came before is complete; of this, more may follow.
            self.since, self.seq = self.seq, seq
        elif seq <= max(self.seq, last) and not more:
            # A command that changed nothing is answered with what has been the case for long.
            self._expect(kind == "read_status_updated", f"{kind} {seq} came after {last}")
            return
        # Where a number is left out, what follows is complete with `sync_complete` alone.
        self._told = (seq, {*(known if more else ()), about})
        self.unread_count = message["unread_count"]
        self._apply(kind, about, message)

    def _apply(self, kind: str, about: str | None, message: Json) -> None:
        seq = message["seq"]
        if kind == "notification":
            self.items[message["data"]["id"]] = message["data"]
        elif kind == "notification_deleted":
            assert about is not None
            self.items.pop(about, None)
        elif about is None:
            for item in self.items.values():
                if (
                    item["read_at"] is None
                    and item["position"] <= message["up_to"]
                    and message["notification_type"] in (None, item["type"])
                ):
                    item |= {"read_at": message["read_at"], "seq": seq}
        elif about in self.items:
            self.items[about] |= {"read_at": message["read_at"], "seq": seq}
        else:
            self._expect(False, f"{seq} is about {about}, which nobody told of")

    def _count(self, message: Json) -> None:
        seq, by_type = message["seq"], message["by_type"]
        self._expect(seq > self.counts[0], f"counts of {seq} came after those of {self.counts[0]}")
        self.counts, self.unread_count = (seq, by_type), message["count"]
        self._complete(seq)
        self._expect(0 not in by_type.values(), f"zeros are told: {message}")
        self._expect(sum(by_type.values()) == message["count"], f"does not add up: {message}")
        self._recount("a change")
        recounted = self.unread_by_type
        self._expect(recounted == by_type, f"lists {recounted} at {seq}, was told {by_type}")

    def _complete(self, seq: int) -> None:
        self._expect(seq >= self.seq, f"{seq} is complete after {self.seq}")
        self.seq = self.since = max(self.seq, seq)

    def _recount(self, after: str) -> None:
        recounted = sum(self.unread_by_type.values())
        self._expect(
            recounted == self.unread_count,
            f"lists {recounted} unread after {after} to {self.seq}, was told {self.unread_count}",
        )

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


class Link:
    """A connected socket that keeps a mirror up to date."""

    def __init__(
        self, connection: ClientConnection, mirror: Mirror, frames: int | None = None
    ) -> None:
        self._connection = connection
        self._mirror = mirror
        self._left = frames
        self._advanced = asyncio.Event()
        self._synced = asyncio.Event()

    async def send(self, **message: object) -> None:
        """Send a message, or lose it with the connection."""
        with suppress(ConnectionClosed):
            await self._connection.send(orjson.dumps(message).decode())

    def cut(self) -> None:
        """Let the connection vanish."""
        self._connection.transport.abort()

    async def synced(self) -> None:
        """Wait until everything that was missed has been told."""
        await self._synced.wait()

    async def reaches(self, seq: int) -> None:
        """Wait until the mirror has been told the change `seq`, with the counts after it."""
        while self._mirror.since < seq:
            self._advanced.clear()
            await self._advanced.wait()

    async def listen(self) -> None:
        """Take frames in until the connection ends."""
        with suppress(ConnectionClosed):
            async for raw in self._connection:
                if self._left == 0:
                    self.cut()
                    break
                if self._left is not None:
                    self._left -= 1
                message = orjson.loads(raw)
                self._mirror.take(message)
                self._advanced.set()
                if message["type"] == "sync_complete":
                    self._synced.set()


@asynccontextmanager
async def linked(
    url: str, mirror: Mirror, authenticate: Callable[[int], Json], *, frames: int | None = None
) -> AsyncGenerator[Link]:
    """A socket that resumes where the mirror stands, synced and live while the context lasts.

    Args:
        authenticate: makes the first message of what it is told as `since`.
        frames: it is cut after so many, be it in the middle of what was missed.
    """
    async with connect(url, compression=None, ping_interval=None) as connection:
        link = Link(connection, mirror, frames)
        listening = asyncio.create_task(link.listen())
        try:
            await link.send(**authenticate(mirror.since))
            await _first(link.synced(), listening)
            yield link
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _first(wanted: Awaitable[None], listening: asyncio.Task[None]) -> None:
    waiting = asyncio.ensure_future(wanted)
    await asyncio.wait({waiting, listening}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
