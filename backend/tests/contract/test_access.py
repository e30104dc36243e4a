"""Who may call what (SEC-004; contract, "Who may call"): every route with every kind of caller."""

import base64
import json
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr

from app.api.middleware import CORRELATION_HEADER
from app.config import Settings
from app.main import create_app
from app.security.ack_tokens import AckTokens
from app.security.email_tokens import EmailTokens
from app.security.jwt import issue_token
from tests.contract.callers import (
    V1,
    Api,
    Headers,
    Json,
    assert_refused,
    browser,
    content,
    open_api,
)

PUSH = f"{V1}/notifications/push"
TEMPLATES = f"{V1}/notifications/templates"
NEXT_KEY = "the-next-service-key"
AUDIENCE, ISSUER = "authenticated", "https://issuer.example/auth/v1"


class Access(Enum):
    """Who a route is for."""

    ANYBODY = auto()
    USER = auto()
    SERVICE = auto()
    SERVICE_OR_OPERATOR = auto()
    INTERNAL = auto()
    OPERATOR = auto()
    USER_OR_OPERATOR = auto()


@dataclass(frozen=True)
class World:
    """What the routes act on."""

    user: UUID
    notification: UUID
    batch: UUID
    dead_letter: UUID
    callback: str
    subscription: str
    ack_token: str
    opened: str


@dataclass(frozen=True)
class Route:
    """A call that succeeds with the right credentials."""

    access: Access
    path: Callable[[World], str]
    body: Callable[[World], Json] | None = None
    status: int = 200


def at(path: str) -> Callable[[World], str]:
    return lambda _: path


