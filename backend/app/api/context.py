"""The application's parts, built once and handed to routes."""

from dataclasses import dataclass

from app.config import Settings
from app.db.database import Database
from app.pipeline.keyring import Keyring
from app.ratelimit.global_limit import GlobalLimit
from app.realtime.connection import RedisClient
from app.realtime.gateway import Gateway
from app.security.jwt import TokenVerifier
from app.services.action_service import ActionService
from app.services.batch_service import BatchService
from app.services.callback_service import CallbackService
from app.services.cancel_service import CancelService
from app.services.dead_letter_service import DeadLetterService
from app.services.email_event_service import EmailEventService
from app.services.email_tracking_service import EmailTrackingService
from app.services.explain_service import ExplainService
from app.services.inbox_changes import InboxChanges
from app.services.inbox_service import InboxService
from app.services.notification_service import NotificationService
from app.services.preference_service import PreferenceService
from app.services.push_service import PushService
from app.services.receipt_service import ReceiptService
from app.services.settings_service import SettingsService
from app.services.subscription_counts import SubscriptionCounts
from app.services.template_service import TemplateService
from app.services.trace_service import TraceService
from app.services.unsubscribe_service import UnsubscribeService
from app.services.user_service import UserService


@dataclass(frozen=True, slots=True)
class AppContext:
    """Everything a request may need."""

    settings: Settings
    database: Database
    redis: RedisClient
    tokens: TokenVerifier
    gateway: Gateway
    notifications: NotificationService
    batches: BatchService
    global_limit: GlobalLimit
    inbox: InboxService
    changes: InboxChanges
    actions: ActionService
    callbacks: CallbackService
    users: UserService
    email_events: EmailEventService
    tracking: EmailTrackingService
    unsubscribing: UnsubscribeService
    preferences: PreferenceService
    user_settings: SettingsService
    dead_letters: DeadLetterService
    cancellation: CancelService
    keyring: Keyring
    push: PushService
    receipts: ReceiptService
    subscription_counts: SubscriptionCounts
    explaining: ExplainService
    traces: TraceService
    templates: TemplateService
