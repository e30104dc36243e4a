"""Read state and expiry are changes of the inbox: who may make them, and what finds them fast."""

from alembic import op

revision = "0007"
down_revision = "0003"

PRESENT = "deleted_at IS NULL AND expired_at IS NULL"
EXPIRING = f"position IS NOT NULL AND expires_at IS NOT NULL AND {PRESENT}"

UPGRADE = f"""
    ALTER TABLE notifications ADD COLUMN expired_at TIMESTAMPTZ;

    DROP INDEX idx_notifications_user_id;
    DROP INDEX idx_notifications_type;
    DROP INDEX idx_notifications_priority;
    DROP INDEX idx_notifications_unread;
    CREATE INDEX idx_notifications_user_id ON notifications (user_id, position DESC)
        WHERE {PRESENT};
    CREATE INDEX idx_notifications_type ON notifications (user_id, type, position DESC)
        WHERE {PRESENT};
    CREATE INDEX idx_notifications_priority ON notifications (user_id, priority, position DESC)
        WHERE {PRESENT};
    CREATE INDEX idx_notifications_unread ON notifications (user_id, position)
        WHERE read_at IS NULL AND {PRESENT};
    CREATE INDEX idx_notifications_read ON notifications (user_id, position)
        WHERE read_at IS NOT NULL AND {PRESENT};
    CREATE INDEX idx_notifications_expiring ON notifications (expires_at) WHERE {EXPIRING};
    CREATE INDEX idx_notifications_expiring_of_user ON notifications (user_id, expires_at)
        WHERE {EXPIRING};

    GRANT UPDATE (read_at, deleted_at, expired_at, seq) ON notifications TO notify_user;
    CREATE POLICY notifications_change ON notifications FOR UPDATE TO notify_user
        USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));

    GRANT UPDATE (seq, unread) ON inbox_state TO notify_user;
    CREATE POLICY inbox_state_change ON inbox_state FOR UPDATE TO notify_user
        USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));

    GRANT UPDATE (status, reason, next_attempt_at) ON notification_deliveries TO notify_user;
    CREATE POLICY notification_deliveries_change ON notification_deliveries
        FOR UPDATE TO notify_user
        USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));

    GRANT INSERT (notification_id, user_id, channel, event, reason, device_id, detail, at)
        ON notification_events TO notify_user;
    CREATE POLICY notification_events_add ON notification_events FOR INSERT TO notify_user
        WITH CHECK (
            user_id = (SELECT auth.uid())
            AND EXISTS (
                SELECT FROM notifications n
                WHERE n.id = notification_id AND n.user_id = (SELECT auth.uid())
            )
        );
"""

DOWNGRADE = """
    DROP POLICY notification_events_add ON notification_events;
    REVOKE INSERT (notification_id, user_id, channel, event, reason, device_id, detail, at)
        ON notification_events FROM notify_user;
    DROP POLICY notification_deliveries_change ON notification_deliveries;
    REVOKE UPDATE (status, reason, next_attempt_at) ON notification_deliveries FROM notify_user;
    DROP POLICY inbox_state_change ON inbox_state;
    REVOKE UPDATE (seq, unread) ON inbox_state FROM notify_user;
    DROP POLICY notifications_change ON notifications;
    REVOKE UPDATE (read_at, deleted_at, expired_at, seq) ON notifications FROM notify_user;

    DROP INDEX idx_notifications_expiring_of_user;
    DROP INDEX idx_notifications_expiring;
    DROP INDEX idx_notifications_read;
    DROP INDEX idx_notifications_unread;
    DROP INDEX idx_notifications_priority;
    DROP INDEX idx_notifications_type;
    DROP INDEX idx_notifications_user_id;
    CREATE INDEX idx_notifications_user_id ON notifications (user_id, position DESC);
    CREATE INDEX idx_notifications_type ON notifications (user_id, type, position DESC);
    CREATE INDEX idx_notifications_priority ON notifications (user_id, priority, position DESC);
    CREATE INDEX idx_notifications_unread ON notifications (user_id, position)
        WHERE read_at IS NULL AND deleted_at IS NULL;

    ALTER TABLE notifications DROP COLUMN expired_at;
"""


def upgrade() -> None:
    _run(UPGRADE)


def downgrade() -> None:
    _run(DOWNGRADE)


def _run(script: str) -> None:
    for statement in script.split(";")[:-1]:
        op.execute(statement)