# A new route fails `test_every_route_is_listed` until it is listed here.
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/healthz"): Route(Access.ANYBODY, at("/healthz")),
    ("GET", "/readyz"): Route(Access.ANYBODY, at("/readyz")),
    ("POST", f"{V1}/notifications"): Route(
        Access.SERVICE, at(f"{V1}/notifications"), lambda w: content(user_id=w.user), 202
    ),
    ("POST", f"{V1}/notifications/bulk"): Route(
        Access.SERVICE_OR_OPERATOR,
        at(f"{V1}/notifications/bulk"),
        lambda w: content(user_ids=[str(w.user)]),
        202,
    ),
    ("GET", f"{V1}/notifications/bulk/{{batch_id}}"): Route(
        Access.SERVICE_OR_OPERATOR, lambda w: f"{V1}/notifications/bulk/{w.batch}"
    ),
    ("GET", f"{V1}/notifications"): Route(Access.USER, at(f"{V1}/notifications")),
    ("GET", f"{V1}/notifications/unread-count"): Route(
        Access.USER, at(f"{V1}/notifications/unread-count")
    ),
    ("GET", f"{V1}/notifications/sync"): Route(Access.USER, at(f"{V1}/notifications/sync?since=0")),
    ("POST", f"{V1}/notifications/read-all"): Route(
        Access.USER, at(f"{V1}/notifications/read-all"), lambda _: {}
    ),
    ("GET", f"{V1}/notifications/{{notification_id}}"): Route(
        Access.USER, lambda w: f"{V1}/notifications/{w.notification}"
    ),
    ("DELETE", f"{V1}/notifications/{{notification_id}}"): Route(
        Access.USER,
        lambda _: f"{V1}/notifications/{uuid4()}",
        status=404,  # only the first deletion would succeed
    ),
    ("PATCH", f"{V1}/notifications/{{notification_id}}/read"): Route(
        Access.USER, lambda w: f"{V1}/notifications/{w.notification}/read"
    ),
    ("PATCH", f"{V1}/notifications/{{notification_id}}/unread"): Route(
        Access.USER, lambda w: f"{V1}/notifications/{w.notification}/unread"
    ),
    ("POST", f"{V1}/internal/notifications/send"): Route(
        Access.INTERNAL,
        at(f"{V1}/internal/notifications/send"),
        lambda w: content(user_id=w.user),
        202,
    ),
    ("DELETE", f"{V1}/internal/notifications/{{notification_id}}"): Route(
        Access.INTERNAL, lambda w: f"{V1}/internal/notifications/{w.notification}"
    ),
    ("POST", f"{V1}/notifications/{{notification_id}}/actions/{{action}}"): Route(
        Access.USER, lambda w: f"{V1}/notifications/{w.notification}/actions/read"
    ),
    ("PUT", f"{V1}/internal/action-callbacks/{{name}}"): Route(
        Access.INTERNAL,
        lambda w: f"{V1}/internal/action-callbacks/{w.callback}",
        lambda _: {"url": "https://hooks.example.com/"},
    ),
    ("GET", f"{V1}/internal/action-callbacks/{{name}}"): Route(
        Access.INTERNAL, lambda w: f"{V1}/internal/action-callbacks/{w.callback}"
    ),
    ("DELETE", f"{V1}/internal/action-callbacks/{{name}}"): Route(
        Access.INTERNAL,
        lambda _: f"{V1}/internal/action-callbacks/nobodys-{uuid4().hex}",
        status=404,  # only the first deletion would succeed
    ),
    ("GET", f"{V1}/internal/dead-letters"): Route(
        Access.OPERATOR, at(f"{V1}/internal/dead-letters")
    ),
    ("POST", f"{V1}/internal/dead-letters/retry"): Route(
        Access.OPERATOR,
        at(f"{V1}/internal/dead-letters/retry"),
        lambda w: {"ids": [str(w.dead_letter)]},
        202,
    ),
    ("POST", f"{V1}/internal/dead-letters/{{delivery_id}}/retry"): Route(
        Access.OPERATOR,
        lambda w: f"{V1}/internal/dead-letters/{w.dead_letter}/retry",
        status=202,
    ),
    ("GET", f"{PUSH}/vapid-public-key"): Route(Access.USER, at(f"{PUSH}/vapid-public-key")),
    ("POST", f"{PUSH}/subscribe"): Route(
        Access.USER,
        at(f"{PUSH}/subscribe"),
        lambda w: {"subscription": browser(f"access-{w.user}")},
        201,
    ),
    ("GET", f"{PUSH}/subscriptions"): Route(Access.USER, at(f"{PUSH}/subscriptions")),
    ("DELETE", f"{PUSH}/unsubscribe"): Route(
        Access.USER,
        at(f"{PUSH}/unsubscribe"),
        lambda _: {"subscription_id": str(uuid4())},
        404,  # only the first deletion would succeed
    ),
    ("DELETE", f"{PUSH}/subscriptions/{{subscription_id}}"): Route(
        Access.USER, lambda _: f"{PUSH}/subscriptions/{uuid4()}", status=404
    ),
    ("POST", f"{PUSH}/subscriptions/{{subscription_id}}/test"): Route(
        Access.USER, lambda w: f"{PUSH}/subscriptions/{w.subscription}/test", status=202
    ),
    ("POST", f"{PUSH}/ack"): Route(
        Access.ANYBODY,
        at(f"{PUSH}/ack"),
        lambda w: {"ack_token": w.ack_token, "event": "clicked"},
        204,
    ),
    ("GET", f"{V1}/notifications/preferences"): Route(
        Access.USER, at(f"{V1}/notifications/preferences")
    ),
    ("PUT", f"{V1}/notifications/preferences/global"): Route(
        Access.USER, at(f"{V1}/notifications/preferences/global"), lambda _: {"all": "all"}
    ),
    ("PUT", f"{V1}/notifications/preferences/{{notification_type}}"): Route(
        Access.USER,
        at(f"{V1}/notifications/preferences/task"),
        lambda _: {"push_enabled": True},
    ),
    ("GET", TEMPLATES): Route(Access.OPERATOR, at(TEMPLATES)),
    ("POST", TEMPLATES): Route(
        Access.OPERATOR,
        at(TEMPLATES),
        lambda _: {
            "name": f"access-{uuid4().hex}",
            "type": "task",
            "title_template": "Title",
            "body_template": "Body",
        },
        201,
    ),
    ("GET", f"{TEMPLATES}/{{name}}"): Route(Access.OPERATOR, at(f"{TEMPLATES}/task_assigned")),
    ("PUT", f"{TEMPLATES}/{{name}}"): Route(
        Access.OPERATOR, at(f"{TEMPLATES}/nobodys"), lambda _: {}, 404
    ),
    ("DELETE", f"{TEMPLATES}/{{name}}"): Route(
        Access.OPERATOR,
        at(f"{TEMPLATES}/nobodys"),
        status=404,  # only the first deletion would succeed
    ),
    ("POST", f"{TEMPLATES}/{{name}}/preview"): Route(
        Access.OPERATOR, at(f"{TEMPLATES}/task_assigned/preview"), lambda _: {}
    ),
    ("GET", f"{V1}/notifications/settings"): Route(Access.USER, at(f"{V1}/notifications/settings")),
    ("PUT", f"{V1}/notifications/settings"): Route(
        Access.USER, at(f"{V1}/notifications/settings"), lambda _: {"timezone": "Europe/Berlin"}
    ),
    ("POST", f"{V1}/internal/notifications/explain"): Route(
        Access.INTERNAL,
        at(f"{V1}/internal/notifications/explain"),
        lambda w: content(user_id=w.user),
    ),
    ("POST", f"{V1}/notifications/preferences/preview"): Route(
        Access.USER, at(f"{V1}/notifications/preferences/preview"), lambda _: {"type": "task"}
    ),
    ("GET", f"{V1}/notifications/{{notification_id}}/trace"): Route(
        Access.USER_OR_OPERATOR, lambda w: f"{V1}/notifications/{w.notification}/trace"
    ),
    # The signature, and the token of a link, are the credentials.
    ("POST", f"{V1}/webhooks/resend"): Route(
        Access.ANYBODY, at(f"{V1}/webhooks/resend"), status=401
    ),
    ("GET", f"{V1}/email/unsubscribe/{{token}}"): Route(
        Access.ANYBODY, at(f"{V1}/email/unsubscribe/nobodys"), status=404
    ),
    ("POST", f"{V1}/email/unsubscribe/{{token}}"): Route(
        Access.ANYBODY, at(f"{V1}/email/unsubscribe/nobodys"), status=404
    ),
    ("GET", f"{V1}/email/open/{{token}}"): Route(
        Access.ANYBODY, lambda w: f"{V1}/email/open/{w.opened}"
    ),
    ("GET", f"{V1}/email/click/{{token}}"): Route(
        Access.ANYBODY, at(f"{V1}/email/click/nobodys"), status=404
    ),
    ("PUT", f"{V1}/internal/users/{{user_id}}"): Route(
        Access.INTERNAL, lambda w: f"{V1}/internal/users/{w.user}", lambda _: {}
    ),
}
# Routes that openapi leaves out; tests of their own are below.
HIDDEN_ROUTES = {
    ("HEAD", f"{V1}/email/unsubscribe/{{token}}"),
    ("HEAD", f"{V1}/email/open/{{token}}"),
    ("HEAD", f"{V1}/email/click/{{token}}"),
    ("GET", "/"),
    ("GET", "/"),  # there once the page is built
    ("GET", "/preferences"),  # with it
    ("GET", "/sw.js"),  # with it
    ("GET", "/metrics"),
    ("GET", "/demo/users"),
    ("POST", "/demo/token"),
    ("POST", "/demo/notifications"),
    ("GET", "/demo/links"),
}


