"""`notify suppressions`: addresses that nothing is sent to, straight from the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:  # `notify --help` loads nothing
    from app.services.suppression_service import SuppressionService

Result = TypeVar("Result")


@click.group()
def suppressions() -> None:
    """Addresses that nothing is sent to: they bounced, or their owners complained."""


@suppressions.command("list")
@click.option("--limit", default=20, type=click.IntRange(min=1), help="How many at most.")
def list_suppressions(limit: int) -> None:
    """List them, newest first, by the beginning of their SHA-256: addresses are not kept."""

    async def read(service: "SuppressionService") -> None:
        for item in await service.listed(limit):
            click.echo(f"{item.suppressed_at:%Y-%m-%d %H:%M:%S}Z  {item.digest}  {item.reason}")

    _run(read)


@suppressions.command("lift")
@click.argument("address")
def lift_suppression(address: str) -> None:
    """Send to ADDRESS again; lift it at the provider too, which may keep a list of its own."""

    async def lift(service: "SuppressionService") -> bool:
        return await service.lift(address)

    if not _run(lift):
        raise click.ClickException("Nothing keeps mail from this address.")
    click.echo("Lifted.")


def _run(work: Callable[["SuppressionService"], Awaitable[Result]]) -> Result:
    from app.cli import connected  # noqa: PLC0415 -- which imports this
    from app.db.database import Database  # noqa: PLC0415
    from app.services.suppression_service import SuppressionService  # noqa: PLC0415

    with connected() as settings:

        async def run() -> Result:
            database = Database(settings)
            try:
                return await work(SuppressionService(database))
            finally:
                await database.close()

        return asyncio.run(run())
