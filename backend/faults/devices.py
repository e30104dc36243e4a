"""Browsers and phones of the sandbox that users have subscribed, and what reached them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.stack import Stack

PUSH = "/api/v1/notifications/push"
MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """A VAPID key as a browser is given it."""

    id: str
    public: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """A push as its device got it.

    Args:
        signed_by: the VAPID key's public half, None for a phone.
    """

    notification_id: UUID
    ack_token: str
    signed_by: str | None = None


@dataclass(slots=True)
class Device:
    """A browser or a phone.

    Args:
        name: at the sandbox, where it keeps it whatever its endpoint is.
        host: under which a browser's push service is known.
        key: the one that a browser subscribed with, None for a phone.
        ids: of its subscriptions, the present one last.
    """

    user_id: UUID
    name: str
    host: str = ""
    key: Key | None = None
    ids: list[UUID] = field(default_factory=list[UUID])

    @property
    def id(self) -> UUID:
        """Its present subscription."""
        return self.ids[-1]


class Devices:
    """Subscribes devices at a running program as browsers and apps do."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def origin(self, host: str) -> str:
        """The sandbox's push service under one of its names."""
        return f"http://{host}:{self._stack.settings.sandbox_port}"

    async def browser(
        self, user_id: UUID, label: str, key: Key, *, host: str, tells_key: bool = True
    ) -> Device:
        """A new browser of a user, subscribed with a key, of which it may not tell."""
        device = Device(user_id, f"{label}-{user_id}", host)
        await self._subscribe(device, await self.take(device, key), tells_key=tells_key)
        return device

    async def take(self, device: Device, key: Key) -> dict[str, Any]:
        """Let a browser subscribe with a key, another than before: its old endpoint answers 410."""
        answer = await self._stack.sandbox.put(
            f"{self.origin(device.host)}/push/browsers/{device.name}",
            json={"application_server_key": key.public},
        )
        told = answer.raise_for_status().json()
        device.key = key
        return {name: told[name] for name in ("endpoint", "keys", "expirationTime")}

    async def succeed(self, device: Device, subscription: dict[str, Any]) -> None:
        """Tell of a browser's new subscription, as the page does."""
        await self._subscribe(device, subscription, replaces=str(device.id))

    async def phone(self, user_id: UUID, platform: str) -> Device:
        """A new phone of a user."""
        device = Device(user_id, f"phone-{user_id}")
        answer = await self._stack.sandbox.put(
            f"/fcm/phones/{device.name}", json={"platform": platform}
        )
        token = answer.raise_for_status().json()["token"]
        await self._put(device, {"fcm_token": token, "device_info": {"platform": platform}})
        return device

    async def arrivals(self, device: Device) -> list[Arrival]:
        """What reached a device, at any of its addresses; closings are none."""
        of: dict[str, str | int] = {"limit": MOST_LISTED}
        if device.key is None:
            return [
                Arrival(UUID(told["id"]), told["ack_token"])
                for message in await self._list("/fcm/messages", {**of, "token": device.name})
                if not message["validate_only"]
                and (told := message["message"]["data"])["type"] != "close"
            ]
        return [
            Arrival(
                UUID(message["payload"]["notification"]["tag"]),
                message["payload"]["notification"]["data"]["ack_token"],
                message["vapid"]["key"],
            )
            for message in await self._list("/push/messages", {**of, "device": device.name})
        ]

    async def acknowledge(self, arrival: Arrival) -> None:
        """Say that a push was shown, as the device does."""
        body = {"ack_token": arrival.ack_token, "event": "delivered"}
        (await self._stack.api.post(f"{PUSH}/ack", json=body)).raise_for_status()

    async def _subscribe(
        self, device: Device, subscription: dict[str, Any], *, tells_key: bool = True, **more: str
    ) -> None:
        assert device.key is not None
        if tells_key:
            more["key_id"] = device.key.id
        body = {"subscription": subscription, "device_info": {"platform": "web"}, **more}
        await self._put(device, body)

    async def _put(self, device: Device, body: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self._stack.user_token(device.user_id)}"}
        answer = await self._stack.api.post(f"{PUSH}/subscribe", json=body, headers=headers)
        device.ids.append(UUID(answer.raise_for_status().json()["id"]))

    async def _list(self, path: str, query: dict[str, str | int]) -> Sequence[dict[str, Any]]:
        answer = await self._stack.sandbox.get(path, params=query)
        items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        return items