def unsigned(api: Api, world: World) -> Headers:
    parts: list[Json] = [
        {"alg": "none", "typ": "JWT"},
        {"sub": str(world.user), "exp": int(datetime.now(UTC).timestamp()) + 3600},
    ]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return {"Authorization": f"Bearer {'.'.join(part.rstrip('=') for part in encoded)}."}


def without(claims: Json, name: str) -> Json:
    return {key: value for key, value in claims.items() if key != name}


def expiring(api: Api, world: World, **by: float) -> Headers:
    claims = api.claims(world.user)
    return api.sign(claims | {"exp": datetime.now(UTC) + timedelta(**by)})


def with_claims(**others: Any) -> Callable[[Api, World], Headers]:
    return lambda api, world: api.sign(api.claims(world.user) | others)


# Bad credentials: whatever the route is for, they are a 401.
BAD_CREDENTIALS: dict[str, Callable[[Api, World], Headers]] = {
    "nothing": lambda api, world: {},
    "an empty header": lambda api, world: {"Authorization": ""},
    "an empty token": lambda api, world: {"Authorization": "Bearer "},
    "garbage": lambda api, world: {"Authorization": "Bearer garbage"},
    "three parts of garbage": lambda api, world: {"Authorization": "Bearer a.b.c"},
    "a token of 8 KiB": lambda api, world: {"Authorization": f"Bearer {'a' * 8192}"},
    "basic": lambda api, world: {"Authorization": "Basic dXNlcjpwYXNz"},
    "the bare token": lambda api, world: {
        "Authorization": api.user(world.user)["Authorization"].removeprefix("Bearer ")
    },
    "expired": lambda api, world: expiring(api, world, seconds=-6),
    "without exp": lambda api, world: api.sign(without(api.claims(world.user), "exp")),
    "without sub": lambda api, world: api.sign(without(api.claims(world.user), "sub")),
    "exp that is no number": with_claims(exp="soon"),
    "exp in a year that does not exist": with_claims(exp=10**18),
    "not valid yet": with_claims(nbf=datetime.now(UTC) + timedelta(hours=1)),
    "sub that is no UUID": with_claims(sub="somebody"),
    "sub that is no text": with_claims(sub=17),
    "role that is no text": with_claims(role=["authenticated"]),
    "alg none": unsigned,
    "wrong key": lambda api, world: api.sign(api.claims(world.user), key="x" * 64),
    "HS512": lambda api, world: api.sign(api.claims(world.user), algorithm="HS512"),
    "altered": lambda api, world: {
        "Authorization": api.user(world.user)["Authorization"][:-6] + "AAAAAA"
    },
    "type refresh": with_claims(type="refresh"),
    "an expired service token with the key": lambda api, world: {
        **api.service(),
        **api.sign(api.claims("tests", role="service") | {"exp": 1}),
    },
    "the service key alone": lambda api, world: {
        "X-Service-Auth": api.service_key,
        "X-Service-Name": "tests",
    },
    "a wrong internal key": lambda api, world: api.internal() | {"X-Internal-Service-Key": "wrong"},
    "an empty internal key": lambda api, world: api.internal() | {"X-Internal-Service-Key": ""},
    "the internal key and more": lambda api, world: (
        api.internal() | {"X-Internal-Service-Key": f"{api.service_key}x"}
    ),
    "the internal key's beginning": lambda api, world: (
        api.internal() | {"X-Internal-Service-Key": api.service_key[:-1]}
    ),
    "the internal key without a name": lambda api, world: without(api.internal(), "X-Service-Name"),
    "the internal key with an empty name": lambda api, world: api.internal(""),
    "the internal key with an unprintable name": lambda api, world: api.internal("a\x07b"),
    "the internal key with an endless name": lambda api, world: api.internal("a" * 201),
    "the name alone": lambda api, world: {"X-Service-Name": "tests"},
}

