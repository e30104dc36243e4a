"""Templates with versions, what they said, and what is known of emails: requests, links, bounces."""

from alembic import op

revision = "0011"
down_revision = "0010"

UPGRADE = """
    -- Counts changes: what a process remembers of the templates holds as long as it is the same.
    CREATE TABLE cache_versions (
        name TEXT PRIMARY KEY,
        version BIGINT DEFAULT 0 NOT NULL
    );
    INSERT INTO cache_versions (name) VALUES ('templates');
    ALTER TABLE notification_templates ADD COLUMN is_shipped BOOLEAN DEFAULT false NOT NULL;
    ALTER TABLE notifications
        ADD COLUMN template_version INTEGER,
        ADD COLUMN language VARCHAR(35),
        ADD COLUMN texts JSONB;
    ALTER TABLE notification_recipients ADD COLUMN email_epoch INTEGER DEFAULT 0 NOT NULL;

    CREATE TABLE email_requests (
        id UUID PRIMARY KEY,
        provider VARCHAR(20) NOT NULL,
        payload BYTEA NOT NULL,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL
    );
    CREATE INDEX idx_email_requests_created_at ON email_requests (created_at);
    CREATE TABLE email_request_letters (
        letter_id UUID PRIMARY KEY,
        request_id UUID NOT NULL REFERENCES email_requests (id) ON DELETE CASCADE,
        place SMALLINT NOT NULL
    );
    CREATE INDEX idx_email_request_letters_request_id ON email_request_letters (request_id);

    CREATE TABLE email_links (
        letter_id UUID PRIMARY KEY,
        user_id UUID NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        targets TEXT[] NOT NULL,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL
    );
    CREATE INDEX idx_email_links_created_at ON email_links (created_at);
    CREATE INDEX idx_email_links_user_id ON email_links (user_id);

    CREATE TABLE email_suppressions (
        address_digest BYTEA PRIMARY KEY,
        reason VARCHAR(20) NOT NULL
            CONSTRAINT suppressions_reason_check
            CHECK (reason IN ('bounced', 'complained', 'soft_bounced')),
        soft_bounced_at TIMESTAMPTZ[] DEFAULT '{}' NOT NULL,
        delivered_at TIMESTAMPTZ,
        suppressed_at TIMESTAMPTZ,
        updated_at TIMESTAMPTZ DEFAULT now() NOT NULL
    );

    CREATE TABLE webhook_receipts (
        id TEXT PRIMARY KEY,
        received_at TIMESTAMPTZ DEFAULT now() NOT NULL
    );
    CREATE INDEX idx_webhook_receipts_received_at ON webhook_receipts (received_at);

    ALTER TABLE email_digests
        ADD COLUMN attempts INTEGER DEFAULT 0 NOT NULL,
        ADD COLUMN expired_leases INTEGER DEFAULT 0 NOT NULL,
        ADD COLUMN next_attempt_at TIMESTAMPTZ,
        ADD COLUMN lease_token UUID,
        ADD COLUMN reason VARCHAR(50),
        ADD COLUMN provider_id TEXT,
        ADD COLUMN delivered_at TIMESTAMPTZ,
        ADD COLUMN failed_at TIMESTAMPTZ;
    ALTER TABLE email_digests
        DROP CONSTRAINT digests_status_check,
        ADD CONSTRAINT digests_status_check CHECK (
            status IN ('pending', 'sent', 'delivered', 'bounced', 'failed', 'skipped')
        );
    CREATE INDEX idx_email_digests_due ON email_digests (next_attempt_at)
        WHERE status = 'pending';
    CREATE INDEX idx_email_digests_pending ON email_digests (user_id)
        WHERE status = 'pending';
    CREATE INDEX idx_email_digests_provider_id ON email_digests (provider_id)
        WHERE provider_id IS NOT NULL;
    CREATE INDEX idx_notification_deliveries_provider_id ON notification_deliveries (provider_id)
        WHERE channel = 'email' AND provider_id IS NOT NULL;
    CREATE INDEX idx_notification_deliveries_parked ON notification_deliveries (user_id)
        WHERE status = 'pending' AND digest_slot IS NOT NULL;
    GRANT UPDATE (digest_slot) ON notification_deliveries TO notify_user;
"""

SERVICE_ONLY = (
    "cache_versions",
    "email_requests",
    "email_request_letters",
    "email_links",
    "email_suppressions",
    "webhook_receipts",
)

SECURE = """
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
    REVOKE ALL ON {table} FROM PUBLIC, anon, authenticated, notify_user;
    GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO service_role;
    CREATE POLICY {table}_service ON {table} TO service_role USING (true) WITH CHECK (true);
"""

# Users may know why no email comes: they see the suppression of their own address.
OPEN_TO_USERS = """
    GRANT SELECT ON email_suppressions TO authenticated, notify_user;
    CREATE POLICY email_suppressions_own ON email_suppressions
        FOR SELECT TO authenticated, notify_user USING (
            address_digest = (
                SELECT sha256(convert_to(lower(r.email), 'UTF8')) FROM notification_recipients r
                WHERE r.user_id = (SELECT auth.uid())
            )
        );
"""

DOWNGRADE = """
    REVOKE UPDATE (digest_slot) ON notification_deliveries FROM notify_user;
    DROP INDEX idx_notification_deliveries_parked;
    DROP INDEX idx_notification_deliveries_provider_id;
    DROP INDEX idx_email_digests_provider_id;
    DROP INDEX idx_email_digests_pending;
    DROP INDEX idx_email_digests_due;
    UPDATE email_digests SET status = 'sent' WHERE status = 'delivered';
    UPDATE email_digests SET status = 'failed' WHERE status = 'bounced';
    ALTER TABLE email_digests
        DROP CONSTRAINT digests_status_check,
        ADD CONSTRAINT digests_status_check
            CHECK (status IN ('pending', 'sent', 'failed', 'skipped'));
    ALTER TABLE email_digests
        DROP COLUMN failed_at, DROP COLUMN delivered_at, DROP COLUMN provider_id,
        DROP COLUMN reason, DROP COLUMN lease_token, DROP COLUMN next_attempt_at,
        DROP COLUMN expired_leases, DROP COLUMN attempts;
    DROP TABLE webhook_receipts;
    DROP TABLE email_suppressions;
    DROP TABLE email_links;
    DROP TABLE email_request_letters;
    DROP TABLE email_requests;
    ALTER TABLE notification_recipients DROP COLUMN email_epoch;
    ALTER TABLE notifications DROP COLUMN texts, DROP COLUMN language, DROP COLUMN template_version;
    ALTER TABLE notification_templates DROP COLUMN is_shipped;
    DROP TABLE cache_versions;
"""


def upgrade() -> None:
    secured = "".join(SECURE.format(table=table) for table in SERVICE_ONLY)
    for statement in (UPGRADE + secured + OPEN_TO_USERS).split(";")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE.split(";")[:-1]:
        op.execute(statement)
