"""Push: the VAPID keyring, pushes to be closed on phones, and deliveries found by their device."""

from alembic import op

revision = "0009"
down_revision = "0008"

UPGRADE = """
    CREATE TABLE vapid_keys (
        id TEXT PRIMARY KEY,
        public_key BYTEA NOT NULL,
        private_key BYTEA NOT NULL,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        retired_at TIMESTAMPTZ
    );
    CREATE TABLE push_closings (
        device_id UUID NOT NULL REFERENCES push_subscriptions (id) ON DELETE CASCADE,
        notification_id UUID NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
        user_id UUID NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        next_attempt_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        lease_token UUID,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        PRIMARY KEY (device_id, notification_id)
    );
    CREATE INDEX idx_push_closings_due ON push_closings (next_attempt_at);
    CREATE INDEX idx_push_closings_notification_id ON push_closings (notification_id);
    CREATE INDEX idx_push_subscriptions_vapid_key_id ON push_subscriptions (vapid_key_id)
        WHERE vapid_key_id IS NOT NULL;
    CREATE INDEX idx_notification_deliveries_device_id ON notification_deliveries (device_id)
        WHERE device_id IS NOT NULL;
"""

SECURE = """
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
    REVOKE ALL ON {table} FROM PUBLIC, anon, authenticated, notify_user;
    GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO service_role;
    CREATE POLICY {table}_service ON {table} TO service_role USING (true) WITH CHECK (true);
"""

# Who reads a notification has it closed on their own phones, in the same transaction.
OPEN_TO_USERS = """
    GRANT SELECT ON push_closings TO authenticated, notify_user;
    CREATE POLICY push_closings_own ON push_closings
        FOR SELECT TO authenticated, notify_user USING (user_id = (SELECT auth.uid()));
    GRANT INSERT (device_id, notification_id, user_id, next_attempt_at, created_at)
        ON push_closings TO notify_user;
    CREATE POLICY push_closings_add ON push_closings FOR INSERT TO notify_user
        WITH CHECK (
            user_id = (SELECT auth.uid())
            AND EXISTS (
                SELECT FROM notifications n
                WHERE n.id = notification_id AND n.user_id = (SELECT auth.uid())
            )
            AND EXISTS (
                SELECT FROM push_subscriptions p
                WHERE p.id = device_id AND p.user_id = (SELECT auth.uid())
            )
        );
"""


def upgrade() -> None:
    secured = "".join(SECURE.format(table=table) for table in ("vapid_keys", "push_closings"))
    for statement in (UPGRADE + secured + OPEN_TO_USERS).split(";")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX idx_notification_deliveries_device_id")
    op.execute("DROP INDEX idx_push_subscriptions_vapid_key_id")
    op.execute("DROP TABLE push_closings")
    op.execute("DROP TABLE vapid_keys")
