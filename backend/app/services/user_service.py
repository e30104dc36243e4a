"""Users as their platform reports them."""

from uuid import UUID

from sqlalchemy import text

from app.db.database import Database, dumps
from app.errors import UnknownUser
from app.schemas.user import StoredUser, UpsertUser

# On a platform with a `users` table of its own, users are made there, not here.
ADD_USER = text("INSERT INTO users (id) VALUES (CAST(:id AS uuid)) ON CONFLICT DO NOTHING")
USER_EXISTS = text("SELECT EXISTS (SELECT FROM users WHERE id = CAST(:id AS uuid))")
ARE_OURS = text("SELECT obj_description('users'::regclass) = 'created by notify'")

UPSERT_RECIPIENT = text("""
    INSERT INTO notification_recipients AS r (
        user_id, email, full_name, timezone, locale, attributes
    )
    VALUES (
        CAST(:id AS uuid), :email, :full_name, :timezone, :locale,
        CAST(CAST(:attributes AS text) AS jsonb)
    )
    ON CONFLICT (user_id) DO UPDATE SET
        email = CASE WHEN 'email' = ANY(CAST(:sent AS text[]))
                     THEN excluded.email ELSE r.email END,
        full_name = CASE WHEN 'full_name' = ANY(CAST(:sent AS text[]))
                         THEN excluded.full_name ELSE r.full_name END,
        timezone = CASE WHEN 'timezone' = ANY(CAST(:sent AS text[]))
                        THEN excluded.timezone ELSE r.timezone END,
        locale = CASE WHEN 'locale' = ANY(CAST(:sent AS text[]))
                      THEN excluded.locale ELSE r.locale END,
        attributes = CASE WHEN 'attributes' = ANY(CAST(:sent AS text[]))
                          THEN excluded.attributes ELSE r.attributes END,
        updated_at = now()
    RETURNING user_id AS id, email, full_name, timezone, locale, attributes
""")
OPEN_INBOX = text(
    "INSERT INTO inbox_state (user_id) VALUES (CAST(:id AS uuid)) ON CONFLICT DO NOTHING"
)


class UserService:
    """Keeps what is known of users as recipients."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upsert(self, user_id: UUID, wanted: UpsertUser) -> StoredUser:
        """Create or update a user; fields that were not sent stay as they are.

        Raises:
            UnknownUser: users are the platform's own, and it has none with this id.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            if (await connection.execute(ARE_OURS)).scalar():
                await connection.execute(ADD_USER, {"id": user_id})
            elif not (await connection.execute(USER_EXISTS, {"id": user_id})).scalar():
                raise UnknownUser
            row = (
                (
                    await connection.execute(
                        UPSERT_RECIPIENT,
                        {
                            "id": user_id,
                            "email": wanted.email,
                            "full_name": wanted.full_name,
                            "timezone": wanted.timezone,
                            "locale": wanted.locale,
                            "attributes": dumps(wanted.attributes or {}),
                            "sent": sorted(wanted.model_fields_set),
                        },
                    )
                )
                .mappings()
                .one()
            )
            await connection.execute(OPEN_INBOX, {"id": user_id})
        return StoredUser.model_validate(dict(row))
