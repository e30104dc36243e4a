"""What Resend posts: who is believed, and what follows from it (REQ-014)."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from itertools import permutations
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from app.config import Settings
from app.main import MAX_BODY_BYTES
from app.pipeline.keyring import Keyring
from app.pipeline.tidy import Tidier
from app.security.webhooks import new_secret, signed_headers
from tests.contract.callers import V1, Json, assert_refused, content, open_api
from tests.contract.mailing import (
    NOW,
    SAFARI,
    SECRET,
    SENT,
    WEBHOOK,
    Clock,
    Mail,
    Post,
    digest,
    instant,
)

NEXT_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def at_noon(clock: Clock) -> None:
    clock.now = NOW


@pytest.fixture(scope="module")
async def post(settings: Settings, clock: Clock) -> AsyncGenerator[Post]:
    both = SecretStr(f"{SECRET}, {NEXT_SECRET}")
    async with open_api(settings.model_copy(update={"resend_webhook_secret": both}), clock) as api:
        yield Post(api, clock)


@pytest.fixture
async def mail(post: Post) -> Mail:
    return await instant(post)


class TestWhoIsBelieved:
    async def test_either_family_of_headers_will_do(self, post: Post) -> None:
        for family in ("svix", "webhook"):
            answer = await post.raw(b'{"type": "email.sent", "data": {}}', family=family)
            assert answer.status_code == 200
            assert answer.json() == {"received": True}

    @pytest.mark.parametrize("skew", [-300, 0, 300])
    async def test_clocks_may_differ_by_five_minutes(self, post: Post, skew: int) -> None:
        assert (await post.deliver("email.sent", skew=skew)).status_code == 200

    @pytest.mark.parametrize("skew", [-86_400, -301, 301, 86_400])
    async def test_and_by_no_more(self, post: Post, mail: Mail, skew: int) -> None:
        answer = await post.deliver("email.delivered", mail.data, skew=skew)
        assert_refused(answer, 401, "invalid_signature")
        assert await mail.state() == ["sent"]

    async def test_a_former_secret_is_believed_while_it_is_listed(self, post: Post) -> None:
        for secret, status in ((SECRET, 200), (NEXT_SECRET, 200), (new_secret(), 401)):
            answer = await Post(post.api, post.clock, secret).deliver("email.sent")
            assert answer.status_code == status

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("svix-id", None),
            ("svix-timestamp", None),
            ("svix-signature", None),
            ("svix-id", ""),
            ("svix-id", "another"),
            ("svix-id", "a" * 257),
            ("svix-timestamp", ""),
            ("svix-timestamp", "soon"),
            ("svix-timestamp", "1e9"),
            ("svix-timestamp", "9" * 400),
            ("svix-timestamp", "-1"),
            ("svix-timestamp", "٣"),
            ("svix-signature", ""),
            ("svix-signature", "v1"),
            ("svix-signature", "v1,"),
            ("svix-signature", "v1,AAAA"),
            ("svix-signature", "v1,ä"),
            ("svix-signature", "v1a,AAAA v2,BBBB"),
        ],
    )
    async def test_each_header_counts(
        self, post: Post, mail: Mail, name: str, value: str | None
    ) -> None:
        body, headers = self.signed(post, mail)
        del headers[name]
        if value is not None:
            headers[name] = value.encode("utf-8").decode("latin-1")
        assert_refused(await self.send(post, body, headers), 401, "invalid_signature")
        assert await mail.state() == ["sent"]

    async def test_the_body_counts_byte_for_byte(self, post: Post, mail: Mail) -> None:
        body, headers = self.signed(post, mail)
        for altered in (body + b" ", body.replace(b'": ', b'":'), b"", b"\xff"):
            assert_refused(await self.send(post, altered, headers), 401, "invalid_signature")

    async def test_one_right_signature_of_several_is_enough(self, post: Post, mail: Mail) -> None:
        body, headers = self.signed(post, mail)
        right = headers["svix-signature"]
        headers["svix-signature"] = f"v1a,QUJD v1,QUJD {right} v2,{right[3:]}"
        assert (await self.send(post, body, headers)).status_code == 200
        assert await mail.state() == ["delivered"]

    async def test_of_another_version_it_is_none(self, post: Post, mail: Mail) -> None:
        body, headers = self.signed(post, mail)
        headers["svix-signature"] = headers["svix-signature"].replace("v1,", "v2,")
        assert_refused(await self.send(post, body, headers), 401, "invalid_signature")

    async def test_without_a_secret_nobody_is(self, settings: Settings, clock: Clock) -> None:
        without = settings.model_copy(update={"resend_webhook_secret": None})
        async with open_api(without, clock) as api:
            answer = await Post(api, clock).deliver("email.sent")
        assert_refused(answer, 503, "unavailable")
        assert "RESEND_WEBHOOK_SECRET" in answer.text
        assert int(answer.headers["Retry-After"]) > 1

    @staticmethod
    def signed(post: Post, mail: Mail) -> tuple[bytes, dict[str, str]]:
        body = json.dumps({"type": "email.delivered", "data": mail.data}).encode()
        stamp = int(post.clock().timestamp())
        signed = signed_headers(SECRET, f"msg_{uuid4().hex}", stamp, body)
        return body, {name.replace("webhook", "svix"): value for name, value in signed.items()}

    @staticmethod
    async def send(post: Post, body: bytes, headers: dict[str, str]) -> httpx.Response:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return await post.api.client.post(WEBHOOK, content=body, headers=encoded)


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"text"',
            b"{}",
            b'{"type": "email.sent"}',
            b'{"data": {}}',
            b'{"type": 7, "data": {}}',
            b'{"type": "email.sent", "data": []}',
            b'{"type": "email.sent", "data": {}, "created_at": "yesterday"}',
            b'{"type": "email.sent", "data": {}, "created_at": "2026-03-02T12:00:00"}',
            b'{"type": "email.sent", "data": {}, "created_at": 1772452800}',
            b'{"type": "email.sent", "data": {"to": "\\u0000"}}',
            b"\xff\xfe",
            b"[" * 5_000,
        ],
    )
    async def test_what_is_signed_and_no_event_is_refused(self, post: Post, body: bytes) -> None:
        assert assert_refused(await post.raw(body), 422, "validation_error")

    async def test_the_limit_of_bodies_holds(self, post: Post) -> None:
        answer = await post.raw(b" " * (MAX_BODY_BYTES + 1))
        assert_refused(answer, 413, "body_too_large")

    @pytest.mark.parametrize("kind", ["email.scheduled", "contact.created", "", "email.Delivered"])
    async def test_other_events_have_no_effect(self, post: Post, mail: Mail, kind: str) -> None:
        assert (await post.deliver(kind, mail.data)).status_code == 200
        assert await mail.events() == []

    @pytest.mark.parametrize(
        "data",
        [
            {"email_id": None},
            {"email_id": 7},
            {"email_id": "a" * 10_000},
            {"email_id": "\x07"},
            {"to": None, "tags": None, "bounce": None},
            {"to": {"a": 1}, "tags": "notification_id", "bounce": "Permanent"},
            {"to": ["no address", 7, None], "tags": [1, {"name": "notification_id"}]},
            {"tags": [{"name": "notification_id", "value": "no id"}]},
            {"tags": {"notification_id": 7}},
            {"tags": {"notification_id": "00000000-0000-0000-0000-000000000000"}},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("kind", ["email.bounced", "email.clicked"])
    async def test_what_is_no_letter_of_ours_has_no_effect(
        self, post: Post, kind: str, data: Json
    ) -> None:
        stranger = f"{uuid4().hex}@example.com"
        answer = await post.deliver(kind, {"to": [stranger], **data})
        assert answer.status_code == 200
        assert await post.api.rows(
            "SELECT reason FROM email_suppressions"
            " WHERE address_digest = sha256(convert_to(:address, 'UTF8'))",
            address=stranger,
        ) == []  # fmt: skip

    @pytest.mark.parametrize("instant_", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
    async def test_odd_times_do_no_harm(self, post: Post, mail: Mail, instant_: str) -> None:
        event = {"type": "email.delivered", "created_at": instant_, "data": mail.data}
        assert (await post.raw(json.dumps(event).encode())).status_code == 200
        assert await mail.state() == ["delivered"]


class TestRepetitions:
    async def test_the_same_again_has_no_effect(self, post: Post, mail: Mail) -> None:
        for _ in range(3):
            answer = await post.deliver("email.bounced", mail.data, id_=f"msg_{mail.letter}")
            assert answer.status_code == 200
        assert [event for event, _ in await mail.events()] == ["bounced"]
        bounced = await mail.api.rows(
            "SELECT soft_bounced_at FROM email_suppressions"
            " WHERE address_digest = sha256(convert_to(lower(:address), 'UTF8'))",
            address=mail.address,
        )
        assert [len(row.soft_bounced_at) for row in bounced] == [1]

    async def test_many_of_one_id_at_once_are_one(self, post: Post, mail: Mail) -> None:
        id_ = f"msg_{mail.letter}"
        kinds = ["email.delivered", "email.opened", "email.complained", "email.bounced"] * 5
        answers = await asyncio.gather(*(post.deliver(kind, mail.data, id_=id_) for kind in kinds))
        assert {answer.status_code for answer in answers} == {200}
        assert len(await mail.events()) == 1

    async def test_different_ones_at_once_all_count(self, post: Post, mail: Mail) -> None:
        kinds = ["email.delivered", "email.opened", "email.complained", "email.delivery_delayed"]
        await asyncio.gather(*(mail.report(kind) for kind in kinds * 5))
        assert sorted(event for event, _ in await mail.events()) == [
            "complained", "delayed", "delivered", "opened",
        ]  # fmt: skip
        assert await mail.state() == ["delivered"]

    async def test_what_failed_is_taken_in_the_next_time(self, post: Post, mail: Mail) -> None:
        id_ = f"msg_{mail.letter}"
        assert (await post.raw(b"{", id_=id_)).status_code == 422
        assert (await post.deliver("email.delivered", mail.data, id_=id_)).status_code == 200
        assert await mail.state() == ["delivered"]

    async def test_they_are_forgotten_after_days(self, post: Post) -> None:
        ids = [f"msg_{uuid4().hex}" for _ in range(2)]
        for id_ in ids:
            await post.deliver("email.sent", id_=id_)
        await post.api.rows(
            "UPDATE webhook_receipts SET received_at = received_at - interval '7 days 1 second'"
            " WHERE id = :id RETURNING id",
            id=ids[0],
        )
        api = post.api
        keyring = Keyring(api.settings, api.database, post.clock)
        days = timedelta(days=30)
        await Tidier(api.database, keyring, days, days, post.clock).tidy()
        left = await api.rows("SELECT id FROM webhook_receipts WHERE id = ANY(:ids)", ids=ids)
        assert [row.id for row in left] == ids[1:]


class TestStates:
    @pytest.mark.parametrize(
        ("kind", "state", "event"),
        [
            ("email.sent", "sent", None),
            ("email.delivery_delayed", "sent", "delayed"),
            ("email.delivered", "delivered", "delivered"),
            ("email.opened", "sent", "opened"),
            ("email.clicked", "sent", "clicked"),
            ("email.complained", "sent", "complained"),
            ("email.bounced", "bounced", "bounced"),
            ("email.suppressed", "bounced", "bounced"),
            ("email.failed", "failed", "failed"),
        ],
    )
    @pytest.mark.parametrize("make", [instant, digest])
    async def test_each_event(
        self,
        post: Post,
        make: Callable[[Post], Awaitable[Mail]],
        kind: str,
        state: str,
        event: str | None,
    ) -> None:
        mail = await make(post)
        await mail.report(kind)
        assert await mail.state() == [state]
        for notification in mail.notifications:
            told = [name for name, _ in await mail.events(notification)]
            assert told == ([] if event is None else [event])

    async def test_a_letter_is_found_by_its_tags_where_its_id_is_not_known_yet(
        self, post: Post
    ) -> None:
        for make in (instant, digest):
            for as_object in (False, True):
                mail = await make(post)
                tags = mail.data["tags"]
                if as_object:
                    tags = {tag["name"]: tag["value"] for tag in tags}
                await mail.report("email.delivered", email_id="unknown", tags=tags)
                assert await mail.state() == ["delivered"]

    async def test_the_user_sees_it_with_the_notification(self, mail: Mail) -> None:
        await mail.bounce()
        told = await mail.api.read(mail.user, f"/{mail.notifications[0]}")
        assert told["delivery_status"]["email"] == "bounced"

    async def test_the_trace_tells_when_and_why_and_names_nobody(self, mail: Mail) -> None:
        await mail.report("email.delivered", NOW - timedelta(minutes=30))
        await mail.bounce(at=NOW - timedelta(minutes=20))
        trace = await mail.api.read(mail.user, f"/{mail.notifications[0]}/trace")
        told = [event for event in trace["events"] if event["channel"] == "email"]
        assert [(e["event"], e["at"], e["reason"]) for e in told] == [
            ("delivered", "2026-03-02T11:30:00Z", None),
            ("bounced", "2026-03-02T11:40:00Z", "bounced"),
        ]
        assert told[1]["detail"] == {
            "bounce": "hard",
            "detail": "Permanent: General: [email] no such user",
        }
        assert mail.address.lower() not in json.dumps(trace).lower()

    async def test_what_is_reported_of_tomorrow_happened_by_now(self, mail: Mail) -> None:
        await mail.report("email.delivered", NOW + timedelta(days=1))
        (row,) = await mail.api.rows(
            "SELECT delivered_at FROM notification_deliveries WHERE id = :id", id=mail.letter
        )
        assert row.delivered_at == NOW

    @pytest.mark.parametrize("state", ["skipped", "cancelled"])
    async def test_what_never_went_out_stays_so(self, mail: Mail, state: str) -> None:
        await mail.api.rows(
            "UPDATE notification_deliveries SET status = :state WHERE id = :id RETURNING id",
            state=state,
            id=mail.letter,
        )
        await mail.report("email.delivered")
        assert await mail.state() == [state]


# Of each kind one, with the time it happened; and what must be there however they arrive.
STORIES: dict[str, tuple[list[tuple[str, int, str | None]], str, str | None]] = {
    "delivered and read": (
        [("delivery_delayed", 2, None), ("delivered", 3, None), ("opened", 4, None)],
        "delivered", None,
    ),
    "delivered, then bounced": (
        [("sent", 1, None), ("delivered", 2, None), ("bounced", 3, "Permanent")],
        "bounced", "bounced",
    ),
    "bounced, and called spam": (
        [("delivered", 1, None), ("complained", 2, None), ("bounced", 3, "Permanent"),
         ("clicked", 4, None)],
        "bounced", "complained",
    ),
    "failed, and was delivered": (
        [("sent", 1, None), ("failed", 2, None), ("delivered", 3, None)],
        "delivered", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("make", [instant, digest])
async def test_in_whatever_order_they_arrive(
    post: Post, make: Callable[[Post], Awaitable[Mail]], story: str
) -> None:
    told, state, suppression = STORIES[story]
    outcomes: list[tuple[object, str, list[str]]] = []
    for order in permutations(told):
        mail = await make(post)
        for kind, minute, bounce in order:
            data = {} if bounce is None else {"bounce": {"type": bounce}}
            await mail.report(f"email.{kind}", SENT + timedelta(minutes=minute), **data)
        times = await mail.api.rows(
            "SELECT sent_at, delivered_at, failed_at, reason FROM notification_deliveries"
            " WHERE channel = 'email' AND notification_id = ANY(CAST(:ids AS uuid[]))",
            ids=mail.notifications,
        )
        events = [
            event["event"]
            for event in (await mail.api.read(mail.user, f"/{mail.notifications[0]}/trace"))[
                "events"
            ]
            if event["channel"] == "email" and event["event"] != "failed"
        ]
        assert await mail.state() == [state], order
        assert await mail.suppression() == suppression, order
        outcomes.append((state, str(sorted(map(str, times))), events))
    assert all(outcome == outcomes[0] for outcome in outcomes)


class TestAddresses:
    @pytest.mark.parametrize(
        ("kind", "data", "reason"),
        [
            ("email.bounced", {"bounce": {"type": "Permanent"}}, "bounced"),
            ("email.bounced", {"bounce": {"type": "Transient"}}, None),
            ("email.bounced", {"bounce": {"type": "Undetermined"}}, None),
            ("email.bounced", {}, None),
            ("email.complained", {}, "complained"),
            ("email.suppressed", {}, "bounced"),
            ("email.failed", {}, None),
            ("email.delivered", {}, None),
        ],
    )
    @pytest.mark.parametrize("make", [instant, digest])
    async def test_which_reports_suppress(
        self,
        post: Post,
        make: Callable[[Post], Awaitable[Mail]],
        kind: str,
        data: Json,
        reason: str | None,
    ) -> None:
        mail = await make(post)
        await mail.report(kind, **data)
        assert await mail.suppression() == reason

    async def test_the_address_is_the_one_that_was_written_to(self, mail: Mail) -> None:
        later = f"{uuid4().hex}@example.com"
        await mail.api.client.put(
            f"{V1}/internal/users/{mail.user}",
            json={"email": later},
            headers=mail.api.internal(),
        )
        await mail.report("email.complained", to=[f"Ada <{mail.address.upper()}>"])
        assert await mail.suppression() == "complained"
        mail.address = later
        assert await mail.suppression() is None

    async def test_where_it_is_not_told_it_is_the_users(self, mail: Mail) -> None:
        await mail.report("email.complained", to=[])
        assert await mail.suppression() == "complained"

    async def test_the_third_soft_bounce_within_a_week_suppresses(self, post: Post) -> None:
        mail = await instant(post)
        for day in (0, 6, 7):
            assert await mail.suppression() is None
            await (await instant(post, user=mail.user, address=mail.address)).bounce(
                "Transient", NOW - timedelta(days=7 - day)
            )
        assert await mail.suppression() == "soft_bounced"

    async def test_those_of_more_than_a_week_do_not(self, post: Post) -> None:
        mail = await instant(post)
        for days in (8, 4, 0):
            await mail.bounce("Undetermined", NOW - timedelta(days=days))
        assert await mail.suppression() is None

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    async def test_a_delivery_between_counts_whenever_it_is_reported(
        self, post: Post, order: tuple[int, ...]
    ) -> None:
        mail = await instant(post)
        await mail.bounce("Transient", NOW - timedelta(days=3))
        reports = [
            lambda: mail.report("email.delivered", NOW - timedelta(days=2)),
            lambda: mail.bounce("Transient", NOW - timedelta(days=1)),
            lambda: mail.bounce("Transient", NOW),
        ]
        for number in order:
            await reports[number]()
        assert await mail.suppression() is None
        await mail.bounce("Transient", NOW - timedelta(hours=1))
        assert await mail.suppression() == "soft_bounced"

    async def test_nothing_is_kept_of_addresses_that_take_their_mail(self, mail: Mail) -> None:
        await mail.report("email.delivered")
        assert await mail.api.rows(
            "SELECT reason FROM email_suppressions"
            " WHERE address_digest = sha256(convert_to(lower(:address), 'UTF8'))",
            address=mail.address,
        ) == []  # fmt: skip

    @pytest.mark.parametrize("priority", ["critical", "high"])
    async def test_a_complaint_stops_the_next_email_and_every_answer_says_so(
        self, mail: Mail, priority: str
    ) -> None:
        body = content(user_id=mail.user, priority=priority, send_email=True)
        api = mail.api

        async def explained() -> list[Json]:
            answer = await api.client.post(
                f"{V1}/internal/notifications/explain", json=body, headers=api.internal()
            )
            return answer.json()["channels"]

        assert (await explained())[2]["action"] == "send"
        await mail.report("email.complained")
        told = (await explained())[2]
        assert (told["action"], told["reason"]) == ("skip", "address_suppressed")
        created = await api.create(mail.user, priority=priority, send_email=True)
        assert "email" not in created["channels"]
        trace = await api.read(mail.user, f"/{created['id']}/trace")
        (decided,) = [item for item in trace["decisions"] if item["channel"] == "email"]
        assert {name: decided[name] for name in told} == told


class TestOpensAndClicksThatTheProviderNoticed:
    async def test_each_is_told_once_and_a_person_beside_a_machine(self, mail: Mail) -> None:
        proxy = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via GoogleImageProxy)"
        for agent in (proxy, SAFARI, proxy, SAFARI):
            await mail.report("email.opened", open={"userAgent": agent, "ipAddress": "192.0.2.1"})
        assert await mail.events() == [("opened", {"machine": True}), ("opened", {})]

    async def test_clicks_are_told_with_their_link(self, mail: Mail) -> None:
        for link in ("https://example.com/a", "https://example.com/b", "https://example.com/a"):
            await mail.report("email.clicked", click={"link": link, "userAgent": SAFARI})
        assert await mail.events() == [
            ("clicked", {"link": "https://example.com/a"}),
            ("clicked", {"link": "https://example.com/b"}),
        ]

    async def test_what_is_opened_within_a_second_is_by_a_machine(self, mail: Mail) -> None:
        await mail.report("email.opened", SENT + timedelta(seconds=1))
        await mail.report("email.opened", SENT + timedelta(seconds=3))
        assert await mail.events() == [("opened", {"machine": True}), ("opened", {})]

    async def test_links_of_ours_are_not_told_for_they_are_keys(self, mail: Mail) -> None:
        base = f"{mail.api.settings.base_url}{V1}/email"
        await mail.report("email.clicked", click={"link": f"{base}/click/token"})
        await mail.report("email.clicked", click={"link": f"{base}/unsubscribe/token"})
        assert await mail.events() == [] or "token" not in str(await mail.events())

    @pytest.mark.parametrize("link", ["javascript:alert(1)", "ftp://example.com", 7, None, ""])
    async def test_what_is_no_web_address_is_left_out(self, mail: Mail, link: object) -> None:
        await mail.report("email.clicked", click={"link": link, "userAgent": SAFARI})
        assert await mail.events() == [("clicked", {})]
