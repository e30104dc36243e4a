"""What the policy looks at: choices and their version, what was asked for, and used limits."""

from alembic import op

revision = "0010"
down_revision = "0009"

UPGRADE = """
    -- Users who were there may have chosen already, and 0 says that nothing was.
    ALTER TABLE inbox_state ADD COLUMN choices_version BIGINT DEFAULT 1 NOT NULL;
    ALTER TABLE inbox_state ALTER COLUMN choices_version SET DEFAULT 0;
    ALTER TABLE notifications ADD COLUMN channels TEXT[], ADD COLUMN send_email BOOLEAN;
    ALTER TABLE notification_deliveries
        ADD COLUMN counted_at TIMESTAMPTZ,
        ADD COLUMN summarises INTEGER;
    CREATE INDEX idx_notification_deliveries_counted
        ON notification_deliveries (user_id, channel, counted_at) WHERE counted_at IS NOT NULL;
    CREATE INDEX idx_notification_deliveries_held
        ON notification_deliveries (user_id, channel)
        WHERE status = 'pending' AND reason IN ('quiet_hours', 'user_limit');
    ALTER TABLE notification_preferences
        ADD CONSTRAINT preferences_quiet_hours_check
        CHECK ((quiet_hours_start IS NULL) = (quiet_hours_end IS NULL)
               AND quiet_hours_start <> quiet_hours_end);

    CREATE TABLE rate_buckets (
        name TEXT PRIMARY KEY,
        tokens DOUBLE PRECISION NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL
    );
    ALTER TABLE rate_buckets ENABLE ROW LEVEL SECURITY;
    ALTER TABLE rate_buckets FORCE ROW LEVEL SECURITY;
    REVOKE ALL ON rate_buckets FROM PUBLIC, anon, authenticated, notify_user;
    GRANT SELECT, INSERT, UPDATE, DELETE ON rate_buckets TO service_role;
    CREATE POLICY rate_buckets_service ON rate_buckets TO service_role
        USING (true) WITH CHECK (true);

    GRANT UPDATE (choices_version) ON inbox_state TO notify_user;

    GRANT INSERT (
        user_id, notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
        digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    ), UPDATE (
        push_enabled, email_enabled, digest_frequency, digest_time, digest_day,
        quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    ) ON notification_preferences TO notify_user;
    CREATE POLICY notification_preferences_add ON notification_preferences
        FOR INSERT TO notify_user WITH CHECK (user_id = (SELECT auth.uid()));
    CREATE POLICY notification_preferences_change ON notification_preferences
        FOR UPDATE TO notify_user
        USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));

    GRANT INSERT (user_id, timezone, locale, quiet_hours, pause_until, updated_at),
        UPDATE (timezone, locale, quiet_hours, pause_until, updated_at)
        ON notification_recipients TO notify_user;
    CREATE POLICY notification_recipients_add ON notification_recipients
        FOR INSERT TO notify_user WITH CHECK (user_id = (SELECT auth.uid()));
    CREATE POLICY notification_recipients_change ON notification_recipients
        FOR UPDATE TO notify_user
        USING (user_id = (SELECT auth.uid())) WITH CHECK (user_id = (SELECT auth.uid()));
"""

DOWNGRADE = """
    DROP POLICY notification_recipients_change ON notification_recipients;
    DROP POLICY notification_recipients_add ON notification_recipients;
    REVOKE INSERT (user_id, timezone, locale, quiet_hours, pause_until, updated_at),
        UPDATE (timezone, locale, quiet_hours, pause_until, updated_at)
        ON notification_recipients FROM notify_user;
    DROP POLICY notification_preferences_change ON notification_preferences;
    DROP POLICY notification_preferences_add ON notification_preferences;
    REVOKE INSERT (
        user_id, notification_type, push_enabled, email_enabled, digest_frequency, digest_time,
        digest_day, quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    ), UPDATE (
        push_enabled, email_enabled, digest_frequency, digest_time, digest_day,
        quiet_hours_start, quiet_hours_end, quiet_hours_days, updated_at
    ) ON notification_preferences FROM notify_user;
    REVOKE UPDATE (choices_version) ON inbox_state FROM notify_user;
    DROP TABLE rate_buckets;
    ALTER TABLE notification_preferences DROP CONSTRAINT preferences_quiet_hours_check;
    DROP INDEX idx_notification_deliveries_held;
    DROP INDEX idx_notification_deliveries_counted;
    ALTER TABLE notification_deliveries DROP COLUMN summarises, DROP COLUMN counted_at;
    ALTER TABLE notifications DROP COLUMN send_email, DROP COLUMN channels;
    ALTER TABLE inbox_state DROP COLUMN choices_version;
"""


def upgrade() -> None:
    for statement in UPGRADE.split(";")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE.split(";")[:-1]:
        op.execute(statement)
