"""What every email provider is to the mailer: letters become parcels, parcels are answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol
from uuid import UUID

from app.channels.base import Deferred, Failed, Retry
from app.channels.email.allowance import Allowance
from app.channels.email.letter import Letter


@dataclass(frozen=True, slots=True)
class Parcel:
    """Letters as one request carries them.

    Args:
        payload: the request's content, as it is stored and repeated.
    """

    letters: tuple[Letter, ...]
    payload: bytes


class Fault(Enum):
    """Whose refusal it is."""

    OF_PROVIDER = "provider"
    """Any letter would have been refused: its limits, our account, or nobody is there."""
    OF_CONTENT = "content"
    """It is about these letters or their addresses; another provider would refuse them too."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The provider has them.

    Args:
        provider_ids: the provider's names for the letters, in the parcel's order.
    """

    provider_ids: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider has none of them, for certain: this request took no effect.

    Args:
        outcome: of each letter, if nothing else can be done.
        is_unwell: it was no proper answer, so it counts against the provider's health.
    """

    outcome: Retry | Deferred | Failed
    fault: Fault
    is_unwell: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether the provider has them; only the same request may be made again.

    Args:
        outcome: of each letter for now.
        is_unwell: as for `Refused`.
    """

    outcome: Retry | Deferred
    is_unwell: bool = True


Answer = Taken | Refused | Unknown


class Provider(Protocol):
    """Takes parcels."""

    name: ClassVar[str]
    places: int
    """Requests at once, and again as many for critical letters."""
    allowance: Allowance
    """How many requests it takes, by what it said last."""

    def parcels(self, letters: Sequence[Letter]) -> list[Parcel]:
        """The letters as requests of this provider, as few as it lets us, in their order."""
        ...

    async def post(self, key: UUID, payload: bytes) -> Answer:
        """Make a request, within the time limit of one; raises nothing of the provider's.

        Args:
            key: the same whenever the same request is made again.
        """
        ...
