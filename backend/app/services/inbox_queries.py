"""The statements behind `app.services.inbox_service`.

Each reads the inbox's state and its notifications in one statement, hence at one instant: between
two a change could slip in, and be told twice or not at all.
"""

# ruff: noqa: S608 -- composed of nothing but the constants below

from functools import cache
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB

from app.db.conditions import EXPIRING
from app.pipeline.change import VISIBLE
from app.policy.kinds import Priority, Sort

COLUMNS = """
    n.id, n.type, n.priority, n.title, n.body, n.body_html, n.data, n.read_at, n.created_at,
    n.expires_at, n.seq, n.position
"""
# What is overdue is to leave the inbox before anybody reads it.
STATE = f"""
    s.seq AS inbox_seq, s.floor_seq, s.unread, EXISTS (
        SELECT FROM notifications
        WHERE notifications.user_id = :user_id AND expires_at <= now() AND {EXPIRING}
    ) AS is_overdue
"""

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


# What a later change is told of is known to its client, so only what is new needs its content.
CHANGED_COLUMNS = """
    n.id, n.type, n.priority, CASE WHEN n.seq = n.position THEN n.title ELSE '' END AS title,
    CASE WHEN n.seq = n.position THEN n.body ELSE '' END AS body,
    CASE WHEN n.seq = n.position THEN n.body_html ELSE '' END AS body_html,
    CASE WHEN n.seq = n.position THEN n.data ELSE '{}' END AS data, n.read_at, n.created_at,
    n.expires_at, n.seq, n.position
"""
# What became visible and changed since has two numbers, and is told with both. Changes that share
# a number, as a read-all does, are never told apart by the end of a part. It also ends before
# content that weighs more than `bytes`; `found` says how many there were, up to `most` and a part.
READ_CHANGES = _with_state(
    f"""
        SELECT w.* FROM (
            SELECT e.*, count(*) OVER () AS found, coalesce(sum(
                octet_length(e.body) + octet_length(e.body_html) + pg_column_size(e.data)
            ) OVER (
                ORDER BY e.at RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) AS weight_before
            FROM (
                (
                    SELECT {COLUMNS}, n.position AS at, true AS is_new, false AS is_gone
                    FROM notifications n
                    WHERE n.user_id = :user_id AND n.position > :since AND n.seq > n.position
                      AND {VISIBLE}
                    ORDER BY n.position LIMIT :limit
                ) UNION ALL (
                    SELECT * FROM (
                        SELECT {CHANGED_COLUMNS}, n.seq AS at, n.seq = n.position AS is_new,
                               NOT ({VISIBLE}) AS is_gone
                        FROM notifications n
                        WHERE n.user_id = :user_id AND n.seq > :since
                        ORDER BY n.seq FETCH FIRST (CAST(:limit AS bigint)) ROWS WITH TIES
                    ) changed
                    LIMIT :most
                )
            ) e
        ) w
        WHERE w.weight_before < :bytes
        ORDER BY w.at FETCH FIRST (CAST(:limit AS bigint)) ROWS WITH TIES
    """,
    order="n.at, n.position",
)

READ_SOME = text(f"""
    SELECT {COLUMNS} FROM notifications n
    WHERE n.id = ANY(CAST(:ids AS uuid[])) AND n.user_id = :user_id AND {VISIBLE}
""").columns(data=JSONB)

READ_UNDELIVERED = _with_state(
    f"""
        SELECT w.* FROM (
            SELECT u.*, sum(octet_length(u.body) + octet_length(u.body_html)) OVER (
                ORDER BY u.position
            ) AS weight
            FROM (
                SELECT {COLUMNS} FROM notification_deliveries d
                JOIN notifications n ON n.id = d.notification_id
                WHERE d.user_id = :user_id AND d.channel = 'in_app' AND d.status = 'sent'
                  AND {VISIBLE}
                ORDER BY n.position LIMIT :limit
            ) u
        ) w
        WHERE w.weight < :bytes
        ORDER BY w.position
    """,
    order="n.position",
)

READ_ONE = _with_state(
    f"""
        SELECT {COLUMNS} FROM notifications n
        WHERE n.id = :id AND n.user_id = :user_id AND {VISIBLE}
    """,
    order="n.position",
)

PRIORITIES = ", ".join(f"({priority.rank}, '{priority}')" for priority in Priority)
RANK = "CASE n.priority {} END".format(
    " ".join(f"WHEN '{priority}' THEN {priority.rank}" for priority in Priority)
)
PAGES = {
    Sort.NEWEST: (
        """
            SELECT {columns} FROM notifications n
            WHERE n.user_id = :user_id AND n.position < :after AND {chosen}
            ORDER BY n.position DESC LIMIT :limit
        """,
        "n.position DESC",
    ),
    Sort.OLDEST: (
        """
            SELECT {columns} FROM notifications n
            WHERE n.user_id = :user_id AND n.position > :after AND {chosen}
            ORDER BY n.position LIMIT :limit
        """,
        "n.position",
    ),
    # Each priority is read on its own, so that the index serves the order.
    Sort.PRIORITY: (
        f"""
            SELECT r.* FROM (VALUES {PRIORITIES}) AS p (rank, name)
            CROSS JOIN LATERAL (
                SELECT {{columns}} FROM notifications n
                WHERE n.user_id = :user_id AND n.priority = p.name AND {{chosen}}
                  AND (p.rank > :rank OR n.position < :after)
                ORDER BY n.position DESC LIMIT :limit
            ) r
            WHERE p.rank >= :rank
            ORDER BY p.rank, r.position DESC LIMIT :limit
        """,
        f"{RANK}, n.position DESC",
    ),
}


@cache
def read_page(sort: Sort, *, by_type: bool, by_priority: bool, is_read: bool | None) -> Any:
    """A page of an inbox from `after` on (in the order of priority: from `rank` and `after` on).

    Args:
        by_type: only `:type`.
        by_priority: only `:priority`.
        is_read: only what is read, or unread; None for both.
    """
    chosen = [VISIBLE]
    if by_type:
        chosen.append("n.type = :type")
    if by_priority:
        chosen.append("n.priority = :priority")
    if is_read is not None:
        chosen.append("n.read_at IS NOT NULL" if is_read else "n.read_at IS NULL")
    page, order = PAGES[sort]
    return _with_state(page.format(columns=COLUMNS, chosen=" AND ".join(chosen)), order=order)


READ_DELIVERIES = text("""
    SELECT notification_id, channel, status FROM notification_deliveries
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND user_id = :user_id
""")

# Rows that somebody else is just marking are left to them, so no two wait for each other. What
# expired before it was shown was never delivered.
ACKNOWLEDGE = text("""
    WITH shown AS (
        SELECT d.id
        FROM unnest(CAST(:user_ids AS uuid[]), CAST(:seqs AS bigint[])) AS a (user_id, seq)
        JOIN notification_deliveries d
            ON d.user_id = a.user_id AND d.channel = 'in_app' AND d.status = 'sent'
        JOIN notifications n
            ON n.id = d.notification_id AND n.position <= a.seq AND n.expired_at IS NULL
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
