"""Who may call (SEC-004): users, services, internal callers and operators.

Credentials that are missing or bad are a 401, valid ones without the right a 403.
"""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.api.context import AppContext
from app.errors import Forbidden, NotAuthenticated, NotifyError
from app.security.jwt import Claims, InvalidToken
from app.security.service_auth import key_is_valid, name_is_valid

log = structlog.get_logger()

bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="Access token of the caller.")
service_key = APIKeyHeader(name="X-Service-Auth", auto_error=False, scheme_name="ServiceKey")
internal_key = APIKeyHeader(
    name="X-Internal-Service-Key", auto_error=False, scheme_name="InternalKey"
)
service_name = APIKeyHeader(name="X-Service-Name", auto_error=False, scheme_name="ServiceName")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]


@dataclass(frozen=True, slots=True)
class Caller:
    """A service or an operator that acts on users' notifications.

    Args:
        name: what it calls itself; notifications and batches are stored under it.
        is_operator: whether it may see and do what belongs to others.
    """

    name: str
    is_operator: bool = False


def context_of(request: Request) -> AppContext:
    """The application's parts."""
    context: AppContext = request.app.state.context
    return context


Context = Annotated[AppContext, Depends(context_of)]


async def current_claims(request: Request, credentials: Credentials, context: Context) -> Claims:
    """The claims of the request's bearer token.

    Raises:
        NotAuthenticated: there is none, or it is not valid.
    """
    if credentials is None:
        raise _refused(request, NotAuthenticated())
    try:
        return await context.tokens.verify(credentials.credentials)
    except InvalidToken as error:
        raise _refused(request, NotAuthenticated(str(error))) from error


CurrentClaims = Annotated[Claims, Depends(current_claims)]


async def current_user(request: Request, claims: CurrentClaims) -> UUID:
    """The id of the user who calls.

    Raises:
        NotAuthenticated: no valid token.
        Forbidden: the token is a service's, or of another role.
    """
    if claims.user_id is None:
        raise _refused(request, Forbidden("This is for users."))
    return claims.user_id


CurrentUser = Annotated[UUID, Depends(current_user)]


async def calling_service(
    request: Request,
    claims: CurrentClaims,
    context: Context,
    key: Annotated[str | None, Security(service_key)],
    name: Annotated[str | None, Security(service_name)],
) -> Caller:
    """The service that calls, by its token and the service key.

    Raises:
        NotAuthenticated: no valid token, or no valid key.
        Forbidden: the token is a user's.
    """
    if not claims.is_service:
        raise _refused(request, Forbidden("This is for services."))
    if not key_is_valid(key, context.settings.service_keys):
        raise _refused(request, NotAuthenticated("X-Service-Auth is missing or wrong."))
    return Caller(_valid_name(request, name or claims.subject))


CallingService = Annotated[Caller, Depends(calling_service)]


async def internal_caller(
    request: Request,
    context: Context,
    key: Annotated[str | None, Security(internal_key)],
    name: Annotated[str | None, Security(service_name)],
) -> Caller:
    """The internal service that calls, by its key and name.

    Raises:
        NotAuthenticated: one of them is missing or wrong.
    """
    if not key_is_valid(key, context.settings.service_keys):
        raise _refused(request, NotAuthenticated("X-Internal-Service-Key is missing or wrong."))
    if name is None:
        raise _refused(request, NotAuthenticated("X-Service-Name is missing."))
    return Caller(_valid_name(request, name), is_operator=True)


InternalCaller = Annotated[Caller, Depends(internal_caller)]


async def service_or_operator(
    request: Request,
    context: Context,
    credentials: Credentials,
    key: Annotated[str | None, Security(service_key)],
    internal: Annotated[str | None, Security(internal_key)],
    name: Annotated[str | None, Security(service_name)],
) -> Caller:
    """The service or the operator that calls.

    Raises:
        NotAuthenticated: no valid credentials of either kind.
        Forbidden: the token is a user's without the operator's role.
    """
    if credentials is None and internal is not None:
        return await internal_caller(request, context, internal, name)
    claims = await current_claims(request, credentials, context)
    if claims.role == "admin":
        return Caller(f"operator:{claims.subject}", is_operator=True)
    return await calling_service(request, claims, context, key, name)


ServiceOrOperator = Annotated[Caller, Depends(service_or_operator)]


async def operator(request: Request, context: AppContext) -> Caller:
    """The operator that calls, for routes that ask only some callers.

    Raises:
        NotAuthenticated: no valid credentials.
        Forbidden: they are not an operator's.
    """
    headers = request.headers
    if internal := headers.get("X-Internal-Service-Key"):
        return await internal_caller(request, context, internal, headers.get("X-Service-Name"))
    claims = await current_claims(request, await bearer(request), context)
    if claims.role != "admin":
        raise _refused(request, Forbidden("This is for operators."))
    return Caller(f"operator:{claims.subject}", is_operator=True)


def _valid_name(request: Request, name: str) -> str:
    if not name_is_valid(name):
        raise _refused(request, NotAuthenticated("The service's name cannot be used."))
    return name


def _refused(request: Request, error: NotAuthenticated | Forbidden) -> NotifyError:
    log.warning("access_refused", path=request.url.path, code=error.code)
    return error
