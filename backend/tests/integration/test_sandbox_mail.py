"""The sandbox as senders, tests and people meet it: over HTTP, on a real port."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from typing import Any, TypeVar

import httpx
import pytest

from app.config import ConfigurationError, Settings
from app.load_settings import load_settings
from app.sandbox.app import create_sandbox_app
from app.sandbox.mailbox import Mail, Mailbox
from app.sandbox.server import run_sandbox, serving_sandbox
from tests.http_client import client_of
from tests.integration import sandbox_server
from tests.integration.sandbox_server import SettableClock
from tests.ports import free_neighbours, free_ports

clock, served = sandbox_server.clock, sandbox_server.served

T = TypeVar("T")

BACKEND = Path(__file__).parents[2]
AUTHORIZED = {"Authorization": "Bearer re_anything"}
MAIL: dict[str, Any] = {
    "from": "OmoiOS <noreply@yourapp.com>",
    "to": "Ada <ada@example.com>",
    "subject": "Hello",
    "html": "<p>Hello</p>",
    "text": "Hello",
    "headers": {"List-Unsubscribe": "<https://yourapp.com/u/1>"},
    "tags": [{"name": "notification_id", "value": "019a3c1e-7b1d-7c3e-9d2a-1f0c5e6a7b8c"}],
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(_env_file=None, data_dir=tmp_path, app_env="development")


@pytest.fixture
async def sandbox(
    served: tuple[str, SettableClock], clock: SettableClock
) -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(served[0], headers=AUTHORIZED, timeout=5) as client:
        await client.delete("/state")
        yield client


async def send(
    client: httpx.AsyncClient, key: str | None = None, /, **fields: object
) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post("/resend/emails", json={**MAIL, **fields}, headers=headers)


async def stored(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    return (await client.get("/mails", params=query)).json()["items"]


async def fail(client: httpx.AsyncClient, *rules: dict[str, object]) -> None:
    put = [{"provider": "resend", **rule} for rule in rules]
    (await client.put("/faults", json=put)).raise_for_status()


async def eventually(probe: Callable[[], Awaitable[T]], accept: Callable[[T], bool]) -> T:
    while True:
        value = await probe()
        if accept(value):
            return value
        await asyncio.sleep(0.02)


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body.keys() == {"statusCode", "name", "message"}
    assert body["statusCode"] == response.status_code
    return response.status_code, body["name"]


class TestResend:
    async def test_keeps_what_was_sent(self, sandbox: httpx.AsyncClient) -> None:
        answer = await send(sandbox, "key-1", reply_to="help@yourapp.com")
        assert answer.status_code == 200
        assert answer.json().keys() == {"id"}
        [mail] = await stored(sandbox)
        assert mail == {
            **MAIL,
            "id": answer.json()["id"],
            "idempotency_key": "key-1",
            "to": ["Ada <ada@example.com>"],
            "cc": [],
            "bcc": [],
            "reply_to": ["help@yourapp.com"],
            "received_at": "2026-03-01T12:00:00Z",
            "via": "resend",
            "attempts": 1,
        }
        assert (await sandbox.get(f"/mails/{mail['id']}")).json() == mail

    async def test_retrieves_an_email_in_resends_shape(self, sandbox: httpx.AsyncClient) -> None:
        mail_id = (await send(sandbox)).json()["id"]
        email = (await sandbox.get(f"/resend/emails/{mail_id}")).json()
        assert email["object"] == "email"
        assert email["id"] == mail_id
        assert email["from"] == MAIL["from"]
        assert email["created_at"] == "2026-03-01 12:00:00.000000+00"
        assert email["last_event"] == "delivered"
        assert error(await sandbox.get("/resend/emails/none")) == (404, "not_found")

    async def test_takes_batches_of_up_to_100(self, sandbox: httpx.AsyncClient) -> None:
        batch = [{**MAIL, "to": f"user{number}@example.com"} for number in range(100)]
        answer = await sandbox.post("/resend/emails/batch", json=batch)
        ids = [item["id"] for item in answer.json()["data"]]
        mails = await stored(sandbox)
        assert [mail["id"] for mail in reversed(mails)] == ids
        too_many = await sandbox.post("/resend/emails/batch", json=[*batch, MAIL])
        assert error(too_many) == (422, "validation_error")
        assert error(await sandbox.post("/resend/emails/batch", json=[]))[0] == 422
        assert error(await sandbox.post("/resend/emails/batch", json=MAIL))[0] == 422

    async def test_batches_are_whole_unless_permissive(self, sandbox: httpx.AsyncClient) -> None:
        batch = [MAIL, {**MAIL, "to": "nobody"}]
        strict = await sandbox.post("/resend/emails/batch", json=batch)
        assert error(strict) == (422, "validation_error")
        assert await stored(sandbox) == []
        permissive = await sandbox.post(
            "/resend/emails/batch", json=batch, headers={"x-batch-validation": "permissive"}
        )
        assert len(permissive.json()["data"]) == 1
        assert [item["index"] for item in permissive.json()["errors"]] == [1]

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"from": None}, "validation_error"),
            ({"from": "noreply"}, "validation_error"),
            ({"to": []}, "validation_error"),
            ({"to": [f"u{number}@example.com" for number in range(51)]}, "validation_error"),
            ({"to": "a@example.com, b@example.com"}, "validation_error"),
            ({"to": "Ada\r\nBcc: x@example.com <a@example.com>"}, "validation_error"),
            ({"subject": "Hello\nBcc: x@example.com"}, "validation_error"),
            ({"headers": {"X-A": "1\r\nBcc: x@example.com"}}, "validation_error"),
            ({"tags": [{"name": "id", "value": "with space"}]}, "validation_error"),
            ({"attachments": [{"filename": "a", "content": "YQ=="}]}, "validation_error"),
            ({"html": None, "text": None}, "missing_required_field"),
        ],
    )
    async def test_refuses_what_resend_refuses(
        self, sandbox: httpx.AsyncClient, fields: dict[str, object], name: str
    ) -> None:
        assert error(await send(sandbox, **fields)) == (422, name)
        assert await stored(sandbox) == []

    async def test_takes_megabytes(self, sandbox: httpx.AsyncClient) -> None:
        html = "<p>" + "long " * 400_000
        mail_id = (await send(sandbox, html=html)).json()["id"]
        assert (await sandbox.get(f"/mails/{mail_id}")).json()["html"] == html

    async def test_names_a_missing_field(self, sandbox: httpx.AsyncClient) -> None:
        answer = await sandbox.post("/resend/emails", json={"from": "a@b.co", "to": "c@d.co"})
        assert error(answer) == (422, "missing_required_field")
        assert answer.json()["message"] == "Missing `subject` field."

    async def test_errors_outside_the_routes(self, sandbox: httpx.AsyncClient) -> None:
        no_key = await sandbox.post("/resend/emails", json=MAIL, headers={"Authorization": ""})
        assert error(no_key) == (401, "missing_api_key")
        assert error(await sandbox.post("/resend/nothing")) == (404, "not_found")
        assert error(await sandbox.delete("/resend/emails")) == (405, "method_not_allowed")
        assert error(await sandbox.post("/resend/emails", content=b"{")) == (
            400,
            "validation_error",
        )

    async def test_a_lowered_rate_limit_is_enforced_and_announced(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        free = await send(sandbox)
        assert int(free.headers["ratelimit-remaining"]) < int(free.headers["ratelimit-limit"])
        await fail(sandbox, {"kind": "rate_limit", "requests_per_second": 2})
        # Two windows at most are touched, so at least one of five is over.
        answers = await asyncio.gather(*(send(sandbox) for _ in range(5)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert error(refused[0]) == (429, "rate_limit_exceeded")
        assert refused[0].headers["retry-after"] == "1"
        assert refused[0].headers["ratelimit-limit"] == "2"
        assert refused[0].headers["ratelimit-remaining"] == "0"
        assert refused[0].headers["ratelimit-reset"] == "1"

    async def test_a_rate_limit_counts_from_when_it_was_set(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        for _ in range(3):
            await fail(sandbox, {"kind": "rate_limit", "requests_per_second": 1})
            assert (await send(sandbox)).status_code == 200


class TestIdempotency:
    async def test_a_repeat_gets_the_first_answer_and_no_second_mail(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        answers = [(await send(sandbox, "once")).json() for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        [mail] = await stored(sandbox)
        assert mail["attempts"] == 3

    async def test_order_of_fields_is_not_another_payload(self, sandbox: httpx.AsyncClient) -> None:
        first = await send(sandbox, "once")
        reordered = dict(reversed(MAIL.items()))
        again = await sandbox.post(
            "/resend/emails", json=reordered, headers={"Idempotency-Key": "once"}
        )
        assert again.json() == first.json()

    async def test_another_payload_conflicts(self, sandbox: httpx.AsyncClient) -> None:
        await send(sandbox, "once")
        other = await send(sandbox, "once", subject="Other")
        assert error(other) == (409, "invalid_idempotent_request")
        other_route = await sandbox.post(
            "/resend/emails/batch", json=[MAIL], headers={"Idempotency-Key": "once"}
        )
        assert error(other_route) == (409, "invalid_idempotent_request")

    async def test_a_batch_is_repeated_whole(self, sandbox: httpx.AsyncClient) -> None:
        headers = {"Idempotency-Key": "batch"}
        answers = [
            (await sandbox.post("/resend/emails/batch", json=[MAIL, MAIL], headers=headers)).json()
            for _ in range(2)
        ]
        assert answers[0] == answers[1]
        assert len(await stored(sandbox)) == 2

    async def test_twenty_at_once_store_one_mail(self, sandbox: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(send(sandbox, "once") for _ in range(20)))
        accepted = [answer for answer in answers if answer.status_code == 200]
        assert len({answer.text for answer in accepted}) == 1
        for answer in answers:
            if answer not in accepted:
                assert error(answer) == (409, "concurrent_idempotent_requests")
        assert len(await stored(sandbox)) == 1
        [arrived] = (await sandbox.get("/arrivals")).json()["items"]
        assert arrived == {"idempotency_key": "once", "requests": 20, "mails": 1}

    async def test_a_repeat_during_the_first_is_refused(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "delay", "seconds": 0.5, "times": 1})
        first = asyncio.create_task(send(sandbox, "once"))
        await eventually(lambda: sandbox.get("/arrivals"), lambda seen: seen.json()["requests"] > 0)
        assert error(await send(sandbox, "once")) == (409, "concurrent_idempotent_requests")
        assert (await first).status_code == 200
        assert (await send(sandbox, "once")).json() == (await first).json()

    async def test_keys_are_kept_24_hours(
        self, sandbox: httpx.AsyncClient, clock: SettableClock
    ) -> None:
        first = await send(sandbox, "once")
        clock.now += timedelta(hours=23, minutes=59)
        assert (await send(sandbox, "once")).json() == first.json()
        clock.now += timedelta(minutes=1)
        assert (await send(sandbox, "once", subject="Later")).json() != first.json()
        assert len(await stored(sandbox)) == 2

    async def test_keys_have_1_to_256_characters(self, sandbox: httpx.AsyncClient) -> None:
        assert (await send(sandbox, "k" * 256)).status_code == 200
        for key in ("", "k" * 257):
            assert error(await send(sandbox, key)) == (400, "invalid_idempotency_key")

    async def test_a_refused_mail_takes_no_key(self, sandbox: httpx.AsyncClient) -> None:
        assert (await send(sandbox, "once", to="nobody")).status_code == 422
        assert (await send(sandbox, "once")).status_code == 200


class TestFaults:
    async def test_status_hits_as_often_as_asked(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "status", "status": 429, "retry_after": 2, "times": 2})
        for _ in range(2):
            answer = await send(sandbox, "once")
            assert error(answer) == (429, "rate_limit_exceeded")
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["ratelimit-remaining"] == "0"
        assert (await send(sandbox, "once")).status_code == 200
        [mail] = await stored(sandbox)
        assert mail["attempts"] == 3
        [status] = (await sandbox.get("/faults")).json()["items"]
        assert (status["hits"], status["remaining"]) == (2, 0)

    async def test_status_can_be_any_error(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "status", "status": 503})
        assert error(await send(sandbox)) == (503, "internal_server_error")
        await fail(sandbox, {"kind": "status", "status": 429, "name": "daily_quota_exceeded"})
        over_quota = await send(sandbox)
        assert error(over_quota) == (429, "daily_quota_exceeded")
        # A quota is not the rate: waiting a second is of no use.
        assert over_quota.headers["ratelimit-remaining"] != "0"
        assert (await sandbox.delete("/faults")).status_code == 204
        assert (await send(sandbox)).status_code == 200

    async def test_reading_is_spared(self, sandbox: httpx.AsyncClient) -> None:
        mail_id = (await send(sandbox)).json()["id"]
        await fail(sandbox, {"kind": "status", "status": 500})
        assert (await sandbox.get(f"/resend/emails/{mail_id}")).status_code == 200

    async def test_a_delayed_mail_is_stored_though_the_client_left(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        await fail(sandbox, {"kind": "delay", "seconds": 0.4, "times": 1})
        sandbox.timeout = httpx.Timeout(0.1)
        with pytest.raises(httpx.ReadTimeout):
            await send(sandbox, "once")
        sandbox.timeout = httpx.Timeout(5)
        assert await stored(sandbox) == []
        await eventually(lambda: stored(sandbox), bool)
        assert (await send(sandbox, "once")).status_code == 200
        assert len(await stored(sandbox)) == 1

    async def test_hang_frees_the_key_when_the_client_leaves(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        await fail(sandbox, {"kind": "hang", "times": 1})
        sandbox.timeout = httpx.Timeout(0.2)
        with pytest.raises(httpx.ReadTimeout):
            await send(sandbox, "once")
        sandbox.timeout = httpx.Timeout(5)
        assert await stored(sandbox) == []
        answer = await eventually(
            lambda: send(sandbox, "once"), lambda answer: answer.status_code != 409
        )
        assert answer.status_code == 200

    async def test_hang_is_bounded(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "hang", "seconds": 0.1, "times": 1})
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await send(sandbox)
        assert await stored(sandbox) == []

    async def test_drop_handles_nothing(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, {"kind": "drop", "times": 1})
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await send(sandbox, "once")
        assert await stored(sandbox) == []
        [arrived] = (await sandbox.get("/arrivals")).json()["items"]
        assert arrived == {"idempotency_key": "once", "requests": 1, "mails": 0}

    async def test_drop_after_leaves_a_mail_without_an_answer(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        await fail(sandbox, {"kind": "drop_after", "times": 1})
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await send(sandbox, "once")
        [mail] = await stored(sandbox)
        assert (await send(sandbox, "once")).json() == {"id": mail["id"]}
        [arrived] = (await sandbox.get("/arrivals")).json()["items"]
        assert arrived == {"idempotency_key": "once", "requests": 2, "mails": 1}

    async def test_a_seed_decides_which_requests_are_hit(self, sandbox: httpx.AsyncClient) -> None:
        rule: dict[str, object] = {"kind": "status", "status": 500, "probability": 0.5, "seed": 7}
        runs: list[list[int]] = []
        for _ in range(2):
            await fail(sandbox, rule)
            runs.append([(await send(sandbox)).status_code for _ in range(20)])
        assert runs[0] == runs[1]
        assert set(runs[0]) == {200, 500}

    async def test_rules_that_make_no_sense_are_refused(self, sandbox: httpx.AsyncClient) -> None:
        for rule in (
            {"provider": "resend", "kind": "status", "status": 200},
            {"provider": "resend", "kind": "explode"},
            {"provider": "nobody", "kind": "drop"},
            {"provider": "resend", "kind": "drop", "time": 1},
            {"provider": "resend", "kind": "drop", "to": "ada@example.com"},
            {"provider": "resend", "kind": "lose"},
            {"provider": "webhook", "kind": "status", "status": 500},
            {"provider": "smtp", "kind": "duplicate"},
            {"provider": "smtp", "kind": "redirect", "location": "/"},
        ):
            refused = await sandbox.put("/faults", json=rule)
            assert refused.status_code == 422
            assert refused.json()["error"]["code"] == "validation_error"
        assert (await sandbox.get("/faults")).json() == {"items": []}


class TestInspection:
    async def test_lists_by_recipient_time_and_limit(
        self, sandbox: httpx.AsyncClient, clock: SettableClock
    ) -> None:
        await send(sandbox, to="ada@example.com", subject="1")
        clock.now += timedelta(minutes=1)
        await send(sandbox, to=["x@example.com", "Ada <ADA@example.com>"], subject="2")
        await send(sandbox, to="bada@example.com", cc="grace@example.com", subject="3")

        async def subjects(**query: str | int) -> list[str]:
            return [mail["subject"] for mail in await stored(sandbox, **query)]

        assert await subjects() == ["3", "2", "1"]
        assert await subjects(to="ada@example.com") == ["2", "1"]
        assert await subjects(to="grace@example.com") == ["3"]
        assert await subjects(since="2026-03-01T12:01:00Z") == ["3", "2"]
        assert (await sandbox.get("/mails", params={"limit": 1})).json()["total"] == 3
        assert (await sandbox.get("/mails", params={"since": "yesterday"})).status_code == 422
        assert (await sandbox.get("/mails/none")).status_code == 404

    async def test_counts_requests_without_a_key_together(self, sandbox: httpx.AsyncClient) -> None:
        await send(sandbox)
        await send(sandbox)
        await send(sandbox, "once")
        assert (await sandbox.get("/arrivals")).json() == {
            "items": [
                {"idempotency_key": None, "requests": 2, "mails": 2},
                {"idempotency_key": "once", "requests": 1, "mails": 1},
            ],
            "requests": 3,
            "mails": 3,
        }
        one = await sandbox.get("/arrivals", params={"idempotency_key": "once"})
        assert one.json()["requests"] == 1

    async def test_emptying_keeps_promises_and_resetting_does_not(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        first = await send(sandbox, "once")
        assert (await sandbox.delete("/mails")).status_code == 204
        assert (await send(sandbox, "once")).json() == first.json()
        assert await stored(sandbox) == []
        await fail(sandbox, {"kind": "drop"})
        assert (await sandbox.delete("/state")).status_code == 204
        assert (await send(sandbox, "once")).json() != first.json()
        assert len(await stored(sandbox)) == 1

    @pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST:99", "[::1]:8025"])
    async def test_loopback_names_may_ask(self, sandbox: httpx.AsyncClient, host: str) -> None:
        assert (await sandbox.get("/healthz", headers={"Host": host})).json() == {"status": "ok"}

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "localhost@evil.example"},
            {"Host": ""},
            {"Host": "localhost:8025", "Origin": "http://evil.example"},
            {"Host": "localhost:8025", "Origin": "null"},
        ],
    )
    async def test_others_may_not(
        self, sandbox: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        for path in ("/", "/mails", "/resend/emails/1"):
            assert (await sandbox.get(path, headers=headers)).status_code == 403


class TestPage:
    async def test_page_and_its_files_need_nothing_from_elsewhere(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        page = await sandbox.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "script-src 'self';" in page.headers["content-security-policy"]
        assert "unsafe" not in page.headers["content-security-policy"]
        assert (await sandbox.get("/mails/any/view")).text == page.text
        for name in ("mailbox.css", "mailbox.js", "icon.svg"):
            assert f"/static/{name}" in page.text
            assert (await sandbox.get(f"/static/{name}")).status_code == 200
        for name in ("events.js", "shared.js"):
            assert (await sandbox.get(f"/static/{name}")).status_code == 200
        assert "http" not in page.text.replace("http-equiv", "")
        assert (await sandbox.get("/static/..%2fapp.py")).status_code == 404

    async def test_mail_markup_can_neither_run_nor_load(self, sandbox: httpx.AsyncClient) -> None:
        html = "<!doctype html><html><head lang=en><title>x</title></head><script>1</script></html>"
        mail_id = (await send(sandbox, html=html)).json()["id"]
        framed = await sandbox.get(f"/mails/{mail_id}/html")
        policy = framed.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-popups")
        assert "allow-scripts" not in policy
        assert "allow-same-origin" not in policy
        assert "default-src 'none'" in policy
        assert "img-src data: http://127.0.0.1:8000;" in policy
        assert framed.text == html.replace("en>", 'en><base target="_blank">', 1)
        text_only = (await send(sandbox, html=None)).json()["id"]
        assert (await sandbox.get(f"/mails/{text_only}/html")).status_code == 404

    async def test_mails_are_shown_in_either_colour_scheme(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        html = "<style>@media (prefers-color-scheme:dark) and (width > 9px) {p{color:red}}</style>"
        mail_id = (await send(sandbox, html=html)).json()["id"]
        dark, light = [
            (await sandbox.get(f"/mails/{mail_id}/html", params={"scheme": scheme})).text
            for scheme in ("dark", "light")
        ]
        assert "@media (min-width: 0) and (width > 9px)" in dark
        assert "@media (max-width: 0) and (width > 9px)" in light
        assert ":root{color-scheme:light!important}" in light
        refused = await sandbox.get(f"/mails/{mail_id}/html", params={"scheme": "sepia"})
        assert refused.status_code == 422

    async def test_feed_answers_304_until_something_changes(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        await send(sandbox)
        first = await sandbox.get("/feed", params={"recipient": "ADA@"})
        assert [item["subject"] for item in first.json()["items"]] == ["Hello"]
        unchanged = {"If-None-Match": first.headers["etag"]}
        assert (await sandbox.get("/feed", headers=unchanged)).status_code == 304
        await fail(sandbox, {"kind": "status", "status": 503, "times": 1})
        second = await sandbox.get("/feed", headers=unchanged)
        assert second.json()["faults"][0]["summary"] == "Resend answers 503, 1 more time"
        await send(sandbox)
        third = await sandbox.get("/feed", headers={"If-None-Match": second.headers["etag"]})
        assert third.json()["faults"][0]["remaining"] == 0
        nobody = await sandbox.get("/feed", params={"recipient": "nobody"})
        assert (nobody.json()["items"], nobody.json()["total"]) == ([], 0)


class TestRestart:
    async def test_mails_keys_and_counts_are_there_again(self, settings: Settings) -> None:
        async def visit() -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
            async with (
                serving_sandbox(settings) as url,
                client_of(url, headers=AUTHORIZED) as client,
            ):
                answer = (await send(client, "once")).json()
                arrivals = (await client.get("/arrivals")).json()
                return answer, await stored(client), arrivals

        first_answer, first_mails, _ = await visit()
        answer, mails, arrivals = await visit()
        assert answer == first_answer
        assert mails == [{**first_mails[0], "attempts": 2}]
        assert arrivals["items"] == [{"idempotency_key": "once", "requests": 2, "mails": 1}]

    async def test_a_torn_last_line_is_cut_off(self, settings: Settings, tmp_path: Path) -> None:
        async with (
            serving_sandbox(settings) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            await send(client, "whole")
            await client.post("/resend/emails/batch", json=[MAIL, MAIL])
        path = tmp_path / "sandbox" / "mail.jsonl"
        assert path.stat().st_mode & 0o077 == 0
        # The batch loses its last line, and with it both its mails: it was never accepted.
        path.write_bytes(path.read_bytes()[:-10])
        async with (
            serving_sandbox(settings) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            assert [mail["idempotency_key"] for mail in await stored(client)] == ["whole"]
            await send(client, "next")
        lines = path.read_text().splitlines()
        assert [json.loads(line)["type"] for line in lines][-3:] == ["arrival", "mail", "commit"]

    async def test_emptying_lasts(self, settings: Settings) -> None:
        async with (
            serving_sandbox(settings) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            first = await send(client, "once")
            await client.delete("/mails")
        async with (
            serving_sandbox(settings) as url,
            client_of(url, headers=AUTHORIZED) as client,
        ):
            assert await stored(client) == []
            assert (await send(client, "once")).json() == first.json()

    def test_a_full_mailbox_drops_the_oldest_and_shrinks_its_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.sandbox.mailbox.WASTE_BEFORE_COMPACTION", 0)
        path = tmp_path / "mail.jsonl"
        mailbox = Mailbox(path, capacity=2)
        for number in range(10):
            mailbox.count_request(None)
            mailbox.accept([a_mail(str(number))], None)
        mailbox.close()
        size = path.stat().st_size
        for _ in range(2):
            reopened = Mailbox(path, capacity=2)
            entries, total = reopened.newest(lambda _entry: True, 10)
            assert [reopened.read(entry).id for entry in entries] == ["9", "8"]
            assert total == 2
            assert (reopened.arrivals()[None].requests, reopened.arrivals()[None].mails) == (10, 10)
            reopened.close()
        assert path.stat().st_size < size / 2

    def test_a_mail_that_cannot_be_written_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "mail.jsonl"
        mailbox = Mailbox(path)
        mailbox.accept([a_mail("first")], None)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                mailbox.accept([a_mail("lost")], None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert mailbox.find("lost") is None
        mailbox.accept([a_mail("second")], None)
        mailbox.close()
        reopened = Mailbox(path)
        entries, _ = reopened.newest(lambda _entry: True, 10)
        assert [entry.id for entry in entries] == ["second", "first"]
        reopened.close()


class TestProcess:
    def test_production_refuses(self, settings: Settings, tmp_path: Path) -> None:
        production = settings.model_copy(update={"app_env": "production"})
        with pytest.raises(ConfigurationError, match="APP_ENV"):
            create_sandbox_app(production)
        with pytest.raises(ConfigurationError, match="APP_ENV"):
            run_sandbox(production)
        assert not (tmp_path / "sandbox").exists()

    async def test_one_directory_has_one_sandbox(self, settings: Settings) -> None:
        async with serving_sandbox(settings):
            with pytest.raises(ConfigurationError, match="DATA_DIR"):
                async with serving_sandbox(settings):
                    pass

    async def test_a_taken_port_is_named(self, settings: Settings) -> None:
        with create_server(("127.0.0.1", 0)) as listener:
            taken = listener.getsockname()[1]
            with pytest.raises(ConfigurationError, match="SANDBOX_PORT"):
                async with serving_sandbox(settings, port=taken):
                    pass
            with pytest.raises(ConfigurationError, match="SANDBOX_SMTP_PORT"):
                async with serving_sandbox(settings, smtp_port=taken):
                    pass

    def test_smtp_goes_without_a_port_nobody_chose(self, tmp_path: Path) -> None:
        port, taken = free_neighbours()
        with (
            create_server(("127.0.0.1", taken)),
            running_process(tmp_path, port) as (_, client),
        ):
            assert client.get("/addresses").json()["smtp"] is None

    def test_sigterm_ends_it_cleanly_even_with_a_hanging_request(self, tmp_path: Path) -> None:
        with running_process(tmp_path) as (process, client):
            rule = {"provider": "resend", "kind": "hang"}
            client.put("/faults", json=rule).raise_for_status()
            with pytest.raises(httpx.ReadTimeout):
                client.post("/resend/emails", json=MAIL, timeout=0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0

    def test_an_accepted_mail_outlives_sigkill(self, tmp_path: Path) -> None:
        headers = {"Idempotency-Key": "once"}
        with running_process(tmp_path) as (process, client):
            first = client.post("/resend/emails", json=MAIL, headers=headers)
            process.kill()
            process.wait(5)
        with running_process(tmp_path) as (_, client):
            assert client.get("/mails").json()["total"] == 1
            assert client.post("/resend/emails", json=MAIL, headers=headers).text == first.text


def a_mail(mail_id: str) -> Mail:
    return Mail(
        id=mail_id,
        idempotency_key=None,
        sender="a@example.com",
        to=["b@example.com"],
        cc=[],
        bcc=[],
        reply_to=[],
        subject="Hello",
        html=None,
        text="Hello",
        headers={},
        tags=[],
        received_at=datetime(2026, 3, 1, tzinfo=UTC),
    )


@contextmanager
def running_process(
    data_dir: Path, port: int | None = None
) -> Generator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = port or free_ports(1)[0]
    program = (
        "from app.load_settings import load_settings; from app.sandbox.server import run_sandbox; "
        "run_sandbox(load_settings(_env_file=None))"
    )
    environment = {
        **os.environ,
        "APP_ENV": "development",
        "DATA_DIR": str(data_dir),
        "SANDBOX_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=BACKEND)
    retrying = httpx.HTTPTransport(retries=6)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, headers=AUTHORIZED, transport=retrying) as client:
            client.get("/healthz").raise_for_status()
            yield process, client
    finally:
        process.kill()
        process.wait(5)
