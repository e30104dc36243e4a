"""The `notify` command: starts the parts, and what operators need at hand."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from app.cli_dead import dead
from app.cli_suppressions import suppressions
from app.cli_trace import trace
from app.cli_vapid import vapid
from app.collector import start_undisturbed
from app.config import ConfigurationError, Settings
from app.load_settings import load_settings
from app.optional import FOR_TERMINALS, FOR_WEB, leave_out

TOKEN_LIFETIME = timedelta(days=7)
OPERATOR_ID = UUID("0197a000-0000-7000-8000-0000000000ff")
WARNING_PARTS = ("api", "worker")  # those that a setting concerns; each says so at its start
Run = Callable[[Settings], Coroutine[Any, Any, None]]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Notifications that lose nothing, explain every decision and start with one command."""
    start_undisturbed()
    leave_out(FOR_TERMINALS)


main.add_command(dead)
main.add_command(suppressions)
main.add_command(trace)
main.add_command(vapid)


@contextmanager
def configured() -> Generator[Settings]:
    """Settings; what is wrong with them, or with a server, ends the command with a sentence."""
    from app.embedded import ServerFailed  # noqa: PLC0415 -- `notify --help` loads nothing

    try:
        settings = load_settings()
        if settings.vapid_private_key is not None:
            from app.security.vapid_keys import configured_key  # noqa: PLC0415

            configured_key(settings, datetime.now(UTC))
        yield settings
    except (ConfigurationError, ServerFailed) as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@contextmanager
def connected() -> Generator[Settings]:
    """Settings with both URLs, the embedded servers running where none is configured."""
    from app.embedded import running_servers  # noqa: PLC0415

    with configured() as settings, running_servers(settings) as running:
        yield running


def run_part(name: str, run: Run) -> None:
    """Run one part in the foreground until it is told to stop."""
    import uvloop  # noqa: PLC0415

    from app.observability.logs import configure_logging, log_warnings  # noqa: PLC0415

    with connected() as settings:
        configure_logging(settings, name)
        if name in WARNING_PARTS:
            log_warnings(settings)
        uvloop.run(run(settings))


@main.command()
def up() -> None:
    """Start everything: servers, migrations, api, gateway, worker, scheduler, sandbox."""
    from app.supervisor import up as start_all  # noqa: PLC0415

    with configured() as settings:
        sys.exit(start_all(settings))


@main.command()
def api() -> None:
    """Serve the API, the page and the socket path on API_PORT."""
    from app.main import run_api  # noqa: PLC0415

    run_part("api", run_api)


@main.command()
def gateway() -> None:
    """Serve the socket path on WS_PORT."""
    from app.main import run_gateway  # noqa: PLC0415

    run_part("gateway", run_gateway)


@main.command()
def worker() -> None:
    """Deliver what is due."""
    leave_out(FOR_WEB)
    from app.worker.main import run_worker  # noqa: PLC0415

    run_part("worker", run_worker)


@main.command()
def scheduler() -> None:
    """Ring at fixed times."""
    leave_out(FOR_WEB)
    from app.worker.scheduler import run_scheduler  # noqa: PLC0415

    run_part("scheduler", run_scheduler)


@main.command()
def sandbox() -> None:
    """Stand in for outside providers (development only)."""
    from app.observability.logs import configure_logging  # noqa: PLC0415
    from app.sandbox.server import run_sandbox  # noqa: PLC0415

    with configured() as settings:
        configure_logging(settings, "sandbox")
        run_sandbox(settings)


@main.command()
def migrate() -> None:
    """Bring the schema to its newest revision."""
    from app.db.migrate import migrate as run_migrations  # noqa: PLC0415

    with connected() as settings:
        run_migrations(settings)
    click.echo("The schema is up to date.")


@main.command()
@click.option("--user", "user_id", type=click.UUID, help="Token of this user.")
@click.option("--email", help="Address of the user, stored.")
@click.option("--timezone", help="IANA timezone of the user, stored.")
@click.option("--locale", help="Language of the user, stored.")
@click.option("--service", "service", help="Token of this service.")
@click.option("--admin", is_flag=True, help="Token of an operator.")
@click.option("--headers", is_flag=True, help="Print curl's -H options instead.")
def token(
    user_id: UUID | None,
    email: str | None,
    timezone: str | None,
    locale: str | None,
    service: str | None,
    admin: bool,
    headers: bool,
) -> None:
    """Print an access token, creating the user if it is not there."""
    from app.security.jwt import issue_token  # noqa: PLC0415

    if sum((user_id is not None, service is not None, admin)) != 1:
        raise click.UsageError("Give one of --user, --service and --admin.")
    with configured() as settings:
        subject, role = str(user_id), "authenticated"
        if service is not None:
            subject, role = service, "service"
        elif admin:
            subject, role = str(OPERATOR_ID), "admin"
        text = issue_token(
            settings, subject=subject, role=role, expires_at=datetime.now(UTC) + TOKEN_LIFETIME
        )
        if user_id is not None:
            _store_user(user_id, {"email": email, "timezone": timezone, "locale": locale})
        if not headers:
            click.echo(text)
            return
        lines = [f"Authorization: Bearer {text}"]
        if service is not None:
            lines.append(f"X-Service-Auth: {settings.service_keys[0]}")
        click.echo(" ".join(f"-H '{line}'" for line in lines))


def _store_user(user_id: UUID, fields: dict[str, str | None]) -> None:
    from pydantic import ValidationError  # noqa: PLC0415

    from app.schemas.user import UpsertUser  # noqa: PLC0415

    try:
        given = {name: value for name, value in fields.items() if value is not None}
        wanted = UpsertUser.model_validate(given)
    except ValidationError as error:
        problems = [f"--{item['loc'][0]}: {item['msg']}" for item in error.errors()]
        raise click.UsageError("\n".join(problems)) from None

    async def store(settings: Settings) -> None:
        from app.db.database import Database  # noqa: PLC0415
        from app.pipeline.decide import Defaults  # noqa: PLC0415
        from app.services.user_service import UserService  # noqa: PLC0415

        database = Database(settings)
        try:
            await UserService(database, Defaults.from_settings(settings)).upsert(user_id, wanted)
        finally:
            await database.close()

    with connected() as settings:
        asyncio.run(store(settings))
