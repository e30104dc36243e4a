"""The tables, one module per aggregate."""

from app.models.action import ActionCallback, ActionRun
from app.models.base import Base
from app.models.email import (
    EmailLinks,
    EmailRequest,
    EmailRequestLetter,
    EmailSuppression,
    WebhookReceipt,
)
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
from app.models.settings import CacheVersion, EmailDigest, Preference, RateBucket, Template
from app.models.user import InboxState, Recipient, User

__all__ = [
    "ActionCallback",
    "ActionRun",
    "AnalyticsEvent",
    "Base",
    "Batch",
    "BatchRecipient",
    "CacheVersion",
    "DecisionRecord",
    "Delivery",
    "EmailDigest",
    "EmailLinks",
    "EmailRequest",
    "EmailRequestLetter",
    "EmailSuppression",
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
    "WebhookReceipt",
]
