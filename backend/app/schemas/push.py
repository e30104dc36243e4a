"""Devices that pushes go to, as their users' clients tell of them (REQ-008, section 5.2)."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, LiteralString, Self
from uuid import UUID

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.policy.kinds import DeviceKind
from app.schemas.base import Answered, AnsweredInstant, JsonObject, Received, shallow
from app.security.vapid_keys import auth_secret, encoded, public_point

MAX_DEVICE_INFO: Final = 4 * 1024  # bytes
CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
TOKEN: Final = re.compile(r"[!-~]{1,4096}")
INVALID_P256DH: Final = "invalid_p256dh"
INVALID_AUTH: Final = "invalid_auth"
INVALID_FCM_TOKEN: Final = "invalid_fcm_token"  # noqa: S105 -- says that one is bad
DEVICE: Final = {"platform": "web", "user_agent": "Mozilla/5.0…", "screen_width": 1920}
P256DH: Final = (
    "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM"
)


def _key(decode: Callable[[str], bytes], code: LiteralString) -> AfterValidator:
    """Checks a browser's key, and spells it in the one way that it is stored and compared in."""

    def check(value: str) -> str:
        try:
            return encoded(decode(value))
        except ValueError as error:
            raise PydanticCustomError(code, "{problem}", {"problem": str(error)}) from None

    return AfterValidator(check)


def _token(value: str) -> str:
    if TOKEN.fullmatch(value) is None:
        raise PydanticCustomError(INVALID_FCM_TOKEN, "must be 1 to 4096 printable characters")
    return value


def _small(value: "DeviceInfo") -> "DeviceInfo":
    if len(orjson.dumps(value.model_dump(exclude_unset=True))) > MAX_DEVICE_INFO:
        raise ValueError(f"must have at most {MAX_DEVICE_INFO // 1024} KiB")
    return value


def _clean(value: Any) -> Any:
    """The value, its texts without control characters."""
    match value:
        case str():
            return CONTROLS.sub("", value)
        case list():
            return [_clean(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {_clean(key): _clean(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _readable(value: Any) -> Any:
    return _clean(shallow(value))


class DeviceInfo(BaseModel):
    """What a device says of itself; fields of your own are kept."""

    model_config = ConfigDict(extra="allow")

    platform: str | None = Field(None, examples=["web"])
    os_version: str | None = None
    app_version: str | None = None
    device_name: str | None = Field(None, examples=["Chrome on Windows"])
    user_agent: str | None = None


class BrowserKeys(BaseModel):
    """A browser's keys (RFC 8291), base64url with or without padding."""

    p256dh: Annotated[
        str,
        Field(description="Uncompressed point on P-256, 65 bytes.", examples=[P256DH]),
        _key(public_point, INVALID_P256DH),
    ]
    auth: Annotated[
        str,
        Field(description="16 bytes.", examples=["BTBZMqHH6r4Tts7J_aSIgg"], repr=False),
        _key(auth_secret, INVALID_AUTH),
    ]


class BrowserSubscription(BaseModel):
    """A browser's `PushSubscription`, as its `toJSON()` gives it."""

    endpoint: str = Field(
        description="Its address at the browser's push service: https on a public host.",
        examples=["https://fcm.googleapis.com/fcm/send/dVfQ…"],
        repr=False,
    )
    expiration_time: float | None = Field(
        None, alias="expirationTime", description="Milliseconds since 1970; not stored."
    )
    keys: BrowserKeys


class Subscribe(Received):
    """A browser (`subscription`) or an app (`fcm_token`) that is to receive pushes."""

    subscription: BrowserSubscription | None = None
    fcm_token: Annotated[str, AfterValidator(_token)] | None = Field(
        None,
        repr=False,
        description="The app's registration token, 1 to 4096 printable characters.",
        json_schema_extra={"examples": ["dQw4w9WgXcQ:APA91b…"]},
    )
    device_info: Annotated[
        DeviceInfo,
        BeforeValidator(_readable, json_schema_input_type=DeviceInfo),
        AfterValidator(_small),
    ] = Field(
        default_factory=lambda: DeviceInfo.model_validate({}),
        description="An object of at most 4 KiB.",
        examples=[DEVICE],
    )
    key_id: str | None = Field(
        None,
        description="Of the VAPID key that the browser subscribed with.",
        examples=["Rn1bX0x7t5Kk2vWq"],
    )
    replaces: UUID | None = Field(
        None,
        description="Your older subscription that this one succeeds, as when the VAPID key has "
        "rotated: it is removed, and what waits for it goes to this one.",
    )

    @model_validator(mode="after")
    def _is_one_device(self) -> Self:
        if (self.subscription is None) == (self.fcm_token is None):
            raise PydanticCustomError(
                "subscription_or_fcm_token", "must have either a subscription or an fcm_token"
            )
        return self


class Subscribed(Answered):
    """A stored subscription."""

    id: UUID
    user_id: UUID
    is_active: bool
    created_at: AnsweredInstant


class Subscription(Answered):
    """A device of the user; its keys and its token are never told."""

    id: UUID
    kind: DeviceKind
    endpoint: str | None = Field(description="Null for apps.")
    device_info: JsonObject = Field(examples=[DEVICE])
    is_active: bool = Field(description="False while its push service refuses us.")
    key_id: str | None = Field(
        description="Of the VAPID key it is known to have subscribed with; null for apps."
    )
    last_used_at: AnsweredInstant | None
    created_at: AnsweredInstant


class SubscriptionList(Answered):
    """The user's devices, newest first."""

    items: list[Subscription]


class VapidPublicKey(Answered):
    """The key that browsers subscribe with, and its name."""

    public_key: str = Field(
        description="base64url of 65 bytes, for `applicationServerKey`.", examples=[P256DH]
    )
    key_id: str = Field(examples=["Rn1bX0x7t5Kk2vWq"])


class Unsubscribe(Received):
    """Which of the user's subscriptions to remove."""

    subscription_id: UUID


class AcknowledgePush(Received):
    """What became of a push on its device."""

    ack_token: str = Field(
        repr=False,
        description="From the push's data.",
        examples=["AZfBc0J7cAGbMsSExAgU8Z4Pm1lq0bYkqg1l3m9tVb0"],
    )
    event: Literal["delivered", "clicked", "closed"] = Field(
        description="`clicked` marks the notification read, too; both others imply `delivered`."
    )
