"""What follows when a delivery that waited ends without going out.

One that waited for its user's limit leaves its room to the next, and a push that stood for others
that were held leaves them to be told of.
"""

CALLED_AT_ONCE = 100  # of those who wait; the others keep the time that they were told

FOLLOWS = f"""
    waiting AS (
        SELECT w.id, l.due
        FROM (
            SELECT user_id, channel, min(due) AS due FROM leaving
            WHERE reason = 'user_limit' GROUP BY user_id, channel
        ) l
        CROSS JOIN LATERAL (
            SELECT d.id FROM notification_deliveries d
            WHERE d.user_id = l.user_id AND d.channel = l.channel
              AND d.status = 'pending' AND d.reason = 'user_limit'
              AND d.lease_token IS NULL AND d.next_attempt_at > l.due
              AND d.id <> ALL(ARRAY(SELECT id FROM leaving))
            ORDER BY d.notification_id LIMIT {CALLED_AT_ONCE}
            FOR NO KEY UPDATE SKIP LOCKED
        ) w
    ), called AS (
        UPDATE notification_deliveries d SET next_attempt_at = w.due
        FROM waiting w WHERE d.id = w.id
    ), untold AS (
        SELECT d.id, l.ended_at FROM leaving l
        JOIN notification_deliveries d
            ON d.device_id = l.device_id AND d.status = 'skipped' AND d.reason = 'summarised'
        WHERE l.summarises > 1 AND EXISTS (
            SELECT FROM notification_events e
            WHERE e.notification_id = d.notification_id AND e.reason = 'summarised'
              AND e.device_id = d.device_id
              AND e.detail ->> 'summarised_by' = l.notification_id::text
        )
        FOR NO KEY UPDATE OF d SKIP LOCKED
    ), revived AS (
        UPDATE notification_deliveries d
        SET status = 'pending', reason = 'quiet_hours', next_attempt_at = u.ended_at
        FROM untold u WHERE d.id = u.id
    )
"""  # noqa: S608 -- composed of a constant
"""CTEs that come after one named `leaving`.

Its columns: `id`, `notification_id`, `user_id`, `channel`, `device_id`, `reason` (why it waited),
`due` (when it would have gone), `summarises` and `ended_at`.
"""
