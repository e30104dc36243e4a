"""Letters through Resend and SMTP, batched, repeated, put off and passed on (REQ-014)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from app.channels.base import Deferred, Failed, Outcome, Retry, Sent
from app.channels.email.channel import EmailChannel
from app.channels.email.letter import Letter, Mailer, MailOutcome
from app.channels.email.requests import tidy
from app.config import Settings
from app.db.database import Database
from app.pipeline.decide import Defaults
from app.policy.kinds import Reason
from app.schemas.user import UpsertUser
from app.services.user_service import UserService
from app.worker.mail import open_mail
from tests.integration.mail_server import MailServer, serving_mail
from tests.letter_samples import a_claim, composer
from tests.ports import free_ports
from tests.unit.test_email_lines import letter

START = datetime(2026, 1, 8, 12, tzinfo=UTC)
UNKNOWN = Retry(Reason.PROVIDER_UNAVAILABLE, "RemoteProtocolError")


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Post:
    """The sandbox's Resend, an SMTP server, a database, and mailers between them."""

    settings: Settings
    database: Database
    sandbox: httpx.AsyncClient
    smtp: MailServer
    clock: Clock = field(default_factory=Clock)

    @property
    def users(self) -> UserService:
        return UserService(self.database, Defaults.from_settings(self.settings), self.clock)

    @asynccontextmanager
    async def mailer(self, *, smtp: bool = False, **changes: object) -> AsyncGenerator[Mailer]:
        """A worker's; with `smtp` there is a second provider."""
        address = SecretStr(f"smtp://127.0.0.1:{self.smtp.port}") if smtp else None
        settings = self.settings.model_copy(update={"smtp_url": address, **changes})
        async with open_mail(settings, self.database, self.clock) as mail:
            assert mail is not None
            yield mail.mailer

    async def mails(self) -> list[dict[str, Any]]:
        """What Resend has, the first first."""
        items = (await self.sandbox.get("/mails", params={"limit": 1000})).json()["items"]
        return items[::-1]

    async def arrivals(self) -> dict[str, tuple[int, int]]:
        """Requests and mails of each key."""
        items = (await self.sandbox.get("/arrivals")).json()["items"]
        return {item["idempotency_key"]: (item["requests"], item["mails"]) for item in items}

    async def fault(self, *rules: dict[str, object]) -> None:
        told = [{"provider": "resend", **rule} for rule in rules]
        (await self.sandbox.put("/faults", json=told)).raise_for_status()

    async def rows(self, query: str, **values: object) -> list[Any]:
        async with self.database.as_service() as connection:
            return list((await connection.execute(text(query), values)).all())

    async def open_requests(self) -> list[Any]:
        return await self.rows("SELECT * FROM email_requests ORDER BY created_at")


@pytest.fixture
async def post(fresh_settings: Settings, sandbox: httpx.AsyncClient) -> AsyncGenerator[Post]:
    async with AsyncExitStack() as stack:
        settings = fresh_settings.model_copy(
            update={
                "resend_api_key": SecretStr("re_tests"),
                "resend_api_url": f"{sandbox.base_url}/resend",
                "provider_timeout_seconds": 2.0,
            }
        )
        database = Database(settings)
        stack.push_async_callback(database.close)
        server = await stack.enter_async_context(serving_mail())
        yield Post(settings, database, sandbox, server)


async def send_all(mailer: Mailer, letters: Sequence[Letter]) -> list[MailOutcome]:
    return await asyncio.gather(*(mailer.send(one) for one in letters))


def numbered(count: int) -> list[Letter]:
    return [letter(subject=f"Letter {number}") for number in range(count)]


# --- requests and batches --------------------------------------------------------------------


async def test_a_letter_alone_has_its_id_as_key_and_is_stored_sealed(post: Post) -> None:
    written = letter(subject="Hello\r\nBcc: e@evil.example")
    async with post.mailer(resend_from_name="Doe, John\r\nBcc: e@evil.example") as mailer:
        outcome = await mailer.send(written)
    (mail,) = await post.mails()
    assert outcome == Sent(mail["id"])
    assert mail["idempotency_key"] == str(written.id)
    assert mail["from"] == '"Doe, John Bcc: e@evil.example" <noreply@yourapp.com>'
    assert mail["subject"] == "Hello Bcc: e@evil.example"
    assert (mail["to"], mail["bcc"]) == (["ada@example.com"], [])
    assert mail["headers"] == written.headers
    assert mail["tags"] == [{"name": "notification_id", "value": "7"}]
    (request,) = await post.open_requests()
    assert (request.id, request.provider, request.created_at) == (written.id, "resend", START)
    assert b"ada@example.com" not in request.payload
    assert b"Hello" not in request.payload


