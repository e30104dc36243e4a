"""All routes under /api/v1, in the order they are tried.

Static paths come before those with parameters, and creates first of all.
"""

from app.api.v1 import action_callbacks, dead_letters, email, internal, webhooks
from app.api.v1.notifications import (
    actions,
    bulk,
    create,
    explain,
    inbox,
    preferences,
    push,
    templates,
)

ROUTERS = (
    create.router,
    bulk.router,
    internal.router,
    push.router,
    preferences.router,
    templates.router,
    inbox.router,
    actions.router,
    dead_letters.router,
    action_callbacks.router,
    explain.router,
    webhooks.router,
    email.router,
)
