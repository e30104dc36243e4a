"""Users subscribe their devices to pushes here, and devices acknowledge them (section 5.2)."""

from uuid import UUID

from app.api.dependencies import Context, CurrentUser
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.api.v1.notifications.create import accepted
from app.schemas.notification import NotificationAccepted
from app.schemas.push import (
    AcknowledgePush,
    Subscribe,
    Subscribed,
    SubscriptionList,
    Unsubscribe,
    VapidPublicKey,
)
from app.services.receipt_service import PushEvent

router = v1_routes(prefix="/notifications/push", tags=["push"], route_class=JsonRoute)


@router.get("/vapid-public-key")
async def vapid_public_key(user_id: CurrentUser, context: Context) -> VapidPublicKey:
    """The key that browsers subscribe with: the newest, which changes every month or so."""
    key = await context.keyring.newest()
    return VapidPublicKey(public_key=key.public_text, key_id=key.id)


@router.post("/subscribe", status_code=201)
async def subscribe_to_push(
    wanted: Subscribe, user_id: CurrentUser, context: Context
) -> Subscribed:
    """Register a browser or an app; one that is registered already keeps its id.

    At most 50 devices a user are kept; the least recently used makes room. A phone that signs in
    as somebody else goes over to them; a browser does when its keys are the same.
    """
    return await context.push.subscribe(user_id, wanted)


@router.get("/subscriptions")
async def list_push_subscriptions(user_id: CurrentUser, context: Context) -> SubscriptionList:
    """The user's devices, newest first."""
    return await context.push.listed(user_id)


@router.delete("/unsubscribe", status_code=204)
async def unsubscribe_from_push(
    wanted: Unsubscribe, user_id: CurrentUser, context: Context
) -> None:
    """Remove a device; pushes that wait for it are skipped."""
    await context.push.unsubscribe(user_id, wanted.subscription_id)


@router.delete("/subscriptions/{subscription_id}", status_code=204)
async def delete_push_subscription(
    subscription_id: UUID, user_id: CurrentUser, context: Context
) -> None:
    """Remove a device; the same as unsubscribing with a body."""
    await context.push.unsubscribe(user_id, subscription_id)


@router.post("/subscriptions/{subscription_id}/test", status_code=202)
async def test_push_subscription(
    subscription_id: UUID, user_id: CurrentUser, context: Context
) -> NotificationAccepted:
    """Send a real notification, of which only this device gets a push."""
    await context.push.check_own(user_id, subscription_id)
    return accepted(await context.notifications.send_test(user_id, subscription_id))


@router.post("/ack", status_code=204)
async def acknowledge_push(wanted: AcknowledgePush, context: Context) -> None:
    """Say what became of a push; needs its token and nothing else.

    A repetition has no effect, nor has the receipt of a push that was erased since.
    """
    await context.receipts.acknowledge(wanted.ack_token, PushEvent(wanted.event))