async def test_letters_that_come_together_share_a_request(post: Post) -> None:
    letters = numbered(120)
    async with post.mailer() as mailer:
        outcomes = await send_all(mailer, letters)
    mails = {mail["subject"]: mail for mail in await post.mails()}
    assert outcomes == [Sent(mails[one.subject]["id"]) for one in letters]
    assert sorted(mails for _, mails in (await post.arrivals()).values()) == [20, 100]
    assert not {UUID(key) for key in await post.arrivals()} & {one.id for one in letters}


async def test_a_request_has_a_bounded_size(post: Post) -> None:
    letters = [replace(one, html="x" * 1_500_000) for one in numbered(5)]
    async with post.mailer() as mailer:
        outcomes = await send_all(mailer, letters)
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert sorted(mails for _, mails in (await post.arrivals()).values()) == [1, 2, 2]


async def test_while_there_is_plenty_of_room_each_goes_at_once(post: Post) -> None:
    letters = numbered(3)
    async with post.mailer() as mailer:
        await mailer.send(letter())  # tells how much room there is
        await send_all(mailer, letters)
    assert {UUID(key) for key in await post.arrivals()} >= {one.id for one in letters}


async def test_letters_that_come_faster_than_they_go_share_requests(post: Post) -> None:
    """However much the provider takes: a request costs more than a letter."""
    letters = numbered(500)
    await post.fault({"kind": "delay", "seconds": 0.3})
    async with post.mailer() as mailer:
        sending: list[asyncio.Task[MailOutcome]] = []
        for one in letters:
            sending.append(asyncio.create_task(mailer.send(one)))
            await asyncio.sleep(0)  # one after the other
        outcomes = await asyncio.gather(*sending)
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert len(await post.mails()) == 500
    assert len(await post.arrivals()) < 50


async def test_a_critical_letter_overtakes_all_that_wait(post: Post) -> None:
    limited: dict[str, object] = {"kind": "status", "status": 429, "retry_after": 6, "times": 1}
    await post.fault({"kind": "rate_limit", "requests_per_second": 1}, limited)
    async with post.mailer() as mailer:
        assert isinstance(await mailer.send(letter()), Retry)
        waiting = [asyncio.create_task(mailer.send(one)) for one in numbered(300)]
        await asyncio.wait(waiting, timeout=1)
        outcome = await mailer.send(letter(subject="Critical", is_critical=True))
        assert isinstance(outcome, Sent)
        assert all(isinstance(one, Sent) for one in await asyncio.gather(*waiting))
    subjects = [mail["subject"] for mail in await post.mails()]
    assert subjects[0] == "Critical"
    assert len(subjects) == 301
    assert len(await post.arrivals()) < 10


# --- repetitions -----------------------------------------------------------------------------


async def test_a_letter_whose_outcome_is_unknown_is_sent_again_as_it_was(post: Post) -> None:
    first = letter(subject="Before")
    await post.fault({"kind": "drop_after", "times": 1})
    async with post.mailer() as mailer:
        assert await mailer.send(first) == UNKNOWN
        outcome = await mailer.send(replace(first, subject="After", to="b@example.com"))
    (mail,) = await post.mails()
    assert outcome == Sent(mail["id"])
    assert (mail["subject"], mail["to"]) == ("Before", ["ada@example.com"])
    assert await post.arrivals() == {str(first.id): (2, 1)}


