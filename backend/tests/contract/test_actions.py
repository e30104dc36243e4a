"""Actions of notifications and their callbacks (REQ-013): shapes, and what is refused."""

import asyncio
import base64
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.config import Settings
from app.schemas.callback import ActionCallback
from tests.contract.callers import V1, Api, assert_refused, open_api

CALLBACKS = f"{V1}/internal/action-callbacks"
HOOK = "https://hooks.example.com/notify?a=b"
ACTIONS = [
    {"label": "View", "url": "https://tasks.example.com/128", "primary": True},
    {"label": "Accept", "action": "accept.it"},
    {"label": "Open", "url": "#top"},
]


def named() -> str:
    return f"name-{uuid4().hex}"


async def notify(api: Api, user: UUID) -> str:
    return (await api.create(user, data={"actions": ACTIONS}))["id"]


async def click(api: Api, user: UUID, notification: object, action: str) -> Any:
    path = f"{V1}/notifications/{notification}/actions/{action}"
    return await api.client.post(path, headers=api.user(user))


class TestClicking:
    @pytest.mark.parametrize(
        ("action", "result"),
        [
            ("0", {"url": "https://tasks.example.com/128"}),
            ("2", {"url": "#top"}),
            ("accept.it", None),
            ("read", None),
            ("dismiss", None),
        ],
    )
    async def test_what_the_notification_carries_is_run(
        self, api: Api, action: str, result: object
    ) -> None:
        user = await api.new_user()
        notification = await notify(api, user)
        for _ in range(2):
            answer = await click(api, user, notification, action)
            assert answer.status_code == 200
            assert answer.json() == {"action": action, "status": "completed", "result": result}
        assert (await api.read(user))["unread_count"] == 0

    @pytest.mark.parametrize(
        "action", ["1", "3", "00", "02", "9999", "accept", "Accept.it", "Read", "view", "accept.i"]
    )
    async def test_what_it_does_not_carry_is_not_there(self, api: Api, action: str) -> None:
        user = await api.new_user()
        notification = await notify(api, user)
        assert_refused(await click(api, user, notification, action), 404, "not_found")
        assert (await api.read(user))["unread_count"] == 1

    @pytest.mark.parametrize(
        "action", ["-1", "1.5", "%00", "a%00", "%20", "a b", "é", "a" * 65, "1" * 5, "a%0A", "-a"]
    )
    async def test_what_no_action_is_called_is_told(self, api: Api, action: str) -> None:
        answer = await click(api, uuid4(), uuid4(), action)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "action"

    @pytest.mark.parametrize("action", ["read", "0", "accept.it"])
    async def test_what_belongs_to_another_user_is_not_there(self, api: Api, action: str) -> None:
        ada, eve = await api.new_user(), await api.new_user()
        notification = await notify(api, ada)
        for _ in range(2):
            assert_refused(await click(api, eve, notification, action), 404, "not_found")
        assert (await api.read(ada))["unread_count"] == 1
        await click(api, ada, notification, action)
        assert_refused(await click(api, eve, notification, action), 404, "not_found")

    async def test_what_is_not_there_is_not_clicked(self, api: Api) -> None:
        user = await api.new_user()
        scheduled = await api.create(user, send_at="2099-01-01T00:00:00Z")
        deleted = await notify(api, user)
        path = f"{V1}/notifications/{deleted}"
        assert (await api.client.delete(path, headers=api.user(user))).status_code == 204
        for notification in (uuid4(), scheduled["id"], deleted):
            for action in ("read", "dismiss"):
                assert_refused(await click(api, user, notification, action), 404, "not_found")


