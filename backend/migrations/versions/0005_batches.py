"""Bulk: critical batches first, a batch may fail as a whole, segments by language."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE notification_batches
            ADD COLUMN urgency SMALLINT DEFAULT 2 NOT NULL,
            ADD COLUMN error TEXT
    """)
    # The hyphen lets one prefix match a language alone and with its regions.
    op.execute("""
        CREATE INDEX idx_notification_recipients_locale
            ON notification_recipients ((lower(locale) || '-') text_pattern_ops)
    """)


def downgrade() -> None:
    op.execute("DROP INDEX idx_notification_recipients_locale")
    op.execute("ALTER TABLE notification_batches DROP COLUMN error, DROP COLUMN urgency")
