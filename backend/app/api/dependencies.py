"""Who may call (SEC-004): users, services, internal callers and operators.

Credentials that are missing or bad are a 401, valid ones without the right a 403.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Request

from app.api.context import AppContext
from app.errors import Forbidden, NotAuthenticated, NotifyError
from app.security.jwt import Claims, InvalidToken
from app.security.service_auth import key_is_valid, name_is_valid

log = structlog.get_logger()

SecurityRequirement = dict[str, list[str]]

# What OpenAPI says of credentials; of the alternatives in REQUIREMENTS one is enough.
SECURITY_SCHEMES = {
    "AccessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "Access token of the caller.",
    },
    "ServiceKey": {"type": "apiKey", "in": "header", "name": "X-Service-Auth"},
    "InternalKey": {"type": "apiKey", "in": "header", "name": "X-Internal-Service-Key"},
    "ServiceName": {"type": "apiKey", "in": "header", "name": "X-Service-Name"},
    "WebhookId": {"type": "apiKey", "in": "header", "name": "webhook-id"},
    "WebhookTimestamp": {"type": "apiKey", "in": "header", "name": "webhook-timestamp"},
    "WebhookSignature": {"type": "apiKey", "in": "header", "name": "webhook-signature"},
}
USER: SecurityRequirement = {"AccessToken": []}
SERVICE: SecurityRequirement = {"AccessToken": [], "ServiceKey": []}
INTERNAL: SecurityRequirement = {"InternalKey": [], "ServiceName": []}
WEBHOOK: SecurityRequirement = {"WebhookId": [], "WebhookTimestamp": [], "WebhookSignature": []}


@dataclass(frozen=True, slots=True)
class Caller:
    """A service or an operator that acts on users' notifications.

    Args:
        name: what it calls itself; notifications and batches are stored under it.
        is_operator: whether it may see and do what belongs to others.
    """

    name: str
    is_operator: bool = False


async def context_of(request: Request) -> AppContext:
    """The application's parts."""
    context: AppContext = request.app.state.context
    return context


Context = Annotated[AppContext, Depends(context_of)]


async def current_user(request: Request) -> UUID:
    """The id of the user who calls.

    Raises:
        NotAuthenticated: no valid token.
        Forbidden: the token is a service's, or of another role.
    """
    claims = await _claims(request)
    if claims.user_id is None:
        raise _refused(request, Forbidden("This is for users."))
    return claims.user_id


CurrentUser = Annotated[UUID, Depends(current_user)]


async def calling_service(request: Request) -> Caller:
    """The service that calls, by its token and the service key.

    Raises:
        NotAuthenticated: no valid token, or no valid key.
        Forbidden: the token is a user's.
    """
    return _service(request, await _claims(request))


CallingService = Annotated[Caller, Depends(calling_service)]


async def internal_caller(request: Request) -> Caller:
    """The internal service that calls, by its key and name.

    Raises:
        NotAuthenticated: one of them is missing or wrong.
    """
    _check_key(request, "X-Internal-Service-Key")
    name = request.headers.get("X-Service-Name")
    if name is None:
        raise _refused(request, NotAuthenticated("X-Service-Name is missing."))
    return Caller(_valid_name(request, name), is_operator=True)


InternalCaller = Annotated[Caller, Depends(internal_caller)]


async def service_or_operator(request: Request) -> Caller:
    """The service or the operator that calls.

    Raises:
        NotAuthenticated: no valid credentials of either kind.
        Forbidden: the token is a user's without the operator's role.
    """
    if _is_internal(request):
        return await internal_caller(request)
    claims = await _claims(request)
    return _operator(claims) if claims.role == "admin" else _service(request, claims)


ServiceOrOperator = Annotated[Caller, Depends(service_or_operator)]


async def operator(request: Request) -> Caller:
    """The operator that calls.

    Raises:
        NotAuthenticated: no valid credentials.
        Forbidden: they are not an operator's.
    """
    if _is_internal(request):
        return await internal_caller(request)
    claims = await _claims(request)
    if claims.role != "admin":
        raise _refused(request, Forbidden("This is for operators."))
    return _operator(claims)


Operator = Annotated[Caller, Depends(operator)]


async def user_or_operator(request: Request) -> UUID | None:
    """The id of the user who calls; None for an operator, who may look at any user's.

    Raises:
        NotAuthenticated: no valid credentials.
        Forbidden: they are neither a user's nor an operator's.
    """
    if _is_internal(request):
        await internal_caller(request)
        return None
    claims = await _claims(request)
    if claims.user_id is None:
        raise _refused(request, Forbidden("This is for users and operators."))
    return None if claims.role == "admin" else claims.user_id


UserOrOperator = Annotated[UUID | None, Depends(user_or_operator)]

REQUIREMENTS: dict[Callable[..., object], list[SecurityRequirement]] = {
    current_user: [USER],
    calling_service: [SERVICE],
    internal_caller: [INTERNAL],
    service_or_operator: [SERVICE, USER, INTERNAL],
    operator: [USER, INTERNAL],
    user_or_operator: [USER, INTERNAL],
}


async def _claims(request: Request) -> Claims:
    context: AppContext = request.app.state.context
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _refused(request, NotAuthenticated())
    try:
        return await context.tokens.verify(token.strip())
    except InvalidToken as error:
        raise _refused(request, NotAuthenticated(str(error))) from error


def _is_internal(request: Request) -> bool:
    headers = request.headers
    return "Authorization" not in headers and "X-Internal-Service-Key" in headers


def _service(request: Request, claims: Claims) -> Caller:
    if not claims.is_service:
        raise _refused(request, Forbidden("This is for services."))
    _check_key(request, "X-Service-Auth")
    return Caller(_valid_name(request, request.headers.get("X-Service-Name", claims.subject)))


def _operator(claims: Claims) -> Caller:
    return Caller(f"operator:{claims.subject}", is_operator=True)


def _check_key(request: Request, header: str) -> None:
    context: AppContext = request.app.state.context
    if not key_is_valid(request.headers.get(header), context.settings.service_keys):
        raise _refused(request, NotAuthenticated(f"{header} is missing or wrong."))


def _valid_name(request: Request, name: str) -> str:
    if not name_is_valid(name):
        raise _refused(request, NotAuthenticated("The service's name cannot be used."))
    return name


def _refused(request: Request, error: NotAuthenticated | Forbidden) -> NotifyError:
    log.warning("access_refused", path=request.url.path, code=error.code, reason=error.message)
    return error