# Valid credentials, and the status each kind of route answers (None: it lets them in).
IN: None = None
USER, SERVICE, BOTH, INTERNAL, OPERATOR, EITHER = (
    Access.USER,
    Access.SERVICE,
    Access.SERVICE_OR_OPERATOR,
    Access.INTERNAL,
    Access.OPERATOR,
    Access.USER_OR_OPERATOR,
)
A_USER: dict[Access, int | None] = {
    USER: IN,
    SERVICE: 403,
    BOTH: 403,
    INTERNAL: 401,
    OPERATOR: 403,
    EITHER: IN,
}
AN_OPERATOR: dict[Access, int | None] = {
    USER: IN,
    SERVICE: 403,
    BOTH: IN,
    INTERNAL: 401,
    OPERATOR: IN,
    EITHER: IN,
}
NOBODY: dict[Access, int | None] = {
    USER: 403,
    SERVICE: 403,
    BOTH: 403,
    INTERNAL: 401,
    OPERATOR: 403,
    EITHER: 403,
}
A_KEYLESS_SERVICE: dict[Access, int | None] = {
    USER: 403,
    SERVICE: 401,
    BOTH: 401,
    INTERNAL: 401,
    OPERATOR: 403,
    EITHER: 403,
}
A_SERVICE: dict[Access, int | None] = {
    USER: 403,
    SERVICE: IN,
    BOTH: IN,
    INTERNAL: 401,
    OPERATOR: 403,
    EITHER: 403,
}
AN_INTERNAL: dict[Access, int | None] = {
    USER: 401,
    SERVICE: 401,
    BOTH: IN,
    INTERNAL: IN,
    OPERATOR: IN,
    EITHER: IN,
}

