"""What `messages:send` takes, checked as strictly as FCM checks it.

Shapes follow https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages; names may
be in snake_case or camelCase, as in all JSON of Google's.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from app.sandbox.fcm.errors import FcmRefused
from app.sandbox.fcm.phones import Platform

MAX_PAYLOAD = 4096
MAX_TTL_SECONDS = 28 * 24 * 3600

_KINDS = {
    "bool_type": "TYPE_BOOL",
    "dict_type": "TYPE_MESSAGE",
    "int_type": "TYPE_INT32",
    "model_type": "TYPE_MESSAGE",
    "string_type": "TYPE_STRING",
}
_DURATION = re.compile(r"(\d{1,12})(\.\d{1,9})?s")
_RESERVED_KEY = re.compile(r"from|message_type|google\..*|gcm\.notification\..*", re.DOTALL)


def _invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message})


def _unreserved(data: dict[str, str]) -> dict[str, str]:
    for key in data:
        if _RESERVED_KEY.fullmatch(key):
            raise _invalid(f"Invalid data payload key: {key}")
    return data


def _short_enough(ttl: str) -> str:
    seconds = _DURATION.fullmatch(ttl)
    if seconds is None or int(seconds[1]) > MAX_TTL_SECONDS:
        raise _invalid("Ttl must be a duration of 0s to 2419200s, such as 3.5s.")
    return ttl


def _apns_headers(headers: dict[str, str]) -> dict[str, str]:
    priority, kind = headers.get("apns-priority"), headers.get("apns-push-type")
    if priority not in {None, "1", "5", "10"}:
        raise _invalid("apns-priority must be 1, 5 or 10.")
    if kind not in {None, "alert", "background", "voip", "location", "liveactivity", "widgets"}:
        raise _invalid(f"apns-push-type {kind} is unknown.")
    if kind == "background" and priority not in {"1", "5"}:
        raise _invalid("apns-priority must be 5 for a background push.")
    return headers


Data = Annotated[dict[str, str], AfterValidator(_unreserved)]
Duration = Annotated[str, AfterValidator(_short_enough)]
Color = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Label = Annotated[str, Field(pattern=r"^[a-zA-Z0-9\-_.~%]{1,50}$")]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
    )


class NotificationPart(_Part):
    """What every platform shows."""

    title: str | None = None
    body: str | None = None
    image: str | None = None


class OptionsPart(_Part):
    """Options of analytics and links; each platform has some of them."""

    analytics_label: Label | None = None
    image: str | None = None
    link: str | None = None


class AndroidNotificationPart(NotificationPart):
    """What Android shows."""

    icon: str | None = None
    color: Color | None = None
    sound: str | None = None
    tag: str | None = None
    click_action: str | None = None
    body_loc_key: str | None = None
    body_loc_args: list[str] | None = None
    title_loc_key: str | None = None
    title_loc_args: list[str] | None = None
    channel_id: str | None = None
    ticker: str | None = None
    sticky: bool | None = None
    event_time: str | None = None
    local_only: bool | None = None
    notification_priority: (
        Literal[
            "PRIORITY_UNSPECIFIED",
            "PRIORITY_MIN",
            "PRIORITY_LOW",
            "PRIORITY_DEFAULT",
            "PRIORITY_HIGH",
            "PRIORITY_MAX",
        ]
        | None
    ) = None
    default_sound: bool | None = None
    default_vibrate_timings: bool | None = None
    default_light_settings: bool | None = None
    vibrate_timings: list[Duration] | None = None
    visibility: Literal["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"] | None = None
    notification_count: Annotated[int, Field(ge=0)] | None = None
    light_settings: dict[str, Any] | None = None
    bypass_proxy_notification: bool | None = None


class AndroidPart(_Part):
    """`message.android`."""

    collapse_key: str | None = None
    priority: Literal["NORMAL", "HIGH", "normal", "high"] | None = None
    ttl: Duration | None = None
    restricted_package_name: str | None = None
    data: Data | None = None
    notification: AndroidNotificationPart | None = None
    fcm_options: OptionsPart | None = None
    direct_boot_ok: bool | None = None


class ApsPart(BaseModel):
    """Apple's dictionary: what is known of it is checked, the rest passes."""

    model_config = ConfigDict(
        extra="allow", strict=True, alias_generator=lambda n: n.replace("_", "-")
    )

    alert: str | dict[str, Any] | None = None
    badge: Annotated[int, Field(ge=0)] | None = None
    sound: str | dict[str, Any] | None = None
    category: str | None = None
    thread_id: str | None = None
    content_available: Literal[0, 1] | None = None
    mutable_content: Literal[0, 1] | None = None
    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = None


