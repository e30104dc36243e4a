"""Idempotency keys: a repeated create call answers what the first one did (section 5.1)."""

from alembic import op

revision = "0004"
down_revision = "0002"

UPGRADE = """
    CREATE TABLE idempotency_keys (
        service TEXT COLLATE "C" NOT NULL,
        key TEXT COLLATE "C" NOT NULL,
        fingerprint BYTEA NOT NULL,
        owner_id UUID NOT NULL,
        answer JSONB,
        created_at TIMESTAMPTZ DEFAULT now() NOT NULL,
        PRIMARY KEY (service, key)
    );
    CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);
    ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
    ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
    REVOKE ALL ON idempotency_keys FROM PUBLIC, anon, authenticated, notify_user;
    GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO service_role;
    CREATE POLICY idempotency_keys_service ON idempotency_keys TO service_role
        USING (true) WITH CHECK (true);
"""


def upgrade() -> None:
    for statement in UPGRADE.split(";")[:-1]:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE idempotency_keys")
