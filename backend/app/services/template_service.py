"""Managing templates: versions, one of each active, and what they would say (REQ-004)."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.config import Settings
from app.db.database import Database, dumps
from app.errors import ErrorDetail, NotFound, TemplateExists, ValidationFailed
from app.locales import DEFAULT, languages_of
from app.pipeline.deliver import Clock
from app.policy.kinds import NotificationType
from app.policy.routing import Request, effective_priority
from app.rendering.base import FIELDS, CannotRender, Job, Renderer
from app.rendering.variables import declared, values_of
from app.schemas.template import (
    TEXTS,
    CreateTemplate,
    PreviewTemplate,
    RenderedTemplate,
    StoredTemplate,
    TemplatePage,
    UpdateTemplate,
)
from app.security.redact import redact
from app.security.sanitize import TooComplex, safe_html
from app.services.cursors import Cursors
from app.services.wording import CLEANERS, Unusable

CONTENT: Final = ("type", *TEXTS, "default_priority", "default_channels", "variables")
COLUMNS: Final = (
    "id, name, language, version, is_active, is_shipped, created_at, updated_at, "
    + ", ".join(CONTENT)
)  # fmt: skip
NOTHING: Final[Mapping[str, Any]] = {**dict.fromkeys(CONTENT), "variables": {}}

# ruff: noqa: S608 -- composed of nothing but the constants above
READ_PAGE: Final = text(f"""
    SELECT {COLUMNS} FROM notification_templates t
    WHERE (is_active OR :all_versions)
      AND (CAST(:type AS text) IS NULL OR type = CAST(:type AS text))
      AND (CAST(:language AS text) IS NULL OR language = CAST(:language AS text))
      AND (CAST(:name AS text) IS NULL OR name = CAST(:name AS text))
      AND (CAST(:after AS uuid) IS NULL OR (name, language, version) > (
        SELECT name, language, version FROM notification_templates WHERE id = CAST(:after AS uuid)
      ))
    ORDER BY name, language, version LIMIT :limit
""")
READ_ONE: Final = text(f"""
    SELECT {COLUMNS} FROM notification_templates
    WHERE name = :name
      AND (CAST(:language AS text) IS NULL OR language = CAST(:language AS text))
      AND CASE WHEN CAST(:version AS int) IS NULL THEN is_active
               ELSE version = CAST(:version AS int) END
    ORDER BY language <> '{DEFAULT}', language LIMIT 1
""")
READ_LANGUAGES: Final = text(f"""
    SELECT {COLUMNS} FROM notification_templates
    WHERE name = :name AND language = ANY(CAST(:languages AS text[])) AND is_active
""")

# Counted in the transaction of the change; who holds the row changes templates alone.
COUNT_CHANGE: Final = text("""
    UPDATE cache_versions SET version = version + 1 WHERE name = 'templates'
""")
READ_LATEST: Final = text("""
    SELECT coalesce(max(version), 0) AS version, coalesce(bool_or(is_active), false) AS is_there
    FROM notification_templates WHERE name = :name AND language = :language
""")
RETIRE: Final = text("""
    UPDATE notification_templates SET is_active = false, updated_at = CAST(:now AS timestamptz)
    WHERE name = :name AND (CAST(:language AS text) IS NULL OR language = CAST(:language AS text))
      AND is_active
    RETURNING id
""")
JSON_COLUMNS: Final = ("default_channels", "variables")
ADD: Final = text(f"""
    INSERT INTO notification_templates (
        name, language, version, created_at, updated_at, {", ".join(CONTENT)}
    )
    VALUES (
        :name, :language, :version, CAST(:now AS timestamptz), CAST(:now AS timestamptz),
        {
    ", ".join(
        f"CAST(CAST(:{column} AS text) AS jsonb)" if column in JSON_COLUMNS else f":{column}"
        for column in CONTENT
    )
}
    )
    RETURNING {COLUMNS}
""")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which templates are meant: those that fit everything that is not None.

    Args:
        all_versions: former ones and deleted ones too, not only the active ones.
    """

    type: NotificationType | None = None
    language: str | None = None
    name: str | None = None
    all_versions: bool = False


