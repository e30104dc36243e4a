"""The socket as its clients see it: contract, section WebSocket; requirements 5.4; REQ-010."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.config import Settings
from app.db.database import Database
from app.errors import NotFound
from app.realtime.connection import redis_client as connect_redis
from app.realtime.session import Session
from app.security.jwt import issue_token
from tests.integration.sockets import (
    QUICK,
    Inboxes,
    RunningGateway,
    eventually,
    running_gateway,
)


@pytest.fixture(scope="module")
async def here(settings: Settings, database: Database) -> AsyncGenerator[RunningGateway]:
    """A gateway with the settings' own limits."""
    async with (
        connect_redis(settings) as redis,
        running_gateway(settings, database, redis) as running,
    ):
        yield running


class TestAuthentication:
    async def test_the_first_message_may_hold_the_token(
        self, here: RunningGateway, user: UUID
    ) -> None:
        async with here.open() as client:
            before = datetime.now(UTC)
            await client.authenticate(here.token(user, seconds=600))
            told = await client.receive()
            ends = datetime.fromisoformat(told.pop("expires_at"))
            assert abs(ends - before - timedelta(seconds=600)) < timedelta(seconds=3)
            assert told == {
                "type": "authenticated",
                "user_id": str(user),
                "seq": 0,
                "unread_count": 0,
                "recovered": False,
                "heartbeat_interval": here.settings.ws_heartbeat_interval,
            }
            assert await client.receive() == {"type": "sync_complete", "seq": 0}

    async def test_the_address_may_hold_the_token(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user)
        await inboxes.add(user, "missed")
        async with here.open(f"token={here.token(user)}&since=1") as client:
            greeting, missed, done = await client.receive_until("sync_complete")
            assert greeting["recovered"] is True
            assert missed["data"]["title"] == "missed"
            assert done["seq"] == 2

    async def test_the_route_itself_serves_alike(
        self, settings: Settings, database: Database, redis_client: Redis, user: UUID
    ) -> None:
        async with running_gateway(
            settings, database, redis_client, served=lambda app: app
        ) as there:
            async with there.live(user) as client:
                assert (await client.ping())["seq"] == 0
            async with there.open(origin="https://evil.test") as foreign:
                assert await foreign.receive_close() == 4403

    async def test_admins_have_an_inbox_too(self, here: RunningGateway, user: UUID) -> None:
        async with here.open(f"token={here.token(user, role='admin')}") as client:
            assert (await client.receive())["type"] == "authenticated"

    async def test_silence_is_closed_in_time(
        self, settings: Settings, database: Database, redis_client: Redis
    ) -> None:
        timing = replace(QUICK, authenticate_within=0.2)
        async with (
            running_gateway(settings, database, redis_client, timing=timing) as there,
            there.open() as client,
        ):
            assert (await client.receive())["code"] == "AUTH_TIMEOUT"
            assert await client.receive_close() == 4401

    @pytest.mark.parametrize("by_address", [True, False])
    async def test_an_expired_token_invites_back(
        self, here: RunningGateway, user: UUID, by_address: bool
    ) -> None:
        token = here.token(user, seconds=-60)
        async with here.open(f"token={token}" if by_address else "") as client:
            if not by_address:
                await client.authenticate(token)
            assert (await client.receive())["code"] == "TOKEN_EXPIRED"
            assert await client.receive_close() == 3005

    @pytest.mark.parametrize("role", ["service", "service_role", "anon", "unheard_of"])
    async def test_tokens_of_others_than_users_are_refused(
        self, here: RunningGateway, user: UUID, role: str
    ) -> None:
        async with here.open(f"token={here.token(user, role=role)}") as client:
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    @pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
    async def test_bad_tokens_are_refused(self, here: RunningGateway, token: str) -> None:
        async with here.open(f"token={token}") as client:
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    @pytest.mark.parametrize("token", [None, 7, ["a"]])
    async def test_a_token_is_text(self, here: RunningGateway, token: object) -> None:
        async with here.open() as client:
            await client.send({"type": "authenticate", "token": token})
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    async def test_forged_tokens_are_refused(self, here: RunningGateway, user: UUID) -> None:
        other = here.settings.model_copy(update={"jwt_secret": SecretStr("x" * 40)})
        ends = datetime.now(UTC) + timedelta(hours=1)
        token = issue_token(other, subject=str(user), role="authenticated", expires_at=ends)
        async with here.open(f"token={token}") as client:
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    async def test_anything_else_first_is_refused(self, here: RunningGateway) -> None:
        async with here.open() as client:
            await client.send({"type": "ping"})
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    @pytest.mark.parametrize("since", [-1, 1.5, "3", True, 2**63, [1]])
    async def test_a_position_is_a_whole_number(
        self, here: RunningGateway, user: UUID, since: object
    ) -> None:
        async with here.open() as client:
            token = here.token(user)
            await client.send({"type": "authenticate", "token": token, "since": since})
            assert (await client.receive())["code"] == "INVALID_MESSAGE"
            await client.authenticate(token)
            assert (await client.receive())["type"] == "authenticated"

    @pytest.mark.parametrize("since", ["x", "-1", "9" * 19, "9" * 5000, "1e3"])
    async def test_a_position_in_the_address_too(
        self, here: RunningGateway, user: UUID, since: str
    ) -> None:
        async with here.open(f"token={here.token(user)}&since={since}") as client:
            assert (await client.receive())["code"] == "INVALID_MESSAGE"

    async def test_the_socket_ends_with_its_token(self, here: RunningGateway, user: UUID) -> None:
        async with here.open(f"token={here.token(user, seconds=3)}") as client:
            await client.receive_until("sync_complete")
            assert (await client.receive())["code"] == "TOKEN_EXPIRED"
            assert await client.receive_close() == 3005

    async def test_a_new_token_keeps_it_open(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user)
        async with here.open(f"token={here.token(user, seconds=3)}") as client:
            await client.receive_until("sync_complete")
            await client.authenticate(here.token(user, seconds=600))
            renewed = await client.receive()
            assert (renewed["type"], renewed["seq"]) == ("authenticated", 1)
            assert (renewed["unread_count"], renewed["recovered"]) == (1, True)
            await asyncio.sleep(3.2)
            assert (await client.ping())["seq"] == 1

    async def test_another_users_token_closes(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        async with here.live(user) as client:
            await client.authenticate(here.token(await inboxes.user()))
            assert (await client.receive())["code"] == "AUTH_FAILED"
            assert await client.receive_close() == 4401

    async def test_the_token_is_never_logged(
        self, here: RunningGateway, user: UUID, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            caplog.set_level(logging.INFO, "uvicorn.error")
            async with here.open(f"token={here.token(user)}&since=0") as client:
                await client.receive_until("sync_complete")
        # The test's own client logs what it sends; that is not the server.
        logged = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets")]
        assert any("/notifications/ws" in line for line in logged)
        assert not any("token" in line or "since" in line for line in logged)


class TestOrigins:
    async def connect_from(self, here: RunningGateway, user: UUID, origin: str | None) -> object:
        async with here.open(f"token={here.token(user)}", origin=origin) as client:
            try:
                return (await client.receive())["type"]
            except ConnectionClosed as closed:
                return closed.rcvd and closed.rcvd.code

    async def test_no_page_involved_passes(self, here: RunningGateway, user: UUID) -> None:
        assert await self.connect_from(here, user, None) == "authenticated"

    async def test_the_servers_own_page_passes(self, here: RunningGateway, user: UUID) -> None:
        own = f"http://127.0.0.1:{here.port}"
        assert await self.connect_from(here, user, own) == "authenticated"

    async def test_others_must_be_listed(
        self, settings: Settings, database: Database, redis_client: Redis, user: UUID
    ) -> None:
        listed = "https://app.example.com"
        async with running_gateway(
            settings, database, redis_client, cors_origins=(listed,)
        ) as there:
            assert await self.connect_from(there, user, listed) == "authenticated"
            assert await self.connect_from(there, user, "https://example.com") == 4403
            assert await self.connect_from(there, user, "null") == 4403


class TestLimits:
    async def test_a_gateway_that_is_switched_off_is_not_there(
        self, settings: Settings, database: Database, redis_client: Redis
    ) -> None:
        async with running_gateway(settings, database, redis_client, ws_enabled=False) as there:
            with pytest.raises(InvalidStatus) as refused:
                async with there.open():
                    pass
            assert refused.value.response.status_code == 404
            assert orjson.loads(refused.value.response.body)["error"]["code"] == "not_found"

    async def test_a_full_gateway_sends_elsewhere(
        self, settings: Settings, database: Database, redis_client: Redis, user: UUID
    ) -> None:
        async with running_gateway(settings, database, redis_client, ws_max_connections=1) as there:
            async with there.live(user), there.open() as turned_away:
                assert await turned_away.receive_close() == 3013
            await eventually(lambda: not there.gateway.hub.sessions)
            async with there.live(user) as client:
                assert (await client.ping())["seq"] == 0

    async def test_a_user_holds_so_many_sockets(
        self,
        settings: Settings,
        database: Database,
        redis_client: Redis,
        inboxes: Inboxes,
        user: UUID,
    ) -> None:
        async with running_gateway(
            settings, database, redis_client, ws_max_connections_per_user=2
        ) as there:
            async with there.live(user), there.live(user):
                async with there.enter(user) as third:
                    assert await third.receive_close() == 4429
                async with there.live(await inboxes.user()) as somebody_else:
                    assert (await somebody_else.ping())["seq"] == 0
            await eventually(lambda: not there.gateway.hub.sessions)
            async with there.live(user) as client:
                assert (await client.ping())["seq"] == 0

    async def test_too_many_messages_are_not_answered(
        self, here: RunningGateway, user: UUID
    ) -> None:
        async with here.live(user) as client:
            for _ in range(60):
                await client.send({"type": "ping"})
            answers = [await client.receive() for _ in range(60)]
            limited = [answer for answer in answers if answer.get("code") == "RATE_LIMITED"]
            # The first of the 50 of these ten seconds authenticated.
            assert len(limited) == 11

    async def test_long_frames_are_cut_off(self, here: RunningGateway, user: UUID) -> None:
        async with here.live(user) as client:
            await client.send('"' + "x" * (64 * 1024 - 2) + '"')
            assert (await client.receive())["code"] == "INVALID_MESSAGE"
            await client.send('"' + "x" * (64 * 1024 - 1) + '"')
            assert await client.receive_close() == 1009

    async def test_a_huge_frame_is_not_even_read(self, here: RunningGateway, user: UUID) -> None:
        async with here.live(user) as client, here.live(user) as other:
            with suppress(ConnectionClosed):
                await client.send("x" * 17 * 2**20)
            assert await client.receive_close() == 1009
            assert (await other.ping())["seq"] == 0

    async def test_a_client_that_is_never_heard_is_closed(
        self, settings: Settings, database: Database, redis_client: Redis, user: UUID
    ) -> None:
        async with (
            running_gateway(settings, database, redis_client, ws_heartbeat_interval=1) as there,
            there.live(user) as silent,
            there.live(user) as alive,
        ):
            closing = asyncio.create_task(silent.receive_close())
            start = asyncio.get_running_loop().time()
            while not closing.done():
                await alive.ping()
                await asyncio.sleep(0.5)
            assert closing.result() == 3012
            assert asyncio.get_running_loop().time() - start > 2.5
            assert (await alive.ping())["seq"] == 0


class TestMessages:
    async def test_pong_tells_time_and_position(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        await inboxes.add(user)
        async with here.live(user) as client:
            pong = await client.ping()
            assert pong["seq"] == 1
            assert pong["timestamp"].endswith("Z")
            told = datetime.fromisoformat(pong["timestamp"])
            assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)

    @pytest.mark.parametrize(
        "message",
        [{"type": "dance"}, {"type": ["ping"]}, {"kind": "ping"}, "[]", "7", "null", '"ping"'],
    )
    async def test_unknown_messages_are_refused_again_and_again(
        self, here: RunningGateway, user: UUID, message: Any
    ) -> None:
        async with here.live(user) as client:
            for _ in range(4):
                await client.send(message)
                assert (await client.receive())["code"] == "INVALID_MESSAGE"
            assert (await client.ping())["seq"] == 0

    @pytest.mark.parametrize("authenticated", [True, False])
    async def test_the_third_that_is_not_json_closes(
        self, here: RunningGateway, user: UUID, authenticated: bool
    ) -> None:
        async with here.open(f"token={here.token(user)}" if authenticated else "") as client:
            if authenticated:
                await client.receive_until("sync_complete")
            for malformed in (b'{"type":"ping"}', "{", ""):
                await client.send(malformed)
                assert (await client.receive())["code"] == "INVALID_MESSAGE"
            assert await client.receive_close() == 4400

    async def test_further_messages_can_be_given(
        self, settings: Settings, database: Database, redis_client: Redis, user: UUID
    ) -> None:
        seen: list[tuple[UUID | None, Mapping[str, Any]]] = []

        async def mark_read(session: Session, message: Mapping[str, Any]) -> None:
            seen.append((session.user_id, message))
            raise NotFound

        async with (
            running_gateway(
                settings, database, redis_client, commands={"mark_read": mark_read}
            ) as there,
            there.live(user) as client,
        ):
            await client.send({"type": "mark_read", "notification_id": "x"})
            answer = await client.receive()
            assert (answer["type"], answer["code"]) == ("error", "NOT_FOUND")
            assert seen == [(user, {"type": "mark_read", "notification_id": "x"})]

    async def test_ack_marks_as_delivered_what_was_shown(
        self, here: RunningGateway, inboxes: Inboxes, user: UUID
    ) -> None:
        for _ in range(3):
            await inboxes.add(user, deliveries=(("in_app", "sent"), ("push", "sent")))
        async with here.live(user) as client:
            assert await inboxes.in_app_statuses(user) == ["sent"] * 3
            await client.send({"type": "ack", "seq": 2})
            await self.statuses_become(inboxes, user, ["delivered", "delivered", "sent"])
            # Nobody is shown what was not sent yet.
            await client.send({"type": "ack", "seq": 99})
            await inboxes.add(user)
            await self.statuses_become(inboxes, user, ["delivered"] * 3 + ["sent"])

    @pytest.mark.parametrize("seq", [None, -1, "2", 1.0, False])
    async def test_ack_names_a_position(
        self, here: RunningGateway, user: UUID, seq: object
    ) -> None:
        async with here.live(user) as client:
            await client.send({"type": "ack", "seq": seq})
            assert (await client.receive())["code"] == "INVALID_MESSAGE"

    async def statuses_become(self, inboxes: Inboxes, user: UUID, wanted: list[str]) -> None:
        async with asyncio.timeout(5):
            while await inboxes.in_app_statuses(user) != wanted:
                await asyncio.sleep(0.05)