async def test_a_batch_stays_together_whoever_sends_some_of_it_again(post: Post) -> None:
    letters = numbered(30)
    await post.fault({"kind": "drop_after", "times": 1})
    async with post.mailer() as mailer:
        assert await send_all(mailer, letters) == [UNKNOWN] * 30
    ids = {mail["subject"]: mail["id"] for mail in await post.mails()}
    expected = [Sent(ids[one.subject]) for one in letters]
    async with post.mailer() as other:
        new = letter(subject="New")
        *some, fresh = await send_all(other, [*letters[10:15], new])
        assert some == expected[10:15]
        assert isinstance(fresh, Sent)
        # What was answered is known for the rest of it.
        assert await send_all(other, letters[:10]) == expected[:10]
    async with post.mailer() as third:
        assert await send_all(third, letters[15:]) == expected[15:]
    arrivals = await post.arrivals()
    assert len(await post.mails()) == 31
    assert sorted(arrivals.values()) == [(1, 1), (3, 30)]
    assert arrivals[str(new.id)] == (1, 1)


async def test_workers_that_race_for_a_letter_send_it_once(post: Post) -> None:
    letters = numbered(20)
    await post.fault({"kind": "delay", "seconds": 0.3})
    async with post.mailer() as one, post.mailer() as other:
        halves = await asyncio.gather(
            send_all(one, letters), send_all(other, letters[10:] + letters[:10])
        )
        outcomes = [outcome for half in halves for outcome in half]
        assert all(isinstance(outcome, Sent | Retry | Deferred) for outcome in outcomes)
        again = await send_all(other, letters)
    assert all(isinstance(outcome, Sent) for outcome in again)
    assert sorted(mail["subject"] for mail in await post.mails()) == sorted(
        one.subject for one in letters
    )


async def test_one_letter_is_not_sent_twice_at_once(post: Post) -> None:
    written = letter()
    await post.fault({"kind": "delay", "seconds": 0.2})
    async with post.mailer() as mailer:
        outcomes = await send_all(mailer, [written, written])
    assert {type(outcome) for outcome in outcomes} == {Sent, Deferred}
    assert len(await post.mails()) == 1


async def test_after_23_hours_an_unknown_outcome_stays_unknown(post: Post) -> None:
    early, late = letter(), letter()
    await post.fault({"kind": "drop_after", "times": 2})
    async with post.mailer() as mailer:
        assert await send_all(mailer, [early, late]) == [UNKNOWN] * 2
        post.clock.now += timedelta(hours=23) - timedelta(seconds=1)
        assert isinstance(await mailer.send(early), Sent)
        post.clock.now += timedelta(seconds=1)
        for _ in range(2):
            outcome = await mailer.send(late)
            assert isinstance(outcome, Failed)
            assert outcome.reason is Reason.OUTCOME_UNKNOWN
    assert await post.arrivals() == {str(early.id): (2, 1), str(late.id): (1, 1)}


async def test_what_a_repetition_is_refused_says_nothing_of_the_first_try(post: Post) -> None:
    written = letter()
    await post.fault(
        {"kind": "drop_after", "times": 1},
        {"kind": "status", "status": 401, "times": 1},
        {"kind": "status", "status": 429, "name": "daily_quota_exceeded", "times": 1},
    )
    async with post.mailer(smtp=True) as mailer:
        assert await mailer.send(written) == UNKNOWN
        assert isinstance(await mailer.send(written), Retry)
        assert isinstance(await mailer.send(written), Deferred)
    (port,) = free_ports(1)
    async with post.mailer(smtp=True, resend_api_url=f"http://127.0.0.1:{port}") as mailer:
        assert isinstance(await mailer.send(written), Retry)
    async with post.mailer(smtp=True) as mailer:
        assert isinstance(await mailer.send(written), Sent)
    assert (len(await post.mails()), post.smtp.mails) == (1, [])


async def test_a_provider_that_is_not_configured_any_more_is_not_replaced(post: Post) -> None:
    written = letter()
    await post.fault({"kind": "drop_after", "times": 1})
    async with post.mailer() as mailer:
        assert await mailer.send(written) == UNKNOWN
    async with post.mailer(smtp=True, resend_api_key=None, app_env="production") as mailer:
        assert isinstance(await mailer.send(written), Retry)
        assert isinstance(await mailer.send(letter()), Sent)
    assert (len(await post.mails()), len(post.smtp.mails)) == (1, 1)


# --- refusals --------------------------------------------------------------------------------


