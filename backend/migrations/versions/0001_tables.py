"""The tables: users as recipients, notifications and their queue, settings, templates, digests."""

from alembic import op

revision = "0001"
down_revision = None

# A platform that has users keeps its table; the comment tells ours apart when downgrading.
USERS = """
DO $$ BEGIN
    IF to_regclass('users') IS NULL THEN
        CREATE TABLE users (id UUID PRIMARY KEY DEFAULT gen_random_uuid());
        COMMENT ON TABLE users IS 'created by notify';
    END IF;
END $$
"""
DROP_USERS = """
DO $$ BEGIN
    IF obj_description(to_regclass('users')) = 'created by notify' THEN
        DROP TABLE users;
    END IF;
END $$
"""

TABLES = {
    "notification_recipients": """
        CREATE TABLE notification_recipients (
            user_id UUID NOT NULL,
            email TEXT,
            full_name TEXT,
            timezone TEXT,
            locale TEXT,
            attributes JSONB DEFAULT '{}'::jsonb NOT NULL,
            quiet_hours JSONB,
            pause_until TIMESTAMPTZ,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            updated_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (user_id),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_notification_recipients_attributes
            ON notification_recipients USING gin (attributes jsonb_path_ops)
    """,
    "inbox_state": """
        CREATE TABLE inbox_state (
            user_id UUID NOT NULL,
            seq BIGINT DEFAULT 0 NOT NULL,
            unread JSONB DEFAULT '{}'::jsonb NOT NULL,
            floor_seq BIGINT DEFAULT 0 NOT NULL,
            PRIMARY KEY (user_id),
            CONSTRAINT inbox_state_seq_check CHECK (seq >= floor_seq),
            CONSTRAINT inbox_state_unread_check
                CHECK (not jsonb_path_exists(unread, '$.* ? (@ < 1)')),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """,
    "notification_batches": """
        CREATE TABLE notification_batches (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            service TEXT NOT NULL,
            content JSONB NOT NULL,
            recipient_count INTEGER NOT NULL,
            expanded_at TIMESTAMPTZ,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id)
        );
        CREATE INDEX idx_notification_batches_open
            ON notification_batches (created_at) WHERE expanded_at IS NULL
    """,
    "notification_batch_recipients": """
        CREATE TABLE notification_batch_recipients (
            batch_id UUID NOT NULL,
            user_id UUID NOT NULL,
            state VARCHAR(20) DEFAULT 'pending' NOT NULL,
            PRIMARY KEY (batch_id, user_id),
            CONSTRAINT batch_state_check CHECK (state in ('pending', 'created', 'unknown')),
            FOREIGN KEY(batch_id) REFERENCES notification_batches (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_notification_batch_recipients_pending
            ON notification_batch_recipients (batch_id, user_id) WHERE state = 'pending'
    """,
    "notifications": """
        CREATE TABLE notifications (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            user_id UUID NOT NULL,
            type VARCHAR(50) NOT NULL,
            priority VARCHAR(20) DEFAULT 'normal' NOT NULL,
            title VARCHAR(255) NOT NULL,
            body TEXT NOT NULL,
            body_html TEXT NOT NULL,
            data JSONB DEFAULT '{}'::jsonb NOT NULL,
            template_id VARCHAR(100),
            service TEXT NOT NULL,
            batch_id UUID,
            position BIGINT,
            seq BIGINT,
            send_at TIMESTAMPTZ,
            read_at TIMESTAMPTZ,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            expires_at TIMESTAMPTZ,
            deleted_at TIMESTAMPTZ,
            PRIMARY KEY (id),
            CONSTRAINT notifications_type_check
                CHECK (type in ('system', 'user', 'task', 'security', 'billing', 'workflow', 'agent')),
            CONSTRAINT notifications_priority_check
                CHECK (priority in ('critical', 'high', 'normal', 'low')),
            CONSTRAINT notifications_position_check CHECK ((position is null) = (seq is null)),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE,
            FOREIGN KEY(batch_id) REFERENCES notification_batches (id) ON DELETE SET NULL
        );
        CREATE UNIQUE INDEX idx_notifications_batch_id
            ON notifications (batch_id, user_id) WHERE batch_id IS NOT NULL;
        CREATE INDEX idx_notifications_created_at ON notifications (created_at DESC);
        CREATE INDEX idx_notifications_priority ON notifications (user_id, priority, position DESC);
        CREATE INDEX idx_notifications_seq ON notifications (user_id, seq);
        CREATE INDEX idx_notifications_type ON notifications (user_id, type, position DESC);
        CREATE INDEX idx_notifications_unread
            ON notifications (user_id, position) WHERE read_at IS NULL AND deleted_at IS NULL;
        CREATE INDEX idx_notifications_user_id ON notifications (user_id, position DESC)
    """,
    "push_subscriptions": """
        CREATE TABLE push_subscriptions (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            user_id UUID NOT NULL,
            kind VARCHAR(20) NOT NULL,
            endpoint TEXT,
            p256dh_key VARCHAR(255),
            auth_key VARCHAR(255),
            fcm_token BYTEA,
            fcm_token_hash BYTEA,
            vapid_key_id TEXT,
            device_info JSONB DEFAULT '{}'::jsonb NOT NULL,
            is_active BOOLEAN DEFAULT true NOT NULL,
            failure_count INTEGER DEFAULT 0 NOT NULL,
            last_used_at TIMESTAMPTZ,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT push_subscriptions_kind_check
                CHECK ((kind = 'web' AND endpoint IS NOT NULL AND p256dh_key IS NOT NULL
                AND auth_key IS NOT NULL AND fcm_token IS NULL AND fcm_token_hash IS NULL)
                OR (kind = 'fcm' AND endpoint IS NULL AND p256dh_key IS NULL
                AND auth_key IS NULL AND fcm_token IS NOT NULL AND fcm_token_hash IS NOT NULL)),
            CONSTRAINT push_subscriptions_endpoint_key UNIQUE (endpoint),
            CONSTRAINT push_subscriptions_fcm_token_hash_key UNIQUE (fcm_token_hash),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_push_subscriptions_is_active
            ON push_subscriptions (user_id) WHERE is_active;
        CREATE INDEX idx_push_subscriptions_user_id ON push_subscriptions (user_id)
    """,
    "notification_deliveries": """
        CREATE TABLE notification_deliveries (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            notification_id UUID NOT NULL,
            user_id UUID NOT NULL,
            channel VARCHAR(20) NOT NULL,
            status VARCHAR(20) DEFAULT 'pending' NOT NULL,
            device_id UUID,
            reason VARCHAR(50),
            error_message TEXT,
            urgency SMALLINT DEFAULT 2 NOT NULL,
            attempts INTEGER DEFAULT 0 NOT NULL,
            expired_leases INTEGER DEFAULT 0 NOT NULL,
            next_attempt_at TIMESTAMPTZ,
            lease_token UUID,
            digest_slot TIMESTAMPTZ,
            provider_id TEXT,
            sent_at TIMESTAMPTZ,
            delivered_at TIMESTAMPTZ,
            failed_at TIMESTAMPTZ,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT deliveries_channel_check CHECK (channel in ('push', 'in_app', 'email')),
            CONSTRAINT deliveries_status_check
                CHECK (status in ('pending', 'sent',
                'delivered', 'failed', 'bounced', 'skipped', 'cancelled')),
            FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE CASCADE,
            FOREIGN KEY(device_id) REFERENCES push_subscriptions (id) ON DELETE SET NULL
        );
        CREATE INDEX idx_notification_deliveries_dead
            ON notification_deliveries (failed_at DESC) WHERE status = 'failed';
        CREATE INDEX idx_notification_deliveries_digest
            ON notification_deliveries (digest_slot, user_id)
            WHERE status = 'pending' AND digest_slot IS NOT NULL;
        CREATE INDEX idx_notification_deliveries_due
            ON notification_deliveries (urgency, next_attempt_at)
            WHERE status = 'pending' AND digest_slot IS NULL;
        CREATE INDEX idx_notification_deliveries_notification_id
            ON notification_deliveries (notification_id);
        CREATE INDEX idx_notification_deliveries_unseen
            ON notification_deliveries (user_id)
            WHERE channel = 'in_app' AND status = 'sent'
    """,
    "notification_decisions": """
        CREATE TABLE notification_decisions (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            notification_id UUID NOT NULL,
            user_id UUID NOT NULL,
            stage VARCHAR(20) NOT NULL,
            inputs JSONB NOT NULL,
            outcomes JSONB NOT NULL,
            decided_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT decisions_stage_check CHECK (stage in ('create', 'claim')),
            FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_notification_decisions_notification_id
            ON notification_decisions (notification_id)
    """,
    "notification_events": """
        CREATE TABLE notification_events (
            id BIGINT GENERATED ALWAYS AS IDENTITY,
            notification_id UUID NOT NULL,
            user_id UUID NOT NULL,
            channel VARCHAR(20) NOT NULL,
            event VARCHAR(50) NOT NULL,
            reason VARCHAR(50),
            device_id UUID,
            detail JSONB DEFAULT '{}'::jsonb NOT NULL,
            at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_notification_events_notification_id
            ON notification_events (notification_id)
    """,
    "notification_preferences": """
        CREATE TABLE notification_preferences (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            user_id UUID NOT NULL,
            notification_type VARCHAR(50) NOT NULL,
            push_enabled BOOLEAN,
            email_enabled BOOLEAN,
            in_app_enabled BOOLEAN DEFAULT true NOT NULL,
            digest_frequency VARCHAR(20),
            digest_time TIME,
            digest_day INTEGER,
            quiet_hours_start TIME,
            quiet_hours_end TIME,
            quiet_hours_days JSONB,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            updated_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT notification_preferences_user_id_type_key UNIQUE (user_id, notification_type),
            CONSTRAINT preferences_in_app_check CHECK (in_app_enabled),
            CONSTRAINT preferences_digest_frequency_check
                CHECK (digest_frequency in ('instant', 'daily', 'weekly', 'never')),
            CONSTRAINT preferences_digest_day_check CHECK (digest_day between 1 and 7),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_notification_preferences_user_id ON notification_preferences (user_id)
    """,
    "notification_templates": """
        CREATE TABLE notification_templates (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            name VARCHAR(100) NOT NULL,
            type VARCHAR(50) NOT NULL,
            title_template TEXT NOT NULL,
            body_template TEXT NOT NULL,
            email_subject_template TEXT,
            email_html_template TEXT,
            email_text_template TEXT,
            push_title_template TEXT,
            push_body_template TEXT,
            default_priority VARCHAR(20) DEFAULT 'normal',
            default_channels JSONB,
            variables JSONB DEFAULT '{}'::jsonb NOT NULL,
            language VARCHAR(10) DEFAULT 'en' NOT NULL,
            is_active BOOLEAN DEFAULT true NOT NULL,
            version INTEGER DEFAULT 1 NOT NULL,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            updated_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT notification_templates_name_language_version_key UNIQUE (name, language, version)
        );
        CREATE UNIQUE INDEX idx_notification_templates_active
            ON notification_templates (name, language) WHERE is_active;
        CREATE INDEX idx_notification_templates_language ON notification_templates (language);
        CREATE INDEX idx_notification_templates_type ON notification_templates (type)
    """,
    "email_digests": """
        CREATE TABLE email_digests (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            user_id UUID NOT NULL,
            frequency VARCHAR(20) NOT NULL,
            scheduled_for TIMESTAMPTZ NOT NULL,
            sent_at TIMESTAMPTZ,
            notification_ids UUID[] DEFAULT '{}'::uuid[] NOT NULL,
            status VARCHAR(20) DEFAULT 'pending' NOT NULL,
            error_message TEXT,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            CONSTRAINT email_digests_user_id_scheduled_for_key UNIQUE (user_id, scheduled_for),
            CONSTRAINT digests_status_check
                CHECK (status in ('pending', 'sent', 'failed', 'skipped')),
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
        );
        CREATE INDEX idx_email_digests_scheduled_for ON email_digests (scheduled_for);
        CREATE INDEX idx_email_digests_status ON email_digests (status);
        CREATE INDEX idx_email_digests_user_id ON email_digests (user_id)
    """,
    "notification_analytics": """
        CREATE TABLE notification_analytics (
            id UUID DEFAULT gen_random_uuid() NOT NULL,
            notification_id UUID,
            notification_type VARCHAR(50) NOT NULL,
            channel VARCHAR(20) NOT NULL,
            event VARCHAR(50) NOT NULL,
            user_id UUID,
            device_id UUID,
            metadata JSONB DEFAULT '{}'::jsonb NOT NULL,
            created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
            PRIMARY KEY (id),
            FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE SET NULL,
            FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE SET NULL
        );
        CREATE INDEX idx_notification_analytics_created_at ON notification_analytics (created_at);
        CREATE INDEX idx_notification_analytics_event ON notification_analytics (event);
        CREATE INDEX idx_notification_analytics_notification_id
            ON notification_analytics (notification_id);
        CREATE INDEX idx_notification_analytics_type ON notification_analytics (notification_type);
        CREATE INDEX idx_notification_analytics_user_id ON notification_analytics (user_id)
    """,
}


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute(USERS)
    for statements in TABLES.values():
        for statement in statements.split(";"):
            op.execute(statement)


def downgrade() -> None:
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute(DROP_USERS)