VALID_CREDENTIALS: dict[str, tuple[Callable[[Api, World], Headers], dict[Access, int | None]]] = {
    "a token without a role": (with_claims(), A_USER),
    "role authenticated": (with_claims(role="authenticated"), A_USER),
    "type access": (with_claims(type="access"), A_USER),
    "just expired": (lambda api, world: expiring(api, world, seconds=-1), A_USER),
    "a lower-case scheme": (
        lambda api, world: {
            "Authorization": api.user(world.user)["Authorization"].replace("Bearer", "bearer")
        },
        A_USER,
    ),
    "an audience that nobody asked for": (with_claims(aud="authenticated"), A_USER),
    "a user with the service key": (
        lambda api, world: {**api.service(), **api.user(world.user)},
        A_USER,
    ),
    "the user's own metadata says admin": (
        with_claims(role="authenticated", user_metadata={"role": "admin"}),
        A_USER,
    ),
    "role admin": (with_claims(role="admin"), AN_OPERATOR),
    "app_metadata says admin": (
        with_claims(role="authenticated", app_metadata={"role": "admin"}),
        AN_OPERATOR,
    ),
    "app_metadata says admin, without a role": (
        with_claims(app_metadata={"role": "admin"}),
        AN_OPERATOR,
    ),
    "app_metadata says something else": (
        with_claims(role="authenticated", app_metadata={"role": "service"}),
        A_USER,
    ),
    "app_metadata is odd": (with_claims(app_metadata=["role", "admin"]), A_USER),
    "role anon": (with_claims(role="anon"), NOBODY),
    "role anon whose app_metadata says admin": (
        with_claims(role="anon", app_metadata={"role": "admin"}),
        NOBODY,
    ),
    "an unknown role": (with_claims(role="root"), NOBODY),
    "a service without the key": (
        lambda api, world: without(api.service(), "X-Service-Auth"),
        A_KEYLESS_SERVICE,
    ),
    "a service with a wrong key": (
        lambda api, world: api.service() | {"X-Service-Auth": "wrong"},
        A_KEYLESS_SERVICE,
    ),
    "a service with an empty key": (
        lambda api, world: api.service() | {"X-Service-Auth": ""},
        A_KEYLESS_SERVICE,
    ),
    "a service with an unprintable name": (
        lambda api, world: api.service() | {"X-Service-Name": "a\x07b"},
        A_KEYLESS_SERVICE,
    ),
    "a service": (lambda api, world: api.service(), A_SERVICE),
    "a service by its subject": (
        lambda api, world: without(api.service(), "X-Service-Name"),
        A_SERVICE,
    ),
    "role service_role": (
        lambda api, world: {
            **api.service(),
            **api.sign(api.claims("tests", role="service_role")),
        },
        A_SERVICE,
    ),
    "internal": (lambda api, world: api.internal(), AN_INTERNAL),
}


@pytest.fixture(scope="module")
async def world(api: Api) -> World:
    user = await api.new_user()
    created = await api.create(user)
    batch = await api.client.post(
        f"{V1}/notifications/bulk", json=content(user_ids=[str(user)]), headers=api.service()
    )
    batch_id = UUID(batch.json()["batch_id"])
    dead_letter, callback = await api.dead_letter(user), f"access-{uuid4().hex}"
    await api.register_callback(callback)
    subscription, delivery = await api.pushed(user)
    token = AckTokens(api.settings.encryption_keys).issue(delivery)
    opened = EmailTokens(api.settings.encryption_keys).opened(uuid4())
    return World(
        user,
        UUID(created["id"]),
        batch_id,
        dead_letter,
        callback,
        subscription["id"],
        token,
        opened,
    )


@pytest.fixture(scope="module")
async def rotating(settings: Settings) -> AsyncGenerator[Api]:
    """An API that accepts the old service key and the next."""
    (current,) = settings.service_keys
    keys = SecretStr(f"{current}, {NEXT_KEY}")
    async with open_api(settings.model_copy(update={"internal_service_key": keys})) as api:
        yield api


@pytest.fixture(scope="module")
async def strict(settings: Settings) -> AsyncGenerator[Api]:
    """An API that asks for an audience and an issuer."""
    wanted = {"jwt_audience": AUDIENCE, "jwt_issuer": ISSUER}
    async with open_api(settings.model_copy(update=wanted)) as api:
        yield api


@pytest.fixture(scope="module")
async def remote(settings: Settings) -> AsyncGenerator[Api]:
    """An API whose client is on another machine."""
    async with open_api(settings, peer="203.0.113.9") as api:
        yield api


def test_every_route_is_listed(api: Api) -> None:
    operations = {
        (method.upper(), path)
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
    }
    assert operations == set(ROUTES)


