"""The driver's connections."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import asyncpg

_FIRST_OF_OTHERS: Final = 16_384  # ids of types below are PostgreSQL's own, the same everywhere
_known: Final[dict[frozenset[int], Any]] = {}


class _NotAsked(NamedTuple):
    """Stands for the statement that would have asked; a name says that it replaced no other."""

    name: str = "known"


class Connection(asyncpg.Connection):  # pyright: ignore[reportMissingTypeArgument, reportUntypedBaseClass] -- untyped
    """Asks once for each process what types PostgreSQL itself has.

    The driver would ask on every connection for every kind of array that it comes upon, two more
    round trips each: more work for the server than all else that a new connection costs.
    """

    __slots__ = ()

    async def _introspect_types(
        self,
        typeoids: Iterable[int],
        timeout: float | None,  # noqa: ASYNC109 -- the driver's own
    ) -> tuple[Any, Any]:
        wanted = frozenset(typeoids)
        if wanted in _known:
            return _known[wanted], _NotAsked()
        found: Any = await super()._introspect_types(wanted, timeout)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if max(wanted) < _FIRST_OF_OTHERS:
            _known[wanted] = found[0]
        return found
