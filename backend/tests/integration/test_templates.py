"""Templates are remembered, and yet what somebody changes holds at once, everywhere (REQ-004)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from app.config import Settings
from app.db.database import Database
from app.pipeline.templates import Found, Lookup, Templates
from app.rendering.renderer import ProcessRenderer
from app.schemas.notification import CreateNotification
from app.services.wording import Wording
from tests.wording import COUNT_UP, drop_template, new_name, put_template


@pytest.fixture
async def pair(settings: Settings) -> AsyncGenerator[Sequence[Templates]]:
    """Those of two processes."""
    async with AsyncExitStack() as stack:
        opened: list[Templates] = []
        for _ in range(2):
            own = Database(settings)
            stack.push_async_callback(own.close)
            opened.append(await stack.enter_async_context(Templates(own)))
        yield opened


def title_of(found: Found, name: str, locale: str | None = None) -> str | None:
    template = found.in_language(name, locale)
    return None if template is None else template.sources["title"]


async def test_a_change_is_seen_by_all_processes_at_once(
    pair: Sequence[Templates], database: Database
) -> None:
    name = new_name()
    lookup = Lookup((name,))

    async def titles() -> list[str | None]:
        return [title_of(await templates.find(lookup), name) for templates in pair]

    assert await titles() == [None, None]  # which is remembered, too
    assert await put_template(database, name, title="first") == 1
    assert await titles() == ["first", "first"]
    assert await put_template(database, name, title="second") == 2
    assert await titles() == ["second", "second"]
    await drop_template(database, name)
    assert await titles() == [None, None]


async def test_what_nobody_changed_is_not_read_again(
    pair: Sequence[Templates], database: Database
) -> None:
    name = new_name()
    lookup = Lookup((name,))
    await put_template(database, name, title="first")
    assert title_of(await pair[0].find(lookup), name) == "first"
    # Behind the back of the version: it would be seen if it were read.
    async with database.as_service() as connection:
        await connection.execute(
            text("UPDATE notification_templates SET title_template = 'x' WHERE name = :name"),
            {"name": name},
        )
    assert title_of(await pair[0].find(lookup), name) == "first"
    assert title_of(await pair[1].find(lookup), name) == "x"
    async with database.as_service() as connection:
        await connection.execute(COUNT_UP)
    assert title_of(await pair[0].find(lookup), name) == "x"


async def test_a_change_that_is_not_committed_is_not_seen(
    pair: Sequence[Templates], database: Database
) -> None:
    name = new_name()
    lookup = Lookup((name,))
    await put_template(database, name, title="first")
    async with database.as_service() as connection:
        await connection.execute(
            text("UPDATE notification_templates SET title_template = 'x' WHERE name = :name"),
            {"name": name},
        )
        await connection.execute(COUNT_UP)
        assert title_of(await pair[0].find(lookup), name) == "first"
    assert title_of(await pair[0].find(lookup), name) == "x"


async def test_lookups_at_once_each_find_their_own(
    pair: Sequence[Templates], database: Database
) -> None:
    names = [new_name() for _ in range(4)]
    for name in names:
        await put_template(database, name, title=name)
    users = [await new_user(database, locale) for locale in ("de", "ar", None)]
    lookups = [Lookup((name,), user) for name in names for user in (*users, uuid4(), None)]
    found = await asyncio.gather(*(pair[0].find(lookup) for lookup in lookups))
    told = [
        (title_of(item, lookup.names[0]), item.locale)
        for item, lookup in zip(found, lookups, strict=True)
    ]
    locales = ("de", "ar", None, None, None)
    assert told == [(name, locale) for name in names for locale in locales]


async def test_a_call_without_a_template_asks_the_database_nothing(settings: Settings) -> None:
    database = Database(settings)
    asked: list[str] = []
    event.listen(
        database._engine.sync_engine,  # pyright: ignore[reportPrivateUsage] -- to see all
        "checkout",
        lambda *_: asked.append("a connection"),
    )
    async with Templates(database) as templates, ProcessRenderer() as renderer:
        wording = Wording(templates, renderer, "UTC")
        fields = {"user_id": uuid4(), "type": "task", "title": "T", "body": "B"}
        _, content = await wording.of(CreateNotification.model_validate(fields))
        assert (content.title, content.template_version) == ("T", None)
        assert (asked, renderer.pid) == ([], None)
    await database.close()


async def new_user(database: Database, locale: str | None) -> UUID:
    user_id = uuid4()
    async with database.as_service() as connection:
        await connection.execute(text("INSERT INTO users (id) VALUES (:id)"), {"id": user_id})
        await connection.execute(
            text("INSERT INTO notification_recipients (user_id, locale) VALUES (:id, :locale)"),
            {"id": user_id, "locale": locale},
        )
    return user_id
