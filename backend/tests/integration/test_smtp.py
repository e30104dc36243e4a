"""Letters over SMTP, against a real server (REQ-014, RFC 5321)."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from app.channels.base import Failed, Retry
from app.channels.email.letter import Letter
from app.channels.email.lines import checked
from app.channels.email.provider import Answer, Fault, Refused, Taken, Unknown
from app.channels.email.smtp import SmtpProvider
from app.config import Settings
from app.load_settings import load_settings
from app.policy.kinds import Reason
from tests.integration.mail_server import MailServer, serving_mail
from tests.integration.test_outbound import certificate
from tests.ports import free_ports
from tests.unit.test_email_lines import letter

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    loaded = load_settings(_env_file=None, data_dir=tmp_path, provider_timeout_seconds=5)
    return loaded.model_copy(update={"resend_from_name": "Bücher, GmbH"})


@asynccontextmanager
async def sender(
    settings: Settings, address: str, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[SmtpProvider]:
    async with SmtpProvider(settings, SecretStr(address), lambda: NOW, tls) as provider:
        yield provider


async def post(provider: SmtpProvider, written: Letter) -> Answer:
    good = checked(written)
    assert isinstance(good, Letter)
    (parcel,) = provider.parcels([good])
    return await provider.post(good.id, parcel.payload)


def plain(server: MailServer) -> str:
    return f"smtp://127.0.0.1:{server.port}"


async def test_a_letter_arrives_with_both_parts_and_the_headers_of_the_contract(
    settings: Settings,
) -> None:
    links = {
        "List-Unsubscribe": f"<https://notify.example/api/v1/email/unsubscribe/{'t' * 200}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    written = letter(subject="Grüße 👋", text="eins\n.\n..zwei\n", headers=links)
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        answer = await post(provider, written)
    (mail,) = server.mails
    message = mail.message
    assert answer == Taken([f"<{written.id}@yourapp.com>"])
    assert message["Message-ID"] == f"<{written.id}@yourapp.com>"
    assert (mail.sender, mail.to) == ("noreply@yourapp.com", "ada@example.com")
    assert message["From"].addresses[0].display_name == "Bücher, GmbH"
    assert message["Subject"] == "Grüße 👋"
    assert {name: message[name] for name in links} == links
    assert message["Auto-Submitted"] == "auto-generated"
    text, html = message.iter_parts()
    assert text.get_content() == "eins\r\n.\r\n..zwei\r\n"
    assert html.get_content_type() == "text/html"


async def test_nothing_in_a_letter_adds_a_header_or_a_recipient(settings: Settings) -> None:
    evil = "Hello\r\nBcc: e@evil.example\r\n\r\nbody"
    named = settings.model_copy(update={"resend_from_name": evil})
    async with serving_mail() as server, sender(named, plain(server)) as provider:
        await post(provider, letter(subject=evil, headers={"List-Id": evil}, tags={"a": "b"}))
    (mail,) = server.mails
    assert mail.to == "ada@example.com"
    assert mail.message["Bcc"] is None
    assert mail.message["Subject"] == "Hello Bcc: e@evil.example body"


async def test_connections_are_used_again_and_replaced_once_they_are_closed(
    settings: Settings,
) -> None:
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        for _ in range(3):
            assert isinstance(await post(provider, letter()), Taken)
        assert server.connections == 1
        server.hang_up()
        assert isinstance(await post(provider, letter()), Taken)
        assert (server.connections, len(server.mails)) == (2, 4)


async def test_a_refusal_leaves_the_connection_to_the_next_letter(settings: Settings) -> None:
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        server.refusals["RCPT"] = ["550 5.1.1 ada@example.com is unknown"]
        refused = await post(provider, letter())
        assert refused == Refused(Failed(Reason.PROVIDER_REJECTED, "550 5.1.1"), Fault.OF_CONTENT)
        assert isinstance(await post(provider, letter()), Taken)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("command", "answer", "expected"),
    [
        ("RCPT", "450 4.2.1 later", (Retry, "provider_unavailable", Fault.OF_CONTENT)),
        ("DATA", "451 4.3.0 later", (Retry, "provider_unavailable", Fault.OF_CONTENT)),
        ("DATA", "554 5.7.1 spam", (Failed, "provider_rejected", Fault.OF_CONTENT)),
        ("MAIL", "552 5.3.4 too big", (Failed, "provider_rejected", Fault.OF_CONTENT)),
        ("MAIL", "550 5.7.1 not you", (Retry, "provider_rejected", Fault.OF_PROVIDER)),
        ("MAIL", "451 4.7.0 slow down", (Retry, "provider_unavailable", Fault.OF_PROVIDER)),
    ],
)
async def test_what_a_refusal_means(
    settings: Settings, command: str, answer: str, expected: tuple[Any, ...]
) -> None:
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        server.refusals[command] = [answer]
        refused = await post(provider, letter())
    assert isinstance(refused, Refused)
    assert (type(refused.outcome), refused.outcome.reason.value, refused.fault) == expected
    assert refused.outcome.detail == answer[:9]
    assert server.mails == []


async def test_what_breaks_off_after_the_mail_was_handed_over_is_unknown(
    settings: Settings,
) -> None:
    written = letter()
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        server.breaks = ["before", "after"]
        assert isinstance(await post(provider, written), Unknown)
        assert isinstance(await post(provider, written), Unknown)
        assert isinstance(await post(provider, written), Taken)
    # It came twice, and looks the same: by its id mailboxes tell.
    assert {mail.message["Message-ID"] for mail in server.mails} == {f"<{written.id}@yourapp.com>"}


async def test_a_server_that_never_answers_is_unknown(settings: Settings) -> None:
    hasty = settings.model_copy(update={"provider_timeout_seconds": 0.5})
    async with serving_mail() as server, sender(hasty, plain(server)) as provider:
        server.hangs = True
        assert await post(provider, letter()) == Unknown(
            Retry(Reason.PROVIDER_UNAVAILABLE, "TimeoutError")
        )


async def test_nobody_there_is_a_certain_refusal(settings: Settings) -> None:
    (port,) = free_ports(1)
    async with sender(settings, f"smtp://127.0.0.1:{port}") as provider:
        refused = await post(provider, letter())
    assert isinstance(refused, Refused)
    assert (refused.fault, refused.is_unwell) == (Fault.OF_PROVIDER, True)


# --- encryption ------------------------------------------------------------------------------


async def test_the_connection_is_encrypted_where_that_is_offered(
    settings: Settings, tmp_path: Path
) -> None:
    theirs, ours = certificate(tmp_path, "localhost")
    async with serving_mail(theirs, asks_for_login=True) as server:
        address = f"smtp://notify:p%3Aw%40d@localhost:{server.port}"
        async with sender(settings, address, ours) as provider:
            assert isinstance(await post(provider, letter()), Taken)
    assert [mail.is_encrypted for mail in server.mails] == [True]
    assert server.logins == [("notify", "p:w@d")]


async def test_smtps_is_encrypted_from_the_start(settings: Settings, tmp_path: Path) -> None:
    theirs, ours = certificate(tmp_path, "localhost")
    async with serving_mail(theirs, from_the_start=True, asks_for_login=True) as server:
        address = f"smtps://notify:p%3Aw%40d@localhost:{server.port}"
        async with sender(settings, address, ours) as provider:
            assert isinstance(await post(provider, letter()), Taken)
    assert len(server.mails) == 1
    assert server.logins == [("notify", "p:w@d")]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    settings: Settings, tmp_path: Path, scheme: str
) -> None:
    theirs, _ = certificate(tmp_path, "localhost")
    async with serving_mail(theirs, from_the_start=scheme == "smtps") as server:
        address = f"{scheme}://notify:p%3Aw%40d@localhost:{server.port}"
        async with sender(settings, address) as provider:
            refused = await post(provider, letter())
    assert isinstance(refused, Refused)
    assert refused.fault is Fault.OF_PROVIDER
    assert (server.mails, server.logins) == ([], [])


async def test_no_password_goes_to_another_machine_in_the_clear(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    async with serving_mail(asks_for_login=True) as server:
        connect = loop.create_connection

        async def elsewhere(protocol: Any, **options: Any) -> Any:
            assert options["host"] == "mail.example"
            return await connect(protocol, "127.0.0.1", options["port"])

        monkeypatch.setattr(loop, "create_connection", elsewhere, raising=False)
        address = f"smtp://notify:p%3Aw%40d@mail.example:{server.port}"
        async with sender(settings, address) as provider:
            refused = await post(provider, letter())
    assert refused == Refused(
        Retry(Reason.PROVIDER_REJECTED, "The server offers no encryption."), Fault.OF_PROVIDER
    )
    assert server.logins == []


async def test_a_wrong_password_is_ours_to_mend(settings: Settings) -> None:
    async with serving_mail(asks_for_login=True) as server:
        address = f"smtp://notify:wrong@127.0.0.1:{server.port}"
        async with sender(settings, address) as provider:
            refused = await post(provider, letter())
    assert isinstance(refused, Refused)
    assert isinstance(refused.outcome, Retry)
    assert refused.outcome.detail.startswith("535")
    assert refused.fault is Fault.OF_PROVIDER


# --- addresses of any script -----------------------------------------------------------------


async def test_a_domain_of_another_script_needs_nothing_of_the_server(settings: Settings) -> None:
    async with serving_mail(utf8=False) as server, sender(settings, plain(server)) as provider:
        assert isinstance(await post(provider, letter(to="ada@bücher.example")), Taken)
    assert [mail.to for mail in server.mails] == ["ada@xn--bcher-kva.example"]
    assert server.mails[0].raw.isascii()


async def test_a_local_part_of_another_script_needs_smtputf8(settings: Settings) -> None:
    written = letter(id=uuid4(), to="jörg@example.com", subject="Grüße")
    async with serving_mail() as server, sender(settings, plain(server)) as provider:
        assert isinstance(await post(provider, written), Taken)
    (mail,) = server.mails
    assert (mail.to, mail.is_utf8) == ("jörg@example.com", True)
    assert mail.message["Subject"] == "Grüße"
    async with serving_mail(utf8=False) as server, sender(settings, plain(server)) as provider:
        refused = await post(provider, written)
        assert isinstance(refused, Refused)
        assert isinstance(refused.outcome, Failed)
        assert isinstance(await post(provider, letter()), Taken)
    assert [mail.to for mail in server.mails] == ["ada@example.com"]
