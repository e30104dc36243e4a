"""Registers where clicks on named actions are posted (REQ-013)."""

from sqlalchemy import RowMapping, text

from app.channels.callback import secret_context
from app.db.database import Database
from app.errors import NotFound, ValidationFailed
from app.pipeline.deliver import Clock
from app.schemas.actions import DISMISS, READ
from app.schemas.callback import ActionCallback
from app.security.address_rules import ADDRESS_NOT_ALLOWED, AddressRefused, AddressRules
from app.security.encryption import Cipher
from app.security.webhooks import new_secret

# The secret that is there stays.
PUT = text("""
    INSERT INTO action_callbacks AS c (name, url, secret, created_at, updated_at)
    VALUES (:name, :url, :secret, CAST(:now AS timestamptz), CAST(:now AS timestamptz))
    ON CONFLICT (name) DO UPDATE SET url = excluded.url, updated_at = excluded.updated_at
    RETURNING name, url, secret, created_at, updated_at
""")
ENCRYPT_ANEW = text("UPDATE action_callbacks SET secret = :secret WHERE name = :name")
GET = text("""
    SELECT name, url, secret, created_at, updated_at FROM action_callbacks WHERE name = :name
""")
DELETE = text("DELETE FROM action_callbacks WHERE name = :name RETURNING name")


class CallbackService:
    """Keeps the callbacks of named actions.

    Args:
        cipher: encrypts the signing secrets.
        rules: where callbacks may lead.
        clock: the present instant.
    """

    def __init__(
        self, database: Database, cipher: Cipher, rules: AddressRules, clock: Clock
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._rules = rules
        self._clock = clock

    async def put(self, name: str, url: str) -> ActionCallback:
        """Register an action's callback, or move it; its secret is made at the first time.

        Raises:
            ValidationFailed: the action is built in, or the address may not be called.
            Unavailable: PostgreSQL is away.
        """
        if name in {READ, DISMISS}:
            raise _refused("name", "built_in_action", "is built in and calls nobody")
        try:
            self._rules.parse(url)
        except AddressRefused as error:
            raise _refused("url", ADDRESS_NOT_ALLOWED, str(error)) from None
        context = secret_context(name)
        fresh = self._cipher.encrypt(new_secret().encode(), context=context)
        parameters = {"name": name, "url": url, "secret": fresh, "now": self._clock()}
        async with self._database.as_service() as connection:
            row = (await connection.execute(PUT, parameters)).mappings().one()
            stored = self._stored(row)
            if self._cipher.needs_rotation(row["secret"]):
                anew = self._cipher.encrypt(stored.secret.encode(), context=context)
                await connection.execute(ENCRYPT_ANEW, {"name": name, "secret": anew})
        return stored

    async def get(self, name: str) -> ActionCallback:
        """An action's callback.

        Raises:
            NotFound: it has none.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            row = (await connection.execute(GET, {"name": name})).mappings().one_or_none()
        if row is None:
            raise NotFound
        return self._stored(row)

    async def delete(self, name: str) -> None:
        """Remove an action's callback, and its secret with it.

        Raises:
            NotFound: it has none.
            Unavailable: PostgreSQL is away.
        """
        async with self._database.as_service() as connection:
            if (await connection.execute(DELETE, {"name": name})).scalar() is None:
                raise NotFound

    def _stored(self, row: RowMapping) -> ActionCallback:
        secret = self._cipher.decrypt(row["secret"], context=secret_context(row["name"]))
        return ActionCallback.model_validate({**row, "secret": secret.decode()})


def _refused(path: str, code: str, message: str) -> ValidationFailed:
    return ValidationFailed(details=[{"path": path, "code": code, "message": message}])
