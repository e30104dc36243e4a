"""What Prometheus is told of this program (section 8.5)."""

from collections.abc import Mapping

from prometheus_client import Gauge, generate_latest

SUBSCRIPTIONS = Gauge(
    "notify_push_subscriptions",
    "Push subscriptions, for browsers by the VAPID key that they are bound to.",
    ["kind", "key_id"],
)


def exposition(subscriptions: Mapping[tuple[str, str], int]) -> bytes:
    """All metrics of this process in Prometheus' text format.

    Args:
        subscriptions: how many there are of each kind and key; a key is empty where none is known.
    """
    SUBSCRIPTIONS.clear()  # a key that has none left is gone
    for (kind, key_id), count in subscriptions.items():
        SUBSCRIPTIONS.labels(kind, key_id).set(count)
    return generate_latest()
