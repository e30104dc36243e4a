"""A table as full as a large installation's, written by SQL within a minute.

The notifications of one user lie among those of all others, as they do where many have arrived
over months: a page of 20 is 20 places of the heap.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.config import Settings
from app.db.database import Database, asyncpg_url
from app.policy.kinds import NotificationType

AT_ONCE = 50_000
ADD_USERS = text("INSERT INTO users (id) SELECT unnest(CAST(:users AS uuid[]))")

# Each became visible at an odd number of its inbox; what happened to it did at the even one that
# follows. `luck` is the same in every run; bits of it decide what happened to the notification.
ADD_NOTIFICATIONS = text("""
    WITH numbered AS (
        SELECT i, i % :every = 0 AS is_users, hashint8extended(i, 0) AS luck,
               now() - (:last - i) * interval '20 s' AS at
        FROM generate_series(CAST(:first AS bigint), CAST(:until AS bigint)) i
    ), placed AS (
        SELECT luck, at, (luck & 1023) < 700 AS is_read, (luck >> 10 & 63) = 0 AS is_deleted,
               CASE WHEN (luck >> 40 & 31) = 0 THEN at + interval '60 d' END AS expires_at,
               CASE WHEN is_users THEN :user_id
                    ELSE (CAST(:others AS uuid[]))[1 + i % cardinality(CAST(:others AS uuid[]))]
               END AS user_id,
               1 + 2 * (i / CASE WHEN is_users THEN :every
                                 ELSE cardinality(CAST(:others AS uuid[])) END) AS position
        FROM numbered
    ), added AS (
        INSERT INTO notifications (
            id, user_id, type, priority, title, body, body_html, data, service, position, seq,
            read_at, deleted_at, expires_at, expired_at, created_at
        )
        SELECT uuidv7(at - now()), user_id,
               (CAST(:types AS text[]))[1 + (luck >> 16 & 1023) % :kinds],
               CASE WHEN (luck >> 26 & 63) < 1 THEN 'critical'
                    WHEN (luck >> 26 & 63) < 8 THEN 'high'
                    WHEN (luck >> 26 & 63) < 12 THEN 'low'
                    ELSE 'normal' END,
               'Review requested: change ' || position,
               '**Ada** asks you to review [change ' || position || '](https://example.com/c/'
                   || position || E').\\n\\n- 3 files\\n- due *tomorrow*',
               '<p><strong>Ada</strong> asks you to review <a href="https://example.com/c/'
                   || position || '" rel="noopener noreferrer nofollow">change ' || position
                   || '</a>.</p><ul><li>3 files</li><li>due <em>tomorrow</em></li></ul>',
               jsonb_build_object('change', position, 'project', 'notify'), 'bench',
               position,
               CASE WHEN is_read OR is_deleted OR expires_at < now() THEN position + 1
                    ELSE position END,
               CASE WHEN is_read THEN at + interval '1 h' END,
               CASE WHEN is_deleted THEN at + interval '2 h' END,
               expires_at, CASE WHEN expires_at < now() THEN expires_at END, at
        FROM placed
        RETURNING id, user_id, read_at, created_at
    )
    INSERT INTO notification_deliveries (
        id, notification_id, user_id, channel, status, sent_at, delivered_at, created_at
    )
    SELECT uuidv7(created_at - now()), id, user_id, 'in_app',
           CASE WHEN read_at IS NULL AND created_at > now() - interval '7 d' THEN 'sent'
                ELSE 'delivered' END,
           created_at, CASE WHEN read_at IS NULL AND created_at > now() - interval '7 d' THEN NULL
                            ELSE created_at END, created_at
    FROM added
""")

SET_INBOXES = text("""
    INSERT INTO inbox_state (user_id, seq, unread)
    SELECT user_id, max(highest),
           coalesce(jsonb_object_agg(type, count) FILTER (WHERE count > 0), '{}')
    FROM (
        SELECT user_id, type, max(seq) AS highest,
               count(*) FILTER (WHERE read_at IS NULL AND deleted_at IS NULL
                                AND expired_at IS NULL) AS count
        FROM notifications WHERE user_id = ANY(CAST(:users AS uuid[])) GROUP BY user_id, type
    ) counted
    GROUP BY user_id
    ON CONFLICT (user_id) DO UPDATE SET seq = excluded.seq, unread = excluded.unread
""")


async def add_users(settings: Settings, users: Sequence[UUID]) -> None:
    """Make users who have nothing yet."""
    database = Database(settings)
    async with database.as_service() as connection:
        await connection.execute(ADD_USERS, {"users": list(users)})
    await database.close()


async def fill(
    settings: Settings,
    user_id: UUID,
    others: Sequence[UUID],
    *,
    numbers: range,
    every: int,
    last: int,
) -> None:
    """Add notifications, with their in-app deliveries and the state of the inboxes.

    Args:
        user_id: gets each whose number `every` divides.
        others: get the rest in turn; all are `add_users`.
        numbers: of those to add; what was added before had lower ones.
        last: number of the youngest of all that will ever be added.
    """
    database = Database(settings)
    values: dict[str, object] = {
        "user_id": user_id,
        "others": list(others),
        "types": [str(kind) for kind in NotificationType],
        "kinds": len(NotificationType),
        "every": every,
        "last": last,
    }
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        until = min(first + AT_ONCE, numbers.stop) - 1
        async with database.as_service() as connection:
            await connection.execute(ADD_NOTIFICATIONS, {**values, "first": first, "until": until})
    async with database.as_service() as connection:
        await connection.execute(SET_INBOXES, {"users": [user_id, *others]})
    await database.close()


async def vacuum(settings: Settings) -> None:
    """Do what autovacuum will have done by the time that so many have arrived."""
    assert settings.database_owner_url is not None
    owner = asyncpg_url(settings.database_owner_url.get_secret_value())
    engine = create_async_engine(owner, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(
            text("VACUUM (ANALYZE) notifications, notification_deliveries, inbox_state, users")
        )
    await engine.dispose()
