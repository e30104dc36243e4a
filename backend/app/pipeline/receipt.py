"""What a create call is answered, the first time and whenever it is repeated."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter

from app.pipeline.enqueue import Prepared
from app.pipeline.idempotency import Answer
from app.policy.kinds import Channel
from app.security.redact import Masked


@dataclass(frozen=True, slots=True)
class Receipt:
    """A stored notification, as its caller is told of it.

    Args:
        channels: those something will go out on, now or later.
        is_scheduled: whether nothing goes out before a later instant that the caller chose.
        masked: where secrets were masked in its content.
        is_repeated: whether an earlier call with the same key created it.
    """

    id: UUID
    channels: tuple[Channel, ...]
    is_scheduled: bool
    created_at: datetime
    masked: tuple[Masked, ...] = ()
    is_repeated: bool = False


stored_receipt = TypeAdapter(Receipt)


def receipt_of(prepared: Prepared) -> Receipt:
    """What the caller is told of a notification that was just stored."""
    return Receipt(
        id=prepared.draft.id,
        channels=tuple(prepared.channels),
        is_scheduled=prepared.is_scheduled,
        created_at=prepared.draft.created_at,
        masked=tuple(prepared.draft.content.masked),
    )


def answer_of(receipt: Receipt) -> Answer:
    """The receipt as it is kept with its idempotency key."""
    return stored_receipt.dump_python(receipt, mode="json")


def receipt_of_answer(answer: Answer) -> Receipt:
    """The receipt of an earlier call."""
    return replace(stored_receipt.validate_python(answer), is_repeated=True)
