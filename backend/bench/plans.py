"""How PostgreSQL carries out the very statements that the program runs, under the user's role."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.database import Database, driver_of

# What a prepared statement is planned with: its values each time, or, soon, once for all values.
Mode = Literal["force_custom_plan", "force_generic_plan"]
MODES: tuple[Mode, ...] = ("force_custom_plan", "force_generic_plan")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the driver was given it.

    Args:
        text: `$1` stands for the first of the values.
        role: it was executed under.
    """

    text: str
    values: Sequence[object]
    role: str


@dataclass(frozen=True, slots=True)
class Node:
    """A step of a plan.

    Args:
        kind: such as `Index Scan`.
        table: that it reads, empty for none.
        rows: that came out of it, in all loops.
        dropped: that it read and left out.
        buffers: pages of 8 KiB touched by it and by what is below it.
    """

    kind: str
    table: str
    index: str
    rows: int
    dropped: int
    buffers: int
    depth: int

    def __str__(self) -> str:
        of = f" on {self.table}" if self.table else ""
        by = f" by {self.index}" if self.index else ""
        left_out = f", {self.dropped:,} left out" if self.dropped else ""
        rows = f"{self.rows:,} rows{left_out}, {self.buffers:,} pages"
        return f"{'  ' * self.depth}{self.kind}{of}{by}: {rows}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was carried out; the first node is the last step."""

    nodes: Sequence[Node]

    @property
    def sequential(self) -> list[str]:
        """Tables that are read from end to end."""
        return [node.table for node in self.nodes if node.kind == "Seq Scan"]

    @property
    def sorted_rows(self) -> int:
        """Rows that the largest sort had to take in before it gave the first."""
        taken_in = [
            below.rows
            for node, below in zip(self.nodes, self.nodes[1:], strict=False)
            if node.kind == "Sort"
        ]
        return max(taken_in, default=0)

    @property
    def buffers(self) -> int:
        """Pages touched."""
        return self.nodes[0].buffers

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes))


@contextmanager
def executed(database: Database) -> Generator[list[Statement]]:
    """What the database executes as long as the context lasts, one transaction after the other."""
    statements: list[Statement] = []
    engine = database._engine.sync_engine  # pyright: ignore[reportPrivateUsage] -- no other way in
    role = "service_role"

    def remember(*arguments: Any) -> None:
        nonlocal role
        _, _, statement, values, *_ = arguments
        if "set_config('role'" not in statement:
            statements.append(Statement(statement, values, role))
        else:
            role = values[0] if values else "service_role"

    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", remember)


async def plan_of(connection: AsyncConnection, statement: Statement, mode: Mode) -> Plan:
    """Carry a statement out and return its plan.

    Args:
        connection: a transaction under the role that the program uses.
    """
    driver = await driver_of(connection)
    given = f"({', '.join(map(_literal, statement.values))})" if statement.values else ""
    await driver.execute(f"SET LOCAL plan_cache_mode = {mode}")
    await driver.execute(f"PREPARE planned AS {statement.text}")
    rows = await driver.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE planned{given}")
    await driver.execute("DEALLOCATE planned")
    (told,) = rows[0].values()
    explained: Any = orjson.loads(told) if isinstance(told, str | bytes) else told
    return Plan(list(_nodes(explained[0]["Plan"], 0)))


def _nodes(told: Mapping[str, Any], depth: int) -> Iterator[Node]:
    loops = told["Actual Loops"]
    kind = told["Node Type"]
    if kind == "Result":
        # Only compares the policy's user with the query's, or makes a row of nothing.
        for below in told.get("Plans", ()):
            yield from _nodes(below, depth)
        return
    yield Node(
        kind=f"{kind} backwards" if told.get("Scan Direction") == "Backward" else kind,
        table=told.get("Relation Name", ""),
        index=told.get("Index Name", ""),
        rows=round(told["Actual Rows"] * loops),
        dropped=round(told.get("Rows Removed by Filter", 0) * loops),
        buffers=told["Shared Hit Blocks"] + told["Shared Read Blocks"],
        depth=depth,
    )
    for below in told.get("Plans", ()):
        yield from _nodes(below, depth + 1)


def _literal(value: object) -> str:
    """A value as SQL spells it; the prepared statement knows the type."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list | tuple):
        members = ",".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
        return f"'{{{members}}}'"
    if isinstance(value, str | UUID | datetime):
        quoted = str(value).replace("'", "''")
        return f"'{quoted}'"
    raise TypeError(type(value).__name__)
