"""Where secrets were masked in a notification's content (SEC-001)."""

from alembic import op

revision = "0003"
down_revision = "0006"


def upgrade() -> None:
    op.execute("ALTER TABLE notifications ADD COLUMN masked JSONB DEFAULT '[]'::jsonb NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE notifications DROP COLUMN masked")
