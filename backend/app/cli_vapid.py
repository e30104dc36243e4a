"""`notify vapid`: the keys that push services know us by (SEC-003)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:  # `notify --help` loads nothing
    from app.services.vapid_service import VapidService

Result = TypeVar("Result")


@click.group()
def vapid() -> None:
    """VAPID keys: browsers subscribe with the newest, and each keeps its own."""


@vapid.command("show")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def show(as_json: bool) -> None:
    """List all keys, newest first."""

    async def read(service: "VapidService") -> None:
        for key in await service.listed():
            click.echo(
                key.model_dump_json()
                if as_json
                else f"{key.key_id}  {key.state:10}  {key.subscriptions:8} subscriptions  "
                f"{(datetime.now(UTC) - key.created_at).days:4} days old"
                f"  {key.created_at:%Y-%m-%d %H:%M:%S}Z  {key.public_key}"
            )

    _run(read)


@vapid.command("rotate")
def rotate() -> None:
    """Offer a new key from now on; browsers change over on their next visit."""

    async def add(service: "VapidService") -> str:
        return await service.rotate()

    click.echo(f"{_run(add)} is the newest key.")


def _run(work: Callable[["VapidService"], Awaitable[Result]]) -> Result:
    from app.cli import connected  # noqa: PLC0415 -- which imports this
    from app.db.database import Database  # noqa: PLC0415
    from app.observability.logs import configure_logging  # noqa: PLC0415
    from app.pipeline.deliver import utc_now  # noqa: PLC0415
    from app.pipeline.keyring import Keyring  # noqa: PLC0415
    from app.services.vapid_service import VapidService  # noqa: PLC0415

    with connected() as settings:
        configure_logging(settings, "vapid")  # to stderr

        async def run() -> Result:
            database = Database(settings)
            try:
                return await work(VapidService(database, Keyring(settings, database, utc_now)))
            finally:
                await database.close()

        return asyncio.run(run())
