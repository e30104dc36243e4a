"""What the programs' logs say of secrets and people: nothing (SEC-001, SEC-002)."""

import io
import logging
import sys
from collections.abc import Generator
from typing import Literal

import pytest
import structlog

from app.load_settings import load_settings
from app.observability.logs import configure_logging, mask_event

SECRETS = ("hunter2", "ghp_", "ada@example.com", "s3cr3t")
TOKEN = f"ghp_{'a' * 36}"
MESSAGE = f"password=hunter2 {TOKEN}\nDETAIL:  Failing row contains (s3cr3t)."


@pytest.fixture(params=["json", "console"])
def lines(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Generator[io.StringIO]:
    """What this process logs, in each format."""
    log_format: Literal["json", "console"] = request.param
    written = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging(load_settings(_env_file=None, log_format=log_format), "test")
    yield written
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def fail() -> None:
    raise RuntimeError(MESSAGE)


def test_our_logs_hold_no_secrets(lines: io.StringIO) -> None:
    log = structlog.get_logger()
    log.warning(
        "sent to ada@example.com",
        token="s3cr3t",
        text=f"password=hunter2 {TOKEN}",
        error=ValueError("secret=s3cr3t"),
        nested={"api_key": "s3cr3t", "list": [TOKEN, {"pwd": "s3cr3t"}]},
        path="/api/v1/notifications",
        count=3,
    )
    told = lines.getvalue()
    assert not [secret for secret in SECRETS if secret in told]
    assert "/api/v1/notifications" in told
    assert "[masked]" in told


def test_tracebacks_hold_no_secrets(lines: io.StringIO) -> None:
    log = structlog.get_logger()
    for say in (log.exception, logging.getLogger("a.library").exception):
        try:
            fail()
        except RuntimeError:
            say("it_failed")
    told = lines.getvalue()
    assert not [secret for secret in SECRETS if secret in told]
    assert told.count("it_failed") == 2
    assert told.count("RuntimeError: password=[masked] [masked]") == 2


def test_a_librarys_logs_hold_no_secrets(lines: io.StringIO) -> None:
    logging.getLogger("a.library").warning("to %s with %s", "ada@example.com", TOKEN)
    told = lines.getvalue()
    assert not [secret for secret in SECRETS if secret in told]
    assert "to [email] with [masked]" in told


def test_what_is_no_secret_is_logged_as_it_is() -> None:
    event = {
        "event": "worker_started", "part": "worker", "claims": 3, "ratio": 0.5, "ok": True,
        "nothing": None, "token": None, "list": ["a", 1], "time": "12:30:00",
    }  # fmt: skip
    assert mask_event(None, "info", dict(event)) == event