class ApnsPayloadPart(BaseModel):
    """`message.apns.payload`: Apple's dictionary and the app's own keys."""

    model_config = ConfigDict(extra="allow", strict=True)

    aps: ApsPart | None = None


class ApnsPart(_Part):
    """`message.apns`."""

    headers: Annotated[dict[str, str], AfterValidator(_apns_headers)] | None = None
    payload: ApnsPayloadPart | None = None
    fcm_options: OptionsPart | None = None
    live_activity_token: str | None = None


class WebpushPart(_Part):
    """`message.webpush`."""

    headers: dict[str, str] | None = None
    data: Data | None = None
    notification: dict[str, Any] | None = None
    fcm_options: OptionsPart | None = None


class MessagePart(_Part):
    """`message`."""

    name: str | None = None
    data: Data | None = None
    notification: NotificationPart | None = None
    android: AndroidPart | None = None
    apns: ApnsPart | None = None
    webpush: WebpushPart | None = None
    fcm_options: OptionsPart | None = None
    token: str | None = None
    topic: str | None = None
    condition: str | None = None


class SendRequest(_Part):
    """The body of `messages:send`."""

    message: MessagePart
    validate_only: bool = False


def parse_request(body: bytes) -> tuple[SendRequest, dict[str, Any]]:
    """The request, and its message as it was sent.

    Raises:
        FcmRefused: 400, naming every field at fault.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        message = "Invalid JSON payload received. Expected a JSON object."
        raise FcmRefused(400, None, message) from None
    try:
        request = SendRequest.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        violations = [_violation(detail, content) for detail in found]
        # Google's front knows shapes and reports them; what FCM itself refuses has its code.
        is_shape = all(detail["type"] != "refused" for detail in found)
        message = "\n".join(text for _, text in violations)
        code = None if is_shape else "INVALID_ARGUMENT"
        raise FcmRefused(400, code, message, violations) from None
    _check_target(request.message)
    return request, cast("dict[str, Any]", content["message"])


def check_size(message: Mapping[str, Any], platform: Platform) -> None:
    """Refuse what is too big for a phone.

    Counted as compact JSON: `notification`, `data` and what the phone's platform gets beside them.

    Raises:
        FcmRefused: 400, it has more than 4096 bytes.
    """
    of_platform = cast(
        "Mapping[str, Any]", message.get("android" if platform == "android" else "apns") or {}
    )
    own = ("notification", "data") if platform == "android" else ("payload",)
    parts = [message.get(key) for key in ("notification", "data")]
    parts += [of_platform.get(key) for key in own]
    if sum(len(orjson.dumps(part)) for part in parts if part is not None) > MAX_PAYLOAD:
        name = "Android" if platform == "android" else "APNs"
        field = "message.android" if platform == "android" else "message.apns"
        text = f"{name} message is too big"
        raise FcmRefused(400, "INVALID_ARGUMENT", text, [(field, text)])


def _check_target(message: MessagePart) -> None:
    targets = [t for t in (message.token, message.topic, message.condition) if t is not None]
    if not targets:
        text = "Recipient of the message is not set."
        raise FcmRefused(400, "INVALID_ARGUMENT", text, [("message", text)])
    if len(targets) > 1:
        text = "Only one of token, topic and condition may be set."
        raise FcmRefused(400, "INVALID_ARGUMENT", text, [("message", text)])
    if message.token is None:
        text = "The sandbox delivers to tokens only."
        raise FcmRefused(400, "INVALID_ARGUMENT", text, [("message", text)])


def _violation(found: ErrorDetails, content: object) -> tuple[str, str]:
    path = _path(found["loc"], content)
    if found["type"] == "extra_forbidden":
        parent, _, name = path.rpartition(".")
        start = f'Invalid JSON payload received. Unknown name "{name}"'
        return parent, f"{start} at '{parent}': Cannot find field." if parent else f"{start}."
    if found["type"] == "missing":
        return path, f"Required field {path} is not set."
    if found["type"] == "refused":
        return path, found["msg"]
    kind = _KINDS.get(found["type"], found["msg"])
    return path, f"Invalid value at '{path}' ({kind}), {_shown(found['input'])}"


def _path(location: Sequence[str | int], content: object) -> str:
    """Google's way of naming a place: entries of maps are numbered."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif path.endswith((".data", ".headers")) and isinstance(content, dict):
            path += f"[{list(cast('dict[str, object]', content)).index(step)}].value"
        else:
            path += f".{step}" if path else step
        content = _inside(cast(Any, content), step)
    return path


def _inside(content: Any, step: str | int) -> object:
    try:
        return content[step]
    except (KeyError, IndexError, TypeError):
        return None


def _shown(value: object) -> str:
    return orjson.dumps(value).decode()
