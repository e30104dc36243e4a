"""Row-level security under Supabase's own names, forced on every table (SEC-004).

`authenticated` reads what is its own (it is PostgREST's role on Supabase), `notify_user` is the
same user inside the API and may also change the columns a user changes, `service_role` passes by
policy. None of them owns a table, and the login role inherits none of them.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

ROLES = ("anon", "authenticated", "service_role", "notify_user")

CREATE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN NOINHERIT;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$
"""

# Cluster-wide roles and Supabase's `auth` schema outlive a downgrade: others may use them.
AUTH_UID = """
DO $$ BEGIN
    IF to_regprocedure('auth.uid()') IS NULL THEN
        CREATE SCHEMA IF NOT EXISTS auth;
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $f$
            SELECT nullif(
                nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', ''
            )::uuid
        $f$;
        GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role, notify_user;
    END IF;
END $$
"""

OWNED_BY_USER = (
    "notification_recipients",
    "inbox_state",
    "notifications",
    "push_subscriptions",
    "notification_deliveries",
    "notification_decisions",
    "notification_events",
    "notification_preferences",
    "email_digests",
)
SERVICE_ONLY = (
    "notification_batches",
    "notification_batch_recipients",
    "notification_templates",
    "notification_analytics",
)

GRANT_USERS = """
DO $$ BEGIN
    GRANT SELECT ON users TO service_role;
    CREATE POLICY notify_service ON users FOR SELECT TO service_role USING (true);
    IF obj_description(to_regclass('users')) = 'created by notify' THEN
        GRANT INSERT, DELETE ON users TO service_role;
        GRANT SELECT ON users TO authenticated, notify_user;
        ALTER TABLE users ENABLE ROW LEVEL SECURITY;
        ALTER TABLE users FORCE ROW LEVEL SECURITY;
        CREATE POLICY users_own ON users FOR SELECT TO authenticated, notify_user
            USING (id = (SELECT auth.uid()));
        CREATE POLICY users_insert ON users FOR INSERT TO service_role WITH CHECK (true);
        CREATE POLICY users_delete ON users FOR DELETE TO service_role USING (true);
    END IF;
END $$
"""


def upgrade() -> None:
    for role in ROLES:
        op.execute(CREATE_ROLE.format(role=role))
    op.execute(AUTH_UID)
    op.execute("GRANT USAGE ON SCHEMA public TO authenticated, service_role, notify_user")
    for table in (*OWNED_BY_USER, *SERVICE_ONLY):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        # Supabase's default privileges open every new table of `public`.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, anon, authenticated, notify_user")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO service_role")
        op.execute(
            f"CREATE POLICY {table}_service ON {table} TO service_role"
            " USING (true) WITH CHECK (true)"
        )
    for table in OWNED_BY_USER:
        op.execute(f"GRANT SELECT ON {table} TO authenticated, notify_user")
        op.execute(
            f"CREATE POLICY {table}_own ON {table} FOR SELECT TO authenticated, notify_user"
            " USING (user_id = (SELECT auth.uid()))"
        )
    op.execute(GRANT_USERS)


def downgrade() -> None:
    op.execute("DROP POLICY IF EXISTS notify_service ON users")
    op.execute("DROP POLICY IF EXISTS users_insert ON users")
    op.execute("DROP POLICY IF EXISTS users_delete ON users")
    op.execute("DROP POLICY IF EXISTS users_own ON users")
    for table in (*OWNED_BY_USER, *SERVICE_ONLY):
        op.execute(f"DROP POLICY {table}_service ON {table}")
        op.execute(f"DROP POLICY IF EXISTS {table}_own ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"REVOKE ALL ON {table} FROM authenticated, service_role, notify_user")
    # A platform's own table keeps its grants: nobody can tell them from ours. Ours is dropped.
