"""Dead letters and cancelling, as operators and internal services meet them."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.contract.callers import V1, Api, Json, assert_refused, content

DEAD = f"{V1}/internal/dead-letters"
LATER = "2099-01-01T00:00:00Z"


async def dead_letters(api: Api, **query: object) -> Json:
    parameters = {name: str(value) for name, value in query.items()}
    answer = await api.client.get(DEAD, params=parameters, headers=api.admin())
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_dead_letter_is_shown_without_what_it_says(api: Api) -> None:
    user = await api.new_user()
    # Newer than what other tests of this process have failed.
    failed_at = datetime.now(UTC) + timedelta(days=1)
    dead = await api.dead_letter(user, failed_at=failed_at)
    (item,) = (await dead_letters(api, limit=1, reason="poison"))["items"]
    assert item == {
        "id": str(dead),
        "notification_id": item["notification_id"],
        "user_id": str(user),
        "type": "task",
        "channel": "in_app",
        "device_id": None,
        "reason": "poison",
        "detail": None,
        "attempts": 3,
        "failed_at": failed_at.isoformat().replace("+00:00", "Z"),
        "created_at": item["created_at"],
    }


async def test_pages_continue_each_other(api: Api) -> None:
    user = await api.new_user()
    at = datetime.now(UTC) + timedelta(days=2)
    made = {str(await api.dead_letter(user, failed_at=at, reason="internal_error")) for _ in "1234"}
    first = await dead_letters(api, limit=3, reason="internal_error")
    assert first["has_more"] is True
    rest = await dead_letters(api, limit=100, reason="internal_error", cursor=first["next_cursor"])
    assert (rest["has_more"], rest["next_cursor"]) == (False, None)
    ids = [item["id"] for item in first["items"] + rest["items"]]
    assert len(ids) == len(set(ids))
    assert made <= set(ids)
    other = {"cursor": first["next_cursor"], "reason": "poison"}
    answer = await api.client.get(DEAD, params=other, headers=api.admin())
    (detail,) = assert_refused(answer, 422, "validation_error")
    assert (detail["path"], detail["code"]) == ("cursor", "invalid_cursor")


async def test_a_retry_is_accepted_once_and_answered_again(api: Api) -> None:
    dead = await api.dead_letter(await api.new_user())
    for headers in (api.admin(), api.internal()):
        answer = await api.client.post(f"{DEAD}/{dead}/retry", headers=headers)
        assert answer.status_code == 202, answer.text
        assert answer.json() == {"id": str(dead), "status": "pending"}
    (row,) = await api.rows(
        "SELECT count(*) FROM notification_events WHERE event = 'retried'"
        " AND detail ->> 'delivery_id' = :id",
        id=str(dead),
    )
    assert row.count == 1
    nothing = await api.client.post(f"{DEAD}/{uuid4()}/retry", headers=api.admin())
    assert_refused(nothing, 404, "not_found")


async def test_many_are_retried_by_a_filter(api: Api) -> None:
    user = await api.new_user()
    ids = [str(await api.dead_letter(user)) for _ in range(3)]
    body = {"ids": ids, "channel": "in_app", "reason": "poison", "before": LATER}
    for count in (3, 0):
        answer = await api.client.post(f"{DEAD}/retry", json=body, headers=api.admin())
        assert (answer.status_code, answer.json()) == (202, {"retried": count})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"channel": None},
        {"ids": [str(uuid4())] * 1_001},
        {"reason": "because"},
        {"channel": "sms"},
        {"before": "2026-01-08T12:00:00"},
        {"all": True},
    ],
)
async def test_a_filter_that_names_nothing_known_is_refused(api: Api, body: Json) -> None:
    answer = await api.client.post(f"{DEAD}/retry", json=body, headers=api.admin())
    assert assert_refused(answer, 422, "validation_error")


async def test_a_batch_follows_its_retried_recipient(api: Api) -> None:
    user = await api.new_user()
    batch = (
        await api.client.post(
            f"{V1}/notifications/bulk", json=content(user_ids=[str(user)]), headers=api.service()
        )
    ).json()["batch_id"]
    dead = await api.dead_letter(user)
    # As if a worker had expanded the batch.
    await api.rows(
        "WITH moved AS (UPDATE notifications n SET batch_id = CAST(:batch AS uuid)"
        " FROM notification_deliveries d WHERE d.id = :dead AND n.id = d.notification_id)"
        " UPDATE notification_batch_recipients SET state = 'created'"
        " WHERE batch_id = CAST(:batch AS uuid) RETURNING 1",
        batch=batch,
        dead=dead,
    )
    path = f"{V1}/notifications/bulk/{batch}"
    before = (await api.client.get(path, headers=api.service())).json()
    assert (before["failed"], before["status"]) == (1, "partially_failed")
    await api.client.post(f"{DEAD}/{dead}/retry", headers=api.admin())
    after = (await api.client.get(path, headers=api.service())).json()
    assert (after["failed"], after["pending"], after["status"]) == (0, 1, "processing")


async def test_cancelling_answers_what_became_of_each_channel(api: Api) -> None:
    user = await api.new_user(email="ada@example.com")
    created = await api.create(user, send_at=LATER, send_email=True, priority="high")
    path = f"{V1}/internal/notifications/{created['id']}"
    for _ in range(2):
        answer = await api.client.delete(path, headers=api.internal())
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == created["id"]
        assert answer.json()["cancelled"] == created["channels"]
        assert answer.json()["sending"] == []
    nothing = f"{V1}/internal/notifications/{uuid4()}"
    assert_refused(await api.client.delete(nothing, headers=api.internal()), 404, "not_found")


async def test_cancelling_takes_nothing_out_of_an_inbox(api: Api) -> None:
    user = await api.new_user()
    created = await api.create(user)
    path = f"{V1}/internal/notifications/{created['id']}"
    answer = await api.client.delete(path, headers=api.internal())
    assert answer.json() == {"id": created["id"], "cancelled": [], "sending": []}
    assert [item["id"] for item in (await api.read(user))["items"]] == [created["id"]]
