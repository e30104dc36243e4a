"""Where the links in emails lead: pixel, redirect, unsubscribing (REQ-014, RFC 8058)."""

import base64
import re
from collections.abc import AsyncGenerator
from hashlib import sha256
from uuid import UUID, uuid4

import httpx
import pytest

from app.config import Settings
from app.policy.kinds import NotificationType
from app.security.email_tokens import EmailTokens, Unsubscription
from tests.contract.callers import V1, Api, Headers, Json, assert_refused, open_api
from tests.contract.mailing import (
    NOW,
    SAFARI,
    SENT,
    Clock,
    Mail,
    Post,
    digest,
    instant,
    store_links,
)

EMAIL = f"{V1}/email"
PERSON = {"User-Agent": SAFARI}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def at_noon(clock: Clock) -> None:
    clock.now = NOW


@pytest.fixture(scope="module")
async def post(settings: Settings, clock: Clock) -> AsyncGenerator[Post]:
    async with open_api(settings, clock) as api:
        yield Post(api, clock)


@pytest.fixture
async def mail(post: Post) -> Mail:
    return await instant(post)


async def opened(mail: Mail, method: str = "GET", **headers: str) -> httpx.Response:
    path = f"{EMAIL}/open/{mail.tokens.opened(mail.letter)}"
    return await mail.api.client.request(method, path, headers=PERSON | headers)


async def clicked(mail: Mail, place: int, method: str = "GET", **headers: str) -> httpx.Response:
    path = f"{EMAIL}/click/{mail.tokens.clicked(mail.letter, place)}"
    return await mail.api.client.request(method, path, headers=PERSON | headers)