def test_every_hidden_route_is_listed(api: Api) -> None:
    routes = {
        (method, route.path)
        for route in api.app.routes
        if isinstance(route, APIRoute) and not route.include_in_schema
        for method in route.methods or ()
    }
    assert routes <= HIDDEN_ROUTES


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_credentials_open_what_they_are_for(
    api: Api, world: World, route: tuple[str, str]
) -> None:
    for credentials in [*BAD_CREDENTIALS, *VALID_CREDENTIALS]:
        try:
            await check_access(api, world, route, credentials)
        except AssertionError as error:
            error.add_note(f"with {credentials}")
            raise


async def check_access(api: Api, world: World, route: tuple[str, str], credentials: str) -> None:
    wanted = ROUTES[route]
    if credentials in BAD_CREDENTIALS:
        make, expected = BAD_CREDENTIALS[credentials], 401
    else:
        make, statuses = VALID_CREDENTIALS[credentials]
        expected = statuses.get(wanted.access)
    if wanted.access is Access.ANYBODY:
        expected = None

    answer = await api.client.request(
        route[0],
        wanted.path(world),
        json=None if wanted.body is None else wanted.body(world),
        headers={**make(api, world), CORRELATION_HEADER: "tests/1"},
    )

    assert answer.headers[CORRELATION_HEADER] == "tests/1"
    if expected is None:
        assert answer.status_code == wanted.status, answer.text
    elif expected == 401:
        assert assert_refused(answer, 401, "not_authenticated") == []
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    else:
        assert assert_refused(answer, 403, "forbidden") == []