async def test_a_refused_batch_is_sent_letter_by_letter(post: Post) -> None:
    letters = [*numbered(9), letter(to="ada@localhost")]  # not one for Resend
    async with post.mailer(smtp=True) as mailer:
        outcomes = await send_all(mailer, letters)
    assert [type(outcome) for outcome in outcomes] == [Sent] * 9 + [Failed]
    mails = await post.mails()
    assert {mail["idempotency_key"] for mail in mails} == {str(one.id) for one in letters[:9]}
    assert post.smtp.mails == []
    assert {row.id for row in await post.open_requests()} == {one.id for one in letters[:9]}


async def test_a_letter_that_cannot_be_written_costs_no_other(post: Post) -> None:
    good = replace(a_claim(), id=uuid4())
    bad = replace(a_claim(), id=uuid4(), type="nonsense")
    outcomes: dict[UUID, Outcome] = {}
    await post.fault({"kind": "delay", "seconds": 0.2})
    async with post.mailer() as mailer:
        channel = EmailChannel(composer(email_tracking="off"), mailer)
        await channel.send([good, bad], lambda claim, told: outcomes.update({claim.id: told}))
    assert isinstance(outcomes[good.id], Sent)
    assert outcomes[bad.id] == Retry(Reason.INTERNAL_ERROR, "ValueError")
    assert await post.arrivals() == {str(good.id): (1, 1)}


async def test_the_whole_provider_waits_as_long_as_it_asks(post: Post) -> None:
    first, *others = numbered(3)
    await post.fault({"kind": "status", "status": 429, "retry_after": 90, "times": 1})
    async with post.mailer() as mailer:
        assert await mailer.send(first) == Retry(
            Reason.PROVIDER_LIMIT, "429 rate_limit_exceeded", 90
        )
        assert await post.open_requests() == []
        for outcome in await send_all(mailer, [*others, letter(is_critical=True)]):
            assert isinstance(outcome, Deferred)
            assert outcome.reason is Reason.PROVIDER_LIMIT
            assert 60 < outcome.after <= 90
    assert await post.arrivals() == {str(first.id): (1, 0)}


async def test_a_short_wait_is_waited_for(post: Post) -> None:
    written = letter()
    await post.fault({"kind": "status", "status": 429, "retry_after": 1, "times": 1})
    async with post.mailer() as mailer:
        assert isinstance(await mailer.send(written), Retry)
        assert isinstance(await mailer.send(written), Sent)


async def test_no_letter_waits_for_longer_than_its_lease_allows(post: Post) -> None:
    await post.fault({"kind": "status", "status": 429, "retry_after": 2, "times": 1})
    async with post.mailer(delivery_lease_seconds=3.0) as mailer:
        assert isinstance(await mailer.send(letter()), Retry)
        assert isinstance(await mailer.send(letter()), Deferred)


async def test_a_used_up_quota_is_no_attempt(post: Post) -> None:
    await post.fault({"kind": "status", "status": 429, "name": "daily_quota_exceeded"})
    async with post.mailer() as mailer:
        outcome = await mailer.send(letter())
    assert outcome == Deferred(Reason.PROVIDER_LIMIT, "429 daily_quota_exceeded", 1_800)


# --- the other provider ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        {"status": 429, "name": "daily_quota_exceeded"},
        {"status": 429, "retry_after": 60},
        {"status": 401},
        {"status": 403},
    ],
    ids=["quota", "limit", "no key", "bad key"],
)
async def test_what_concerns_the_provider_sends_letters_to_the_other(
    post: Post, rule: dict[str, object]
) -> None:
    letters = numbered(12)
    await post.fault({"kind": "status", **rule})
    async with post.mailer(smtp=True) as mailer:
        outcomes = await send_all(mailer, letters)
        critical = letter(is_critical=True)
        outcomes.append(await mailer.send(critical))
    assert outcomes == [Sent(f"<{one.id}@yourapp.com>") for one in [*letters, critical]]
    assert len(post.smtp.mails) == 13
    assert {row.provider for row in await post.open_requests()} == {"smtp"}
    assert await post.mails() == []


async def test_where_nobody_is_letters_go_to_the_other(post: Post) -> None:
    (port,) = free_ports(1)
    async with post.mailer(smtp=True, resend_api_url=f"http://127.0.0.1:{port}") as mailer:
        outcomes = await send_all(mailer, numbered(12))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert len(post.smtp.mails) == 12


