"""The vocabulary of the system: types, priorities, channels, states, actions and reasons.

Values are stored, sent and documented as they stand here.
"""

from enum import StrEnum


class NotificationType(StrEnum):
    """What a notification is about (REQ-001)."""

    SYSTEM = "system"
    USER = "user"
    TASK = "task"
    SECURITY = "security"
    BILLING = "billing"
    WORKFLOW = "workflow"
    AGENT = "agent"


class Priority(StrEnum):
    """How urgently a notification is delivered (REQ-002)."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Place in the queue: 0 goes first."""
        return PRIORITY_RANKS[self]


PRIORITY_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Sort(StrEnum):
    """Order of the notification center (REQ-011)."""

    NEWEST = "newest"
    OLDEST = "oldest"
    PRIORITY = "priority"


class Channel(StrEnum):
    """A way a notification reaches its user, in the order answers list them."""

    PUSH = "push"
    IN_APP = "in_app"
    EMAIL = "email"


class DeviceKind(StrEnum):
    """How a device is reached (REQ-006, REQ-007)."""

    WEB = "web"
    FCM = "fcm"


class DeliveryStatus(StrEnum):
    """State of one delivery. `pending` is the queue; `failed` are the dead letters."""

    PENDING = "pending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    BOUNCED = "bounced"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class Action(StrEnum):
    """What the policy decides for one channel."""

    SEND = "send"
    HOLD = "hold"
    DIGEST = "digest"
    SKIP = "skip"


class DigestFrequency(StrEnum):
    """How often email is gathered into a digest (REQ-018)."""

    INSTANT = "instant"
    DAILY = "daily"
    WEEKLY = "weekly"
    NEVER = "never"


class Reason(StrEnum):
    """Stable codes that say why a delivery is where it is; `docs/reasons.md` explains each."""

    SENT_NOW = "sent_now"
    DIGEST = "digest"
    QUIET_HOURS = "quiet_hours"
    USER_LIMIT = "user_limit"
    SCHEDULED = "scheduled"
    EXPIRED = "expired"
    NO_DEVICE = "no_device"
    NO_ADDRESS = "no_address"
    ADDRESS_SUPPRESSED = "address_suppressed"
    PREFERENCE_OFF = "preference_off"
    PRIORITY_RULE = "priority_rule"
    NOT_REQUESTED = "not_requested"
    CHANNEL_NOT_CONFIGURED = "channel_not_configured"
    SILENT = "silent"
    SILENT_NEEDS_FCM = "silent_needs_fcm"
    # from delivering
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    PROVIDER_LIMIT = "provider_limit"
    PROVIDER_REJECTED = "provider_rejected"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    POISON = "poison"
    INTERNAL_ERROR = "internal_error"
    ADDRESS_REFUSED = "address_refused"
    CALLBACK_REMOVED = "callback_removed"
    DEVICE_GONE = "device_gone"
    DEVICE_REFUSED = "device_refused"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    SUMMARISED = "summarised"
    OUTCOME_UNKNOWN = "outcome_unknown"
    BOUNCED = "bounced"
    # from users
    READ_ELSEWHERE = "read_elsewhere"
    # from callers and operators
    CANCELLED = "cancelled"
    RETRIED = "retried"


TRIED_IN_VAIN = frozenset(
    {
        Reason.PROVIDER_UNAVAILABLE,
        Reason.PROVIDER_LIMIT,
        Reason.PROVIDER_REJECTED,
        Reason.INTERNAL_ERROR,
    }
)
"""Why what was to be sent waits for a further try."""