@pytest.mark.parametrize(
    "body", [b"{", b'{"title": "\\u0000"}', b"", b"[]"], ids=["cut", "NUL", "empty", "array"]
)
@pytest.mark.parametrize(
    "route",
    [key for key, route in ROUTES.items() if route.body and route.access is not Access.ANYBODY],
    ids=" ".join,
)
async def test_credentials_are_judged_before_the_body(
    api: Api, world: World, route: tuple[str, str], body: bytes
) -> None:
    answer = await api.client.request(
        route[0],
        ROUTES[route].path(world),
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert_refused(answer, 401, "not_authenticated")


@pytest.mark.parametrize(
    "route",
    [key for key in ROUTES if "{" in key[1] and ROUTES[key].access is not Access.ANYBODY],
    ids=" ".join,
)
async def test_credentials_are_judged_before_the_path(api: Api, route: tuple[str, str]) -> None:
    path = re.sub(r"{\w+}", "nonsense", route[1])
    assert_refused(await api.client.request(route[0], path), 401, "not_authenticated")


class TestOwnership:
    async def test_what_belongs_to_another_user_is_not_there(self, api: Api, world: World) -> None:
        somebody = await api.new_user()
        path = f"{V1}/notifications/{world.notification}"
        assert_refused(await api.client.get(path, headers=api.user(somebody)), 404, "not_found")

    async def test_operators_have_no_window_into_inboxes(self, api: Api, world: World) -> None:
        path = f"{V1}/notifications/{world.notification}"
        assert_refused(await api.client.get(path, headers=api.admin()), 404, "not_found")

    async def test_another_services_batch_is_not_there(self, api: Api, world: World) -> None:
        path = f"{V1}/notifications/bulk/{world.batch}"
        assert_refused(await api.client.get(path, headers=api.service("others")), 404, "not_found")

    async def test_operators_see_every_batch(self, api: Api, world: World) -> None:
        path = f"{V1}/notifications/bulk/{world.batch}"
        for headers in (api.admin(), api.internal("others")):
            assert (await api.client.get(path, headers=headers)).status_code == 200

    async def test_nobody_sees_a_batch_that_is_not(self, api: Api) -> None:
        path = f"{V1}/notifications/bulk/{uuid4()}"
        assert_refused(await api.client.get(path, headers=api.admin()), 404, "not_found")

    async def test_a_user_never_seen_has_nothing_yet(self, api: Api) -> None:
        newcomer = uuid4()
        assert await api.read(newcomer) == {
            "items": [],
            "unread_count": 0,
            "next_cursor": None,
            "has_more": False,
            "seq": 0,
        }
        assert await api.read(newcomer, "/unread-count") == {"count": 0, "by_type": {}}

    async def test_a_cursor_serves_only_whom_it_was_given_to(self, api: Api) -> None:
        given, other = await api.new_user(), await api.new_user()
        for user in (given, given, other, other):
            await api.create(user)
        cursor = (await api.read(given, "?limit=1"))["next_cursor"]
        assert len((await api.read(given, f"?limit=1&cursor={cursor}"))["items"]) == 1
        answer = await api.client.get(
            f"{V1}/notifications", params={"cursor": cursor}, headers=api.user(other)
        )
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == ("cursor", "invalid_cursor")


class TestCorrelation:
    @pytest.mark.parametrize("given", ["a", "0193.abc_DEF:/+=@-", "x" * 128])
    async def test_a_usable_id_comes_back(self, api: Api, given: str) -> None:
        answer = await api.client.get("/healthz", headers={CORRELATION_HEADER: given})
        assert answer.headers.get_list(CORRELATION_HEADER) == [given]

    @pytest.mark.parametrize(
        "given", ["", " ", "a b", "x" * 129, "<script>", "ü", 'a"b', "a\tb", "a\\nb", "{{7*7}}"]
    )
    @pytest.mark.parametrize("path", ["/healthz", f"{V1}/notifications", "/nowhere"])
    async def test_an_unusable_id_is_replaced(self, api: Api, path: str, given: str) -> None:
        answer = await api.client.get(
            path, headers=[(CORRELATION_HEADER.encode(), given.encode("latin-1"))]
        )
        (answered,) = answer.headers.get_list(CORRELATION_HEADER)
        assert len(answered) == 32
        assert answered.isalnum()

    async def test_every_request_gets_an_id_of_its_own(self, api: Api) -> None:
        answers = [await api.client.get("/healthz") for _ in range(2)]
        assert len({answer.headers[CORRELATION_HEADER] for answer in answers}) == 2

    async def test_an_unexpected_error_has_one_too_and_tells_nothing(
        self, settings: Settings
    ) -> None:
        async def fail() -> None:
            raise RuntimeError("a secret")

        async with open_api(settings) as failing:
            failing.app.add_api_route("/failing", fail)
            routes = failing.app.router.routes
            routes.insert(0, routes.pop())
            answer = await failing.client.get("/failing", headers={CORRELATION_HEADER: "mine"})
        assert assert_refused(answer, 500, "internal_error") == []
        assert answer.json()["correlation_id"] == "mine"
        assert "secret" not in answer.text


class TestErrorsOutsideOfRoutes:
    async def test_an_unknown_path_has_the_common_shape(self, api: Api) -> None:
        assert_refused(await api.client.get(f"{V1}/nothing/here"), 404, "not_found")

    async def test_a_wrong_method_has_the_common_shape_and_says_which_are_right(
        self, api: Api
    ) -> None:
        answer = await api.client.put(f"{V1}/notifications/unread-count")
        assert_refused(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]


class TestRotation:
    @pytest.mark.parametrize("which", [0, 1])
    async def test_both_keys_are_accepted(self, rotating: Api, which: int) -> None:
        key = rotating.settings.service_keys[which]
        path = f"{V1}/internal/users/{uuid4()}"
        internal = rotating.internal() | {"X-Internal-Service-Key": key}
        assert (await rotating.client.put(path, json={}, headers=internal)).status_code == 200
        bulk, batch = f"{V1}/notifications/bulk", content(user_ids=[str(uuid4())])
        service = rotating.service() | {"X-Service-Auth": key}
        assert (await rotating.client.post(bulk, json=batch, headers=service)).status_code == 202

    async def test_the_list_itself_is_no_key(self, rotating: Api) -> None:
        assert rotating.settings.internal_service_key is not None
        both = rotating.settings.internal_service_key.get_secret_value()
        headers = rotating.internal() | {"X-Internal-Service-Key": both}
        answer = await rotating.client.put(
            f"{V1}/internal/users/{uuid4()}", json={}, headers=headers
        )
        assert_refused(answer, 401, "not_authenticated")

    async def test_a_key_that_was_taken_out_is_refused(self, api: Api) -> None:
        headers = api.internal() | {"X-Internal-Service-Key": NEXT_KEY}
        answer = await api.client.put(f"{V1}/internal/users/{uuid4()}", json={}, headers=headers)
        assert_refused(answer, 401, "not_authenticated")


class TestAudienceAndIssuer:
    @pytest.mark.parametrize("audience", [AUDIENCE, ["others", AUDIENCE]])
    async def test_tokens_that_name_them_are_accepted(self, strict: Api, audience: object) -> None:
        headers = strict.sign(strict.claims(uuid4(), aud=audience, iss=ISSUER))
        answer = await strict.client.get(f"{V1}/notifications", headers=headers)
        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"aud": AUDIENCE},
            {"iss": ISSUER},
            {"aud": "others", "iss": ISSUER},
            {"aud": [], "iss": ISSUER},
            {"aud": AUDIENCE, "iss": f"{ISSUER}/"},
        ],
    )
    async def test_tokens_that_name_others_or_none_are_refused(
        self, strict: Api, claims: Json
    ) -> None:
        headers = strict.sign(strict.claims(uuid4(), **claims))
        answer = await strict.client.get(f"{V1}/notifications", headers=headers)
        assert_refused(answer, 401, "not_authenticated")

    async def test_issued_tokens_name_them(self, strict: Api) -> None:
        token = issue_token(
            strict.settings,
            subject=str(uuid4()),
            role="authenticated",
            expires_at=datetime.now(UTC) + timedelta(minutes=1),
        )
        claims = jwt.decode(token, options={"verify_signature": False})
        assert (claims["aud"], claims["iss"]) == (AUDIENCE, ISSUER)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await strict.client.get(f"{V1}/notifications", headers=headers)
        assert answer.status_code == 200