class TestRegistering:
    async def test_what_is_put_is_kept_and_its_secret_stays(self, api: Api) -> None:
        name = named()
        first = await api.register_callback(name, HOOK)
        assert set(first) == {"name", "url", "secret", "created_at", "updated_at"}
        assert (first["name"], first["url"]) == (name, HOOK)
        assert first["secret"].startswith("whsec_")
        assert len(base64.b64decode(first["secret"].removeprefix("whsec_"))) == 32
        assert first["created_at"] == first["updated_at"]
        second = await api.register_callback(name, "https://other.example.com/")
        assert second["url"] == "https://other.example.com/"
        assert (second["secret"], second["created_at"]) == (first["secret"], first["created_at"])
        assert second["updated_at"] > first["updated_at"]
        read = await api.client.get(f"{CALLBACKS}/{name}", headers=api.internal())
        assert read.json() == second

    async def test_secrets_differ_and_are_stored_encrypted(self, api: Api) -> None:
        names = [named(), named()]
        secrets = [(await api.register_callback(name))["secret"] for name in names]
        assert len(set(secrets)) == 2
        stored = await api.rows(
            "SELECT secret FROM action_callbacks WHERE name = ANY(:names)", names=names
        )
        for row in stored:
            assert not any(secret.encode() in row.secret for secret in secrets)

    async def test_a_secret_that_was_moved_to_another_name_is_not_believed(self, api: Api) -> None:
        ada, eve = named(), named()
        for name in (ada, eve):
            await api.register_callback(name)
        await api.rows(
            "UPDATE action_callbacks SET secret = (SELECT secret FROM action_callbacks"
            " WHERE name = :ada) WHERE name = :eve RETURNING 1",
            ada=ada,
            eve=eve,
        )
        answer = await api.client.get(f"{CALLBACKS}/{eve}", headers=api.internal())
        assert_refused(answer, 500, "internal_error")

    async def test_first_puts_at_once_agree_on_a_secret(self, api: Api) -> None:
        name = named()
        told = await asyncio.gather(*(api.register_callback(name) for _ in range(5)))
        assert len({each["secret"] for each in told}) == 1

    async def test_deleting_takes_the_secret_along(self, api: Api) -> None:
        name = named()
        first = await api.register_callback(name)
        path, headers = f"{CALLBACKS}/{name}", api.internal()
        answer = await api.client.delete(path, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert_refused(await api.client.delete(path, headers=headers), 404, "not_found")
        assert_refused(await api.client.get(path, headers=headers), 404, "not_found")
        assert (await api.register_callback(name))["secret"] != first["secret"]

    async def test_an_unknown_name_is_not_found(self, api: Api) -> None:
        answer = await api.client.get(f"{CALLBACKS}/{named()}", headers=api.internal())
        assert_refused(answer, 404, "not_found")

    @pytest.mark.parametrize("name", ["read", "dismiss"])
    async def test_what_is_built_in_cannot_be_registered(self, api: Api, name: str) -> None:
        path = f"{CALLBACKS}/{name}"
        answer = await api.client.put(path, json={"url": HOOK}, headers=api.internal())
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert (detail["path"], detail["code"]) == ("name", "built_in_action")

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    @pytest.mark.parametrize(
        "name", ["1", "-a", ".a", "a" * 65, "a%20b", "%00", "a%00", "é", "a%0A"]
    )
    async def test_a_name_that_no_action_has_is_told(
        self, api: Api, method: str, name: str
    ) -> None:
        body = {"url": HOOK} if method == "PUT" else None
        answer = await api.client.request(
            method, f"{CALLBACKS}/{name}", json=body, headers=api.internal()
        )
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "name"

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "hooks.example.com",
            "/relative",
            "http://hooks.example.com/",
            "https://user:password@hooks.example.com/",
            "https://localhost/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://10.0.0.1/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://hooks.example.com:0/",
            "https://hooks.example.com/\r\nX: 1",
            "https://hooks.example.com/" + "a" * 2048,
            "javascript:alert(1)",
            "http://127.0.0.1:1/",
            None,
            1,
            ["https://hooks.example.com/"],
        ],
        ids=lambda url: str(url)[:48],
    )
    async def test_an_address_that_must_not_be_called_is_refused(
        self, api: Api, url: object
    ) -> None:
        name = named()
        await api.register_callback(name, HOOK)
        path, headers = f"{CALLBACKS}/{name}", api.internal()
        answer = await api.client.put(path, json={"url": url}, headers=headers)
        (detail,) = assert_refused(answer, 422, "validation_error")
        assert detail["path"] == "url"
        if isinstance(url, str) and 0 < len(url) < 2048:
            assert detail["code"] == "address_not_allowed"
        assert (await api.client.get(path, headers=headers)).json()["url"] == HOOK

    @pytest.mark.parametrize("body", [{}, {"url": HOOK, "secret": "whsec_x"}, {"URL": HOOK}])
    async def test_the_body_is_the_address_alone(self, api: Api, body: object) -> None:
        path = f"{CALLBACKS}/{named()}"
        answer = await api.client.put(path, json=body, headers=api.internal())
        assert_refused(answer, 422, "validation_error")

    async def test_loopback_is_taken_where_the_operator_allows_it(self, settings: Settings) -> None:
        allowing = settings.model_copy(update={"push_allow_private_endpoints": True})
        async with open_api(allowing) as api:
            for url in ("http://127.0.0.1:8080/hook", "http://localhost:8080/hook"):
                assert (await api.register_callback(named(), url))["url"] == url
            path = f"{CALLBACKS}/{named()}"
            for url in ("http://10.0.0.1/", "http://169.254.169.254/", "http://example.com/"):
                answer = await api.client.put(path, json={"url": url}, headers=api.internal())
                assert_refused(answer, 422, "validation_error")

    async def test_a_new_key_encrypts_at_the_next_put(self, settings: Settings) -> None:
        assert settings.notification_encryption_key is not None
        old = settings.notification_encryption_key.get_secret_value()
        name = named()
        async with open_api(settings) as api:
            before = await api.register_callback(name)
        new = base64.b64encode(b"n" * 32).decode()

        def keyed(*keys: str) -> Settings:
            fields = settings.model_dump() | {"notification_encryption_key": ",".join(keys)}
            return Settings(_env_file=None, **fields)  # pyright: ignore[reportCallIssue]

        async with open_api(keyed(new, old)) as api:
            after = await api.register_callback(name)
        async with open_api(keyed(new)) as api:
            read = await api.client.get(f"{CALLBACKS}/{name}", headers=api.internal())
        assert before["secret"] == after["secret"] == read.json()["secret"]


def test_a_secret_is_not_shown_where_an_object_is(settings: Settings) -> None:
    shown = ActionCallback.model_validate(
        {"name": "a", "url": HOOK, "secret": "whsec_a", "created_at": 0, "updated_at": 0}
    )
    assert "whsec_a" not in repr(shown)
