"""Puts the templates that come with the program into the database (REQ-004)."""

from typing import Any, Final

from sqlalchemy import Connection, text

from app.db.database import SET_SERVICE_ROLE, dumps
from app.shipped_templates import ShippedTemplate, shipped_templates

TEXT_COLUMNS: Final = (
    "type", "title_template", "body_template", "email_subject_template", "email_html_template",
    "email_text_template", "push_title_template", "push_body_template", "default_priority",
)  # fmt: skip
COLUMNS: Final = (*TEXT_COLUMNS, "variables")

# Tables are closed to their owner as well; who may let others in lets itself in first.
MAY_BECOME_SERVICE: Final = text("SELECT pg_has_role(current_user, 'service_role', 'SET')")
BECOME_SERVICE: Final = text("GRANT service_role TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
# Operators who change a template count this row up first: one change at a time.
LOCK: Final = text("SELECT FROM cache_versions WHERE name = 'templates' FOR UPDATE")

# ruff: noqa: S608 -- composed of nothing but the constants above
SHIPPED: Final = f"""
    jsonb_to_recordset(CAST(CAST(:shipped AS text) AS jsonb)) AS s (
        name text, language text, {" text, ".join(TEXT_COLUMNS)} text, variables jsonb, version int
    )
"""
FIND_CHANGED: Final = text(f"""
    SELECT s.name, s.language, 1 + coalesce((
        SELECT max(t.version) FROM notification_templates t
        WHERE (t.name, t.language) = (s.name, s.language)
    ), 0) AS version
    FROM {SHIPPED}
    LEFT JOIN notification_templates a
        ON (a.name, a.language) = (s.name, s.language) AND a.is_active
    WHERE a.is_shipped
          AND ({", ".join(f"a.{column}" for column in COLUMNS)})
              IS DISTINCT FROM ({", ".join(f"s.{column}" for column in COLUMNS)})
       OR a.id IS NULL AND NOT EXISTS (
            SELECT FROM notification_templates t WHERE (t.name, t.language) = (s.name, s.language)
          )
""")
RETIRE: Final = text(f"""
    UPDATE notification_templates t SET is_active = false, updated_at = now()
    FROM {SHIPPED}
    WHERE (t.name, t.language) = (s.name, s.language) AND t.is_active
""")
ADD: Final = text(f"""
    INSERT INTO notification_templates (name, language, version, is_shipped, {", ".join(COLUMNS)})
    SELECT s.name, s.language, s.version, true, {", ".join(f"s.{column}" for column in COLUMNS)}
    FROM {SHIPPED}
""")
COUNT_CHANGE: Final = text("UPDATE cache_versions SET version = version + 1 WHERE name='templates'")


def put_shipped_templates(connection: Connection) -> None:
    """Add what is new, and a version of what reads otherwise than the shipped one that is active.

    What operators wrote stays as it is, and what they deleted stays away.

    Args:
        connection: of the tables' owner; what is put is there once the caller commits.
    """
    if not connection.execute(MAY_BECOME_SERVICE).scalar():
        connection.execute(BECOME_SERVICE)
    connection.execute(SET_SERVICE_ROLE)
    connection.execute(LOCK)
    records = {(item.name, item.language): _record(item) for item in shipped_templates()}
    shipped = {"shipped": dumps(list(records.values()))}
    changed = connection.execute(FIND_CHANGED, shipped).all()
    if not changed:
        return
    new = [records[row.name, row.language] | {"version": row.version} for row in changed]
    for statement in (RETIRE, ADD):
        connection.execute(statement, {"shipped": dumps(new)})
    connection.execute(COUNT_CHANGE)


def _record(template: ShippedTemplate) -> dict[str, Any]:
    return {
        "name": template.name,
        "language": template.language,
        "type": template.type,
        "default_priority": template.priority,
        "variables": template.variables,
        **{f"{field}_template": text for field, text in template.texts.items()},
    }