class TestMetrics:
    async def test_this_machine_may_read_them(self, api: Api) -> None:
        answer = await api.client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")

    @pytest.mark.parametrize(
        "header",
        [
            {"X-Forwarded-For": "127.0.0.1"},
            {"X-Forwarded-For": ""},
            {"X-Forwarded-Host": "notify.example"},
            {"X-Real-IP": "203.0.113.7"},
            {"Forwarded": "for=203.0.113.7"},
            {"Via": "1.1 proxy"},
        ],
        ids=str,
    )
    async def test_a_proxy_on_this_machine_opens_them_to_nobody(
        self, api: Api, header: Headers
    ) -> None:
        assert_refused(await api.client.get("/metrics", headers=header), 401, "not_authenticated")
        answer = await api.client.get("/metrics", headers=header | api.admin())
        assert answer.status_code == 200

    async def test_others_need_the_right_of_an_operator(self, remote: Api) -> None:
        expected: list[tuple[Headers, int]] = [
            ({}, 401),
            ({"X-Forwarded-For": "127.0.0.1"}, 401),
            (remote.user(uuid4()), 403),
            (remote.service(), 403),
            (remote.admin(), 200),
            (remote.internal(), 200),
            (without(remote.internal(), "X-Service-Name"), 401),
            (remote.internal() | {"X-Internal-Service-Key": "wrong"}, 401),
        ]
        for headers, status in expected:
            answer = await remote.client.get("/metrics", headers=headers)
            assert answer.status_code == status, headers


class TestDemo:
    DEMO = (("GET", "/demo/users"), ("POST", "/demo/token"), ("GET", "/demo/links"))

    @pytest.mark.parametrize("route", DEMO, ids=" ".join)
    @pytest.mark.parametrize("host", ["notify.example", "127.0.0.1.nip.io", "localhost.example"])
    async def test_it_answers_no_other_name_than_this_machines(
        self, api: Api, route: tuple[str, str], host: str
    ) -> None:
        answer = await api.client.request(*route, headers={"Host": host})
        assert_refused(answer, 403, "forbidden")

    async def test_it_signs_in_demo_users_only(self, api: Api) -> None:
        (somebody, *_) = (await api.client.get("/demo/users")).json()["users"]
        signed_in = await api.client.post("/demo/token", json={"user_id": somebody["id"]})
        headers = {"Authorization": f"Bearer {signed_in.json()['token']}"}
        answer = await api.client.get(f"{V1}/notifications", headers=headers)
        assert answer.status_code == 200
        refused = await api.client.post("/demo/token", json={"user_id": str(uuid4())})
        assert_refused(refused, 404, "not_found")

    def test_production_has_none(self, settings: Settings) -> None:
        app = create_app(settings.model_copy(update={"app_env": "production"}))
        paths = {route.path for route in app.routes if isinstance(route, APIRoute)}
        assert not any(path.startswith("/demo") for path in paths)
