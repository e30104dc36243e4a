"""Demo sign-in and sending, in development only: the page's stand-in for a host application.

The routes hand out tokens, so they answer loopback hosts only, which keeps other sites' pages
from reaching them under a name of their own.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from fastapi import Depends, Request
from pydantic import BaseModel

from app.api.dependencies import Context
from app.api.json_body import JsonRoute
from app.api.routing import routes
from app.api.v1.notifications.create import accepted
from app.errors import Forbidden, NotFound
from app.loopback import is_loopback
from app.schemas.base import AnsweredInstant
from app.schemas.notification import CreateNotification, NotificationAccepted
from app.security.jwt import issue_token
from app.services.demo_service import DEMO_SERVICE, DEMO_USERS, DemoUser

TOKEN_LIFETIME = timedelta(hours=12)


class DemoUserList(BaseModel):
    """The users one may sign in as."""

    users: list[DemoUser]


class DemoSignIn(BaseModel):
    """Whom to sign in."""

    user_id: UUID


class DemoToken(BaseModel):
    """An access token of a demo user."""

    token: str
    expires_at: AnsweredInstant


class DemoLinks(BaseModel):
    """Where the other parts are."""

    mailbox: str


async def from_this_machine(request: Request) -> None:
    """Refuse hosts that are not loopback.

    Raises:
        Forbidden: the request was made to another name.
    """
    if not is_loopback((request.url.hostname or "").strip("[]")):
        raise Forbidden("The demo answers on loopback only.")


router = routes(
    prefix="/demo",
    include_in_schema=False,
    route_class=JsonRoute,
    dependencies=[Depends(from_this_machine)],
)


@router.get("/users")
async def demo_users() -> DemoUserList:
    """The users one may sign in as."""
    return DemoUserList(users=list(DEMO_USERS))


@router.post("/token")
async def demo_token(wanted: DemoSignIn, context: Context) -> DemoToken:
    """Sign in as a demo user.

    Raises:
        NotFound: there is no such user, or nothing to sign tokens with.
    """
    if context.settings.jwt_secret is None:
        raise NotFound("The demo sign-in needs JWT_SECRET; JWT_JWKS_URL has a sign-in of its own.")
    if all(user.id != wanted.user_id for user in DEMO_USERS):
        raise NotFound
    expires_at = datetime.now(UTC) + TOKEN_LIFETIME
    token = issue_token(
        context.settings,
        subject=str(wanted.user_id),
        role="authenticated",
        expires_at=expires_at,
    )
    return DemoToken(token=token, expires_at=expires_at)


@router.post("/notifications", status_code=202)
async def demo_send(wanted: CreateNotification, context: Context) -> NotificationAccepted:
    """Send as the demo service."""
    return accepted(await context.notifications.create(DEMO_SERVICE, wanted))


@router.get("/links")
async def demo_links(context: Context) -> DemoLinks:
    """Where the sandbox's mailbox is."""
    return DemoLinks(mailbox=context.settings.sandbox_url)
