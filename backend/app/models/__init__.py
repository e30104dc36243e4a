"""The tables, one module per aggregate."""

from app.models.action import ActionCallback, ActionRun
from app.models.base import Base
from app.models.notification import (
    AnalyticsEvent,
    Batch,
    BatchRecipient,
    DecisionRecord,
    Delivery,
    Event,
    IdempotencyKey,
    Notification,
)
from app.models.push import PushClosing, PushSubscription, VapidKey
from app.models.settings import EmailDigest, Preference, RateBucket, Template
from app.models.user import InboxState, Recipient, User

__all__ = [
    "ActionCallback",
    "ActionRun",
    "AnalyticsEvent",
    "Base",
    "Batch",
    "BatchRecipient",
    "DecisionRecord",
    "Delivery",
    "EmailDigest",
    "Event",
    "IdempotencyKey",
    "InboxState",
    "Notification",
    "Preference",
    "PushClosing",
    "PushSubscription",
    "RateBucket",
    "Recipient",
    "Template",
    "User",
    "VapidKey",
]
