"""The API keeps what its OpenAPI document says, on data made from that document."""

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast
from uuid import UUID, uuid4

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as openapi_checks

from app.api.dependencies import WEBHOOK
from app.config import Settings
from app.main import create_app
from app.security.ack_tokens import AckTokens
from app.security.webhooks import signed_headers
from tests.contract.callers import V1, Api, Headers, content, open_api

Case = Any  # of one operation, which schemathesis types too loosely to name
Operation = Any

BASE_URL = "http://127.0.0.1:8000"
OF_ANY_API: Any = checks
OF_OPENAPI: Any = openapi_checks
CHECKS = [
    OF_ANY_API.not_a_server_error,
    OF_OPENAPI.status_code_conformance,
    OF_OPENAPI.content_type_conformance,
    OF_OPENAPI.response_headers_conformance,
    OF_OPENAPI.response_schema_conformance,
    OF_OPENAPI.negative_data_rejection,
]
bounded = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


def load_operations() -> dict[str, Operation]:
    """Every operation of the document; it takes no running servers to write one."""
    production: dict[str, Any] = {"_env_file": None, "app_env": "production"}
    app = create_app(Settings(**production))
    tool: Any = schemathesis
    config = tool.Config.from_dict({"seed": 1, "generation": {"with-security-parameters": False}})
    schema = tool.openapi.from_dict(app.openapi(), config=config)
    operations = [found.ok() for found in schema.get_all_operations()]
    return {operation.label: operation for operation in operations}


OPERATIONS = load_operations()
TAKING_SOMETHING = [
    label
    for label, operation in OPERATIONS.items()
    if (operation.body or operation.query or operation.path_parameters)
    and "{token}" not in label  # any text may be one
]


class Known:
    """What exists, of every kind that ids are of, and who may see it."""

    def __init__(self, api: Api, ids: dict[str, str]) -> None:
        self.api = api
        self.ids = ids

    def credentials(self, operation: Operation) -> list[Headers]:
        """Valid credentials of every kind that the operation takes."""
        requirements: list[dict[str, list[str]]] = operation.definition.raw.get("security", [])
        kinds: dict[frozenset[str], Callable[[], Headers]] = {
            frozenset({"AccessToken", "ServiceKey"}): self.api.service,
            frozenset({"InternalKey", "ServiceName"}): self.api.internal,
            frozenset(WEBHOOK): dict,  # its signature is of the body
            frozenset({"AccessToken"}): self.api.admin
            if len(requirements) > 1
            else lambda: self.api.user(UUID(self.ids["user_id"])),
        }
        return [kinds[frozenset(requirement)]() for requirement in requirements] or [{}]

    def stand_in(self, case: Case) -> None:
        """Turn ids that nobody has into those that exist, so that the call can succeed."""
        for name in set(case.path_parameters or ()) & set(self.ids):
            case.path_parameters[name] = self.ids[name]
        if not isinstance(case.body, dict):
            return
        body = cast("dict[str, Any]", case.body)
        if "user_id" in body:
            body["user_id"] = self.ids["user_id"]
        if body.get("user_ids"):
            body["user_ids"] = [*body["user_ids"], self.ids["user_id"]]
        if "ack_token" in body:
            body["ack_token"] = self.ids["ack_token"]
        body.pop("override", None)  # it is not for services


@pytest.fixture(scope="module")
def own_settings(clone_database: Callable[[], Settings]) -> Settings:
    """With a database apart: what is made up may hit what others need, such as the templates."""
    return clone_database()


@pytest.fixture(scope="module")
async def known(own_settings: Settings) -> AsyncGenerator[Known]:
    async with open_api(own_settings) as api:
        yield await everything(api)


async def everything(api: Api) -> Known:
    user = await api.new_user(email="ada@example.com")
    created = await api.create(user)
    batch = await api.client.post(
        f"{V1}/notifications/bulk", json=content(user_ids=[str(user)]), headers=api.service()
    )
    ids = {"user_id": str(user), "notification_id": created["id"], "action": "read"}
    ids["name"] = (await api.register_callback("schema"))["name"]
    subscription, push = await api.pushed(user)
    ids["subscription_id"] = subscription["id"]
    ids["ack_token"] = AckTokens(api.settings.encryption_keys).issue(push)
    ids["delivery_id"] = str(await api.dead_letter(user))
    return Known(api, ids | {"batch_id": batch.json()["batch_id"]})


async def send(api: Api, case: Case, headers: Headers) -> httpx.Response:
    """Send the case, byte for byte as it would go over the wire."""
    parts: dict[str, Any] = case.as_transport_kwargs(base_url=BASE_URL, headers=dict(headers))
    prepared: Any = requests.Request(**parts).prepare()
    if case.operation.definition.raw.get("security") == [WEBHOOK]:
        body: bytes | str = prepared.body or b""
        raw = body.encode() if isinstance(body, str) else body
        (secret,) = api.settings.webhook_secrets
        prepared.headers.update(signed_headers(secret, uuid4().hex, int(time.time()), raw))
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in prepared.headers.items()]
    return await api.client.request(
        prepared.method, prepared.url, content=prepared.body, headers=pairs
    )


async def check(known: Known, case: Case) -> None:
    for credentials in known.credentials(case.operation):
        answer = await send(known.api, case, credentials)
        assert answer.status_code not in {401, 403}, answer.text
        case.validate_response(answer, checks=CHECKS, headers=dict(credentials))


@pytest.mark.parametrize("label", OPERATIONS)
@bounded
@given(data=st.data())
async def test_data_that_fit_the_document_are_answered_as_it_says(
    known: Known, label: str, data: st.DataObject
) -> None:
    case = data.draw(OPERATIONS[label].as_strategy(GenerationMode.POSITIVE))
    known.stand_in(case)
    await check(known, case)


@pytest.mark.parametrize("label", TAKING_SOMETHING)
@bounded
@given(data=st.data())
async def test_data_that_do_not_fit_the_document_are_refused(
    known: Known, label: str, data: st.DataObject
) -> None:
    await check(known, data.draw(OPERATIONS[label].as_strategy(GenerationMode.NEGATIVE)))
