"""Devices by name and the newest messages to them, kept in a journal.

What push browsers and phones have in common: each has a name people gave it and an address that
senders use, which is gone for good once the device is removed or got another. Memory holds what
lists and filters need; whole messages are read from the journal when asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from app.sandbox.journal import Journal, Place

MAX_MESSAGES = 50_000
MAX_DEVICES = 20_000
MAX_GONE = 20_000
WASTE_BEFORE_COMPACTION = 8 * 1024 * 1024

DeviceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


class Device(BaseModel):
    """Something messages are sent to: `name` is for people, `address` for senders."""

    model_config = ConfigDict(frozen=True)

    name: DeviceName
    address: str
    created_at: datetime


class Message(BaseModel):
    """Something that arrived for a device.

    `device` is the address it was sent to, `state` says what has become of it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    device: str
    device_name: str
    at: datetime
    state: str
    topic: str | None = None


AnyDevice = TypeVar("AnyDevice", bound=Device)
AnyMessage = TypeVar("AnyMessage", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept in memory of a message."""

    id: str
    device: str
    device_name: str
    at: datetime
    state: str
    topic: str | None
    place: Place


class _Line(BaseModel):
    type: Literal["device", "message", "removed", "marked"]
    content: Any


class _Removed(BaseModel):
    address: str


class _Marked(BaseModel):
    ids: list[str]
    state: str


@dataclass(slots=True)
class _Contents(Generic[AnyDevice]):
    devices: dict[str, AnyDevice] = field(default_factory=dict[str, AnyDevice])
    names: dict[str, str] = field(default_factory=dict[str, str])
    gone: dict[str, None] = field(default_factory=dict[str, None])
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])


class Ledger(Generic[AnyDevice, AnyMessage]):
    """Devices and messages, each in the order they came; the oldest fall out of a full ledger.

    Args:
        path: the journal; what an earlier ledger wrote there is here again.
        device_type: what devices are.
        message_type: what messages are.
        capacity: how many messages are kept.

    Raises:
        JournalInUse: another ledger has this directory open.
        OSError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        device_type: type[AnyDevice],
        message_type: type[AnyMessage],
        *,
        capacity: int = MAX_MESSAGES,
    ) -> None:
        self._device_type = device_type
        self._message_type = message_type
        self._capacity = capacity
        self._journal = Journal(path)
        self._contents = _Contents[AnyDevice]()
        self._live = 0  # bytes of the messages that are kept
        self._compacted = 0  # bytes after the last compaction
        self.version = 0
        self._load()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def device(self, name: str) -> AnyDevice | None:
        """The device of this name."""
        return self._contents.devices.get(name)

    def device_at(self, address: str) -> AnyDevice | None:
        """The device that is reached at this address."""
        name = self._contents.names.get(address)
        return None if name is None else self._contents.devices[name]

    def devices(self) -> Sequence[AnyDevice]:
        """Every device, from the first made to the last."""
        return list(self._contents.devices.values())

    def is_gone(self, address: str) -> bool:
        """Whether a device once was at this address and no longer is."""
        return address in self._contents.gone

    def put(self, device: AnyDevice) -> None:
        """Make a device, or give the one of this name another address: its old one is gone.

        Raises:
            OSError: it could not be written.
        """
        self._journal.append([_encoded("device", device)])
        self._put(device)
        self._moved_on()

    def remove(self, name: str) -> bool:
        """Remove the device of this name; false if there is none.

        Raises:
            OSError: it could not be written.
        """
        device = self.device(name)
        if device is None:
            return False
        self._journal.append([_encoded("removed", _Removed(address=device.address))])
        self._remove(device.address)
        self._moved_on()
        return True

    def add(self, message: AnyMessage) -> None:
        """Keep a message.

        Raises:
            OSError: it could not be written, and is not there.
        """
        [place] = self._journal.append([_encoded("message", message)])
        self._add(message, place)
        self._moved_on()

    def mark(self, ids: Sequence[str], state: str) -> None:
        """Note what has become of messages.

        Raises:
            OSError: it could not be written.
        """
        if ids:
            marked = _Marked(ids=list(ids), state=state)
            self._journal.append([_encoded("marked", marked)])
            self._mark(ids, state)
            self._moved_on()

    def find(self, message_id: str) -> AnyMessage | None:
        """The message with this id."""
        entry = self._contents.entries.get(message_id)
        return None if entry is None else self.read(entry)

    def read(self, entry: Entry) -> AnyMessage:
        """The whole message behind an entry."""
        line = _Line.model_validate_json(self._journal.read(entry.place))
        message = self._message_type.model_validate(line.content)
        return message.model_copy(update={"state": entry.state})

    def entries(self) -> Iterable[Entry]:
        """What is kept in memory of every message, oldest first."""
        return self._contents.entries.values()

    def newest(self, keep: Callable[[Entry], bool], limit: int) -> tuple[list[Entry], int]:
        """The newest entries that `keep` lets through, newest first, and how many there are."""
        kept = [entry for entry in reversed(self._contents.entries.values()) if keep(entry)]
        return kept[:limit], len(kept)

    def empty(self) -> None:
        """Forget all messages; devices stay."""
        self._contents.entries = {}
        self._compact()

    def reset(self) -> None:
        """Forget everything."""
        self._contents = _Contents[AnyDevice]()
        self._compact()

    def _load(self) -> None:
        whole = 0
        for place, line in self._journal.lines():
            whole = place.offset + place.length + 1
            try:
                self._replay(line, place)
            except ValidationError:
                continue
        # A line its writer died in.
        self._journal.cut(whole)
        self._compact_if_wasteful()

    def _replay(self, line: bytes, place: Place) -> None:
        parsed = _Line.model_validate_json(line)
        match parsed.type:
            case "device":
                self._put(self._device_type.model_validate(parsed.content))
            case "message":
                self._add(self._message_type.model_validate(parsed.content), place)
            case "removed":
                self._remove(_Removed.model_validate(parsed.content).address)
            case "marked":
                marked = _Marked.model_validate(parsed.content)
                self._mark(marked.ids, marked.state)

    def _put(self, device: AnyDevice) -> None:
        contents = self._contents
        older = contents.devices.pop(device.name, None)
        if older is not None and older.address != device.address:
            self._forget(older.address)
        contents.devices[device.name] = device
        contents.names[device.address] = device.name
        while len(contents.devices) > MAX_DEVICES:
            oldest = next(iter(contents.devices.values()))
            self._remove(oldest.address)

    def _remove(self, address: str) -> None:
        name = self._contents.names.get(address)
        if name is not None:
            del self._contents.devices[name]
        self._forget(address)

    def _forget(self, address: str) -> None:
        self._contents.names.pop(address, None)
        gone = self._contents.gone
        gone[address] = None
        while len(gone) > MAX_GONE:
            del gone[next(iter(gone))]

    def _add(self, message: AnyMessage, place: Place) -> None:
        entries = self._contents.entries
        entries[message.id] = Entry(
            id=message.id,
            device=message.device,
            device_name=message.device_name,
            at=message.at,
            state=message.state,
            topic=message.topic,
            place=place,
        )
        self._live += place.length
        while len(entries) > self._capacity:
            self._live -= entries.pop(next(iter(entries))).place.length

    def _mark(self, ids: Iterable[str], state: str) -> None:
        entries = self._contents.entries
        for message_id in ids:
            entry = entries.get(message_id)
            if entry is not None:
                entries[message_id] = replace(entry, state=state)

    def _moved_on(self) -> None:
        self.version += 1
        self._compact_if_wasteful()

    def _compact_if_wasteful(self) -> None:
        # Each rewriting is paid for by as many bytes appended since the last one.
        useful = max(self._live, self._compacted)
        if self._journal.size > 2 * useful + WASTE_BEFORE_COMPACTION:
            self._compact()

    def _compact(self) -> None:
        entries = list(self._contents.entries.values())
        places = self._journal.rewrite(chain(self._live_messages(), self._live_devices()))
        self._contents.entries = {
            entry.id: replace(entry, place=place)
            for entry, place in zip(entries, places, strict=False)
        }
        self._live = sum(place.length for place in places[: len(entries)])
        self._compacted = self._journal.size
        self.version += 1

    def _live_messages(self) -> Iterator[bytes]:
        for entry in self._contents.entries.values():
            yield _encoded("message", self.read(entry))

    def _live_devices(self) -> Iterator[bytes]:
        for address in self._contents.gone:
            yield _encoded("removed", _Removed(address=address))
        for device in self._contents.devices.values():
            yield _encoded("device", device)


def _encoded(kind: str, content: BaseModel) -> bytes:
    return b'{"type":"%s","content":%s}' % (kind.encode(), content.model_dump_json().encode())