class TestOpens:
    async def test_the_pixel_is_one_and_is_asked_for_each_time(self, mail: Mail) -> None:
        for _ in range(3):
            answer = await opened(mail)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "image/gif"
            assert answer.content[:10] == b"GIF89a\x01\x00\x01\x00"
            assert "no-store" in answer.headers["Cache-Control"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "Set-Cookie" not in answer.headers
        assert await mail.events() == [("opened", {})]

    @pytest.mark.parametrize(
        "headers",
        [
            {"User-Agent": ""},
            {"User-Agent": "Mozilla/5.0"},
            {"User-Agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"},
            {"User-Agent": "BarracudaCentral/1.0"},
            {"User-Agent": "python-requests/2.32"},
            {"Sec-Purpose": "prefetch;prerender"},
            {"X-Purpose": "preview"},
            {"X-Moz": "prefetch"},
        ],
        ids=str,
    )
    async def test_machines_are_flagged_and_a_person_after_one_is_told(
        self, mail: Mail, headers: Headers
    ) -> None:
        await opened(mail, **headers)
        assert await mail.events() == [("opened", {"machine": True})]
        await opened(mail)
        await opened(mail, **headers)
        assert await mail.events() == [("opened", {"machine": True}), ("opened", {})]

    async def test_nobody_is_that_quick(self, mail: Mail, clock: Clock) -> None:
        for seconds in (0, 1, 3):
            clock.now = SENT
            clock.advance(seconds=seconds)
            await opened(mail)
        assert await mail.events() == [("opened", {"machine": True}), ("opened", {})]

    async def test_asking_for_the_head_is_no_open(self, mail: Mail) -> None:
        assert (await opened(mail, "HEAD")).status_code == 200
        assert await mail.events() == []

    async def test_a_digest_is_opened_with_all_that_it_tells_of(self, post: Post) -> None:
        mail = await digest(post)
        await opened(mail)
        for notification in mail.notifications:
            assert await mail.events(notification) == [("opened", {"digest_id": str(mail.letter)})]

    async def test_what_is_erased_still_has_its_pixel(self, mail: Mail) -> None:
        await mail.api.rows(
            "DELETE FROM notifications WHERE id = :id RETURNING id", id=mail.notifications[0]
        )
        assert (await opened(mail)).status_code == 200

    async def test_nobody_elses_token_opens_anything(self, mail: Mail) -> None:
        tokens = EmailTokens([b"x" * 32])
        for token in (tokens.opened(mail.letter), mail.tokens.clicked(mail.letter, 0), "garbage"):
            answer = await mail.api.client.get(f"{EMAIL}/open/{token}", headers=PERSON)
            assert_refused(answer, 404, "not_found")
        assert await mail.events() == []


class TestClicks:
    async def test_a_link_leads_to_what_was_stored_and_nowhere_else(self, mail: Mail) -> None:
        targets = ["https://example.com/a?b=c&d=%20#e", "https://example.com/other"]
        await store_links(mail, targets)
        for place, target in enumerate(targets * 2):
            answer = await clicked(mail, place % 2)
            assert (answer.status_code, answer.headers["Location"]) == (302, target)
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "no-store" in answer.headers["Cache-Control"]
            assert "Set-Cookie" not in answer.headers
        assert await mail.events() == [("clicked", {"link": target}) for target in targets]

    async def test_scanners_are_told_apart(self, mail: Mail) -> None:
        await store_links(mail, ["https://example.com/"])
        assert (await clicked(mail, 0, "HEAD")).status_code == 302
        assert await mail.events() == []
        await clicked(mail, 0, **{"User-Agent": "Mimecast"})
        await clicked(mail, 0)
        link = {"link": "https://example.com/"}
        assert await mail.events() == [("clicked", {**link, "machine": True}), ("clicked", link)]

    async def test_in_a_digest_it_belongs_to_what_the_link_is_about(self, post: Post) -> None:
        mail = await digest(post)
        base = post.api.settings.base_url
        links = [f"{base}/?notification={id_}" for id_ in mail.notifications]
        await store_links(mail, [*links, f"{base}/preferences", f"{base}/?notification={uuid4()}"])
        for place in (1, 2, 3):
            assert (await clicked(mail, place)).status_code == 302
        first, second = [await mail.events(id_) for id_ in mail.notifications]
        assert (first, [name for name, _ in second]) == ([], ["clicked"])

    async def test_what_nobody_was_given_leads_to_a_page(self, mail: Mail) -> None:
        await store_links(mail, ["https://example.com/"])
        other = EmailTokens([b"x" * 32])
        for token in (
            mail.tokens.clicked(mail.letter, 1),
            mail.tokens.clicked(uuid4(), 0),
            mail.tokens.opened(mail.letter),
            other.clicked(mail.letter, 0),
            "https:%2F%2Fevil.example",
            "garbage",
        ):
            answer = await mail.api.client.get(f"{EMAIL}/click/{token}")
            assert answer.status_code == 404
            assert "Location" not in answer.headers
            if "%2F" not in token:
                assert answer.headers["Content-Type"].startswith("text/html")
        assert await mail.events() == []


class Reader:
    """Somebody with a link in an email."""

    def __init__(self, api: Api, user: UUID, about: NotificationType | None, epoch: int) -> None:
        self.api = api
        self.user = user
        tokens = EmailTokens(api.settings.encryption_keys)
        self.path = f"{EMAIL}/unsubscribe/{tokens.unsubscribe(Unsubscription(user, epoch, about))}"

    async def look(self, **headers: str) -> httpx.Response:
        return await self.api.client.get(self.path, headers=headers)

    async def post(self, **fields: str) -> httpx.Response:
        answer = await self.api.client.post(self.path, data=fields)
        assert answer.status_code == 200, answer.text
        return answer

    async def press(self, page: httpx.Response, choice: str) -> httpx.Response:
        """Press a button of a page, with all that its form has."""
        forms = re.findall(r"<form.*?</form>", page.text, re.DOTALL)
        (form,) = [form for form in forms if f'value="{choice}"' in form]
        fields = dict(re.findall(r'name="(\w+)" value="([\w-]+)"', form))
        return await self.post(**fields)

    async def email_is_on(self) -> dict[str, bool]:
        told = await self.api.read(self.user, "/preferences")
        return {item["notification_type"]: item["email_enabled"] for item in told["items"]}

    async def preferences(self) -> Json:
        told = await self.api.read(self.user, "/preferences")
        for item in (*told["items"], told["global"]):
            del item["updated_at"]
        return told


async def reader(
    api: Api, about: NotificationType | None = NotificationType.TASK, **fields: str
) -> Reader:
    user = await api.new_user(email=f"{uuid4().hex}@example.com", **fields)
    return Reader(api, user, about, 0)


ALL_ON = {kind.value: True for kind in NotificationType}
ALL_OFF = dict.fromkeys(ALL_ON, False)
WITHOUT_TASKS = ALL_ON | {"task": False}


class TestUnsubscribing:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_looking_changes_nothing(self, post: Post, method: str) -> None:
        ada = await reader(post.api)
        before = await ada.preferences()
        answer = await post.api.client.request(method, ada.path)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/html")
        assert await ada.preferences() == before

    @pytest.mark.parametrize(
        ("about", "left"), [(NotificationType.TASK, WITHOUT_TASKS), (None, ALL_OFF)]
    )
    @pytest.mark.parametrize("encoding", ["urlencoded", "multipart", "nothing"])
    async def test_one_click_stops_what_the_email_was_about(
        self, post: Post, about: NotificationType | None, left: dict[str, bool], encoding: str
    ) -> None:
        ada = await reader(post.api, about)
        bodies = {
            "urlencoded": {"data": ONE_CLICK},
            "multipart": {"files": {name: (None, value) for name, value in ONE_CLICK.items()}},
            "nothing": {},
        }
        for _ in range(2):
            answer = await post.api.client.post(ada.path, **bodies[encoding])  # pyright: ignore[reportArgumentType]
            assert answer.status_code == 200
            assert "Set-Cookie" not in answer.headers
        assert await ada.email_is_on() == left

    @pytest.mark.parametrize(
        "body",
        [
            b"".join(
                b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (at, at + 1)
                for at in range(3_000)
            ),
            b"--b0\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 3_000,
            b'--b0\r\nContent-Disposition: form-data; name*0="a"; name*=x\r\n\r\n1\r\n--b0--',
            b"--b0--",
            b"\xff\xfe\x00",
        ],
        ids=["parts of parts", "messages of messages", "parameters", "nothing", "no form"],
    )
    async def test_a_form_without_a_choice_is_one_click_whatever_else_it_holds(
        self, post: Post, body: bytes
    ) -> None:
        ada = await reader(post.api)
        headers = {"Content-Type": "multipart/form-data; boundary=b0"}
        answer = await post.api.client.post(ada.path, content=body, headers=headers)
        assert answer.status_code == 200
        assert await ada.email_is_on() == WITHOUT_TASKS

    @pytest.mark.parametrize("end", ["\r\n", "\n"])
    async def test_a_choice_is_found_among_the_parts_of_a_form(self, post: Post, end: str) -> None:
        ada = await reader(post.api)
        lines = [
            *("--a b", 'Content-Disposition: form-data; name="List-Unsubscribe"', "", "One-Click"),
            *("--a b", "Content-Type: text/plain"),
            *("Content-Disposition: form-data; name=choice", "", "stop-all", "--a b--", ""),
        ]
        headers = {"Content-Type": 'Multipart/Form-Data; charset=utf-8; boundary="a b"'}
        answer = await post.api.client.post(
            ada.path, content=end.join(lines).encode(), headers=headers
        )
        assert answer.status_code == 200
        assert await ada.email_is_on() == ALL_OFF

    async def test_it_is_a_choice_like_any_other(self, post: Post) -> None:
        ada = await reader(post.api)
        created = await post.api.create(ada.user, send_email=True)
        assert "email" in created["channels"]
        await ada.post(**ONE_CLICK)
        created = await post.api.create(ada.user, send_email=True)
        assert "email" not in created["channels"]
        critical = await post.api.create(ada.user, priority="critical")
        assert "email" in critical["channels"]

    async def test_undo_restores_what_was(self, post: Post) -> None:
        for chosen in (None, True):
            ada = await reader(post.api)
            put = await post.api.client.put(
                f"{V1}/notifications/preferences/task",
                json={"email_enabled": chosen, "digest_frequency": "weekly"},
                headers=post.api.user(ada.user),
            )
            assert put.status_code == 200
            (before,) = await self.stored(ada)
            done = await ada.press(await ada.look(), "stop-type")
            assert await ada.email_is_on() == WITHOUT_TASKS
            undone = await ada.press(done, "restore-type")
            assert await self.stored(ada) == [before]
            assert await ada.email_is_on() == ALL_ON
            everything = await ada.press(undone, "stop-all")
            assert await ada.email_is_on() == ALL_OFF
            await ada.press(everything, "restore-all")
            assert await ada.email_is_on() == ALL_ON

    async def test_later_the_page_offers_to_begin_again(self, post: Post) -> None:
        ada = await reader(post.api, None)
        await ada.post(**ONE_CLICK)
        await ada.press(await ada.look(), "restore-all")
        assert await ada.email_is_on() == ALL_ON

    async def test_what_cannot_be_chosen_is_refused(self, post: Post) -> None:
        ada = await reader(post.api, None)
        for choice in ("stop-type", "stop", "", "stop-all "):
            answer = await post.api.client.post(ada.path, data={"choice": choice})
            assert_refused(answer, 422, "validation_error")
        assert await ada.email_is_on() == ALL_ON

    async def test_links_to_a_former_address_are_void(self, post: Post) -> None:
        ada = await reader(post.api)
        for email, status in (("ADA@example.com", 410), (None, 410), ("ada@example.com", 410)):
            answer = await post.api.client.put(
                f"{V1}/internal/users/{ada.user}",
                json={"email": email},
                headers=post.api.internal(),
            )
            assert answer.status_code == 200
            assert (await ada.look()).status_code == status
            assert (await post.api.client.post(ada.path, data=ONE_CLICK)).status_code == status
        assert await ada.email_is_on() == ALL_ON
        assert (await Reader(post.api, ada.user, None, 3).look()).status_code == 200

    async def test_the_same_address_in_other_letters_is_the_same(self, post: Post) -> None:
        user = await post.api.new_user(email="ada@example.com")
        for fields in (
            {"email": "ada@EXAMPLE.com"},
            {"email": "ADA@example.com"},
            {"locale": "de"},
        ):
            await post.api.client.put(
                f"{V1}/internal/users/{user}", json=fields, headers=post.api.internal()
            )
        assert (await Reader(post.api, user, None, 0).look()).status_code == 200

    async def test_who_is_unknown_has_no_page(self, post: Post) -> None:
        nobody = Reader(post.api, uuid4(), None, 0)
        nobody_given = f"{EMAIL}/unsubscribe/garbage"
        for path in (nobody.path, nobody_given):
            for method in ("GET", "POST"):
                answer = await post.api.client.request(method, path)
                assert answer.status_code == 404
                assert answer.headers["Content-Type"].startswith("text/html")

    @staticmethod
    async def stored(ada: Reader) -> list[object]:
        rows = await ada.api.rows(
            "SELECT notification_type, email_enabled, digest_frequency FROM"
            " notification_preferences WHERE user_id = :id AND notification_type = 'task'",
            id=ada.user,
        )
        return [tuple(row) for row in rows]


class TestPages:
    @pytest.mark.parametrize(
        ("locale", "html", "says"),
        [
            ("en-GB", '<html lang="en" dir="ltr">', "Stop emails about “Tasks”?"),
            ("de-AT", '<html lang="de" dir="ltr">', "Keine E‑Mails mehr zu „Aufgaben“?"),
            ("ar", '<html lang="ar" dir="rtl">', "هل تريد إيقاف رسائل «المهام»؟"),
        ],
    )
    async def test_they_are_in_the_users_language(
        self, post: Post, locale: str, html: str, says: str
    ) -> None:
        page = (await (await reader(post.api, locale=locale)).look()).text
        assert html in page
        assert says in page

    async def test_who_is_not_known_is_answered_in_the_browsers(self, post: Post) -> None:
        for asked, language in (("fr, de;q=0.8", "de"), ("en;q=1, de", "en"), ("xx", "en")):
            answer = await post.api.client.get(
                f"{EMAIL}/unsubscribe/garbage", headers={"Accept-Language": asked}
            )
            assert f'lang="{language}"' in answer.text

    async def test_they_are_safe_to_open(self, post: Post) -> None:
        answer = await (await reader(post.api)).look()
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
        digest_ = base64.b64encode(sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{digest_}';" in policy
        assert "script" not in answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        assert "noindex" in answer.headers["X-Robots-Tag"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "security alert" in answer.text
        assert f'href="{post.api.settings.base_url}/preferences"' in answer.text
