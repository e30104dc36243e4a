"""Templates for tests, written as whoever changes one does: with the version counted up."""

from typing import Any
from uuid import uuid4

from sqlalchemy import text

from app.db.database import Database, dumps

INSERT = text("""
    INSERT INTO notification_templates (
        name, type, language, version, title_template, body_template, email_subject_template,
        email_html_template, email_text_template, push_title_template, push_body_template,
        default_priority, default_channels, variables
    ) VALUES (
        :name, :type, :language, :version, :title, :body, :email_subject, :email_html, :email_text,
        :push_title, :push_body, :priority, CAST(:channels AS jsonb), CAST(:variables AS jsonb)
    )
""")
RETIRE = text("""
    UPDATE notification_templates SET is_active = false
    WHERE name = :name AND language = :language AND is_active
    RETURNING version
""")
COUNT_UP = text("UPDATE cache_versions SET version = version + 1 WHERE name = 'templates'")
DEFAULTS: dict[str, Any] = {
    "type": "task",
    "language": "en",
    "title": "Title",
    "body": "Body",
    "email_subject": None,
    "email_html": None,
    "email_text": None,
    "push_title": None,
    "push_body": None,
    "priority": None,
    "channels": None,
    "variables": {},
}


def new_name() -> str:
    """A name that no other test uses."""
    return f"t_{uuid4().hex}"


async def put_template(database: Database, name: str, **fields: Any) -> int:
    """Make this the active version of a template; returns which one it is."""
    values = {**DEFAULTS, **fields, "name": name}
    async with database.as_service() as connection:
        retired = await connection.execute(RETIRE, {"name": name, "language": values["language"]})
        version = max(retired.scalars(), default=0) + 1
        channels = values["channels"]
        await connection.execute(
            INSERT,
            {
                **values,
                "version": version,
                "channels": None if channels is None else dumps(channels),
                "variables": dumps(values["variables"]),
            },
        )
        await connection.execute(COUNT_UP)
    return version


async def drop_template(database: Database, name: str) -> None:
    """Take a template away in all its languages."""
    async with database.as_service() as connection:
        await connection.execute(
            text("DELETE FROM notification_templates WHERE name = :name"), {"name": name}
        )
        await connection.execute(COUNT_UP)
