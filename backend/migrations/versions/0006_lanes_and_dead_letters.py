"""Claims by channel, dead letters in pages, and notifications that were cancelled."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("ALTER TABLE notifications ADD COLUMN cancelled_at TIMESTAMPTZ")
    op.execute("DROP INDEX idx_notification_deliveries_due")
    op.execute("""
        CREATE INDEX idx_notification_deliveries_due
            ON notification_deliveries (channel, urgency, next_attempt_at)
            WHERE status = 'pending' AND digest_slot IS NULL
    """)
    op.execute("DROP INDEX idx_notification_deliveries_dead")
    op.execute("""
        CREATE INDEX idx_notification_deliveries_dead
            ON notification_deliveries (failed_at DESC, id DESC) WHERE status = 'failed'
    """)


def downgrade() -> None:
    op.execute("DROP INDEX idx_notification_deliveries_dead")
    op.execute("""
        CREATE INDEX idx_notification_deliveries_dead
            ON notification_deliveries (failed_at DESC) WHERE status = 'failed'
    """)
    op.execute("DROP INDEX idx_notification_deliveries_due")
    op.execute("""
        CREATE INDEX idx_notification_deliveries_due
            ON notification_deliveries (urgency, next_attempt_at)
            WHERE status = 'pending' AND digest_slot IS NULL
    """)
    op.execute("ALTER TABLE notifications DROP COLUMN cancelled_at")
