"""The `Idempotency-Key` header, and the one that tells a repeated answer (requirements 5.1)."""

from typing import Annotated

from fastapi import Depends, Request, Response

from app.errors import ValidationFailed
from app.schemas.base import IDEMPOTENCY_KEY

HEADER = "Idempotency-Key"
REPEATED_HEADER = "Idempotent-Replayed"


async def idempotency_key(request: Request) -> str | None:
    """The request's idempotency key.

    Raises:
        ValidationFailed: it is not 1 to 255 visible ASCII characters.
    """
    key = request.headers.get(HEADER)
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise ValidationFailed(
            details=[
                {
                    "path": HEADER,
                    "code": "string_pattern_mismatch",
                    "message": "must have 1 to 255 visible ASCII characters",
                }
            ]
        )
    return key


IdempotencyKeyHeader = Annotated[str | None, Depends(idempotency_key)]

HEADER_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "For 24 hours a repeated call answers what the first one did.",
    "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
}


def tell_if_repeated(response: Response, *, is_repeated: bool) -> None:
    """Mark an answer that an earlier call with the same key had."""
    if is_repeated:
        response.headers[REPEATED_HEADER] = "true"
