"""Where mail comes into the sandbox over SMTP, and where it tells what became of it."""

from itertools import chain

from app.config import Settings


def smtp_port(settings: Settings) -> int:
    """Port of the sandbox's SMTP: the chosen one, or one that no other part is to have."""
    if settings.sandbox_smtp_port is not None:
        return settings.sandbox_smtp_port
    own = settings.sandbox_port
    near = chain(range(own + 1, 65536), range(own - 1, 0, -1))
    return next(port for port in near if port not in {settings.api_port, settings.ws_port})


def webhooks_to(settings: Settings) -> str | None:
    """Where the sandbox posts what became of emails: straight to the API, if anywhere."""
    if not settings.sandbox_webhooks:
        return None
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    return f"http://{host}:{settings.api_port}/api/v1/webhooks/resend"
