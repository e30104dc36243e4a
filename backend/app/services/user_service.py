"""Users as their platform reports them."""

from uuid import UUID

from sqlalchemy import text

from app.db.database import Database, Driver, driver_of, dumps
from app.errors import UnknownUser
from app.pipeline.choices import GLOBAL, count_and_release
from app.pipeline.decide import Defaults
from app.pipeline.deliver import Clock, utc_now
from app.pipeline.parked import move_parked
from app.realtime.inboxes import lock_inboxes, open_inboxes
from app.schemas.user import StoredUser, UpsertUser

# On a platform with a `users` table of its own, users are made there, not here.
FIND_USER = """
    SELECT EXISTS (SELECT FROM users WHERE id = $1) AS is_known,
           coalesce(obj_description('users'::regclass) = 'created by notify', false) AS is_ours
"""
ADD_USER = "INSERT INTO users (id) VALUES ($1) ON CONFLICT DO NOTHING"

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
        -- Links in emails to another address are void.
        email_epoch = r.email_epoch + CAST(
            'email' = ANY(CAST(:sent AS text[]))
            AND lower(excluded.email) IS DISTINCT FROM lower(r.email) AS int
        ),
        updated_at = now()
    RETURNING user_id AS id, email, full_name, timezone, locale, attributes
""")
READ_TIMEZONE = "SELECT timezone FROM notification_recipients WHERE user_id = $1"
ADD_DEFAULTS = """
    INSERT INTO notification_preferences (user_id, notification_type) VALUES ($1, $2)
    ON CONFLICT DO NOTHING
"""


class UserService:
    """Keeps what is known of users as recipients.

    Args:
        defaults: what holds for users who chose nothing.
        clock: the present instant.
    """

    def __init__(self, database: Database, defaults: Defaults, clock: Clock = utc_now) -> None:
        self._database = database
        self._defaults = defaults
        self._clock = clock

    async def upsert(self, user_id: UUID, wanted: UpsertUser) -> StoredUser:
        """Create or update a user; fields that were not sent stay as they are.

        Who is new gets an inbox and, for preferences, a row that chooses nothing.

        Raises:
            UnknownUser: users are the platform's own, and it has none with this id.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            driver = await driver_of(connection)
            await make_known(driver, user_id)
            await open_inboxes(driver, [user_id])
            if "timezone" in wanted.model_fields_set:  # their quiet hours may end at another time
                await lock_inboxes(driver, [user_id])
                former = await driver.fetch(READ_TIMEZONE, user_id)
                if not former or former[0]["timezone"] != wanted.timezone:
                    await count_and_release(driver, user_id, self._clock())
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
            await driver.execute(ADD_DEFAULTS, user_id, GLOBAL)
            if "timezone" in wanted.model_fields_set:  # and their digests are due at another
                await move_parked(driver, [user_id], self._defaults, self._clock())
        return StoredUser.model_validate(dict(row))


async def make_known(driver: Driver, user_id: UUID) -> None:
    """See that there is such a user.

    Args:
        driver: a transaction as the service role.

    Raises:
        UnknownUser: users are the platform's own, and it has none with this id.
    """
    (user,) = await driver.fetch(FIND_USER, user_id)
    if not user["is_known"]:
        if not user["is_ours"]:
            raise UnknownUser
        await driver.execute(ADD_USER, user_id)
