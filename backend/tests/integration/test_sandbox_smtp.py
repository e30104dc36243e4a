"""The sandbox's mail server, as senders meet it over SMTP."""

import asyncio
from collections.abc import AsyncGenerator
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx
import pytest

from app.config import Settings
from app.load_settings import load_settings
from app.sandbox.server import serving_sandbox
from app.sandbox.smtp import MAX_MESSAGE_BYTES
from tests.http_client import client_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(_env_file=None, data_dir=tmp_path)


@pytest.fixture
async def sandbox(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    async with (
        serving_sandbox(settings, smtp_port=0) as url,
        client_of(url, timeout=5) as client,
    ):
        yield client


def letter(**headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "OmoiOS <noreply@yourapp.com>"
    message["To"] = "Ada Löwe <ada@example.com>"
    message["Subject"] = "Grüße, 你好"
    message["List-Unsubscribe"] = "<https://yourapp.com/u/1>"
    for name, value in headers.items():
        message[name] = value
    message.set_content("Hello\n.dots\n")
    message.add_alternative("<p>Héllo</p>", subtype="html")
    return message


async def port_of(sandbox: httpx.AsyncClient) -> int:
    return httpx.URL((await sandbox.get("/addresses")).json()["smtp"]).port or 0


async def send(sandbox: httpx.AsyncClient, message: EmailMessage, **how: Any) -> str:
    """Hand a mail over, and return what was answered."""
    port = await port_of(sandbox)
    _, answer = await aiosmtplib.send(
        message, hostname="127.0.0.1", port=port, start_tls=False, timeout=5, **how
    )
    return answer


async def stored(sandbox: httpx.AsyncClient) -> list[dict[str, Any]]:
    return (await sandbox.get("/mails")).json()["items"]


async def fail(sandbox: httpx.AsyncClient, **rule: object) -> None:
    (await sandbox.put("/faults", json={"provider": "smtp", **rule})).raise_for_status()


async def test_a_mail_is_readable_in_all_its_parts(sandbox: httpx.AsyncClient) -> None:
    answer = await send(sandbox, letter(), recipients=["ada@example.com", "bob@example.com"])
    [mail] = await stored(sandbox)
    assert mail["id"] in answer
    assert mail["via"] == "smtp"
    assert mail["from"] == "OmoiOS <noreply@yourapp.com>"
    assert mail["to"] == ["Ada Löwe <ada@example.com>"]
    assert mail["bcc"] == ["bob@example.com"]
    assert mail["subject"] == "Grüße, 你好"
    assert mail["text"] == "Hello\n.dots\n"
    assert mail["html"] == "<p>Héllo</p>\n"
    assert mail["headers"]["List-Unsubscribe"] == "<https://yourapp.com/u/1>"
    assert "Subject" not in mail["headers"]
    found = (await sandbox.get("/mails", params={"to": "bob@example.com"})).json()
    assert found["total"] == 1


async def test_the_source_is_kept_to_the_byte(sandbox: httpx.AsyncClient) -> None:
    port = await port_of(sandbox)
    source = b"From: a@example.com\r\nSubject: \xff\xfe\r\n\r\n\xc3\xa9\xff\r\n"
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
        await client.sendmail("a@example.com", ["b@example.com"], source)
    [mail] = await stored(sandbox)
    assert (await sandbox.get(f"/mails/{mail['id']}/source")).content == source
    assert mail["to"] == ["b@example.com"]
    assert mail["text"]


async def test_what_came_through_resend_has_a_source_too(sandbox: httpx.AsyncClient) -> None:
    mail = {
        "from": "OmoiOS <noreply@yourapp.com>",
        "to": "Ada <ada@example.com>",
        "subject": "Grüße",
        "html": "<p>Hé</p>",
        "text": "Hé",
        "headers": {"List-Unsubscribe": f"<https://yourapp.com/{'u' * 200}>", "Content-Type": "x"},
    }
    answer = await sandbox.post(
        "/resend/emails", json=mail, headers={"Authorization": "Bearer re_x"}
    )
    source = await sandbox.get(f"/mails/{answer.json()['id']}/source")
    read = BytesParser(policy=default).parsebytes(source.content)
    assert (read["from"], read["to"], read["subject"]) == (mail["from"], mail["to"], "Grüße")
    assert read["list-unsubscribe"] == f"<https://yourapp.com/{'u' * 200}>"
    assert [part.get_content_type() for part in read.walk()][1:] == ["text/plain", "text/html"]
    assert (await sandbox.get("/mails/none/source")).status_code == 404


async def test_any_credentials_will_do(sandbox: httpx.AsyncClient) -> None:
    await send(sandbox, letter(), username="anybody", password="anything")
    assert len(await stored(sandbox)) == 1


async def test_mails_come_back_after_a_restart(settings: Settings) -> None:
    source = b""
    for visit in range(2):
        async with (
            serving_sandbox(settings, smtp_port=0) as url,
            client_of(url) as client,
        ):
            if visit == 0:
                await send(client, letter())
            [mail] = await stored(client)
            read = (await client.get(f"/mails/{mail['id']}/source")).content
            assert source in (b"", read)
            source = read


async def test_nothing_is_told_of_it(sandbox: httpx.AsyncClient) -> None:
    await send(sandbox, letter())
    [mail] = await stored(sandbox)
    refused = await sandbox.post(f"/mails/{mail['id']}/events", json={"type": "opened"})
    assert refused.status_code == 422


async def test_too_much_is_refused(sandbox: httpx.AsyncClient) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "noreply@yourapp.com", "ada@example.com"
    message.set_content(("x" * 70 + "\n") * (MAX_MESSAGE_BYTES // 70))
    with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
        await send(sandbox, message)
    assert refused.value.code == 552
    port = await port_of(sandbox)
    many = [f"u{number}@example.com" for number in range(101)]
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
        refusals, _ = await client.send_message(letter(), recipients=many)
    assert refusals.keys() == {"u100@example.com"}
    assert len(await stored(sandbox)) == 1


class TestFaults:
    @pytest.mark.parametrize("status", [451, 554])
    async def test_data_is_refused(self, sandbox: httpx.AsyncClient, status: int) -> None:
        await fail(sandbox, kind="status", status=status, times=1, message="5.7.1 Not this")
        with pytest.raises(aiosmtplib.SMTPDataError) as refused:
            await send(sandbox, letter())
        assert (refused.value.code, refused.value.message) == (status, "5.7.1 Not this")
        assert await stored(sandbox) == []
        await send(sandbox, letter())
        assert len(await stored(sandbox)) == 1

    async def test_one_recipient_is_refused(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, provider="smtp_rcpt", kind="status", status=550, to="ada@example.com")
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
            await send(sandbox, letter())
        assert [recipient.code for recipient in refused.value.recipients] == [550]
        await send(sandbox, letter(), recipients=["bob@example.com"])
        assert len(await stored(sandbox)) == 1

    @pytest.mark.parametrize("provider", ["smtp", "smtp_rcpt"])
    async def test_drop_takes_nothing(self, sandbox: httpx.AsyncClient, provider: str) -> None:
        await fail(sandbox, provider=provider, kind="drop")
        with pytest.raises((aiosmtplib.SMTPServerDisconnected, OSError)):
            await send(sandbox, letter())
        assert await stored(sandbox) == []

    async def test_drop_after_leaves_a_mail_without_an_answer(
        self, sandbox: httpx.AsyncClient
    ) -> None:
        await fail(sandbox, kind="drop_after", times=1)
        with pytest.raises((aiosmtplib.SMTPServerDisconnected, OSError)):
            await send(sandbox, letter())
        assert len(await stored(sandbox)) == 1

    async def test_delay_takes_it_late(self, sandbox: httpx.AsyncClient) -> None:
        await fail(sandbox, kind="delay", seconds=0.3, times=1)
        sending = asyncio.create_task(send(sandbox, letter()))
        while not (await sandbox.get("/faults")).json()["items"][0]["hits"]:
            pass
        assert await stored(sandbox) == []
        await sending
        assert len(await stored(sandbox)) == 1

    async def test_hang_ends_with_the_sandbox(self, settings: Settings) -> None:
        async with (
            serving_sandbox(settings, smtp_port=0) as url,
            client_of(url) as client,
        ):
            await fail(client, kind="hang")
            sending = asyncio.create_task(send(client, letter()))
            while not (await client.get("/faults")).json()["items"][0]["hits"]:
                pass
        with pytest.raises((aiosmtplib.SMTPServerDisconnected, OSError)):
            await sending
