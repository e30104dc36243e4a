"""`asyncapi.yaml` against real frames: all that the server says, and all that it is told."""

import json
import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema_rs
import pytest
import yaml
from redis.asyncio import Redis

from app.config import Settings
from app.db.database import Database
from app.realtime.close_codes import CloseCode
from app.realtime.frames import ErrorCode
from tests.integration.sockets import (
    Client,
    Inboxes,
    Json,
    RunningGateway,
    id_of,
    running_gateway,
)

DOCUMENT: Json = yaml.safe_load((Path(__file__).parents[2] / "asyncapi.yaml").read_text())
MESSAGES: Json = DOCUMENT["components"]["messages"]


def names(operation: str) -> list[str]:
    """Messages of an operation."""
    references = DOCUMENT["operations"][operation]["messages"]
    return [reference["$ref"].rpartition("/")[2] for reference in references]


def validator(name: str) -> Any:
    """Judges messages of this name."""
    schema = {**MESSAGES[name]["payload"], "components": DOCUMENT["components"]}
    return jsonschema_rs.validator_for(schema, validate_formats=True)


VALIDATORS = {name: validator(name) for name in MESSAGES}


@pytest.fixture
async def here(
    settings: Settings, database: Database, redis_client: Redis
) -> AsyncGenerator[RunningGateway]:
    async with running_gateway(settings, database, redis_client) as running:
        yield running


class Heard:
    """What sockets were told, by the type of message."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Json]] = defaultdict(list)

    async def through(self, client: Client, kind: str) -> None:
        """Hear messages up to and with the first of a type."""
        for message in await client.receive_until(kind):
            self.messages[message["type"]].append(message)


@pytest.mark.parametrize("name", MESSAGES)
def test_examples_are_what_the_schema_says(name: str) -> None:
    examples = [example["payload"] for example in MESSAGES[name]["examples"]]
    assert examples
    for example in examples:
        VALIDATORS[name].validate(example)
        assert not VALIDATORS[name].is_valid({**example, "unheard_of": 1})
        for field in MESSAGES[name]["payload"]["required"]:
            rest = {key: value for key, value in example.items() if key != field}
            assert not VALIDATORS[name].is_valid(rest)


def test_every_reference_leads_somewhere() -> None:
    for target in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)):
        place: Any = DOCUMENT
        for step in target.split("/"):
            place = place[step]
    assert set(DOCUMENT["channels"]["inbox"]["x-close-codes"]) == {code.value for code in CloseCode}


async def test_frames_are_what_the_document_says(here: RunningGateway, inboxes: Inboxes) -> None:
    user, heard = await inboxes.user(), Heard()
    kept = await inboxes.add(user)
    expiring = datetime.now(UTC) + timedelta(hours=1)
    await inboxes.add(user, kind="billing", expires_at=expiring)
    async with here.enter(user) as client:
        await heard.through(client, "sync_complete")
        await here.publish(await inboxes.add(user))
        await heard.through(client, "unread_count")
        for message in (
            {"type": "mark_read", "notification_id": str(id_of(kept))},
            {"type": "mark_unread", "notification_id": str(id_of(kept))},
            {"type": "mark_all_read", "notification_type": "billing"},
            {"type": "mark_all_read", "up_to": 1},
        ):
            await client.send(message)
            await heard.through(client, "unread_count")
        await here.publish(await inboxes.delete(user, id_of(kept)))
        await heard.through(client, "unread_count")
        await client.send({"type": "ping"})
        await heard.through(client, "pong")
        await client.send({"type": "mark_read", "notification_id": str(uuid4())})
        await heard.through(client, "error")
    async with here.enter(user, since=2) as client:
        await heard.through(client, "sync_complete")
    assert set(heard.messages) == set(names("tell"))
    for name, messages in heard.messages.items():
        for message in messages:
            VALIDATORS[name].validate(message)


def test_the_document_lists_every_error() -> None:
    codes = MESSAGES["error"]["payload"]["properties"]["code"]["enum"]
    assert set(codes) == {code.value for code in ErrorCode}


async def test_what_the_document_lets_clients_say_is_understood(
    here: RunningGateway, inboxes: Inboxes
) -> None:
    user = await inboxes.user()
    known: UUID = id_of(await inboxes.add(user))
    async with here.live(user) as client:
        for name in names("ask"):
            for example in MESSAGES[name]["examples"]:
                message: Json = dict(example["payload"])
                if "token" in message:
                    message["token"] = here.token(user)
                if "notification_id" in message:
                    message["notification_id"] = str(known)
                VALIDATORS[name].validate(message)
                await client.send(message)
        # Answers come in the order of what was asked, so none of it was refused before this.
        await client.send({"type": "unheard_of"})
        told = await client.receive_until("error")
        assert told[-1]["message"] == "There is no message of this type."


def test_the_document_lists_every_command(here: RunningGateway) -> None:
    assert set(here.gateway.command_names) == set(names("ask"))
