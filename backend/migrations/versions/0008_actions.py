"""Actions of notifications: their one run each, and the callbacks of named ones (REQ-013)."""

from alembic import op

revision = "0008"
down_revision = "0007"

UPGRADE = """
    CREATE TABLE action_callbacks (
        name VARCHAR(64) PRIMARY KEY,
        url TEXT NOT NULL,
        secret BYTEA NOT NULL,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        updated_at TIMESTAMPTZ DEFAULT now() NOT NULL
    );
    CREATE TABLE notification_actions (
        notification_id UUID NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
        action VARCHAR(64) NOT NULL,
        user_id UUID NOT NULL,
        label TEXT,
        status VARCHAR(20) NOT NULL
            CONSTRAINT actions_status_check CHECK (status IN ('pending', 'completed', 'failed')),
        result JSONB,
        reason VARCHAR(50),
        error_message TEXT,
        attempts INTEGER DEFAULT 0 NOT NULL,
        next_attempt_at TIMESTAMPTZ,
        lease_token UUID,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        finished_at TIMESTAMPTZ,
        PRIMARY KEY (notification_id, action),
        CONSTRAINT actions_due_check CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL))
    );
    CREATE INDEX idx_notification_actions_due ON notification_actions (next_attempt_at)
        WHERE status = 'pending';
"""

SECURE = """
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
    REVOKE ALL ON {table} FROM PUBLIC, anon, authenticated, notify_user;
    GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO service_role;
    CREATE POLICY {table}_service ON {table} TO service_role USING (true) WITH CHECK (true);
"""

# A click is stored in the transaction of its user, who can't change it afterwards.
OPEN_TO_USERS = """
    GRANT SELECT ON notification_actions TO authenticated, notify_user;
    CREATE POLICY notification_actions_own ON notification_actions
        FOR SELECT TO authenticated, notify_user USING (user_id = (SELECT auth.uid()));
    GRANT INSERT (
        notification_id, user_id, action, label, status, result, attempts, next_attempt_at,
        lease_token, created_at, finished_at
    ) ON notification_actions TO notify_user;
    CREATE POLICY notification_actions_click ON notification_actions
        FOR INSERT TO notify_user WITH CHECK (
            user_id = (SELECT auth.uid())
            AND EXISTS (
                SELECT FROM notifications n
                WHERE n.id = notification_id AND n.user_id = (SELECT auth.uid())
            )
        );
"""


def upgrade() -> None:
    secured = "".join(
        SECURE.format(table=table) for table in ("action_callbacks", "notification_actions")
    )
    for statement in (UPGRADE + secured + OPEN_TO_USERS).split(";")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE notification_actions")
    op.execute("DROP TABLE action_callbacks")
