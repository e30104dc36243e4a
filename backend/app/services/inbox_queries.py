"""The statements behind `app.services.inbox_service`.

Each reads the inbox's state and its notifications in one statement, hence at one instant: between
two a change could slip in, and be told twice or not at all.
"""

# ruff: noqa: S608 -- composed of nothing but the constants below

from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

COLUMNS = """
    n.id, n.type, n.priority, n.title, n.body, n.body_html, n.data, n.read_at, n.created_at,
    n.expires_at, n.seq, n.position
"""
VISIBLE = """
    n.position IS NOT NULL AND n.deleted_at IS NULL
    AND (n.expires_at IS NULL OR n.expires_at > now())
"""
STATE = "s.seq AS inbox_seq, s.floor_seq, s.unread"

READ_STATE = text(f"SELECT {STATE} FROM inbox_state s WHERE s.user_id = :user_id").columns(
    unread=JSONB
)

READ_POSITIONS = text("""
    SELECT user_id, seq FROM inbox_state WHERE user_id = ANY(CAST(:user_ids AS uuid[]))
""")


def _with_state(query: str, *, order: str) -> Any:
    """The inbox's state beside each row of `query`, or alone when there is none."""
    return text(f"""
        SELECT {STATE}, n.*
        FROM inbox_state s LEFT JOIN LATERAL ({query}) n ON true
        WHERE s.user_id = :user_id
        ORDER BY {order}
    """).columns(unread=JSONB, data=JSONB)


# Changes that share a number, as a read-all does, are never told apart by the end of a part.
READ_CHANGES = _with_state(
    f"""
        SELECT {COLUMNS}, NOT ({VISIBLE}) AS is_gone FROM notifications n
        WHERE n.user_id = :user_id AND n.seq > :since
        ORDER BY n.seq FETCH FIRST (CAST(:limit AS bigint)) ROWS WITH TIES
    """,
    order="n.seq, n.position",
)

READ_UNDELIVERED = _with_state(
    f"""
        SELECT {COLUMNS} FROM notification_deliveries d
        JOIN notifications n ON n.id = d.notification_id
        WHERE d.user_id = :user_id AND d.channel = 'in_app' AND d.status = 'sent' AND {VISIBLE}
        ORDER BY n.position LIMIT :limit
    """,
    order="n.position",
)

READ_PAGE = _with_state(
    f"""
        SELECT {COLUMNS} FROM notifications n
        WHERE n.user_id = :user_id AND n.position < :before AND {VISIBLE}
        ORDER BY n.position DESC LIMIT :limit
    """,
    order="n.position DESC",
)

READ_ONE = text(f"""
    SELECT {COLUMNS} FROM notifications n
    WHERE n.id = :id AND n.user_id = :user_id AND {VISIBLE}
""").columns(data=JSONB)

READ_DELIVERIES = text("""
    SELECT notification_id, channel, status FROM notification_deliveries
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND user_id = :user_id
""")

# Rows that somebody else is just marking are left to them, so no two wait for each other.
ACKNOWLEDGE = text("""
    WITH shown AS (
        SELECT d.id
        FROM unnest(CAST(:user_ids AS uuid[]), CAST(:seqs AS bigint[])) AS a (user_id, seq)
        JOIN notification_deliveries d
            ON d.user_id = a.user_id AND d.channel = 'in_app' AND d.status = 'sent'
        JOIN notifications n ON n.id = d.notification_id AND n.position <= a.seq
        FOR NO KEY UPDATE OF d SKIP LOCKED
    )
    UPDATE notification_deliveries d SET status = 'delivered', delivered_at = now()
    FROM shown WHERE d.id = shown.id
""")

MARK_DELIVERED = text("""
    WITH shown AS (
        SELECT id FROM notification_deliveries
        WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND user_id = :user_id
          AND channel = 'in_app' AND status = 'sent'
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE notification_deliveries d SET status = 'delivered', delivered_at = now()
    FROM shown WHERE d.id = shown.id
""")