@pytest.mark.parametrize(
    "rule",
    [{"kind": "hang"}, {"kind": "status", "status": 503}, {"kind": "drop"}, {"kind": "drop_after"}],
    ids=["hangs", "fails", "drops before", "drops after"],
)
async def test_what_may_have_been_taken_goes_nowhere_else(
    post: Post, rule: dict[str, object]
) -> None:
    written = letter()
    await post.fault({**rule, "times": 1})
    async with post.mailer(smtp=True, provider_timeout_seconds=1.0) as mailer:
        assert isinstance(await mailer.send(written), Retry)
        assert isinstance(await mailer.send(written), Sent)
    assert (len(await post.mails()), post.smtp.mails) == (1, [])


async def test_while_a_provider_is_ill_new_letters_go_to_the_other(post: Post) -> None:
    handed = [letter(is_critical=True) for _ in range(5)]
    await post.fault({"kind": "status", "status": 503})
    async with post.mailer(smtp=True) as mailer:
        for one in handed:
            assert isinstance(await mailer.send(one), Retry | Deferred)
        new = letter(is_critical=True)
        assert isinstance(await mailer.send(new), Sent)
        assert isinstance(await mailer.send(handed[0]), Deferred)
    assert [mail.message["Message-ID"] for mail in post.smtp.mails] == [f"<{new.id}@yourapp.com>"]


async def test_smtp_alone_repeats_what_broke_off_with_the_same_id(post: Post) -> None:
    written = letter()
    post.smtp.breaks = ["before"]
    production = {"resend_api_key": None, "app_env": "production"}
    async with post.mailer(smtp=True, **production) as mailer:
        assert isinstance(await mailer.send(written), Retry)
        assert await mailer.send(replace(written, subject="Other")) == Sent(
            f"<{written.id}@yourapp.com>"
        )
    (mail,) = post.smtp.mails
    assert mail.message["Subject"] == "A title"


# --- links, and tidying up -------------------------------------------------------------------


async def test_where_the_links_of_a_letter_lead_is_stored_with_its_request(post: Post) -> None:
    user_id = uuid4()
    await post.users.upsert(user_id, UpsertUser(email="ada@example.com"))
    first = letter(user_id=user_id, links=("https://a.example/?x={1}", 'https://b.example/"'))
    await post.fault({"kind": "status", "status": 401, "times": 1})
    async with post.mailer() as mailer:
        assert isinstance(await mailer.send(first), Retry)
        await mailer.send(replace(first, links=(*first.links, "https://c.example/")))
        await mailer.send(letter(user_id=user_id))
    (row,) = await post.rows("SELECT * FROM email_links")
    assert (row.letter_id, row.user_id) == (first.id, user_id)
    assert row.targets == [*first.links, "https://c.example/"]
    await tidy(post.database, START, START)
    assert len(await post.rows("SELECT letter_id FROM email_links")) == 1
    await tidy(post.database, START, START + timedelta(seconds=1))
    assert await post.rows("SELECT letter_id FROM email_links") == []


async def test_settled_requests_are_tidied_away_and_no_others(post: Post) -> None:
    user_id = uuid4()
    await post.users.upsert(user_id, UpsertUser(email="ada@example.com"))
    letters = {status: letter(user_id=user_id) for status in ("sent", "failed", "pending", "gone")}
    async with post.mailer() as mailer:
        for one in letters.values():
            await mailer.send(one)
    for status, one in letters.items():
        if status != "gone":
            await post.rows(
                """
                WITH n AS (
                    INSERT INTO notifications (
                        id, user_id, service, type, priority, title, body, body_html
                    )
                    VALUES (:id, :user_id, 'tests', 'task', 'high', '', '', '')
                )
                INSERT INTO notification_deliveries (id, notification_id, user_id, channel, status)
                VALUES (:id, :id, :user_id, 'email', :status) RETURNING id
                """,
                id=one.id,
                user_id=user_id,
                status=status,
            )

    async def left() -> set[str]:
        kept = {row.id for row in await post.open_requests()}
        return {status for status, one in letters.items() if one.id in kept}

    assert await tidy(post.database, START, START) == 2
    assert await left() == {"failed", "pending"}
    # Its key is forgotten by the provider; whoever claims it has to know that it may be there.
    await tidy(post.database, START + timedelta(hours=26), START)
    assert await left() == {"pending"}
