"""`notify dead`: dead letters from the command line, straight from the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import click

from app.policy.kinds import Channel, Reason

if TYPE_CHECKING:  # `notify --help` loads nothing
    from app.services.dead_letter_service import DeadLetterService, Filter

OPERATOR = "operator:cli"
PAGE = 100
Result = TypeVar("Result")

channel_option = click.option("--channel", type=click.Choice([item.value for item in Channel]))
reason_option = click.option("--reason", type=click.Choice([item.value for item in Reason]))


@click.group()
def dead() -> None:
    """Dead letters: deliveries that failed for good."""


@dead.command("list")
@channel_option
@reason_option
@click.option("--limit", default=20, type=click.IntRange(min=1), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_dead(channel: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List them, newest failure first."""

    async def read(service: "DeadLetterService") -> None:
        wanted, left, cursor = _filter(channel, reason), limit, None
        while left:
            page = await service.page(wanted, limit=min(left, PAGE), cursor=cursor)
            for item in page.items:
                click.echo(
                    item.model_dump_json()
                    if as_json
                    else f"{item.failed_at:%Y-%m-%d %H:%M:%S}Z  {item.id}  {item.channel.value:6}"
                    f"  {item.reason.value}  {item.detail or ''}".rstrip()
                )
            left, cursor = left - len(page.items), page.next_cursor
            if cursor is None:
                return

    _run(read)


@dead.command("retry")
@click.argument("ids", nargs=-1, type=click.UUID)
@click.option("--all", "every", is_flag=True, help="All that the options leave.")
@channel_option
@reason_option
def retry_dead(ids: tuple[UUID, ...], every: bool, channel: str | None, reason: str | None) -> None:
    """Put them into the queue again, by ID or --all; workers find them within their sweep."""
    if bool(ids) == every:
        raise click.UsageError("Give ids, or --all.")
    if ids and (channel or reason):
        raise click.UsageError("--channel and --reason go with --all.")
    wanted = _filter(channel, reason, ids or None)

    async def retry(service: "DeadLetterService") -> int:
        return await service.retry_every(wanted, by=OPERATOR)

    count = _run(retry)
    click.echo(f"{count} retried.")
    if missing := len(set(ids)) - count if ids else 0:
        raise click.ClickException(f"{missing} of the ids are no dead letters.")


def _filter(
    channel: str | None = None, reason: str | None = None, ids: tuple[UUID, ...] | None = None
) -> "Filter":
    from app.services.dead_letter_service import Filter  # noqa: PLC0415

    return Filter(
        ids=ids,
        channel=None if channel is None else Channel(channel),
        reason=None if reason is None else Reason(reason),
    )


def _run(work: Callable[["DeadLetterService"], Awaitable[Result]]) -> Result:
    from app.cli import connected  # noqa: PLC0415 -- which imports this
    from app.db.database import Database  # noqa: PLC0415
    from app.pipeline.deliver import utc_now  # noqa: PLC0415
    from app.services.dead_letter_service import DeadLetterService  # noqa: PLC0415

    with connected() as settings:

        async def run() -> Result:
            database = Database(settings)
            try:
                return await work(DeadLetterService(settings, database, lambda _: None, utc_now))
            finally:
                await database.close()

        return asyncio.run(run())
