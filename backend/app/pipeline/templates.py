"""The templates in the database, remembered as long as nobody changed any (REQ-004)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from pydantic import JsonValue

from app.db.database import Database, Driver, driver_of
from app.locales import languages_of
from app.pipeline.coalescing import Coalescer
from app.policy.kinds import Channel, Priority
from app.rendering.base import FIELDS

GROUP_LIMIT = 64
READERS = 2
MOST_NAMES = 1_000  # remembered; callers may ask for any

# The version is read before the templates: these may be newer than it says, but not older.
READ_USERS = """
    SELECT c.version, r.user_id, r.locale, r.timezone
    FROM cache_versions c
    LEFT JOIN notification_recipients r ON r.user_id = ANY($1::uuid[])
    WHERE c.name = 'templates'
"""
READ_TEMPLATES = f"""
    SELECT name, language, version, variables, default_priority, default_channels,
           {", ".join(f"{name}_template AS {name}" for name in FIELDS)}
    FROM notification_templates WHERE is_active AND name = ANY($1::text[])
"""  # noqa: S608 -- composed of constants


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """The active version of a template in one language; each is there once, and equals itself.

    Args:
        language: its tag in lower case.
        sources: of the fields it has, in the order of `FIELDS`.
        variables: what it declares, as it is stored.
        default_priority: of notifications whose calls say nothing.
        default_channels: what calls that say nothing are narrowed to; None does not narrow.
    """

    name: str
    language: str
    version: int
    sources: Mapping[str, str]
    variables: Mapping[str, JsonValue]
    default_priority: Priority | None
    default_channels: frozenset[Channel] | None


ByLanguage = Mapping[str, Template]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a call needs to know.

    Args:
        names: of templates, which need not exist.
        user_id: whom it is for, None for many.
    """

    names: tuple[str, ...]
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What there is.

    Args:
        templates: by name and language; names without a template have none.
        locale: the user's language, a BCP 47 tag, None where it is not known.
        timezone: the user's, an IANA name.
    """

    templates: Mapping[str, ByLanguage] = field(default_factory=dict[str, ByLanguage])
    locale: str | None = None
    timezone: str | None = None

    def in_language(self, name: str, locale: str | None) -> Template | None:
        """The template in this language, else in its base, else in English."""
        languages = self.templates[name]
        return next((languages[tag] for tag in languages_of(locale) if tag in languages), None)


class Templates:
    """Finds templates by name; use it as an asynchronous context manager.

    Calls that arrive together share a query, and no call sees a template that was changed before
    it came: the query reads the version that every change counts up.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version: int | None = None
        self._known: dict[str, ByLanguage] = {}
        self._groups: Coalescer[Lookup, Found] = Coalescer(
            self._find_group, limit=GROUP_LIMIT, workers=READERS
        )

    async def __aenter__(self) -> Self:
        await self._groups.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._groups.__aexit__(kind, error, trace)

    async def find(self, lookup: Lookup) -> Found:
        """The templates that a call asks for, and the language of whom it is for.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return await self._groups.submit(lookup)

    async def _find_group(self, lookups: list[Lookup]) -> Sequence[Found]:
        user_ids = {lookup.user_id for lookup in lookups if lookup.user_id is not None}
        async with self._database.as_service() as connection:
            driver = await driver_of(connection)
            rows = await driver.fetch(READ_USERS, sorted(user_ids))
            users = {row["user_id"]: row for row in rows}
            names = {name for lookup in lookups for name in lookup.names}
            templates = await self._named(driver, names, rows[0]["version"])
        return [_found(lookup, templates, users) for lookup in lookups]

    async def _named(self, driver: Driver, names: set[str], version: int) -> dict[str, ByLanguage]:
        # Two groups may overlap: what an older one finds does not push out what is newer.
        known = self._known if self._version == version else {}
        missing = names - known.keys()
        if missing:
            known |= await _read(driver, missing)
        if self._version is None or version > self._version:
            self._version, self._known = version, known
        if len(known) > MOST_NAMES:
            self._known = {}
        return {name: known[name] for name in names}


def _found(
    lookup: Lookup, templates: Mapping[str, ByLanguage], users: Mapping[Any, Mapping[str, Any]]
) -> Found:
    user = users.get(lookup.user_id) or {"locale": None, "timezone": None}
    named = {name: templates[name] for name in lookup.names}
    return Found(named, user["locale"], user["timezone"])


async def _read(driver: Driver, names: Iterable[str]) -> dict[str, ByLanguage]:
    found: dict[str, dict[str, Template]] = {name: {} for name in names}
    for row in await driver.fetch(READ_TEMPLATES, sorted(found)):
        template = _template(row)
        found[template.name][template.language] = template
    return {**found}


def _template(row: Mapping[str, Any]) -> Template:
    channels, priority = row["default_channels"], row["default_priority"]
    return Template(
        name=row["name"],
        language=row["language"].lower().replace("_", "-"),
        version=row["version"],
        sources={name: row[name] for name in FIELDS if row[name] is not None},
        variables=row["variables"],
        default_priority=None if priority is None else Priority(priority),
        default_channels=None if channels is None else frozenset(map(Channel, channels)),
    )
