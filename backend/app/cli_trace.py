"""`notify trace`: what became of a notification, straight from the database."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID

import click

from app.security.lines import plain_line

if TYPE_CHECKING:  # `notify --help` loads nothing
    from app.schemas.explain import Trace


@click.command()
@click.argument("notification_id", metavar="ID", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="The API's answer, one JSON object.")
def trace(notification_id: UUID, as_json: bool) -> None:
    """Say what was decided about a notification and what happened, in local time."""
    found = _read(notification_id)
    if as_json:
        click.echo(found.model_dump_json())
        return
    click.echo("\n".join(lines_of(found)))


def lines_of(found: "Trace") -> Iterable[str]:
    """The trace for people: one line for each decision and for each event."""
    yield "Decided"
    yield from _aligned(
        (
            _local(item.at),
            item.stage,
            item.channel.value,
            item.action.value,
            item.reason.value,
            "" if item.until is None else f"until {_local(item.until)}",
        )
        for item in found.decisions
    )
    yield "Happened"
    yield from _aligned(
        (
            _local(item.at),
            "" if item.channel is None else item.channel.value,
            item.event,
            "" if item.reason is None else item.reason.value,
            "" if item.device_id is None else f"device {item.device_id}",
            # Providers' words are in it.
            plain_line(", ".join(f"{name} {_words(value)}" for name, value in item.detail.items())),
        )
        for item in found.events
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in cast("list[object]", value))
    return str(value)


def _aligned(facts: Iterable[Sequence[str]]) -> Iterable[str]:
    rows = list(facts)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        yield f"  {'  '.join(cells)}".rstrip()


def _local(instant: datetime) -> str:
    return instant.astimezone().isoformat(sep=" ", timespec="milliseconds")


def _read(notification_id: UUID) -> "Trace":
    from app.cli import connected  # noqa: PLC0415 -- which imports this
    from app.db.database import Database  # noqa: PLC0415
    from app.errors import NotFound  # noqa: PLC0415
    from app.services.trace_service import TraceService  # noqa: PLC0415

    with connected() as settings:

        async def run() -> "Trace":
            database = Database(settings)
            try:
                return await TraceService(database).trace(notification_id, seen_by=None)
            except NotFound:
                raise click.ClickException("No notification has this id.") from None
            finally:
                await database.close()

        return asyncio.run(run())
