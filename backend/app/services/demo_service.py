"""Demo users of a development installation."""

from dataclasses import dataclass
from uuid import UUID

from app.db.database import Database
from app.schemas.user import UpsertUser
from app.services.user_service import UserService

DEMO_SERVICE = "demo"


@dataclass(frozen=True, slots=True)
class DemoUser:
    """Somebody to sign in as."""

    id: UUID
    full_name: str
    email: str
    timezone: str
    locale: str


DEMO_USERS = (
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000001"),
        "Ada Lovelace",
        "ada@example.com",
        "Europe/London",
        "en",
    ),
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000002"),
        "Emmy Noether",
        "emmy@example.com",
        "Europe/Berlin",
        "de",
    ),
    DemoUser(
        UUID("0197a000-0000-7000-8000-000000000003"),
        "Muhammad al-Khwarizmi",
        "muhammad@example.com",
        "Asia/Baghdad",
        "ar",
    ),
)


async def seed_demo_users(database: Database) -> None:
    """Make sure the demo users are there."""
    users = UserService(database)
    for user in DEMO_USERS:
        await users.upsert(
            user.id,
            UpsertUser(
                email=user.email,
                full_name=user.full_name,
                timezone=user.timezone,
                locale=user.locale,
            ),
        )