class TemplateService:
    """Keeps templates; everything raises `Unavailable` while PostgreSQL is away.

    Args:
        renderer: compiles and renders sources.
        clock: the present instant.
    """

    def __init__(
        self, settings: Settings, database: Database, renderer: Renderer, clock: Clock
    ) -> None:
        self._database = database
        self._renderer = renderer
        self._clock = clock
        self._cursors = Cursors(settings.encryption_keys, "templates")

    async def page(self, wanted: Filter, *, limit: int, cursor: str | None = None) -> TemplatePage:
        """A page of templates, by name, language and version.

        Args:
            limit: templates on a page, at least 1.
            cursor: `next_cursor` of the page before, with the same filter.

        Raises:
            ValidationFailed: the cursor was not given for this filter.
        """
        scope = dumps(astuple(wanted)).encode()
        after = None if cursor is None else UUID(bytes=self._cursors.open(scope, cursor))
        parameters = {
            "type": wanted.type,
            "language": wanted.language,
            "name": wanted.name,
            "all_versions": wanted.all_versions,
            "after": after,
            "limit": limit + 1,  # one more tells whether another page follows
        }
        async with self._database.as_service() as connection:
            rows = (await connection.execute(READ_PAGE, parameters)).mappings().all()
        items = [StoredTemplate(**row) for row in rows[:limit]]
        has_more = len(rows) > limit
        return TemplatePage(
            items=items,
            next_cursor=self._cursors.seal(scope, items[-1].id.bytes) if has_more else None,
            has_more=has_more,
        )

    async def get(
        self, name: str, language: str | None = None, version: int | None = None
    ) -> StoredTemplate:
        """A template's active version, or the one that is asked for.

        Args:
            language: None takes English, else the first there is.

        Raises:
            NotFound: there is none.
        """
        parameters = {"name": name, "language": language, "version": version}
        async with self._database.as_service() as connection:
            row = (await connection.execute(READ_ONE, parameters)).mappings().one_or_none()
        if row is None:
            raise NotFound
        return StoredTemplate(**row)

    async def create(self, wanted: CreateTemplate) -> StoredTemplate:
        """Add a template that is new in its language.

        Its version is the first, or follows those that were deleted: no version says two things.

        Raises:
            TemplateExists: it is there already in this language.
            ValidationFailed: a text is no template, or uses what is not declared.
            Unavailable: templates cannot be compiled, or PostgreSQL is away.
        """
        content = {**NOTHING, **wanted.content()}
        if content["default_priority"] is None:
            content["default_priority"] = effective_priority(Request(type=wanted.type)).value
        await self._check(content)
        async with self._database.as_service() as connection:
            await connection.execute(COUNT_CHANGE)
            key = {"name": wanted.name, "language": wanted.language}
            latest = (await connection.execute(READ_LATEST, key)).one()
            if latest.is_there:
                raise TemplateExists
            return await self._add(connection, key, latest.version + 1, content)

    async def update(
        self, name: str, language: str | None, wanted: UpdateTemplate
    ) -> StoredTemplate:
        """Add a version, which is the active one from then on.

        Args:
            language: of the template; the body may say it instead. English if neither does.

        Raises:
            NotFound: the template is not there in this language.
            ValidationFailed: name or language contradict the address, a text is no template, or
                uses what is not declared.
            Unavailable: templates cannot be compiled, or PostgreSQL is away.
        """
        if wanted.name not in {None, name}:
            raise _refused("name", "contradiction", "must be the same as in the address")
        if language is not None and wanted.language not in {None, language}:
            raise _refused("language", "contradiction", "must be the same as in the address")
        key = {"name": name, "language": language or wanted.language or DEFAULT}
        checked: dict[str, Any] | None = None
        while True:
            async with self._database.as_service() as connection:
                if checked is not None:
                    await connection.execute(COUNT_CHANGE)
                active = await connection.execute(READ_ONE, {**key, "version": None})
                row = active.mappings().one_or_none()
                if row is None:
                    raise NotFound
                # What is not sent is the active version's: no other change may come between.
                content = {column: row[column] for column in CONTENT} | wanted.content()
                if content == checked:
                    latest = (await connection.execute(READ_LATEST, key)).one()
                    await connection.execute(RETIRE, {**key, "now": self._clock()})
                    return await self._add(connection, key, latest.version + 1, content)
            # Compiling may have to wait for slow templates: not with a connection in the hand, nor
            # with the row that all changes want.
            await self._check(content)
            checked = content

    async def delete(self, name: str, language: str | None) -> None:
        """Let no call use a template any more; its versions can be read by their numbers.

        Args:
            language: None means all of its languages.

        Raises:
            NotFound: it is not there.
        """
        parameters = {"name": name, "language": language, "now": self._clock()}
        async with self._database.as_service() as connection:
            await connection.execute(COUNT_CHANGE)
            if not (await connection.execute(RETIRE, parameters)).all():
                raise NotFound

    async def preview(self, name: str, wanted: PreviewTemplate) -> RenderedTemplate:
        """What a template says, or would say with other texts.

        Args:
            name: of a template, which need not exist if title and body are sent along.

        Raises:
            NotFound: there is no such template in the language, its base or English.
            ValidationFailed: a text cannot be rendered, or a variable is missing or of another
                type.
            Unavailable: templates cannot be rendered, or PostgreSQL is away.
        """
        row = await self._in_language(name, wanted.language)
        unsaved = wanted.texts()
        content: dict[str, Any] = {**NOTHING, **(row or {}), **unsaved}
        if content["title_template"] is None or content["body_template"] is None:
            raise NotFound
        language = wanted.language if row is None else row["language"]
        variables = declared(content["variables"])
        given = wanted.variables
        values = values_of(variables, given)
        if unsaved:
            # Its variables are not declared yet: what is given is what there is.
            used = await self._check(content, also=frozenset(given))
            values |= {key: given[key] for key in used & given.keys() - values.keys()}
        values, _ = redact(values)
        is_regional = f"{wanted.language}-".startswith(f"{language}-")
        job = Job(
            _sources(content), values, wanted.language if is_regional else language, wanted.timezone
        )
        (rendered,) = await self._renderer.render([job])
        if isinstance(rendered, CannotRender):
            raise _cannot_render(rendered)
        texts = _cleaned(rendered)
        return RenderedTemplate(
            language=language, version=None if row is None else row["version"], **texts
        )

    async def _in_language(self, name: str, language: str) -> RowMapping | None:
        """The active version in this language, else in its base, else in English."""
        languages = languages_of(language)
        parameters = {"name": name, "languages": languages}
        async with self._database.as_service() as connection:
            rows = (await connection.execute(READ_LANGUAGES, parameters)).mappings().all()
        return min(rows, key=lambda row: languages.index(row["language"]), default=None)

    async def _check(
        self, content: Mapping[str, Any], also: frozenset[str] = frozenset()
    ) -> frozenset[str]:
        """The names that the texts use.

        Args:
            content: a template by column.
            also: names that texts may use although they are not declared.

        Raises:
            ValidationFailed: a declaration or a text cannot be used, or it uses another name.
        """
        known = declared(content["variables"]).keys() | also
        used: frozenset[str] = frozenset()
        for field, source in _sources(content).items():
            checked = await self._renderer.check({field: source})
            if isinstance(checked, CannotRender):
                raise _cannot_render(checked)
            unknown = sorted(checked.variables - known)
            if unknown:
                names = ", ".join(unknown)
                raise _refused(f"{field}_template", "undeclared_variable", f"does not know {names}")
            used |= checked.variables
        return used

    async def _add(
        self,
        connection: AsyncConnection,
        key: Mapping[str, str],
        version: int,
        content: Mapping[str, Any],
    ) -> StoredTemplate:
        bound = {
            column: value if value is None or column not in JSON_COLUMNS else dumps(value)
            for column, value in content.items()
        }
        parameters = {**key, **bound, "version": version, "now": self._clock()}
        return StoredTemplate(**(await connection.execute(ADD, parameters)).mappings().one())


def _sources(content: Mapping[str, Any]) -> dict[str, str]:
    """Source by field, of those that there are."""
    texts = {field: cast("str | None", content[f"{field}_template"]) for field in FIELDS}
    return {field: source for field, source in texts.items() if source is not None}


def _cleaned(rendered: Mapping[str, str]) -> dict[str, Any]:
    """The texts as a call would store them; None where title and body serve."""
    texts: dict[str, Any] = dict.fromkeys(FIELDS)
    field = ""
    try:
        for field, said in rendered.items():
            texts[field] = CLEANERS[field](said) or None
        field = "body"
        texts["body_html"] = safe_html(texts[field])
    except (Unusable, TooComplex) as error:
        raise _refused(f"{field}_template", "unusable", str(error)) from None
    return texts


def _cannot_render(why: CannotRender) -> ValidationFailed:
    return _refused(f"{why.field}_template", why.code, why.message)


def _refused(path: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(details=[ErrorDetail(path=path, code=code, message=message)])
